"""A rule is data: how a layer's output relevance is shared among its inputs. Knows nothing of operators.

For a linear layer z = A(w) x + b a rule is a few `Share`s of `Term`s,

    R_x = Σ_share weight · Σ_term sign · x′ ⊙ A(w′)ᵀ [ R ⊘ stab( Σ_term sign · (A(w′) x′ + b′) ) ],

where each term says what it makes of x, w and b (a `Modifier`). Activations and max pooling have rules of their own
kind. `explain.decompose` is where a rule meets a layer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal


class Part(Enum):
    """What a term takes of a tensor v."""

    ZERO = "0"
    ALL = "v"
    POSITIVE = "v⁺"
    NEGATIVE = "v⁻"
    ABSOLUTE = "|v|"
    SQUARE = "v²"
    ONES = "1"
    MAIN = "1 on the main branch, 0 on identity skips"


@dataclass(frozen=True)
class Modifier:
    """part(v), or keep·v + gain·part(v): `Modifier(POSITIVE, 0.25, keep=1)` is v + 0.25·v⁺."""

    part: Part
    gain: float = 1.0
    keep: float = 0.0


@dataclass(frozen=True)
class Bound:
    """A constant in place of x: a scalar, or one value per channel, in the units of the layer's input."""

    values: tuple[float, ...]


@dataclass(frozen=True)
class InputRange:
    """The low or high end of the model's input, per channel: becomes a `Bound` once the pre-processing is known."""

    high: bool


NOTHING, ALL = Modifier(Part.ZERO), Modifier(Part.ALL)
POSITIVE, NEGATIVE, ABSOLUTE = Modifier(Part.POSITIVE), Modifier(Part.NEGATIVE), Modifier(Part.ABSOLUTE)
SQUARE, ONES, MAIN = Modifier(Part.SQUARE), Modifier(Part.ONES), Modifier(Part.MAIN)


@dataclass(frozen=True)
class Term:
    """One linear map of a share: x′, w′, b′ and the sign it enters with."""

    x: Modifier | Bound | InputRange = ALL
    w: Modifier = ALL
    b: Modifier = NOTHING
    sign: float = 1.0


@dataclass(frozen=True)
class Stabilizer:
    """What keeps a denominator z away from zero; sign(0) = +1.

    sign: z + ε·sign(z).  clip: sign(z)·max(|z|, ε).  norm: z + ε·rms(z)·sign(z), rms over all axes but the batch
    (Montavon 2019's "ε = 0.25 std").
    """

    epsilon: float = 1e-6
    kind: Literal["sign", "clip", "norm"] = "sign"


@dataclass(frozen=True)
class Share:
    """Terms over a common denominator. `where` restricts it to outputs z > 0 or z < 0; `divide=False` leaves R as it is
    (the gradient)."""

    terms: tuple[Term, ...]
    weight: float = 1.0
    where: Literal["everywhere", "positive", "negative"] = "everywhere"
    divide: bool = True

    @property
    def between_bounds(self) -> bool:
        """Whether its terms have w, w⁺ and w⁻: z is A(w)x less what the bounds of x would give (zbox), and large beside
        the bias."""
        return len(self.terms) == 3 and {t.w for t in self.terms} == {ALL, POSITIVE, NEGATIVE}


@dataclass(frozen=True)
class Rule:
    """What every rule has: a name with its parameters, as the user writes it."""

    name: str
    parameters: tuple[tuple[str, object], ...] = field(default=(), kw_only=True)

    def __str__(self) -> str:
        """As a user writes it, to the last digit."""
        return self._call(repr)

    @property
    def brief(self) -> str:
        """As a person reads it, numbers to six digits."""
        return self._call(_brief)

    def _call(self, show: Callable[[object], str]) -> str:
        inner = ", ".join(f"{k}={show(v)}" for k, v in self.parameters)
        return f"{self.name}({inner})" if inner else self.name


def _brief(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_brief, value))}]"
    return f"{value:g}" if isinstance(value, float) else repr(value)


@dataclass(frozen=True)
class LinearRule(Rule):
    """For linear layers."""

    shares: tuple[Share, ...] = ()
    stabilizer: Stabilizer = Stabilizer()


@dataclass(frozen=True)
class PassRule(Rule):
    """R_x = R: for layers whose input and output have the same shape."""


@dataclass(frozen=True)
class ActivationRule(Rule):
    """For activations: R_x = [R]⁺ where `clip`, times the activation's derivative where `derivative`, or times
    sigmoid(smooth · x) where `smooth` is given."""

    derivative: bool = True
    clip: bool = False
    smooth: float | None = None


@dataclass(frozen=True)
class PoolingRule(Rule):
    """For max pooling: all relevance to the first arg-max (`winner`), or as if the pooling were an average."""

    average: bool = False


@dataclass(frozen=True)
class GradientRule(LinearRule, ActivationRule, PoolingRule):
    """The plain derivative, for whatever layer."""

"""Every rule by name: for linear layers the shares of its formula, a line or two each.

All linear rules also take `epsilon` and `stabilizer` ("sign", "clip" or "norm": how the denominator is kept from zero)
and `bias` ("keep": it takes its share of relevance; "zero": it is left out).
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import keyword
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, TypeVar

from onnxlrp.errors import OnnxLrpError, Problem, closest, suggest
from onnxlrp.rules.rule import (
    ABSOLUTE,
    ALL,
    MAIN,
    NEGATIVE,
    NOTHING,
    ONES,
    POSITIVE,
    SQUARE,
    ActivationRule,
    Bound,
    GradientRule,
    InputRange,
    LinearRule,
    Modifier,
    Part,
    PassRule,
    PoolingRule,
    Rule,
    Share,
    Stabilizer,
    Term,
)

T = TypeVar("T")
Shares = tuple[Share, ...]
Bounds = float | Iterable[float] | None
COMMON: dict[str, object] = {"epsilon": 1e-6, "stabilizer": "sign", "bias": "keep"}
WORDS, BOUNDS = ("stabilizer", "bias"), ("low", "high")  # parameters that are no single number
MOST = (2 - 2**-23) * 2.0**127  # the largest float32


@dataclass(frozen=True)
class Entry:
    """A rule as `onnxlrp rules` lists it: how to make it, what it fits, and its formula and paper."""

    name: str
    make: Callable[..., Rule]
    fits: str
    parameters: Mapping[str, object]

    @property
    def description(self) -> str:
        """The formula and the paper."""
        return inspect.getdoc(self.make) or ""


CATALOGUE: dict[str, Entry] = {}


def _register(function: Callable[..., Rule], fits: str, parameters: Mapping[str, object]) -> None:
    name = function.__name__.rstrip("_")
    CATALOGUE[name] = Entry(name, function, fits, parameters)


def linear(formula: Callable[..., Shares]) -> Callable[..., LinearRule]:
    """Make a rule for linear layers of a function that gives its shares."""
    own = {k: p.default for k, p in inspect.signature(formula).parameters.items()}

    parameters = {**own, **COMMON}

    @functools.wraps(formula)
    def make(*given: object, **named: object) -> LinearRule:
        values = inspect.Signature(
            [inspect.Parameter(k, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=v) for k, v in parameters.items()]
        ).bind(*given, **named)
        values.apply_defaults()
        chosen: dict[str, Any] = {k: v if k in WORDS else _numbers(k, v) for k, v in values.arguments.items()}
        _check(chosen["epsilon"] >= 0, f"epsilon is {chosen['epsilon']}, and must be 0 or a positive number")
        _check(
            chosen["stabilizer"] in ("sign", "clip", "norm"),
            f"stabilizer '{chosen['stabilizer']}' is none of sign, clip, norm",
        )
        _check(chosen["bias"] in ("keep", "zero"), f"bias '{chosen['bias']}' is neither keep nor zero")
        shares = formula(**{k: chosen[k] for k in own})
        return LinearRule(
            formula.__name__,
            shares if chosen["bias"] == "keep" else tuple(_without_bias(s) for s in shares),
            Stabilizer(float(chosen["epsilon"]), chosen["stabilizer"]),
            parameters=tuple((k, v) for k, v in chosen.items() if v is not None and v != COMMON.get(k)),
        )

    _register(make, "linear layers", parameters)
    return make


def _without_bias(share: Share) -> Share:
    return dataclasses.replace(share, terms=tuple(dataclasses.replace(t, b=NOTHING) for t in share.terms))


def _check(holds: bool, reason: str) -> None:
    if not holds:
        raise ValueError(reason)


def _numbers(name: str, given: Any) -> Any:
    """A parameter as plain numbers: one, or where it is a bound several, or None where that is its default."""
    if name in BOUNDS and given is None:
        return None
    if name in BOUNDS and isinstance(given, Iterable) and not isinstance(given, str):
        return [number(name, value) for value in given]
    return number(name, given)


def number(name: str, given: Any) -> float:
    """A plain number; raises `ValueError` where it is none, or one that float32 cannot hold: most models compute so."""
    _check(isinstance(given, Real) and not isinstance(given, bool), f"{name} is {given!r}, and must be a number")
    _check(abs(given) <= MOST, f"{name} is {given}, and must be a finite number that float32 can hold")
    return given if isinstance(given, int) else float(given)


# -- linear layers ----------------------------------------------------------------------------------------------------


@linear
def epsilon() -> Shares:
    """x ⊙ A(w)ᵀ[R ⊘ stab(z)]; ε = 0 is LRP-0. Bach et al. 2015, eq. 58."""
    return (Share((Term(ALL, ALL, ALL),)),)


@linear
def norm() -> Shares:
    """The epsilon rule of a map without parameters: residual sums and average pooling."""
    return (Share((Term(ALL, ALL, ALL),)),)


@linear
def zplus() -> Shares:
    """Positive contributions only, x⁺w⁺ + x⁻w⁻; = alpha_beta(1, 0). Montavon et al. 2017, eq. 13."""
    return (Share((Term(POSITIVE, POSITIVE, POSITIVE), Term(NEGATIVE, NEGATIVE))),)


@linear
def alpha_beta(alpha: float = 2.0, beta: float = 1.0) -> Shares:
    """α times the positive contributions, -β times the negative ones, α - β = 1. Bach et al. 2015, eq. 60."""
    _check(
        alpha >= 0 and beta >= 0 and abs(alpha - beta - 1) < 1e-9, f"alpha - beta must be 1, not {alpha:g} - {beta:g}"
    )
    positive = Share((Term(POSITIVE, POSITIVE, POSITIVE), Term(NEGATIVE, NEGATIVE)), weight=alpha)
    negative = Share((Term(POSITIVE, NEGATIVE, NEGATIVE), Term(NEGATIVE, POSITIVE)), weight=-beta)
    return (positive, negative) if beta else (positive,)


@linear
def gamma(gamma: float = 0.25) -> Shares:
    """Positive contributions weighted 1 + γ where z > 0, negative ones where z < 0. Montavon 2019; Andéol 2021."""
    _check(gamma >= 0, f"gamma is {gamma:g}, and must not be negative")
    up, down = Modifier(Part.POSITIVE, gamma, keep=1.0), Modifier(Part.NEGATIVE, gamma, keep=1.0)
    return (
        Share((Term(POSITIVE, up, up), Term(NEGATIVE, down)), where="positive"),
        Share((Term(POSITIVE, down, down), Term(NEGATIVE, up)), where="negative"),
    )


@linear
def zbox(low: Bounds = None, high: Bounds = None) -> Shares:
    """For inputs within [low, high], in the units of the layer's input, one value or one a channel (by default the
    range that the pre-processing gives): z = A(w)x - A(w⁺)l - A(w⁻)h. Montavon et al. 2017, eq. 11."""
    lowest, highest = _bound(low, "low"), _bound(high, "high")
    if isinstance(lowest, Bound) and isinstance(highest, Bound):
        count = max(len(lowest.values), len(highest.values))
        ends = [b.values * count if len(b.values) == 1 else b.values for b in (lowest, highest)]
        _check(len(ends[0]) == len(ends[1]), f"low has {len(ends[0])} values, and high {len(ends[1])}")
        above = next((f"{low:g} to {high:g}" for low, high in zip(*ends, strict=True) if low > high), "")
        _check(not above, f"from {above} there is nothing: low must not be above high")
    return (Share((Term(), Term(lowest, POSITIVE, sign=-1), Term(highest, NEGATIVE, sign=-1))),)


def _bound(given: Bounds, end: str) -> Bound | InputRange:
    if given is None:
        return InputRange(end == "high")
    values = tuple(map(float, given)) if isinstance(given, Iterable) else (float(given),)
    _check(len(values) > 0, f"{end} names no value")
    return Bound(values)


@linear
def wsquare() -> Shares:
    """A(w²)ᵀ[R ⊘ (A(w²)1 + b²)]: by the weights alone. Montavon et al. 2017, eq. 7."""
    return (Share((Term(ONES, SQUARE, SQUARE),)),)


@linear
def flat() -> Shares:
    """A(1)ᵀ[R ⊘ A(1)1]: the same share for every input of a unit. Lapuschkin et al. 2019."""
    return (Share((Term(ONES, ONES),)),)


@linear
def zplus_ones() -> Shares:
    """zplus with every input taken as 1: A(w⁺)ᵀ[R ⊘ (A(w⁺)1 + b⁺)]."""
    return (Share((Term(ONES, POSITIVE, POSITIVE),)),)


@linear
def ratio() -> Shares:
    """By magnitude, |x| ⊘ A|x|: residual sums. Otsuki et al. 2024."""
    return (Share((Term(ABSOLUTE, ABSOLUTE),)),)


@linear
def equal() -> Shares:
    """The same share for every input of a residual sum."""
    return (Share((Term(ONES, ABSOLUTE),)),)


@linear
def main() -> Shares:
    """For residual sums: all to the main branch, nothing to an identity skip."""
    return (Share((Term(MAIN, ABSOLUTE),)),)


def gradient() -> GradientRule:
    """A(w)ᵀ R for linear layers, R ⊙ f'(x) for activations: the plain derivative."""
    return GradientRule("gradient", shares=(Share((Term(ONES, ALL),), divide=False),))


_register(gradient, "linear layers, activations, max pooling", {})


# -- activations, max pooling -----------------------------------------------------------------------------------------


def pass_() -> PassRule:
    """R_x = R: relevance goes through unchanged."""
    return PassRule("pass")


def guided() -> ActivationRule:
    """[R]⁺ ⊙ f'(x): guided backpropagation. Springenberg et al. 2015."""
    return ActivationRule("guided", clip=True)


def deconvnet() -> ActivationRule:
    """[R]⁺. Zeiler and Fergus 2014."""
    return ActivationRule("deconvnet", derivative=False, clip=True)


def beta_smooth(beta: float = 10.0) -> ActivationRule:
    """R ⊙ sigmoid(βx): the derivative of a smoothed relu. Dombrowski et al. 2019."""
    beta = number("beta", beta)
    _check(beta > 0, f"beta is {beta:g}, and must be positive")
    return ActivationRule("beta_smooth", smooth=beta, parameters=(("beta", beta),))


def winner() -> PoolingRule:
    """All relevance to the largest input, the first one where several tie."""
    return PoolingRule("winner")


def average() -> PoolingRule:
    """As if the pooling were the average pooling of the same geometry, under norm. Montavon et al. 2019."""
    return PoolingRule("average", average=True)


_register(pass_, "layers that keep the shape", {})
_register(guided, "activations", {})
_register(deconvnet, "activations", {})
_register(beta_smooth, "relu", {"beta": 10.0})
_register(winner, "max pooling", {})
_register(average, "max pooling", {})


# -- reading ----------------------------------------------------------------------------------------------------------


def parse(text: str) -> Rule:
    """The rule that a user writes: `zplus`, `epsilon(1e-4)`, `zbox(low=-2, high=2)`.

    Raises `OnnxLrpError` for an unknown name (with the closest one) or parameters that do not fit.
    """
    name, positional, named = read_call(text, "rule", "epsilon(epsilon=1e-4)")
    if name not in CATALOGUE:
        raise OnnxLrpError(Problem(f"rule '{text}'", "there is no such rule", suggest(name, CATALOGUE)))
    return call(f"rule '{text}'", name, CATALOGUE[name].make, CATALOGUE[name].parameters, positional, named)


def read_call(text: str, what: str, example: str) -> tuple[str, list[Any], dict[str, Any]]:
    """NAME, or NAME(VALUE, KEY=VALUE): its name and arguments. A bare word is a text, as the listings print it."""
    name, opening, rest = text.strip().partition("(")
    try:
        call = ast.parse(f"f({rest}" if opening else "f()", mode="eval").body
        if not isinstance(call, ast.Call) or not name.isidentifier():
            raise ValueError
        return name, [_value(a) for a in call.args], {str(k.arg): _value(k.value) for k in call.keywords}
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        remedy = f"write NAME or NAME(PARAMETER=VALUE), for example {example}"
        raise OnnxLrpError(Problem(f"{what} '{text}'", "cannot be read", remedy)) from None


def _value(node: ast.expr) -> Any:
    return node.id if isinstance(node, ast.Name) else ast.literal_eval(node)


def call(
    what: str,
    name: str,
    make: Callable[..., T],
    parameters: Mapping[str, object],
    positional: list[Any],
    named: dict[str, Any],
) -> T:
    """make(*positional, **named), or an error that shows the right form."""
    form = f"{name}({', '.join(f'{k}={v}' for k, v in parameters.items())})"
    unknown = [k for k in named if k not in parameters or keyword.iskeyword(k)]
    if unknown:
        remedy = closest(unknown[0], parameters, f"use {form}")
        raise OnnxLrpError(Problem(what, f"has no parameter '{unknown[0]}'", remedy))
    try:
        return make(*positional, **named)
    except (TypeError, ValueError) as error:
        raise OnnxLrpError(Problem(what, f"its parameters do not fit: {error}", f"use {form}")) from None

"""What a conversion can be asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from onnxlrp import contract, look
from onnxlrp.explain.composite import Case, Composite
from onnxlrp.explain.edits import Conditions
from onnxlrp.explain.presets import DEFAULT
from onnxlrp.explain.target import Target
from onnxlrp.rules import catalogue
from onnxlrp.rules.rule import Rule

SUM, MAX_POOLING = ("sum",), ("max pooling",)
MAIN = Case(catalogue.main(), SUM, identity_skip=True)

# How a residual sum shares relevance; the last four are combinations under the names of the seed project.
RESIDUAL: Mapping[str, tuple[Case, ...]] = {
    "epsilon": (Case(catalogue.norm(), SUM),),
    "ratio": (Case(catalogue.ratio(), SUM),),
    "equal": (Case(catalogue.equal(), SUM),),
    "main": (MAIN, Case(catalogue.norm(), SUM)),
    "latest": (MAIN, Case(catalogue.ratio(), SUM)),
    "simple": (MAIN, Case(catalogue.equal(), SUM)),
    "flows_skip": (Case(catalogue.ratio(), SUM),),
    "flows_skip_simple": (Case(catalogue.equal(), SUM),),
}
MAX_POOL: Mapping[str, tuple[Case, ...]] = {
    "winner": (Case(catalogue.winner(), MAX_POOLING),),
    "average": (Case(catalogue.average(), MAX_POOLING),),
}

OPTIMIZE: Mapping[str, str] = {
    "exact": "leave out what is known to be zero, and choose the cheapest form of equal ones",
    "none": "emit every term as the formula has it, for finding faults",
}


@dataclass(frozen=True)
class Options:
    """What `convert` takes; see there."""

    composite: str | Composite = DEFAULT
    rules: Mapping[str, str | Rule] = field(default_factory=dict)
    residual: str | None = None
    max_pool: str | None = None
    start: str | None = None
    keep: float | None = None
    conditions: Conditions = field(default_factory=dict)
    input: str | None = None
    output: str | None = None
    input_shape: Sequence[int | None] | None = None
    taps: Sequence[str] = ()
    activations: Sequence[str] = ()
    target: Target = "input"
    targets_per_input: int | None = None
    heatmap: bool = False
    render: str | None = None
    cmap: str = look.DEFAULT
    embed_preprocessing: bool = False
    optimize: str = "exact"
    preprocess: contract.Preprocessing | None = None
    labels: Sequence[str] | None = None

    def overrides(self) -> list[Case]:
        """The cases that come before the composite's: --rule first, then --residual and --max-pool."""
        own = [Case(catalogue.parse(r) if isinstance(r, str) else r, pattern=p) for p, r in self.rules.items()]
        residual = RESIDUAL[self.residual] if self.residual else ()
        return [*own, *residual, *(MAX_POOL[self.max_pool] if self.max_pool else ())]

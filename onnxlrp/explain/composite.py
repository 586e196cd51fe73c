"""A composite gives each layer its rule: an ordered list of cases, the first that matches wins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from onnxlrp.errors import OnnxLrpError, Problem
from onnxlrp.layers.registry import Layer
from onnxlrp.rules.catalogue import epsilon, flat, norm, pass_, suggest, winner, zplus
from onnxlrp.rules.rule import Rule


@dataclass(frozen=True)
class Place:
    """Where a layer stands: `first` means that no weighted linear layer comes before it on a path from the image."""

    layer: Layer
    first: bool = False


@dataclass(frozen=True)
class Case:
    """Conditions, all of which must hold, and the rule for the layers that meet them.

    `kind` is one kind or several (`convolution`, `dense`, …); `pattern` matches a layer's name or one of its operators,
    shell-style; `first` asks for the first weighted layers.
    """

    rule: Rule
    kind: tuple[str, ...] = ()
    pattern: str = ""
    first: bool | None = None

    def matches(self, place: Place) -> bool:
        """Whether the case holds for a layer."""
        layer = place.layer
        return (
            (not self.kind or layer.kind in self.kind)
            and (not self.pattern or matches(self.pattern, layer))
            and (self.first is None or self.first == place.first)
        )

    def __str__(self) -> str:
        said = [*(["first layer"] if self.first else []), " or ".join(self.kind), self.pattern and f"matches {self.pattern}"]
        return ", ".join(s for s in said if s) or "any layer"


def matches(pattern: str, layer: Layer) -> bool:
    """Whether a shell-style pattern is a layer's name, output, one of its nodes' names or operators, or module path."""
    names = {layer.name, layer.output, *layer.op_types, *(n.name for n in layer.nodes if n.name)}
    paths = {p.value for n in layer.nodes for p in n.metadata_props if p.key in MODULE_PATHS}
    return any(fnmatchcase(name, pattern) for name in names | paths)


MODULE_PATHS = frozenset({"namespace", "pkg.torch.onnx.name_scopes"})


@dataclass(frozen=True)
class Composite:
    """A name and its cases in order."""

    name: str
    cases: tuple[Case, ...]

    def rule_for(self, place: Place) -> tuple[Rule | None, str]:
        """The first matching case's rule, and why; None where no case matches."""
        for case in self.cases:
            if case.matches(place):
                return case.rule, f"{self.name}: {case}"
        return None, f"{self.name}: no case matches"


WEIGHTED = ("convolution", "dense")
COMMON = (
    Case(pass_(), ("activation", "normalisation")),
    Case(norm(), ("sum", "pooling")),
    Case(winner(), ("max pooling",)),
)

PRESETS: Mapping[str, Composite] = {
    c.name: c
    for c in (
        Composite("epsilon_plus", (Case(zplus(), ("convolution",)), Case(epsilon(), ("dense",)), *COMMON)),
        Composite(
            "epsilon_plus_flat",
            (
                Case(flat(), WEIGHTED, first=True),
                Case(zplus(), ("convolution",)),
                Case(epsilon(), ("dense",)),
                *COMMON,
            ),
        ),
    )
}
DEFAULT = "epsilon_plus_flat"


def preset(name: str) -> Composite:
    """The composite of that name; raises `OnnxLrpError` with the closest one where there is none."""
    if name not in PRESETS:
        raise OnnxLrpError(Problem(f"composite '{name}'", "there is no such composite", suggest(name, PRESETS)))
    return PRESETS[name]

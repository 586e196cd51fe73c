"""A composite gives each layer its rule: an ordered list of cases, the first that matches wins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from onnx import NodeProto

from onnxlrp.errors import Problem, closest
from onnxlrp.layers.registry import Layer
from onnxlrp.rules.rule import Rule

WEIGHTED = ("convolution", "dense")
MODULE_PATHS = frozenset({"namespace", "pkg.torch.onnx.name_scopes"})
SEE_NAMES = "see the names with: onnxlrp plan"


@dataclass(frozen=True)
class Place:
    """Where a layer stands.

    first  no weighted layer comes before it on some path from the image; last: none comes behind it
    depth  the share of the weighted layers that come before it, 0 for the first one
    skips  which inputs of a sum are identity skips: tensors that another of its inputs is computed from
    """

    layer: Layer
    first: bool = False
    last: bool = False
    depth: float = 0.0
    skips: tuple[bool, ...] = ()


@dataclass(frozen=True)
class Case:
    """Conditions, all of which must hold, and the rule for the layers that meet them.

    kind      one kind of layer or several: convolution, dense, normalisation, sum, pooling, max pooling, activation
    pattern   a layer's name, its own node's operator or output, or its module path, shell-style; or in full the tensor
              that it leads to
    first     True for the first weighted layers only, last likewise
    depth     (low, high): the layer's depth is in low <= depth < high
    identity_skip  True for sums that have an identity skip, False for those that have none
    relu      True for relus, False for what is none
    """

    rule: Rule
    kind: tuple[str, ...] = ()
    pattern: str = ""
    first: bool | None = None
    last: bool | None = None
    depth: tuple[float, float] | None = None
    identity_skip: bool | None = None
    relu: bool | None = None

    def matches(self, place: Place) -> bool:
        """Whether the case holds for a layer."""
        layer = place.layer
        return (
            (not self.kind or layer.kind in self.kind)
            and (not self.pattern or rules_on(self.pattern, layer))
            and (self.first is None or self.first == place.first)
            and (self.last is None or self.last == place.last)
            and (self.depth is None or self.depth[0] <= place.depth < self.depth[1])
            and (self.identity_skip is None or self.identity_skip == any(place.skips))
            and (self.relu is None or self.relu == layer.rectifies)
        )

    def __str__(self) -> str:
        said = [
            {True: "first layer", False: "not the first layer", None: ""}[self.first],
            {True: "last layer", False: "not the last layer", None: ""}[self.last],
            " or ".join(self.kind),
            {True: "relu", False: "not a relu", None: ""}[self.relu],
            f"matches {self.pattern}" if self.pattern else "",
            {True: "with an identity skip", False: "without identity skip", None: ""}[self.identity_skip],
            f"depth {self.depth[0]:g} to {self.depth[1]:g}" if self.depth else "",
        ]
        return ", ".join(s for s in said if s) or "any layer"


def rules_on(pattern: str, layer: Layer) -> bool:
    """Whether a shell-style pattern gives a layer its rule: it is one of the layer's own names, or in full the tensor
    that it leads to. What is joined to a layer has no rule, and lends it no name to be given one by."""
    return pattern in (layer.output, layer.output.lstrip("/")) or _fits(pattern, own_names(layer))


def matches(pattern: str, layer: Layer) -> bool:
    """Whether a shell-style pattern matches what a layer leads to: it is one of the layer's own names, or one of what
    is joined behind it."""
    return _fits(pattern, output_names(layer))


def touches(pattern: str, layer: Layer) -> bool:
    """Whether a shell-style pattern matches anything of a layer, also what is joined before it."""
    return _fits(pattern, [layer.output, *_names(layer.nodes)])


def own_names(layer: Layer) -> list[str]:
    """A layer's name, its own node's operator and output, and its module path, each once."""
    own = layer.own
    return list(dict.fromkeys([layer.name, *_names([own]), own.output[0]]))


def output_names(layer: Layer) -> list[str]:
    """The names that its output goes by, each once: its own, and those of what is joined behind it. Not of what is
    joined before: none of those tensors is its output."""
    own = layer.own
    behind = layer.nodes[next(i for i, n in enumerate(layer.nodes) if n is own) :]
    return list(dict.fromkeys([layer.name, layer.output, *_names(behind)]))


def unmatched(thing: str, pattern: str, layers: Iterable[Layer], names: Callable[[Layer], list[str]]) -> Problem:
    """The problem with a pattern that no layer matches, with the one of their names that was probably meant."""
    known = [name for layer in layers for name in names(layer)]
    return Problem(thing, "matches no layer on the way", closest(pattern, known, SEE_NAMES))


def _fits(pattern: str, names: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) or fnmatchcase(name.lstrip("/"), pattern) for name in names)


def _names(nodes: Sequence[NodeProto]) -> list[str]:
    """The operators, names and module paths of nodes."""
    paths = [p.value for n in nodes for p in n.metadata_props if p.key in MODULE_PATHS]
    return [*(n.op_type for n in nodes), *(n.name for n in nodes if n.name), *paths]


@dataclass(frozen=True)
class Composite:
    """A name, its cases in order, and where relevance starts: at the target's `logit` times its one-hot, or at the
    plain `one-hot` (gradients). `times_input` multiplies the result by the input."""

    name: str
    cases: tuple[Case, ...]
    start: str = "logit"
    times_input: bool = False

    def rule_for(self, place: Place) -> tuple[Rule | None, str]:
        """The first matching case's rule, and why; None where no case matches."""
        for case in self.cases:
            if case.matches(place):
                return case.rule, f"{self.name}: {case}"
        return None, f"{self.name}: no case matches"

"""What each operator is. One definition an operator; registering an operator twice is an error.

Four kinds form a ladder over one general form, a layer that turns its output's relevance into its inputs':

linear      z = A(w) x + b; supplies `apply` and `transpose`, every linear rule follows
activation  elementwise; relevance passes, or is multiplied by the derivative
routing     every output element is one input element; relevance goes back to where the value came from
special     anything else; supplies its own backward

A definition `define(node, build) -> Layer` reads the node and may refuse it with a `Problem`. Its layer leads to the
node's first output; where every output is a layer of its own, named like it, it is told which: `define(node, build,
output)`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from onnx import NodeProto

from onnxlrp.errors import OnnxLrpError, Problem
from onnxlrp.graph.build import Builder, Symbol, Value
from onnxlrp.graph.facts import describe
from onnxlrp.rules.rule import Rule

Kind = Literal["convolution", "dense", "normalisation", "sum", "pooling", "max pooling", "activation", "routing"]


@dataclass(frozen=True)
class Relevance:
    """Relevance that arrives at a tensor t.

    `gate`, where known, is t or relu(t), and R is zero wherever it is zero: relevance of a rectified unit vanishes
    where the unit is silent, so a denominator may be taken from the gate, which has no negative values to guard.
    `cofactor`, where known, is c with R = gate ⊙ c: what arrives by several paths is summed before the product, and R
    where t > 0 is relu(t) ⊙ c. `over_channels`, where known, is the sum of R over the channels, [N, 1, …], had for less
    than from R.
    """

    value: Value
    gate: Value | None = None
    cofactor: Value | None = None
    over_channels: Value | None = None

    def vanishes_with(self, name: str) -> bool:
        """Whether R is known to be zero wherever the tensor of this name is."""
        return self.gate is not None and self.gate.name == name

    def cofactor_of(self, z: Value) -> Value | None:
        """c, where R is known to be z ⊙ c."""
        return self.cofactor if self.gate == z else None


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One or more nodes that act as one: relevance comes from `output` and can go to the tensors `inputs`."""

    name: str
    kind: Kind
    nodes: tuple[NodeProto, ...]
    inputs: tuple[str, ...]
    output: str
    rectifies: bool = False  # whether it is a relu

    @property
    def own(self) -> NodeProto:
        """The node that it is named after; the others are joined to it."""
        return next((n for n in self.nodes if layer_name(n) == self.name), self.nodes[0])

    @property
    def op_types(self) -> tuple[str, ...]:
        """The operators of its nodes, in order."""
        return tuple(n.op_type for n in self.nodes)

    def __str__(self) -> str:
        return f"{self.name} ({'+'.join(self.op_types)})"


Inputs = tuple[Symbol, ...]


@dataclass(frozen=True, kw_only=True)
class Linear(Layer):
    """z = A(w) x + b, over one input or several (a sum's x is a tuple).

    apply(xs, w, b) -> z and transpose(s, w) -> one tensor per input, which may have size 1 where x does not. w may be
    ONE or ZERO (symbolically) and is otherwise any tensor of w's shape. transposes(s, ws) -> transpose(s, w) for
    each w, or None where that is no faster together; transpose_sum(pairs) -> Σ transpose(s, w), where summing later is
    slower. `out_axis` is w's axis for output channels, `in_axis` for input channels (None: this weight cannot be scaled
    there), `channel` the channel axis of x and z. Denominators are computed when relevance reaches the layer; where it
    is `early`, those that a convolution makes are in the forward pass.
    """

    x: tuple[Value, ...]
    w: Symbol
    b: Symbol = None
    z: Value
    apply: Callable[[Inputs, Symbol, Symbol], Symbol]
    transpose: Callable[[Value, Symbol], Inputs]
    outputs: int = 0  # length of the bias vector; 0 where the layer takes none
    out_axis: int | None = None
    in_axis: int | None = None
    channel: int = 1
    skips: tuple[bool, ...] = ()  # which inputs of a sum are identity skips
    transposes: Callable[[Value, Sequence[Symbol]], Sequence[Inputs] | None] | None = None
    transpose_sum: Callable[[Sequence[tuple[Value, Value]]], Inputs] | None = None
    alike: bool = False  # with w = ONE all outputs at a position are equal, and `transpose` takes their sum, too
    early: bool = False
    pads: bool = False  # zeros enter beside x, so a shift before the layer is not a shift after it


@dataclass(frozen=True, kw_only=True)
class Diagonal(Linear):
    """z = factor ⊙ x + shift along one axis: batch normalisation, and multiplying or adding constants. `factor` and
    `shift` are scalars or vectors along the axis `channel`; `mergeable` unless they vary along more axes than that."""

    factor: Symbol
    shift: Symbol = None
    mergeable: bool = True


@dataclass(frozen=True, kw_only=True)
class Activation(Layer):
    """y = f(x) elementwise. times_derivative(g) -> g ⊙ f'(x)."""

    times_derivative: Callable[[Value], Value]


@dataclass(frozen=True, kw_only=True)
class Routing(Layer):
    """Every output element is a copy of one input element (or a constant): transpose(R) -> one tensor per input."""

    transpose: Callable[[Value], tuple[Value, ...]]


@dataclass(frozen=True, kw_only=True)
class Special(Layer):
    """Anything else: backward(R, rule) -> one relevance per input. `misfit` says why a rule is none for it ("": it is
    one), `linear` gives the linear layer that a rule may have it replaced by."""

    backward: Callable[[Relevance, Rule], tuple[Relevance | None, ...]]
    misfit: Callable[[Rule], str]
    linear: Callable[[], Linear] | None = None


Define = Callable[..., Layer]
DEFINITIONS: dict[str, Define] = {}
EVERY_OUTPUT: set[str] = set()


def defines(*op_types: str, every_output: bool = False) -> Callable[[Define], Define]:
    """Register a definition for operators of the default domain."""

    def register(define: Define) -> Define:
        for op_type in op_types:
            if op_type in DEFINITIONS:
                raise ValueError(
                    f"{op_type} is defined twice: by {DEFINITIONS[op_type].__name__} and {define.__name__}"
                )
            DEFINITIONS[op_type] = define
            if every_output:
                EVERY_OUTPUT.add(op_type)
        return define

    return register


def layer_name(node: NodeProto) -> str:
    """A layer is named after its first node, or that node's output where it has no name."""
    return node.name or node.output[0]


def refuse(node: NodeProto, reason: str, remedy: str) -> OnnxLrpError:
    """The error by which a definition says that it cannot explain this node."""
    return OnnxLrpError(Problem(describe(node), reason, remedy))


def uncovered(node: NodeProto, build: Builder, reason: str) -> OnnxLrpError:
    """The error for what no rule covers. Where it works on class scores, as long as an output's, they can be explained
    without it."""
    facts = build.facts
    outputs = {facts.shape(o.name) for o in facts.model.outputs if facts.carries(o.name) and facts.known(o.name)}
    carriers = (i for i in node.input if facts.carries(i) and facts.known(i))
    scores = next((i for i in carriers if len(facts.shape(i)) == 2 and facts.shape(i) in outputs), None)
    remedy = "export the model without it, or choose another model"
    return refuse(node, reason, remedy if scores is None else f"explain from before it: --output {scores}")


def require_definition(node: NodeProto, build: Builder) -> None:
    """Raise `OnnxLrpError` for an operator that has no definition."""
    if node.domain not in ("", "ai.onnx") or node.op_type not in DEFINITIONS:
        operator = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        raise uncovered(node, build, f"the operator {operator} has no relevance rule")

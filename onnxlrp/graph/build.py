"""The only place that creates nodes.

A `Builder` adds to a graph of its own whose inputs are tensors of the classifier; the classifier is never touched. Two
symbols stand for tensors that need no node: `ZERO` (None) and `ONE`. Arithmetic knows them, so that whatever vanishes
by algebra is never emitted. A node asked for twice is one node, a node of small constants is folded.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from onnx import NodeProto, TensorProto, helper, numpy_helper

from onnxlrp.graph.blocks import stays_in_blocks
from onnxlrp.graph.dialect import BLOCK, GUARD, PORTABLE, Dialect
from onnxlrp.graph.facts import FOLD_LIMIT, Facts, Shape, evaluate
from onnxlrp.graph.signs import Sign, of_array, sign_of

PREFIX = "lrp"


@dataclass(frozen=True)
class Value:
    """A tensor: its name, element type (TensorProto.DataType), known sign, its values where small and constant, and the
    values it repeats where it is a small constant made larger."""

    name: str
    element_type: int = TensorProto.FLOAT
    sign: Sign = Sign.ANY
    array: np.ndarray | None = None
    repeats: np.ndarray | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Value) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)


class One:
    """The type of `ONE`, the tensor of ones of whatever shape fits."""

    def __repr__(self) -> str:
        return "ONE"


ZERO = None
ONE = One()
Symbol = Value | One | None


class Builder:
    """Adds nodes to the relevance part of an explainer."""

    def __init__(self, facts: Facts, exact: bool = True, dialect: Dialect = PORTABLE) -> None:
        """`exact` uses what is known of signs and zeros; False leaves every term in, for finding faults. `dialect` is
        how equal things are written."""
        self.facts = facts
        self.exact = exact
        self.dialect = dialect
        self._graph = gs.Graph(opset=facts.model.opset)
        self._tensors: dict[str, gs.Tensor] = {}
        self._initial: dict[str, TensorProto] = {}
        self._memo: dict[tuple[Any, ...], tuple[Value, ...]] = {}
        self._moving: set[str] = set()
        self._whole: dict[str, Shape] = {}
        self._blocked: set[str] = set()
        self._taken = set(facts.model.tensor_names) | {n.name for n in facts.model.nodes}
        self._notes: dict[str, str] = {}
        self._scope, self._note = "", ""
        self._type: int = TensorProto.FLOAT

    # -- naming -------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def scope(self, layer: str, note: str, tensor: str = "", element_type: int | None = None) -> Iterator[None]:
        """Within it, tensors are named `lrp/<layer>/<step>`, nodes carry `note` as their doc_string, and constants are
        of `element_type`, or that of `tensor`, unless they say otherwise."""
        before = self._scope, self._note, self._type
        kind = element_type or (self.facts.element_type(tensor) if tensor else self._type)
        self._scope, self._note, self._type = layer.strip("/"), note, kind
        yield
        self._scope, self._note, self._type = before

    def _name(self, step: str) -> str:
        stem = "/".join(part for part in (PREFIX, self._scope, step) if part)
        candidates = itertools.chain((stem,), (f"{stem}_{i}" for i in itertools.count(2)))
        name = next(n for n in candidates if n not in self._taken)
        self._taken.add(name)
        return name

    # -- tensors ------------------------------------------------------------------------------------------------------

    def tensor(self, name: str) -> Value:
        """A tensor of the classifier."""
        array = self.facts.value(name) if self.facts.is_small_constant(name) else None
        sign = self.facts.sign(name) if array is None else of_array(array)
        return Value(name, self.facts.element_type(name), sign if self.exact else Sign.ANY, array)

    def constant(self, values: np.ndarray | float | Sequence[float], like: Value | int | None = None) -> Value:
        """A constant of the element type of `like` (a value, or a TensorProto.DataType; None: the scope's)."""
        element_type = like.element_type if isinstance(like, Value) else self._type if like is None else like
        array = np.asarray(values).astype(helper.tensor_dtype_to_np_dtype(element_type))
        key = ("constant", element_type, array.shape, array.tobytes())
        if key not in self._memo:
            name = self._name(f"constant/{len(self._initial)}") if not self._scope else self._name("constant")
            self._initial[name] = numpy_helper.from_array(array, name)
            self._memo[key] = (Value(name, element_type, of_array(array), array if array.size <= FOLD_LIMIT else None),)
        return self._memo[key][0]

    def integers(self, values: Sequence[int]) -> Value:
        """A constant int64 vector."""
        return self.constant(np.asarray(values, np.int64), TensorProto.INT64)

    # -- nodes --------------------------------------------------------------------------------------------------------

    def op(self, op_type: str, *inputs: Value | None, step: str = "", outputs: int = 1, **attributes: Any) -> Value:
        """The (first) output of a node. `step` names it within the layer; by default the operator does."""
        return self.ops(op_type, *inputs, step=step, outputs=outputs, **attributes)[0]

    def ops(
        self, op_type: str, *inputs: Value | None, step: str = "", outputs: int = 1, **attributes: Any
    ) -> tuple[Value, ...]:
        """All outputs of a node; the same node asked for again is the same outputs."""
        names = tuple(i.name if i else "" for i in inputs)
        key = (op_type, names, outputs, repr(sorted(attributes.items())))
        if key not in self._memo:
            folded = self._fold(op_type, inputs, attributes) if outputs == 1 else None
            self._memo[key] = (folded,) if folded else self._emit(op_type, inputs, step, outputs, attributes)
        return self._memo[key]

    def _fold(self, op_type: str, inputs: Sequence[Value | None], attributes: Mapping[str, Any]) -> Value | None:
        """The result as a constant where all inputs are small constants."""
        arrays = {i.name: i.array for i in inputs if i is not None and i.array is not None}
        if len(arrays) < len({i for i in inputs if i is not None}) or op_type == "Expand":
            return None
        node = helper.make_node(op_type, [i.name if i else "" for i in inputs], ["folded"], **attributes)
        result = evaluate(node, arrays, self.facts.model, FOLD_LIMIT)
        return None if result is None else self.constant(result[0], helper.np_dtype_to_tensor_dtype(result[0].dtype))

    def _emit(
        self, op_type: str, inputs: Sequence[Value | None], step: str, outputs: int, attributes: Mapping[str, Any]
    ) -> tuple[Value, ...]:
        name = self._name(step or op_type.lower())
        names = [i.name for i in inputs if i]
        present = [i for i in inputs if i is not None]
        element_type = attributes.get("to") or _RESULT.get(op_type) or _data(op_type, present).element_type
        sign = sign_of(op_type, [i.sign if i else Sign.ANY for i in inputs], attributes) if self.exact else Sign.ANY
        if op_type == "Mul" and len(set(names)) == 1:
            sign = Sign.NONNEGATIVE
        values = tuple(
            Value(name if k == 0 else self._name(f"{step or op_type.lower()}.{k}"), element_type, sign)
            for k in range(outputs)
        )
        if any(map(self.moves, present)):
            self._moving.update(v.name for v in values)
        if stays_in_blocks(op_type, [i.name in self._blocked for i in present], attributes):
            self._blocked.update(v.name for v in values)
        arguments = [self._surgeon(i) if i else gs.Variable.empty() for i in inputs]
        results = [self._surgeon(v) for v in values]
        self._graph.nodes.append(gs.Node(op_type, name, dict(attributes), arguments, results))
        self._notes[name] = self._note
        return values

    def moves(self, v: Symbol) -> bool:
        """Whether a tensor depends on the image; runtimes fold those that do not."""
        return isinstance(v, Value) and (v.name in self._moving or self.facts.carries(v.name))

    def _surgeon(self, value: Value) -> gs.Tensor:
        if value.name not in self._tensors:
            dtype = helper.tensor_dtype_to_np_dtype(value.element_type)
            self._tensors[value.name] = gs.Variable(value.name, dtype)
        return self._tensors[value.name]

    # -- arithmetic with the symbols ----------------------------------------------------------------------------------

    def add(self, a: Symbol, b: Symbol, step: str = "") -> Symbol:
        """a + b."""
        if a is ZERO or b is ZERO:
            return b if a is ZERO else a
        return self.op("Add", *self._values(a, b), step=step)

    def sub(self, a: Symbol, b: Symbol, step: str = "") -> Symbol:
        """a - b."""
        if b is ZERO:
            return a
        return self.neg(b) if a is ZERO else self.op("Sub", *self._values(a, b), step=step)

    def mul(self, a: Symbol, b: Symbol, step: str = "") -> Symbol:
        """a ⊙ b."""
        if a is ZERO or b is ZERO:
            return ZERO
        if isinstance(a, One) or isinstance(b, One):
            return b if isinstance(a, One) else a
        return self.op("Mul", a, b, step=step)

    def div(self, a: Symbol, b: Symbol, step: str = "") -> Symbol:
        """a ⊘ b."""
        if a is ZERO or isinstance(b, One):
            return a
        return self.op("Div", *self._values(a, b), step=step)

    def scale(self, factor: float, a: Symbol, step: str = "") -> Symbol:
        """factor · a, a node only where it changes something."""
        if factor == 1 or a is ZERO:
            return a
        if factor == 0:
            return ZERO
        if isinstance(a, One):
            return self.constant(factor)
        return self.neg(a) if factor == -1 else self.op("Mul", a, self.constant(factor, a), step=step)

    def neg(self, a: Symbol) -> Symbol:
        """-a."""
        if a is ZERO:
            return ZERO
        return self.constant(-1.0) if isinstance(a, One) else self.op("Neg", a)

    def positive(self, a: Symbol, step: str = "") -> Symbol:
        """max(a, 0), which is a itself where a is known to be ≥ 0 and ZERO where it is known to be ≤ 0."""
        if not isinstance(a, Value) or a.sign is Sign.NONNEGATIVE:
            return a
        return ZERO if a.sign is Sign.NONPOSITIVE else self.op("Relu", a, step=step)

    def negative(self, a: Symbol, step: str = "") -> Symbol:
        """min(a, 0), which is ZERO where a is known to be ≥ 0."""
        if not isinstance(a, Value) or a.sign is Sign.NONNEGATIVE:
            return ZERO
        return a if a.sign is Sign.NONPOSITIVE else self.op("Clip", a, None, self.constant(0.0, a), step=step)

    def tensor_of(self, a: Symbol, like: Value) -> Value:
        """A symbol as a tensor that broadcasts: the scalar 0 or 1 where it is one."""
        return a if isinstance(a, Value) else self.constant(0.0 if a is ZERO else 1.0, like)

    def absolute(self, a: Symbol) -> Symbol:
        """|a|."""
        if not isinstance(a, Value) or a.sign is Sign.NONNEGATIVE:
            return a
        return self.op("Abs", a)

    def uneven(self, a: Value, below: float, step: str = "") -> Value:
        """a where a ≥ 0, else below·|a|, below > 0."""
        if a.element_type == TensorProto.DOUBLE:  # LeakyRelu has a slope in float32
            return self.op("Max", a, self.op("Mul", a, self.constant(-below, a)), step=step)
        return self.op("LeakyRelu", a, alpha=-below, step=step)

    def masked(self, a: Value, condition: Value, step: str = "") -> Value:
        """a where the condition holds, else 0: as a product, since ONNX Runtime's Where takes three passes."""
        kept = self.op("Mul", a, self.op("Cast", condition, to=a.element_type), step=step)
        return replace(kept, sign=a.sign)

    def quotient(self, a: Value, b: Value, channels: int, step: str = "") -> Value:
        """a ⊘ b, where b is not zero. A runtime that fills up the channels of an image, of which there are `channels`
        (0: no image), finds 0 ÷ 0 in what it adds, unless it is guarded."""
        if self.dialect.quotient == "guarded" and channels % BLOCK and b.array is None:
            least = np.finfo(helper.tensor_dtype_to_np_dtype(b.element_type)).smallest_subnormal
            b = self.op("Add", b, self.constant(max(GUARD, float(least)), b), step="guarded")
        result = self.op("Div", a, b, step=step)
        return self.whole(result, self._whole[a.name]) if a.name in self._whole else result

    def is_whole(self, a: Value, shape: Shape) -> bool:
        """Whether a tensor is known to have this shape, size 1 along no axis where the shape has more."""
        return self._whole.get(a.name, ())[1:] == shape[1:] != ()

    def whole(self, a: Value, shape: Shape) -> Value:
        """`a`, which has this shape."""
        self._whole[a.name] = shape
        return a

    def is_blocked(self, a: Value) -> bool:
        """Whether a tensor that was added is in the memory layout of ONNX Runtime's convolutions, if its channels fill
        blocks."""
        return a.name in self._blocked

    def mark_blocked(self, a: Value) -> Value:
        """`a`, known to be in that layout: a convolution of single channels is, one of other groups may not be."""
        self._blocked.add(a.name)
        return a

    def in_turn(self, first: Value, second: Value, shape: Shape) -> tuple[Value, Value]:
        """Both as they are, but the second is not computed before the first where both depend on the image, and then
        both are of `shape`. Of a node's inputs ONNX Runtime computes that first whose node stands last, counting those
        that it made itself: what puts a convolution's output in order, or a Reshape that changes nothing and costs
        nothing and comes after more nodes than that of the second."""
        known = [d for d in shape[1:] if isinstance(d, int)]
        whole = len(shape) > 2 and len(known) == len(shape) - 1
        if not (self.exact and whole and self.moves(first) and self.moves(second)):
            return first, second
        sizes = self.integers([0, *known])  # not zeros: OpenCV 5 copies those from its own layout, which has more axes
        key = ("in turn", first.name, second.name)
        if key not in self._memo:  # by pair: for another pair the same tensor is reshaped anew
            reshaped = [second] if self.is_blocked(first) else [second, first]
            later, *put = (self._emit("Reshape", [v, sizes], "late", 1, {})[0] for v in reshaped)
            earlier = put[0] if put else first
            self._memo[key] = (replace(earlier, sign=first.sign), replace(later, sign=second.sign))
            self._whole |= {earlier.name: shape, later.name: shape}
        earlier, later = self._memo[key]
        return earlier, later

    def sign(self, a: Value) -> Value:
        """-1, 0 or 1."""
        if self.dialect.sign == "operator":
            return self.op("Sign", a)
        zero = self.constant(0.0, a)
        above, below = (self.op("Cast", self.op(c, a, zero), to=a.element_type) for c in ("Greater", "Less"))
        return self.op("Sub", above, below, step="sign")

    def _values(self, a: Symbol, b: Symbol) -> tuple[Value, Value]:
        """Both as tensors: ONE beside a tensor is the scalar 1 of its type."""
        like = next((v for v in (a, b) if isinstance(v, Value)), None)
        one = self.constant(1.0, like)
        return (a if isinstance(a, Value) else one), (b if isinstance(b, Value) else one)

    def mean(self, a: Value, axes: Sequence[int], keepdims: bool) -> Value:
        """The mean over axes."""
        return self._reduced("ReduceMean", a, axes, keepdims)

    def largest(self, a: Value, axes: Sequence[int], keepdims: bool) -> Value:
        """The largest element along axes."""
        return self._reduced("ReduceMax", a, axes, keepdims)

    def _reduced(self, op_type: str, a: Value, axes: Sequence[int], keepdims: bool) -> Value:
        """A reduction over axes, which became an input at opset 18."""
        if self.facts.model.opset < 18:
            return self.op(op_type, a, axes=list(axes), keepdims=int(keepdims))
        return self.op(op_type, a, self.integers(axes), keepdims=int(keepdims))

    # -- shape --------------------------------------------------------------------------------------------------------

    def reshape(self, a: Value, shape: Shape, of: Shape = (), step: str = "") -> Value:
        """`a`, whose shape is `of`, in a shape with at most one dimension that is not a number (the batch, or a
        multiple of it). An open batch that stays in front is copied (0) rather than counted (-1): shape inference then
        knows that it is the same, and only then ONNX Runtime multiplies in the memory layout of its convolutions."""
        sizes = [-1 if isinstance(d, str) else d for d in shape]
        if of and isinstance(of[0], str) and shape[:1] == of[:1]:
            sizes[0] = 0
        return self.op("Reshape", a, self.integers(sizes), step=step)

    def broadcast(self, a: Value, shape: Shape, step: str = "") -> Value:
        """`a` expanded to `shape`; a batch of open size must be there already."""
        wide = self.op("Expand", a, self.integers([1 if isinstance(d, str) else d for d in shape]), step=step)
        return replace(wide, repeats=a.array)

    def slice(self, a: Value, axis: int, start: int, end: int, stride: int = 1, step: str = "") -> Value:
        """a[start:end:stride] along one axis."""
        limits = (self.integers([v]) for v in (start, end, axis, stride))
        return self.op("Slice", a, *limits, step=step or "slice")

    def pad(self, a: Value, axis: int, before: int, after: int, rank: int, value: float = 0.0) -> Value:
        """`a` with elements of `value` added along one axis; itself where there is nothing to add."""
        if not before and not after:
            return a
        amounts = [0] * (2 * rank)
        amounts[axis], amounts[rank + axis] = before, after
        return self.op("Pad", a, self.integers(amounts), self.constant(value, a))

    # -- the result ---------------------------------------------------------------------------------------------------

    def output(self, value: Value, name: str) -> Value:
        """The value under another name, as an output of the explainer."""
        self._taken.add(name)
        result = Value(name, value.element_type, value.sign)
        node = gs.Node("Identity", f"{PREFIX}/{name}", {}, [self._surgeon(value)], [self._surgeon(result)])
        self._graph.nodes.append(node)
        self._notes[node.name] = "output"
        return result

    def finish(self, outputs: Sequence[str]) -> tuple[gs.Graph, dict[str, TensorProto], dict[str, str]]:
        """The graph that computes the outputs of these names, the constants it may read, and each node's note."""
        self._graph.outputs = [self._tensors[name] for name in outputs]
        made = {t.name for n in self._graph.nodes for t in n.outputs}
        self._graph.inputs = [t for name, t in self._tensors.items() if name not in made]
        return self._graph, self._initial, self._notes


def export(graph: gs.Graph, notes: Mapping[str, str]) -> list[NodeProto]:
    """The graph's nodes as ONNX, each with its note as doc_string."""
    nodes = list(gs.export_onnx(graph, do_type_check=False).graph.node)
    for node in nodes:
        node.doc_string = notes.get(node.name, "")
    return nodes


_BOOL = TensorProto.BOOL
_RESULT = {
    **dict.fromkeys(("Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "And", "Or", "Not"), _BOOL),
    **dict.fromkeys(("ArgMax", "Shape"), TensorProto.INT64),
}


def _data(op_type: str, present: Sequence[Value]) -> Value:
    """The input whose element type the output has."""
    return present[1] if op_type == "Where" else present[0]

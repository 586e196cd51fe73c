"""What is known of every tensor before the model runs: type, shape (with a symbolic batch), sign, and its values where
they follow from constants.

One pass over the nodes in order. Shapes come from onnx's own inference, a node at a time, so that a shape computed in
the graph (Shape, Gather, Concat, Reshape) is folded on the way. A batch of unknown size is found by passing twice, with
two sizes: a dimension that differs is the batch or a multiple of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, TypeProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnxlrp import contract
from onnxlrp.errors import OnnxLrpError, Problem
from onnxlrp.graph.model import Model, is_large
from onnxlrp.graph.signs import Sign, of_array, sign_of

Dim = int | str
Shape = tuple[Dim, ...]

BATCH = "N"  # a dimension that is the batch's, where its size is open
TRIAL_BATCHES = (2, 3)
FOLD_LIMIT = 4096  # elements; larger constants are followed by name, not by value
FLOATS = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16})


def attributes(node: NodeProto) -> dict[str, Any]:
    """The node's attributes as Python values; bytes are decoded."""
    values = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return {k: v.decode() if isinstance(v, bytes) else v for k, v in values.items()}


def describe(node: NodeProto) -> str:
    """How messages name a node: its name, or its output where it has none, with the operator."""
    return f"{node.name or (node.output[0] if node.output else '?')} ({node.op_type})"


def shown(shape: Sequence[int | str | None]) -> str:
    """A shape as messages and tables write it: [N, 3, ?, ?]."""
    return f"[{', '.join('?' if d is None else str(d) for d in shape)}]"


def captured(node: NodeProto) -> Iterator[str]:
    """Names that the node's subgraphs (the branches of an If, the body of a Loop) read."""
    for attribute in node.attribute:
        for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
            for inner in graph.node:
                yield from inner.input
                yield from captured(inner)


@dataclass
class _Pass:
    """What one pass found, for one concrete size of the batch."""

    types: dict[str, TypeProto] = field(default_factory=dict)
    values: dict[str, np.ndarray] = field(default_factory=dict)
    unknown: dict[str, tuple[str, str]] = field(default_factory=dict)  # node output -> why its type is not known


class Facts:
    """Answers about tensors by name. Build with `infer`."""

    def __init__(self, model: Model, image: str, first: _Pass, second: _Pass | None) -> None:
        self.model = model
        self.image = image
        self._first = first
        self._second = second
        self._values: dict[str, np.ndarray | None] = {}

    @cached_property
    def _carriers(self) -> set[str]:
        found = {self.image}
        for node in self.model.nodes:
            if any(i in found for i in (*node.input, *captured(node))):
                found.update(o for o in node.output if self.is_float(o) or o in self._first.unknown)
        return found

    def carries(self, name: str) -> bool:
        """Whether relevance can go to this tensor: it is a floating-point function of the image."""
        return name in self._carriers and not self.is_constant(name)

    def known(self, name: str) -> bool:
        """Whether type and shape of the tensor are known."""
        passes = [self._first] if self._second is None else [self._first, self._second]
        return all(name in p.types and p.types[name].tensor_type.HasField("shape") for p in passes)

    def why_unknown(self, name: str) -> tuple[str, str]:
        """The reason why `known(name)` is false, as far as there is one, and the remedy."""
        unknown = self._first.unknown | (self._second.unknown if self._second else {})
        return unknown.get(name, ("its shape cannot be inferred", _AGAIN))

    def shape(self, name: str) -> Shape:
        """The tensor's shape; a dimension that grows with the batch is a string ("N", "4N")."""
        first = dims(self._first.types[name])
        if self._second is None:
            return first
        second = dims(self._second.types[name])
        return tuple(a if a == b else _symbol(a, b) for a, b in zip(first, second, strict=True))

    def element_type(self, name: str) -> int:
        """The tensor's TensorProto.DataType."""
        return self._first.types[name].tensor_type.elem_type

    def is_float(self, name: str) -> bool:
        """Whether the tensor can carry relevance: of a floating-point type."""
        return name in self._first.types and self.element_type(name) in FLOATS

    def value(self, name: str) -> np.ndarray | None:
        """The tensor's values where they follow from constants alone, else None. Weights are read when asked for."""
        if name not in self._values:
            self._values[name] = self._evaluate(name)
        return self._values[name]

    def _evaluate(self, name: str) -> np.ndarray | None:
        if name in self._first.values:
            value = self._first.values[name]
            same = self._second is None or np.array_equal(value, self._second.values[name])
            return value if same else None
        if name in self.model.initializers:
            return self.model.array(self.model.initializers[name])
        node = self.model.producer.get(name)
        if node is None or not self.is_constant(name):
            return None
        inputs = {i: self.value(i) for i in node.input if i}
        if any(v is None for v in inputs.values()):
            return None
        outputs = evaluate(node, {k: v for k, v in inputs.items() if v is not None}, self.model)
        return None if outputs is None else outputs[list(node.output).index(name)]

    @cached_property
    def _constants(self) -> set[str]:
        """Names of all tensors that follow from initializers alone."""
        found = set(self.model.initializers) | {
            k for k in self._first.values if self._second is None or k in self._second.values
        }
        for node in self.model.nodes:
            if all(i in found for i in (*node.input, *captured(node)) if i) and node.op_type not in _RANDOM:
                found.update(o for o in node.output if o)
        return found

    def is_constant(self, name: str) -> bool:
        """Whether the tensor is the same for every input of the model."""
        if name in self._first.values and self._second is not None:
            return np.array_equal(self._first.values[name], self._second.values.get(name, np.nan))
        return name in self._constants

    def is_small_constant(self, name: str) -> bool:
        """Whether `value(name)` is there and cheap: a small tensor that follows from constants."""
        if name in self._first.values:
            return self.is_constant(name)
        return self.is_constant(name) and self.known(name) and math.prod(dims(self._first.types[name])) <= FOLD_LIMIT

    @cached_property
    def _signs(self) -> dict[str, Sign]:
        signs: dict[str, Sign] = {name: of_array(v) for name, v in self._first.values.items()}
        for node in self.model.nodes:
            arguments = [signs.get(i, Sign.ANY) for i in node.input]
            sign = sign_of(node.op_type, arguments, attributes(node))
            for out in node.output:
                signs.setdefault(out, sign)
        return signs

    def sign(self, name: str) -> Sign:
        """What is known of the sign of the tensor's elements."""
        return self._signs.get(name, Sign.ANY)


_AGAIN = "correct the input's shape with --input-shape, or export again"
_RANDOM = frozenset({"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli"})


def dims(tensor_type: TypeProto) -> tuple[int, ...]:
    """The concrete dimensions of an inferred type; 0 stands for one that inference left open."""
    return tuple(d.dim_value if d.HasField("dim_value") else 0 for d in tensor_type.tensor_type.shape.dim)


def _symbol(a: int, b: int) -> str:
    """The name of a dimension that was `a` and `b` for the two trial batches."""
    times, rest = divmod(a, TRIAL_BATCHES[0])
    proportional = not rest and b == times * TRIAL_BATCHES[1]
    return (BATCH if times == 1 else f"{times}{BATCH}") if proportional else "?"


def infer(model: Model, image: str, shapes: Mapping[str, Sequence[int | None]] | None = None) -> Facts:
    """The facts of a model whose input `image` is explained.

    `shapes` overrides the declared shape of inputs by name, None standing for the batch.

    Raises `OnnxLrpError` where an input has an open dimension other than its first, or where the graph contradicts
    itself for a batch of the sizes tried.
    """
    declared = {v.name: list((shapes or {}).get(v.name, declared_shape(v.type))) for v in model.inputs}
    problems = [_open_dimension(model, name, s) for name, s in declared.items() if None in s[1:]]
    if problems:
        raise OnnxLrpError(*problems)
    symbolic = any(s and s[0] is None for s in declared.values())
    passes = []
    for batch in TRIAL_BATCHES if symbolic else TRIAL_BATCHES[:1]:
        fixed = {k: [batch if d is None else d for d in s] for k, s in declared.items()}
        passes.append(_infer(model, fixed))
    return Facts(model, image, passes[0], passes[1] if symbolic else None)


def declared_type(tensor_type: TypeProto) -> str:
    """The element type in ONNX's word for it: float, uint8."""
    return TensorProto.DataType.Name(tensor_type.tensor_type.elem_type).lower()


def declared_shape(tensor_type: TypeProto) -> list[int | None]:
    """The shape a graph input declares; None for an open dimension (named, missing, zero or negative)."""
    return [d.dim_value if d.dim_value > 0 else None for d in tensor_type.tensor_type.shape.dim]


def _open_dimension(model: Model, name: str, shape: Sequence[int | None]) -> Problem:
    channels = 224 if contract.told_layout(shape) == "NHWC" else _channels(model, name)
    usual = [BATCH, channels, *[224] * len(shape)]
    example = ",".join(str(d or u) for d, u in zip(shape, usual, strict=False))
    reason = f"its shape {shown(shape)} leaves more open than the batch, and relevance needs the sizes that layers see"
    return Problem(f"input {name}", reason, f"fix them with --input-shape {example}")


def _channels(model: Model, name: str) -> int:
    """How many channels the convolution of a tensor takes; 3, as most images have, where there is none."""
    for node in model.consumers[name]:
        if node.op_type == "Conv" and node.input[1] in model.initializers:
            return int(model.initializers[node.input[1]].dims[1] * attributes(node).get("group", 1))
    return 3


def _infer(model: Model, inputs: Mapping[str, Sequence[int]]) -> _Pass:
    """One pass with concrete input shapes."""
    found = _Pass()
    for value in model.proto.graph.input:
        found.types[value.name] = value.type
    for value in model.inputs:
        found.types[value.name] = helper.make_tensor_type_proto(value.type.tensor_type.elem_type, inputs[value.name])
    for name, tensor in model.initializers.items():
        found.types[name] = helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
        if not is_large(tensor):
            found.values[name] = numpy_helper.to_array(tensor)
    for node in model.nodes:
        _visit(model, node, found)
    return found


def _visit(model: Model, node: NodeProto, found: _Pass) -> None:
    """Add what follows from one node: its outputs' types, and their values where they are small constants."""
    if node.op_type == "Shape" and node.input[0] in found.types:
        _know(found, node, [_shape_values(node, dims(found.types[node.input[0]]))])
        return
    arguments = {i: found.values[i] for i in node.input if i in found.values}
    present = [i for i in node.input if i]
    if len(arguments) == len(set(present)) and node.op_type not in _RANDOM:
        outputs = evaluate(node, arguments, model, limit=FOLD_LIMIT)
        if outputs is not None:
            _know(found, node, outputs)
            return
    try:
        schema = onnx.defs.get_schema(node.op_type, model.opset, node.domain)
        types = onnx.shape_inference.infer_node_outputs(
            schema,
            node,
            {i: found.types[i] for i in present},
            {i: numpy_helper.from_array(v) for i, v in arguments.items()},
            opset_imports=list(model.proto.opset_import),
            ir_version=model.proto.ir_version,
        )
    except KeyError as missing:
        types = {}
        reason = f"the shape of its input {missing.args[0]} is not known"
        found.unknown.update(dict.fromkeys(node.output, (reason, _AGAIN)))
    except (
        onnx.shape_inference.InferenceError, onnx.defs.SchemaError, onnx.checker.ValidationError,
        RuntimeError, ValueError,
    ) as error:  # fmt: skip
        types = {}
        found.unknown.update(dict.fromkeys(node.output, (str(error).strip().splitlines()[-1], _AGAIN)))
    for name in (o for o in node.output if o and o not in types):
        found.unknown.setdefault(name, ("its type and shape cannot be inferred", _AGAIN))
    for name, inferred in types.items():
        if not inferred.tensor_type.HasField("shape") or 0 in dims(inferred):
            found.unknown[name] = ("its shape depends on values that are not known before the model runs", _AGAIN)
        elif _counts_beyond(node, found, dims(inferred)[2:]):
            reason = f"its last window lies beyond the input, where onnx counts it ({list(dims(inferred)[2:])})"
            found.unknown[name] = (f"{reason} and runtimes do not", "export with ceil_mode=0")
        else:
            found.types[name] = inferred


def _counts_beyond(node: NodeProto, found: _Pass, outs: Sequence[int]) -> bool:
    """Whether these are the sizes that onnx infers of a pooling whose last window begins in the padding. Up to opset 21
    it counts that window, runtimes do not, and nothing behind has the shape that follows."""
    given = attributes(node)
    if not given.get("ceil_mode") or given.get("auto_pad", "NOTSET") != "NOTSET":
        return False
    sizes = dims(found.types[node.input[0]])[2:]
    strides, before = given.get("strides") or [1] * len(sizes), given.get("pads") or [0] * len(sizes)
    return any(s * (o - 1) >= b + n for s, o, b, n in zip(strides, outs, before, sizes, strict=False))


def _know(found: _Pass, node: NodeProto, outputs: Sequence[np.ndarray]) -> None:
    for name, value in zip(node.output, outputs, strict=False):
        if name and isinstance(value, np.ndarray):
            found.values[name] = value
            found.types[name] = helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)


def _shape_values(node: NodeProto, shape: tuple[int, ...]) -> np.ndarray:
    """What Shape (with its start and end) gives for a tensor of this shape."""
    limits = attributes(node)
    start, end = limits.get("start", 0), limits.get("end", len(shape))
    return np.asarray(shape[start:end], np.int64)


_SIZED = frozenset({"ConstantOfShape", "Expand", "Tile", "Range"})  # small inputs, outputs of any size


def evaluate(
    node: NodeProto, inputs: Mapping[str, np.ndarray], model: Model, limit: float = math.inf
) -> list[np.ndarray] | None:
    """The outputs of one node on known inputs, by onnx's reference implementation; None where it has none."""
    if node.op_type in _SIZED and limit < math.inf and _output_size(node, inputs) > limit:
        return None
    values = [
        helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for k, v in inputs.items()
    ]
    results = [helper.make_empty_tensor_value_info(o) for o in node.output if o]
    graph = helper.make_graph([node], "fold", values, results)
    proto = helper.make_model(
        graph, opset_imports=list(model.proto.opset_import), functions=list(model.proto.functions)
    )
    try:
        produced = iter(ReferenceEvaluator(proto).run(None, dict(inputs)))
    except (NotImplementedError, RuntimeError, ValueError, TypeError, IndexError, KeyError):
        return None
    outputs = [np.asarray(next(produced)) if o else np.empty(0) for o in node.output]
    return outputs if sum(o.size for o in outputs) <= limit else None


def _output_size(node: NodeProto, inputs: Mapping[str, np.ndarray]) -> float:
    if node.op_type in ("ConstantOfShape", "Expand"):
        return float(np.prod(np.abs(inputs[node.input[-1]]), dtype=np.float64))
    return math.inf if node.op_type == "Tile" else 0.0

"""What in a model a runtime may not take: finders, of which the table in `runtimes` says whom they concern and why.

Those that look at where windows lie are in `window_limits`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from onnxlrp.errors import Problem
from onnxlrp.graph import weights
from onnxlrp.graph.facts import attributes, declared_shape, describe
from onnxlrp.graph.model import default_opset, is_large, skeleton

CONVOLUTIONS = ("Conv", "ConvTranspose")


class Seen:
    """A classifier or an explainer as a runtime meets it: the types and ranks of its tensors, and what is constant."""

    def __init__(self, proto: ModelProto, name: str) -> None:
        self.proto, self.name = proto, name
        self.opset = default_opset(proto)
        self.nodes: list[NodeProto] = list(proto.graph.node)
        self.stored = {t.name: t for t in proto.graph.initializer}
        constant = (n for n in self.nodes if n.op_type == "Constant")
        self.stored |= {n.output[0]: a.t for n in constant for a in n.attribute if a.HasField("t")}
        self.small = {name: t for name, t in self.stored.items() if not is_large(t)}

    @cached_property
    def _values(self) -> dict[str, onnx.ValueInfoProto]:
        graph = onnx.shape_inference.infer_shapes(skeleton(self.proto)).graph
        return {v.name: v for v in (*graph.value_info, *graph.input, *graph.output)}

    def element_type(self, name: str) -> int:
        """A tensor's TensorProto.DataType; UNDEFINED where it is not known."""
        if name in self.small:
            return int(self.small[name].data_type)
        return int(self._values[name].type.tensor_type.elem_type) if name in self._values else TensorProto.UNDEFINED

    def shape(self, name: str) -> list[int | None] | None:
        """A tensor's sizes, None for those that are open; None where not even their number is known."""
        if name in self.stored:
            return list(self.stored[name].dims)
        if name not in self._values or not self._values[name].type.tensor_type.HasField("shape"):
            return None
        return declared_shape(self._values[name].type)

    @cached_property
    def producers(self) -> dict[str, NodeProto]:
        """The node that each tensor comes from."""
        return {name: node for node in self.nodes for name in node.output if name}

    @cached_property
    def readers(self) -> Counter[str]:
        """How often each tensor is read, by nodes or as an output."""
        return Counter([i for n in self.nodes for i in n.input if i] + [o.name for o in self.proto.graph.output])

    @cached_property
    def constants(self) -> set[str]:
        """The tensors that no input changes."""
        found = {t.name for t in self.proto.graph.initializer}
        for node in self.nodes:
            if all(name in found for name in node.input if name):
                found.update(node.output)
        return found

    def running(self, *op_types: str) -> Iterator[NodeProto]:
        """The nodes of these operators that are not computed once and for all when the model is loaded."""
        return (n for n in self.nodes if n.op_type in op_types and n.output[0] not in self.constants)


Found = tuple[str, str]  # the node, and what about it a runtime does not take
Finder = Callable[[Seen], Iterator[Found]]


@dataclass(frozen=True)
class Limit:
    """What a runtime does not take, why, and what to do; `runs`: it does run, and this should be known all the same."""

    find: Finder
    reason: str
    remedy: str
    runs: bool = False

    def problems(self, seen: Seen) -> list[Problem]:
        """Every node it concerns; or, where the model runs, all of them in one line."""
        found = list(self.find(seen))
        if self.runs and len(found) > 1:
            others = "another one" if len(found) == 2 else f"{len(found) - 1} others"
            found = [(f"{found[0][0]} and {others}", found[0][1])]
        return [Problem(node, f"{what}{self.reason}", self.remedy) for node, what in found]


def wide(seen: Seen) -> Iterator[Found]:
    """Convolutions in float64."""
    for node in seen.running(*CONVOLUTIONS):
        if seen.element_type(node.input[0]) == TensorProto.DOUBLE:
            yield describe(node), "computes in float64"


def half(seen: Seen) -> Iterator[Found]:
    """Outputs in float16."""
    for value in seen.proto.graph.output:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            yield f"output {value.name}", "float16"


def of_constants(seen: Seen) -> Iterator[Found]:
    """Convolutions of what no input changes."""
    for node in seen.nodes:
        if node.op_type in CONVOLUTIONS and node.input[0] in seen.constants:
            yield describe(node), "convolves a constant"


def half_or_double_gemms(seen: Seen) -> Iterator[Found]:
    """Gemms in another type than float32 that do more than multiply: in float16 by adding or scaling, in float64 by
    adding."""
    for node in seen.running("Gemm"):
        found = seen.element_type(node.input[0])
        scaled = attributes(node).get("alpha", 1.0) != 1.0 and found == TensorProto.FLOAT16
        if found in (TensorProto.FLOAT16, TensorProto.DOUBLE) and (scaled or (len(node.input) > 2 and node.input[2])):
            yield describe(node), f"adds or scales in {TensorProto.DataType.Name(found).lower()}"


def negative_pads(seen: Seen) -> Iterator[Found]:
    """Pads that cut off."""
    for node in seen.running("Pad"):
        amounts = seen.small.get(node.input[1])
        if amounts is not None and (numpy_helper.to_array(amounts) < 0).any():
            yield describe(node), f"pads by {numpy_helper.to_array(amounts).tolist()}"


def unpacked_bools(seen: Seen) -> Iterator[Found]:
    """Boolean constants whose values are stored one by one."""
    for name, tensor in seen.stored.items():
        if tensor.data_type == TensorProto.BOOL and tensor.int32_data:
            yield f"constant {name}", "booleans stored in int32_data"


def deep_global_pools(seen: Seen) -> Iterator[Found]:
    """Global poolings along three axes."""
    for node in seen.running("GlobalAveragePool", "GlobalMaxPool"):
        if len(seen.shape(node.input[0]) or ()) == 5:
            yield describe(node), "pools along three axes"


def vectors_less_convolutions(seen: Seen) -> Iterator[Found]:
    """A vector over channels minus, or divided by, what a convolution gives."""
    for node in seen.running("Sub", "Div"):
        convolution = _folded(seen, node.input[1])
        if convolution is not None and _over_channels(seen, node.input[0], convolution):
            yield describe(node), f"a vector {_SIGNS[node.op_type]} the result of {describe(convolution)}"


_SIGNS = {"Sub": "minus", "Div": "divided by"}


def _folded(seen: Seen, name: str) -> NodeProto | None:
    """The convolution of more than single elements, in one group, which `name` is with vectors over channels folded
    into it: a result that is read once, and all on the way from it. None where there is no such."""
    node = _alone(seen, name)
    if node is None:
        return None
    if node.op_type == "Conv":
        given = attributes(node)
        single = set((seen.shape(node.input[1]) or [0])[2:]) == {1} and not any(given.get("pads") or [])
        return node if given.get("group", 1) == 1 and not single else None
    if node.op_type in ("Identity", "Dropout", "BatchNormalization"):
        return _folded(seen, node.input[0])
    if node.op_type in ("Reshape", "Pad"):
        return _folded(seen, node.input[0]) if _keeps_sizes(seen, node) else None
    if node.op_type in ("Add", "Sub", "Mul", "Div"):
        for one, other in (node.input, reversed(node.input)):
            found = _folded(seen, one)
            if found is not None and _over_channels(seen, other, found):
                return found
    return None


def _alone(seen: Seen, name: str) -> NodeProto | None:
    """The node that makes a tensor which is read once."""
    return seen.producers.get(name) if seen.readers[name] == 1 else None


def _keeps_sizes(seen: Seen, node: NodeProto) -> bool:
    """Whether a node's output has its input's size along every axis but the batch."""
    before, after = seen.shape(node.input[0]), seen.shape(node.output[0])
    return before is not None and after is not None and before[1:] == after[1:]


def _over_channels(seen: Seen, name: str, convolution: NodeProto) -> bool:
    """Whether a tensor has one value for each channel that a convolution gives, and is the same everywhere else."""
    weight, shape = seen.shape(convolution.input[1]), seen.shape(name)
    if not weight or shape is None or len(shape) < len(weight) - 1:
        return False
    return shape[1 - len(weight)] == weight[0] and set(shape[2 - len(weight) :]) == {1}


def factors_like_weights(seen: Seen) -> Iterator[Found]:
    """Constants that multiply or divide what a convolution alone reads, and vary along spatial axes, having the size of
    its kernel there."""
    for convolution in seen.running("Conv"):
        weight, node = seen.shape(convolution.input[1]) or [], _alone(seen, convolution.input[0])
        while node is not None:
            moving = [i for i in node.input if i not in seen.constants]
            handed_on = _keeps_sizes(seen, node) if node.op_type == "Reshape" else node.op_type in _HANDING_ON
            if len(moving) != 1 or not handed_on:
                break
            for factor in node.input if node.op_type in ("Mul", "Div") else ():
                if factor in seen.constants and _folds(seen, factor, moving[0], weight):
                    size = "×".join(map(str, seen.shape(factor) or ()))
                    yield describe(node), f"scales what {describe(convolution)} reads by a constant of {size}"
            node = _alone(seen, moving[0])


_HANDING_ON = ("Mul", "Div", "Neg", "Identity", "Dropout", "Pad")  # every element in its place


def _folds(seen: Seen, factor: str, other: str, weight: Sequence[int | None]) -> bool:
    """Whether OpenVINO multiplies the weight by a factor, and that is not the same."""
    shape, beside = seen.shape(factor) or [], seen.shape(other) or []
    spatial = list(zip(reversed(shape), reversed(weight[2:]), strict=False))
    fits = any(n != 1 for n, _ in spatial) and all(n in (1, k) for n, k in spatial)
    if len(shape) == len(weight):  # not where the factor varies with the sample, or has the size of what it scales
        whole = None not in beside and all(n in (1, m) for n, m in zip(beside, shape, strict=False))
        fits = fits and shape[0] == 1 and not whole
    level = factor in seen.small and np.ptp(numpy_helper.to_array(seen.small[factor])) == 0
    return fits and not level


def open_batch(seen: Seen) -> Iterator[Found]:
    """Inputs whose first size is open."""
    for value in seen.proto.graph.input:
        dims = value.type.tensor_type.shape.dim
        if dims and not dims[0].HasField("dim_value"):
            yield f"input {value.name}", "an open batch"


def long_top_k(longest: int) -> Finder:
    """TopK of more values than `longest`, or of a number that is not known."""

    def find(seen: Seen) -> Iterator[Found]:
        for node in seen.running("TopK"):
            k = seen.small.get(node.input[1])
            count = int(numpy_helper.to_array(k).reshape(-1)[0]) if k is not None else None
            if count is None or count > longest:
                yield describe(node), f"asks for the {count or 'first'} largest values"

    return find


def dilated_pools(seen: Seen) -> Iterator[Found]:
    """Poolings whose windows have gaps."""
    for node in seen.running("MaxPool", "AveragePool"):
        dilations = attributes(node).get("dilations", [1])
        if np.any(np.asarray(dilations) != 1):
            yield describe(node), f"has dilations {list(dilations)}"


def flat_pools(seen: Seen) -> Iterator[Found]:
    """Poolings along one axis."""
    for node in seen.running("MaxPool", "AveragePool"):
        if len(attributes(node)["kernel_shape"]) == 1:
            yield describe(node), "pools along one axis"


def indices(seen: Seen) -> Iterator[Found]:
    """Max poolings that also say where the largest values were."""
    for node in seen.running("MaxPool"):
        if len(node.output) > 1 and node.output[1]:
            yield describe(node), "indices of its largest values"


def bytes_within(seen: Seen) -> Iterator[Found]:
    """Operators that move bytes, other than those that make them or take them."""
    for node in seen.running(*({n.op_type for n in seen.nodes} - {"Cast"})):
        if TensorProto.UINT8 in map(seen.element_type, filter(None, node.input)):
            yield describe(node), "bytes handed on"


def from_opset(first: int, *op_types: str) -> Finder:
    """These operators in a model of opset `first` or later."""

    def find(seen: Seen) -> Iterator[Found]:
        if seen.opset >= first:
            for node in seen.running(*op_types):
                yield describe(node), f"opset {seen.opset}"

    return find


def operators(*op_types: str, but: bool = False, element_type: int | None = None) -> Finder:
    """Nodes of these operators, or of all `but` these; only where they read tensors of `element_type`, if one is
    given."""

    def find(seen: Seen) -> Iterator[Found]:
        for node in seen.nodes:
            named = (node.op_type in op_types) is not but and node.output[0] not in seen.constants
            if named and (element_type is None or element_type in map(seen.element_type, node.input)):
                yield describe(node), ""

    return find


def several_outputs(seen: Seen) -> Iterator[Found]:
    """All outputs together, as an explainer always has several."""
    names = [o.name for o in seen.proto.graph.output]
    if len(names) > 1:
        yield f"outputs {', '.join(names[:4])}{', …' if len(names) > 4 else ''}", ""


def two_files(bytes_in_one: int) -> Finder:
    """A model whose weights are too many for one file."""

    def find(seen: Seen) -> Iterator[Found]:
        size = sum(map(weights.size, seen.proto.graph.initializer))
        if size >= bytes_in_one:
            yield seen.name, f"{size / 1e9:.1f} GB of weights, in a second file"

    return find

"""What an explainer costs: floating-point operations and bytes moved, layer by layer, forward and relevance.

Counted from the emitted nodes, for a batch of one. What follows from constants alone is computed once, when the model
is loaded, and costs nothing here. The ratio of operations, relevance part and forward over forward, is what the rules
imply at best where convolutions decide.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Iterator
from dataclasses import dataclass

from onnx import ModelProto, NodeProto, helper

from onnxlrp.explain.examine import Study
from onnxlrp.graph.build import PREFIX
from onnxlrp.graph.facts import Facts, attributes, declared_shape, infer
from onnxlrp.graph.model import Model

FREE = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"})  # views of the same memory


@dataclass(frozen=True)
class Cost:
    """Floating-point operations, and bytes read and written."""

    flops: int = 0
    moved: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.flops + other.flops, self.moved + other.moved)


@dataclass(frozen=True)
class LayerCost:
    """One layer's share of the forward pass and of the relevance part."""

    name: str
    forward: Cost
    relevance: Cost


def costs(study: Study, explainer: ModelProto) -> list[LayerCost]:
    """The cost of every layer of an explainer made from `study`, for one sample; what belongs to no layer (the start,
    sums at the image) comes last under the name "other"."""
    facts = _facts_of_one(explainer)
    owner = {out: step.layer.name for step in study.plan.steps for n in step.layer.nodes for out in n.output}
    scopes = {step.layer.name.strip("/"): step.layer.name for step in study.plan.steps}
    forward: dict[str, Cost] = collections.defaultdict(Cost)
    relevance: dict[str, Cost] = collections.defaultdict(Cost)
    own = len(study.model.nodes)
    for position, node in enumerate(facts.model.nodes):
        if facts.is_constant(node.output[0]) or not facts.known(node.output[0]):
            continue
        if position < own:
            forward[owner.get(node.output[0], "other")] += _cost(node, facts)
        else:
            relevance[_layer_of(node.name, scopes)] += _cost(node, facts)
    names = [*(s.layer.name for s in study.plan.steps), "other"]
    return [LayerCost(name, forward[name], relevance[name]) for name in names]


def _facts_of_one(explainer: ModelProto) -> Facts:
    """Shapes of all tensors for a batch of one."""
    model = Model(explainer)
    shapes = {v.name: [d or 1 for d in declared_shape(v.type)] for v in model.inputs}
    return infer(model, model.inputs[0].name, shapes)


def _layer_of(name: str, scopes: dict[str, str]) -> str:
    """The layer in whose scope a node of the relevance part was emitted: lrp/<layer>/<step>."""
    parts = name.removeprefix(f"{PREFIX}/").split("/")
    candidates = ("/".join(parts[:k]) for k in range(len(parts), 0, -1))
    return next((scopes[c] for c in candidates if c in scopes), "other")


def _cost(node: NodeProto, facts: Facts) -> Cost:
    """The cost of one node."""
    if node.op_type in FREE:
        return Cost()
    tensors = [*(i for i in node.input if i), node.output[0]]
    moved = sum(_size(facts, t) * _width(facts, t) for t in tensors if facts.known(t))
    return Cost(_flops(node, facts), moved)


def _flops(node: NodeProto, facts: Facts) -> int:
    """Multiplications and additions; elementwise operators count one for each output element."""
    out = _size(facts, node.output[0])
    if node.op_type in ("Conv", "ConvTranspose"):
        weight = list(_dims(facts, node.input[1]))
        swept = out if node.op_type == "Conv" else _size(facts, node.input[0])
        return 2 * swept * math.prod(weight[1:])
    if node.op_type in ("Gemm", "MatMul"):
        given = attributes(node)
        inner = list(_dims(facts, node.input[0]))[0 if given.get("transA") else -1]
        return 2 * out * inner
    if node.op_type in ("MaxPool", "AveragePool"):
        return out * math.prod(attributes(node)["kernel_shape"])
    return max(out, *(_size(facts, i) for i in node.input if i and facts.known(i))) if node.input else out


def _dims(facts: Facts, name: str) -> Iterator[int]:
    return (int(d) for d in facts.shape(name))


def _size(facts: Facts, name: str) -> int:
    return math.prod(_dims(facts, name))


def _width(facts: Facts, name: str) -> int:
    return int(helper.tensor_dtype_to_np_dtype(facts.element_type(name)).itemsize)

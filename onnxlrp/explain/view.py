"""The model seen as layers: which nodes act as one, and which of them lie between the image and the explained output.

A layer is a view over nodes, the classifier itself is never edited. A diagonal map (batch normalisation, a bias, a
constant factor) joins the linear layer beside it where the result is exactly one linear layer:

    after:   factor ⊙ (A(w) x + b) + shift  =  A(w ⊙ factor) x + (b ⊙ factor + shift)
    before:  A(w)(factor ⊙ x + shift) + b   =  A(w ⊙ factor) x + (b + A(w) shift)       (no zeros padded beside x)

and with a relu between them that relevance passes, u = relu(factor ⊙ x + shift) (DenseNet; Pahde et al. 2023):

    through: A(w) u + b  =  A(w ⊙ factor) x̂ + (b + A(w) shift),   x̂ = (u - shift) ⊘ factor, which is x with the values
             that relu silences moved to its threshold
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection

import numpy as np
from onnx import NodeProto, TensorProto

from onnxlrp.errors import OnnxLrpError, Problem
from onnxlrp.graph.build import ONE, Builder, Symbol, Value
from onnxlrp.graph.facts import Facts, captured
from onnxlrp.graph.model import CONTROL_FLOW
from onnxlrp.layers.registry import (
    DEFINITIONS,
    EVERY_OUTPUT,
    Activation,
    Diagonal,
    Layer,
    Linear,
    layer_name,
    refuse,
    require_definition,
    uncovered,
)


def view(build: Builder, output: str) -> tuple[list[Layer], list[Problem]]:
    """The layers on the way from the image to the tensor `output`, in the order the model computes them, and all that
    stands in the way, in the same order. Joined is what acts as one layer under any rules."""
    order = {id(n): i for i, n in enumerate(build.facts.model.nodes)}
    found, problems = _layers_before(build, output)
    if problems:
        problems.sort(key=lambda pair: order[id(pair[0])])
    layers = sorted(found, key=lambda layer: order[id(layer.nodes[-1])])
    return (layers if problems else _merge(build, layers, frozenset({output}))), [p for _, p in problems]


def _layers_before(build: Builder, output: str) -> tuple[list[Layer], list[tuple[NodeProto, Problem]]]:
    """Every node between image and output as a layer of its own, found by walking back; problems by node."""
    facts = build.facts
    layers: list[Layer] = []
    problems: list[tuple[NodeProto, Problem]] = []
    pending, seen = [output], {facts.image}
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        node = facts.model.producer[name]
        inputs: tuple[str, ...] = (*node.input, *captured(node))
        try:
            layer = _bind(build, node, name)
            if layer is not None:
                layers.append(layer)
                inputs = layer.inputs
        except OnnxLrpError as error:
            problems += [(node, p) for p in error.problems]
        pending += [i for i in inputs if facts.carries(i)]
    return layers, problems


def _bind(build: Builder, node: NodeProto, name: str) -> Layer | None:
    """The node as a layer; None where its tensors are not known, or in bfloat16, because an earlier node's are so."""
    facts = build.facts
    if node.op_type in CONTROL_FLOW:
        raise refuse(node, "is control flow, which cannot be explained", "export the model without it")
    require_definition(node, build)
    narrow = [t for t in (*node.input, name) if _in_bfloat16(facts, t)]
    if narrow:
        if any(t in facts.model.producer for t in narrow if t != name):
            return None
        reason = f"{narrow[0]} is in bfloat16, in which no runtime was tried with an explainer"
        raise refuse(node, reason, "export the model in float32")
    every = node.op_type in EVERY_OUTPUT
    if name != node.output[0] and not every:
        reason = f"its output {name} (number {list(node.output).index(name)}) has no relevance rule"
        raise uncovered(node, build, reason)
    if not facts.known(name):
        if any(facts.carries(i) and not facts.known(i) for i in node.input if i):
            return None
        raise refuse(node, *facts.why_unknown(name))
    with build.scope(layer_name(node), "view", name):
        define = DEFINITIONS[node.op_type]
        layer = define(node, build, name) if every else define(node, build)
    known = {*layer.inputs, *(o for n in layer.nodes for o in n.output)}
    unexplained = [i for i in node.input if i and facts.carries(i) and i not in known]
    if unexplained:
        reason = f"its input {unexplained[0]} depends on the image, and only {', '.join(layer.inputs)} can be explained"
        raise uncovered(node, build, reason)
    return layer


def _in_bfloat16(facts: Facts, name: str) -> bool:
    return facts.carries(name) and facts.is_float(name) and facts.element_type(name) == TensorProto.BFLOAT16


def _merge(build: Builder, layers: list[Layer], keep: frozenset[str]) -> list[Layer]:
    """Diagonal layers joined to the linear layer before them, else to the one behind."""
    merged: dict[str, Layer] = {}  # by output
    for layer in layers:
        before = merged.get(layer.inputs[0])
        if isinstance(layer, Diagonal) and isinstance(before, Linear) and _alone(build, before, keep):
            joined = _scaled_after(build, before, layer)
            if joined is not None:
                del merged[before.output]
                layer = joined
        merged[layer.output] = layer
    for layer in list(merged.values()):
        diagonal = merged.get(layer.inputs[0])
        if type(layer) is Linear and isinstance(diagonal, Diagonal) and _alone(build, diagonal, keep):
            joined = _scaled_before(build, diagonal, layer)
            if joined is not None:
                del merged[diagonal.output]
                merged[joined.output] = joined
    return list(merged.values())


def through_relus(build: Builder, layers: list[Layer], output: str, passed: Collection[str]) -> list[Layer]:
    """The layers that `view` has found, diagonal ones joined to the linear one behind a relu where `passed` has the
    outputs of both: relevance passes them as it is. Any other rule for the relu has its own say about silent units, as
    the gradient, which is zero there."""
    merged = {layer.output: layer for layer in layers}
    keep = frozenset({output})
    for layer in layers:
        relu = merged.get(layer.inputs[0])
        if type(layer) is not Linear or not isinstance(relu, Activation) or not relu.rectifies:
            continue
        diagonal = merged.get(relu.inputs[0])
        if not isinstance(diagonal, Diagonal) or not {diagonal.output, relu.output} <= set(passed):
            continue
        if not all(_alone(build, between, keep) for between in (diagonal, relu)):
            continue
        joined = _scaled_before(build, diagonal, layer)
        joined = joined and _through_relu(build, diagonal, relu, joined)
        if joined is not None:
            del merged[relu.output], merged[diagonal.output]
            merged[joined.output] = joined
    return list(merged.values())


def _alone(build: Builder, layer: Layer, keep: frozenset[str]) -> bool:
    """Whether one node only reads the layer's output, and nobody outside the graph does."""
    model = build.facts.model
    visible = keep | {o.name for o in model.outputs}
    return layer.output not in visible and len(model.consumers[layer.output]) == 1


def _scaled_after(build: Builder, linear: Linear, diagonal: Diagonal) -> Linear | None:
    """`diagonal` after `linear` as one layer, or None where that is no layer of the same form."""
    if isinstance(linear, Diagonal):
        return _composed(build, linear, diagonal)
    scalar = _is_scalar(build, diagonal.factor) and diagonal.shift is None
    fits = diagonal.mergeable and (scalar or diagonal.channel == linear.channel)
    if linear.out_axis is None or not isinstance(linear.w, Value) or not fits:
        return None
    shape = _weight_shape(build, linear)
    with build.scope(linear.name, "merged", linear.output):
        w = build.mul(linear.w, _along(build, diagonal.factor, linear.out_axis, len(shape)), step="w")
        shift = _vector(build, diagonal.shift, shape[linear.out_axis])
        b = build.add(build.mul(linear.b, diagonal.factor), shift, step="b")
    return _replace(linear, diagonal, w=w, b=b, z=diagonal.z, output=diagonal.output)


def _scaled_before(build: Builder, diagonal: Diagonal, linear: Linear) -> Linear | None:
    """`linear` after `diagonal` as one layer, or None where that is no layer of the same form."""
    fits = diagonal.mergeable and (diagonal.channel == linear.channel or _is_scalar(build, diagonal.factor))
    if linear.in_axis is None or not isinstance(linear.w, Value) or not fits:
        return None
    if diagonal.shift is not None and (linear.pads or diagonal.channel != linear.channel):
        return None
    shape = _weight_shape(build, linear)
    with build.scope(linear.name, "merged", linear.output):
        w = build.mul(linear.w, _along(build, diagonal.factor, linear.in_axis, len(shape)), step="w")
        b = linear.b
        if diagonal.shift is not None:
            moved = build.mul(linear.w, _along(build, diagonal.shift, linear.in_axis, len(shape)))
            assert isinstance(moved, Value)
            others = [i for i in range(len(shape)) if i != linear.out_axis]
            b = build.add(b, build.op("ReduceSum", moved, build.integers(others), keepdims=0), step="b")
    return _replace(linear, diagonal, w=w, b=b, x=diagonal.x, inputs=diagonal.inputs)


def _through_relu(build: Builder, diagonal: Diagonal, relu: Activation, joined: Linear) -> Linear | None:
    """`joined`, which left the relu between out, with x moved to the threshold where the relu is silent."""
    factor = diagonal.factor
    if not isinstance(factor, Value) or factor.array is None or np.any(np.abs(factor.array) < 1e-6):
        return None
    rank = len(build.facts.shape(relu.output))
    with build.scope(joined.name, "merged", joined.output):
        lifted = build.sub(build.tensor(relu.output), _along(build, diagonal.shift, diagonal.channel, rank))
        divisor = _along(build, factor, diagonal.channel, rank)
        x = build.tensor_of(build.div(lifted, divisor, step="x"), factor)
    nodes = (*diagonal.nodes, *relu.nodes, *joined.nodes[len(diagonal.nodes) :])
    return dataclasses.replace(joined, x=(x,), nodes=nodes)


def _composed(build: Builder, first: Diagonal, second: Diagonal) -> Diagonal | None:
    """Two diagonal layers as one: Mul then Add, Sub then Mul then Add."""
    if not (first.mergeable and second.mergeable):
        return None
    channels = {d.channel for d in (first, second) if not _is_scalar(build, d.factor) or not _is_scalar(build, d.shift)}
    if len(channels) > 1:
        return None
    with build.scope(first.name, "merged", first.output):
        terms = {
            name: build.add(build.mul(getattr(first, at), getattr(second, by)), plus)
            for name, at, by, plus in (
                ("w", "w", "w", None), ("b", "b", "w", second.b),
                ("factor", "factor", "factor", None), ("shift", "shift", "factor", second.shift),
            )
        }  # fmt: skip
    channel = channels.pop() if channels else first.channel
    joined = _replace(first, second, **terms, z=second.z, output=second.output, channel=channel)
    assert isinstance(joined, Diagonal)
    return joined


def _replace(linear: Linear, diagonal: Diagonal, **changes: object) -> Linear:
    """`linear` with changes, named after its own node, showing the nodes of both in order."""
    pair = (linear, diagonal) if "output" in changes else (diagonal, linear)
    return dataclasses.replace(linear, nodes=pair[0].nodes + pair[1].nodes, **changes)  # type: ignore[arg-type]


def _weight_shape(build: Builder, linear: Linear) -> tuple[int, ...]:
    """The shape of the weight: that of the node's own, which merging keeps."""
    return tuple(int(d) for d in build.facts.shape(linear.own.input[1]))


def _is_scalar(build: Builder, v: Symbol) -> bool:
    if not isinstance(v, Value):
        return True
    return v.array is not None and v.array.size == 1


def _along(build: Builder, v: Symbol, axis: int, rank: int) -> Symbol:
    """A vector laid along one axis of a rank-`rank` tensor."""
    return build.reshape(v, tuple(-1 if i == axis else 1 for i in range(rank))) if isinstance(v, Value) else v


def _vector(build: Builder, v: Symbol, size: int) -> Symbol:
    """A scalar or vector as a vector of `size`."""
    if v is ONE or (isinstance(v, Value) and v.array is not None and math.prod(v.array.shape) == 1):
        return build.broadcast(v if isinstance(v, Value) else build.constant(1.0), (size,))
    return v

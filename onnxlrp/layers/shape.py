"""Operators that move values and compute nothing: relevance goes back to where each value came from."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
from onnx import NodeProto

from onnxlrp.graph.build import Builder, Value
from onnxlrp.graph.facts import Shape, attributes, shown
from onnxlrp.layers.registry import Routing, defines, layer_name, refuse


def _routing(node: NodeProto, inputs: tuple[str, ...], transpose: Callable[[Value], tuple[Value, ...]]) -> Routing:
    return Routing(
        name=layer_name(node), kind="routing", nodes=(node,), inputs=inputs, output=node.output[0], transpose=transpose
    )


@defines("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshape(node: NodeProto, build: Builder) -> Routing:
    """The same values in another shape."""
    shape, after = build.facts.shape(node.input[0]), build.facts.shape(node.output[0])
    if sum(isinstance(d, str) for d in shape) > 1:
        raise refuse(node, f"the shape {shape} of its input is not known", "fix the input's shape with --input-shape")
    if any(isinstance(d, str) for d in shape) and all(isinstance(d, int) for d in after):
        reason = f"makes {shown(after)} of {shown(shape)}, so the model takes one size of the batch only"
        batch = math.prod(map(int, after)) // math.prod(int(d if isinstance(d, int) else d[:-1] or 1) for d in shape)
        fixed = ",".join(map(str, (batch, *build.facts.shape(build.facts.image)[1:])))
        raise refuse(node, reason, f"export it with an open batch, or fix the batch with --input-shape {fixed}")
    return _routing(node, (node.input[0],), lambda r: (build.reshape(r, shape, of=after),))


@defines("Identity")
def identity(node: NodeProto, build: Builder) -> Routing:
    """The same tensor under another name."""
    return _routing(node, (node.input[0],), lambda r: (r,))


@defines("Dropout")
def dropout(node: NodeProto, build: Builder) -> Routing:
    """Nothing at inference."""
    training = build.facts.value(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    ratio = build.facts.value(node.input[1]) if len(node.input) > 1 and node.input[1] else None
    if training is not None and bool(training) and (ratio is None or float(ratio) > 0):
        raise refuse(node, "drops at random (training_mode is true)", "export the model in evaluation mode")
    return _routing(node, (node.input[0],), lambda r: (r,))


@defines("Cast")
def cast(node: NodeProto, build: Builder) -> Routing:
    """Another floating-point type."""
    back = build.facts.element_type(node.input[0])
    if back == build.facts.element_type(node.output[0]):
        return _routing(node, (node.input[0],), lambda r: (r,))
    return _routing(node, (node.input[0],), lambda r: (build.op("Cast", r, to=back),))


@defines("Transpose")
def transpose(node: NodeProto, build: Builder) -> Routing:
    """Axes permuted."""
    rank = len(build.facts.shape(node.input[0]))
    perm = attributes(node).get("perm") or list(reversed(range(rank)))
    back = [int(i) for i in np.argsort(perm)]
    return _routing(node, (node.input[0],), lambda r: (build.op("Transpose", r, perm=back),))


@defines("Concat")
def concat(node: NodeProto, build: Builder) -> Routing:
    """Tensors one after another along an axis."""
    shapes = [build.facts.shape(i) for i in node.input]
    axis = int(attributes(node)["axis"]) % len(shapes[0])
    if any(not isinstance(s[axis], int) for s in shapes):
        raise refuse(node, f"joins along axis {axis}, whose sizes are not known", "fix them with --input-shape")
    ends = np.cumsum([0, *(int(s[axis]) for s in shapes)])

    def back(r: Value) -> tuple[Value, ...]:
        return tuple(build.slice(r, axis, int(a), int(b)) for a, b in pairwise(ends))

    return _routing(node, tuple(node.input), back)


@defines("Split", every_output=True)
def split(node: NodeProto, build: Builder, output: str) -> Routing:
    """One of several slices that follow one another along an axis."""
    shape = build.facts.shape(node.input[0])
    axis = int(attributes(node).get("axis", 0)) % len(shape)
    sizes = [build.facts.shape(o)[axis] if build.facts.known(o) else "?" for o in node.output]
    if not all(isinstance(d, int) for d in (shape[axis], *sizes)):
        reason = f"splits axis {axis} of {shape} in parts of {tuple(sizes)}, which are not known"
        raise refuse(node, reason, "fix them with --input-shape, and leave out what is empty")
    at = list(node.output).index(output)
    before, after = sum(map(int, sizes[:at])), sum(map(int, sizes[at + 1 :]))

    def back(r: Value) -> tuple[Value, ...]:
        return (build.pad(r, axis, before, after, len(shape)),)

    return Routing(name=output, kind="routing", nodes=(node,), inputs=(node.input[0],), output=output, transpose=back)


@defines("Pad")
def pad(node: NodeProto, build: Builder) -> Routing:
    """Constants around a tensor."""
    if attributes(node).get("mode", "constant") != "constant":
        raise refuse(node, f"pads by {attributes(node)['mode']}", "export with constant padding")
    shape = build.facts.shape(node.input[0])
    amounts = build.facts.value(node.input[1])
    axes = build.facts.value(node.input[3]) if len(node.input) > 3 and node.input[3] else np.arange(len(shape))
    if amounts is None or axes is None:
        raise refuse(node, "its padding is not known before the model runs", "export with constant pads")
    half = len(amounts) // 2

    def back(r: Value) -> tuple[Value, ...]:
        for k, axis in enumerate(int(a) % len(shape) for a in axes):
            before, after = int(amounts[k]), int(amounts[half + k])
            if before < 0 or after < 0:
                r = build.pad(r, axis, max(-before, 0), max(-after, 0), len(shape))
            if before > 0 or after > 0:
                start = max(before, 0)
                r = build.slice(r, axis, start, -after if after > 0 else np.iinfo(np.int64).max)
        return (r,)

    return _routing(node, (node.input[0],), back)


@defines("Slice")
def slice_(node: NodeProto, build: Builder) -> Routing:
    """A part of a tensor, by positive steps. The shortcuts of CIFAR's ResNets are every second element."""
    shape = build.facts.shape(node.input[0])
    starts, ends, axes, steps = (
        None if i >= len(node.input) or not node.input[i] else build.facts.value(node.input[i]) for i in range(1, 5)
    )
    if starts is None or ends is None:
        raise refuse(node, "its limits are not known before the model runs", "export with constant limits")
    axes = np.arange(len(starts)) if axes is None else axes
    steps = np.ones(len(starts), np.int64) if steps is None else steps
    taken: dict[int, slice] = {}
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        at = int(axis) % len(shape)
        if step < 1:
            raise refuse(node, f"goes backwards along axis {at}", "slice by positive steps")
        if not all(isinstance(d, int) for d in (shape[at:] if step > 1 else shape[at : at + 1])):
            reason = f"slices along axis {at} of {shape}, whose size is not known"
            raise refuse(node, reason, "fix it with --input-shape")
        taken[at] = slice(int(start), int(end), int(step))

    def back(r: Value) -> tuple[Value, ...]:
        for at in sorted(taken):  # the axes behind are still sliced
            r = _spread(build, r, taken[at], shape, at, build.facts.shape(node.output[0]))
        return (r,)

    return _routing(node, (node.input[0],), back)


def _spread(build: Builder, r: Value, taken: slice, shape: Shape, axis: int, sliced: Shape) -> Value:
    """r, which has the elements `taken` along an axis of `shape`, with zeros for the others; the axes behind it have
    the sizes of `sliced`."""
    size, count = int(shape[axis]), int(sliced[axis])
    low, _, step = taken.indices(size)
    if step > 1 and count > 1:
        apart = build.op("Unsqueeze", r, build.integers([axis + 1]))
        apart = build.pad(apart, axis + 1, 0, step - 1, len(shape) + 1)
        r = build.reshape(apart, (*shape[:axis], count * step, *sliced[axis + 1 :]))
        reach = min(count * step, size - low)
        r, count = r if reach == count * step else build.slice(r, axis, 0, reach), reach
    return build.pad(r, axis, low, size - low - count, len(shape))

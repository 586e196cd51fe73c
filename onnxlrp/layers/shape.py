"""Operators that move values and compute nothing: relevance goes back to where each value came from."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
from onnx import NodeProto, TensorProto

from onnxlrp.graph.build import Builder, Value
from onnxlrp.graph.facts import Shape, attributes, shown
from onnxlrp.layers.registry import Routing, defines, layer_name, refuse


def _routing(node: NodeProto, inputs: tuple[str, ...], transpose: Callable[[Value], tuple[Value, ...]]) -> Routing:
    return Routing(
        name=layer_name(node), kind="routing", nodes=(node,), inputs=inputs, output=node.output[0], transpose=transpose
    )


def _countable(node: NodeProto, build: Builder) -> Shape:
    """The input's shape, which a Reshape can restore: at most the batch is open."""
    shape = build.facts.shape(node.input[0])
    if sum(isinstance(d, str) for d in shape) > 1:
        reason = f"the shape {shown(shape)} of its input is not known"
        raise refuse(node, reason, "fix the input's shape with --input-shape")
    return shape


@defines("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshape(node: NodeProto, build: Builder) -> Routing:
    """The same values in another shape."""
    shape, after = _countable(node, build), build.facts.shape(node.output[0])
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
    """A part of a tensor, in steps of any size, backwards too. The shortcuts of CIFAR's ResNets are every second
    element."""
    shape = _countable(node, build)
    starts, ends, axes, steps = (
        None if i >= len(node.input) or not node.input[i] else build.facts.value(node.input[i]) for i in range(1, 5)
    )
    if starts is None or ends is None:
        raise refuse(node, "its limits are not known before the model runs", "export with constant limits")
    axes = np.arange(len(starts)) if axes is None else axes
    steps = np.ones(len(starts), np.int64) if steps is None else steps
    picked: dict[int, np.ndarray] = {}
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        at = int(axis) % len(shape)
        picked[at] = np.arange(_size(node, shape, at))[int(start) : int(end) : int(step)]
        _keep_samples(node, build, shape, at, picked[at])
    sliced = build.facts.shape(node.output[0])

    def back(r: Value) -> tuple[Value, ...]:
        for at in sorted(picked):  # the axes behind are still sliced
            r = _put_back(build, r, picked[at], shape, at, sliced[at + 1 :])
        return (r,)

    return _routing(node, (node.input[0],), back)


@defines("Gather", "GatherND")
def gather(node: NodeProto, build: Builder) -> Routing:
    """Elements at constant places along an axis. PyTorch makes `x[:, [2, 1, 0]]` a GatherND along a transposed axis."""
    shape, after = _countable(node, build), build.facts.shape(node.output[0])
    places, given = build.facts.value(node.input[1]), attributes(node)
    if places is None:
        raise refuse(node, "the places it picks are not known before the model runs", "export with constant indices")
    axis = int(given.get("axis", 0)) % len(shape)
    if node.op_type == "GatherND":
        if places.shape[-1] != 1 or given.get("batch_dims", 0):
            raise refuse(node, "picks along several axes at once", "export it as a Gather along each")
        places = places[..., 0]
    picked = places.reshape(-1) % _size(node, shape, axis)
    _keep_samples(node, build, shape, axis, picked)
    in_a_row = (*shape[:axis], picked.size, *shape[axis + 1 :])

    def back(r: Value) -> tuple[Value, ...]:
        r = r if places.ndim == 1 else build.reshape(r, in_a_row, of=after)
        return (_put_back(build, r, picked, shape, axis, shape[axis + 1 :]),)

    return _routing(node, (node.input[0],), back)


def _size(node: NodeProto, shape: Shape, axis: int) -> int:
    """The size of an axis that the node picks elements from."""
    size = shape[axis]
    if not isinstance(size, int):
        reason = f"picks along axis {axis} of {shown(shape)}, whose size is not known"
        raise refuse(node, reason, "export with the batch kept apart, or fix it with --input-shape")
    return size


def _keep_samples(node: NodeProto, build: Builder, shape: Shape, axis: int, picked: np.ndarray) -> None:
    """Refuse what picks other samples of the batch, or in another order: relevance would go to another one's image."""
    if axis == 0 and not np.array_equal(picked, np.arange(int(shape[0]))) and _starts_with_batch(node.input[0], build):
        raise refuse(node, f"picks samples out of {shown(shape)}", "export the model with the batch kept apart")


def _starts_with_batch(name: str, build: Builder) -> bool:
    """Whether the first axis of a tensor is the batch's, as no node has moved it on the way from the image."""
    facts = build.facts
    while name != facts.image:
        node = facts.model.producer.get(name)
        if (
            node is None
            or attributes(node).get("perm", [0])[0] != 0
            or facts.shape(node.output[0])[0] != facts.shape(facts.image)[0]
        ):
            return False
        name = next((i for i in node.input if facts.carries(i)), "")
    return True


def _put_back(build: Builder, r: Value, picked: np.ndarray, shape: Shape, axis: int, behind: Shape) -> Value:
    """r, which has the elements at the places `picked` of an axis of `shape`, at those places: the sum of what was
    picked several times, zeros for what was not. The axes behind it have the sizes `behind`."""
    size, count, steps = int(shape[axis]), len(picked), np.diff(picked)
    if np.all(steps > 0) and np.all(steps == steps[:1]):
        return _spread(build, r, range(picked[0], size, int(steps[0]) if count > 1 else 1)[:count], shape, axis, behind)
    came = [np.flatnonzero(picked == place) for place in range(size)]
    copies = max(map(len, came))
    sources = np.stack([np.pad(c, (0, copies - len(c)), constant_values=count) for c in came])
    if np.any(sources == count):  # nothing came from there: a zero behind the last
        r = build.pad(r, axis, 0, 1, len(shape))
    table = build.constant(sources if copies > 1 else sources[:, 0], TensorProto.INT64)
    moved = build.op("Gather", r, table, axis=axis)
    return moved if copies == 1 else build.op("ReduceSum", moved, build.integers([axis + 1]), keepdims=0)


def _spread(build: Builder, r: Value, picked: range, shape: Shape, axis: int, behind: Shape) -> Value:
    """The same for places at equal distances, in order."""
    size, count, low, step = int(shape[axis]), len(picked), picked.start, picked.step
    if step > 1 and count > 1:
        apart = build.op("Unsqueeze", r, build.integers([axis + 1]))
        apart = build.pad(apart, axis + 1, 0, step - 1, len(shape) + 1)
        r = build.reshape(apart, (*shape[:axis], count * step, *behind))
        reach = min(count * step, size - low)
        r, count = r if reach == count * step else build.slice(r, axis, 0, reach), reach
    return build.pad(r, axis, low, size - low - count, len(shape))


@defines("Expand", "Tile")
def repeat(node: NodeProto, build: Builder) -> Routing:
    """Copies of a tensor, one after another along its axes, as of a grey image for three colours."""
    shape, after = _countable(node, build), build.facts.shape(node.output[0])
    aligned = (*(1,) * (len(after) - len(shape)), *shape)
    apart: list[int | str] = []  # each repeated axis as two: the copies, and what each of them has
    copies: list[int] = []
    for had, has in zip(aligned, after, strict=True):
        if had != has:
            if isinstance(had, str) or isinstance(has, str):
                reason = f"repeats {shown(shape)} to {shown(after)}, along an axis whose size is not known"
                raise refuse(node, reason, "fix it with --input-shape")
            copies.append(len(apart))
            apart.append(has // had)
        apart.append(had)

    def back(r: Value) -> tuple[Value, ...]:
        if copies:
            r = build.op("ReduceSum", build.reshape(r, tuple(apart), of=after), build.integers(copies), keepdims=0)
        return (r if aligned == shape else build.reshape(r, shape, of=aligned),)

    return _routing(node, (node.input[0],), back)

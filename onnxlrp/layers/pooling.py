"""Average pooling is linear; max pooling sends relevance to the winner.

Average pooling: z[o] = w[o] · Σ_i x[stride·o + dilation·i - before] with w[o] = 1 / (elements counted), so that w is a
tensor like any other layer's and rules may modify it.

Max pooling is separable, and so is "the first largest element wins": pool along the last axis, then along the one
before, …; going back, the first row that holds the maximum is found, then the first element in that row.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import reduce

import numpy as np
from onnx import NodeProto, helper

from onnxlrp.graph.build import ONE, Builder, One, Symbol, Value
from onnxlrp.graph.facts import Shape, attributes, shown
from onnxlrp.graph.signs import Sign
from onnxlrp.layers.convolution import transposed
from onnxlrp.layers.phases import interleaved
from onnxlrp.layers.registry import Inputs, Layer, Linear, Relevance, Special, defines, layer_name, refuse, uncovered
from onnxlrp.layers.shape import identity
from onnxlrp.layers.steps import channels_of_steps, exceeds
from onnxlrp.layers.window import Axis, outer, value_added, windows, with_padding
from onnxlrp.rules.rule import PoolingRule, Rule


@defines("AveragePool")
def average_pool(node: NodeProto, build: Builder) -> Linear:
    """AveragePool with any padding, ceil_mode, dilation, count_include_pad."""
    given = attributes(node)
    axes = windows(node, build)
    whole = bool(given.get("count_include_pad", 0))
    counts = [a.count(-a.before, a.size + a.after) if whole else a.count(0, a.size) for a in axes]
    if any((c == 0).any() for c in counts):
        raise refuse(node, "a window lies wholly in the padding", "export with ceil_mode=0")
    x = build.tensor(node.input[0])
    return _average((node,), node.input[0], build, axes, outer(build, [1.0 / c for c in counts], x))


@defines("GlobalAveragePool")
def global_average_pool(node: NodeProto, build: Builder) -> Linear:
    """The mean over all spatial axes."""
    axes = _whole(node, build)
    w = build.constant(1 / np.prod([a.size for a in axes]), build.tensor(node.input[0]))
    return _average((node,), node.input[0], build, axes, w)


@defines("ReduceMean", "ReduceSum")
def reduce_mean(node: NodeProto, build: Builder) -> Linear:
    """A mean or sum over any axes but the batch, with or without keepdims."""
    facts, shape, reduced = build.facts, build.facts.shape(node.input[0]), _reduced(node, build)
    if any(not isinstance(shape[a], int) for a in reduced):
        reason = f"reduces over the batch (axes {reduced} of {shown(shape)})"
        raise refuse(node, reason, "export with the batch kept apart")
    if 0 in reduced and shape[0] != 1:
        reason = f"reduces over axis 0 of {shown(shape)}, which has to be the batch's"
        raise refuse(node, reason, "export with the batch first and kept apart: stack tensors along axis 1")
    x, z = build.tensor(node.input[0]), build.tensor(node.output[0])
    kept = tuple(1 if i in reduced else d for i, d in enumerate(shape))
    total = np.prod([int(shape[a]) for a in reduced])
    flat = facts.shape(node.output[0])

    def apply(xs: Inputs, w: Symbol, b: Symbol) -> Symbol:
        (v,) = xs
        if isinstance(v, One):
            v = build.constant(np.full([1] * len(flat), float(total)), x)
        elif v is not None and reduced:
            v = build.op("ReduceSum", v, build.integers(reduced), keepdims=int(len(flat) == len(shape)))
        return build.mul(v, w)

    def transpose(s: Value, w: Symbol) -> Inputs:
        s = s if len(flat) == len(shape) else build.reshape(s, kept, of=flat)
        return (build.mul(s, w),)

    w = build.constant(1 / total, x) if node.op_type == "ReduceMean" else ONE
    return Linear(
        name=layer_name(node), kind="pooling", nodes=(node,), inputs=(node.input[0],), output=node.output[0],
        x=(x,), w=w, z=z, apply=apply, transpose=transpose,
    )  # fmt: skip


def _reduced(node: NodeProto, build: Builder) -> list[int]:
    """The axes that a reduction is over. An empty list is all of them, or none where `noop_with_empty_axes` says so."""
    facts, given = build.facts, attributes(node)
    rank = len(facts.shape(node.input[0]))
    stated = given.get("axes") if len(node.input) < 2 or not node.input[1] else facts.value(node.input[1])
    if stated is None or not len(stated):
        stated = [] if given.get("noop_with_empty_axes") else range(rank)
    return sorted(int(a) % rank for a in stated)


def _whole(node: NodeProto, build: Builder, over: Collection[int] | None = None) -> tuple[Axis, ...]:
    """One window over all of every spatial axis; along those that it is not `over`, one for each element."""
    sizes = build.facts.shape(node.input[0])[2:]
    if not all(isinstance(d, int) for d in sizes):
        raise refuse(node, f"pools over sizes {sizes} not known", "fix the input's size with --input-shape")
    every = enumerate(map(int, sizes), 2)
    return tuple(Axis(n, 1, n) if over is None or i in over else Axis(n, n, 1) for i, n in every)


def _average(nodes: tuple[NodeProto, ...], source: str, build: Builder, axes: Sequence[Axis], w: Value) -> Linear:
    """The average over each window of `source`, as a layer of `nodes`, named after the last."""
    x, z = build.tensor(source), build.tensor(nodes[-1].output[0])
    pool = SumPool(build, axes, int(build.facts.shape(source)[1]))
    return Linear(
        name=layer_name(nodes[-1]), kind="pooling", nodes=nodes, inputs=(source,), output=z.name,
        x=(x,), w=w, z=z, apply=lambda xs, w, b: build.mul(pool.apply(xs[0]), w),
        transpose=lambda s, w: (pool.transpose(build.mul(s, w)),),
    )  # fmt: skip


class SumPool:
    """The sum over each window, channel by channel, and its adjoint."""

    def __init__(self, build: Builder, axes: Sequence[Axis], channels: int) -> None:
        self.build, self.axes, self.channels = build, axes, channels

    def apply(self, x: Symbol) -> Symbol:
        """[N, C, *sizes] -> [N, C, *outs]."""
        if x is None:
            return None
        if isinstance(x, One):
            return outer(self.build, [a.count(0, a.size) for a in self.axes], self.build.constant(1.0))
        return self._single(x, "Conv", [a.size for a in self.axes], [a.out for a in self.axes])

    def transpose(self, s: Symbol) -> Symbol:
        """[N, C, *outs] -> [N, C, *sizes], size 1 where one window covers all."""
        if not isinstance(s, Value) or all(a.out == 1 and a.kernel == a.size and not a.before for a in self.axes):
            return s
        if all(a.kernel == a.stride == 1 and not a.before and a.size == a.out for a in self.axes):
            return s
        return self._single(s, "adjoint", [a.out for a in self.axes], [a.size for a in self.axes])

    def _single(self, v: Value, form: str, before: list[int], after: list[int]) -> Value:
        """Channels become samples of one channel, as a pooling treats them all alike."""
        build, axes = self.build, self.axes
        ones = build.constant(np.ones([1, 1, *(a.kernel for a in axes)]), v)
        single = build.op("Reshape", v, build.integers([-1, 1, *before]))
        if form == "Conv":
            pooled = build.op(
                "Conv", _padded(build, single, axes), ones, kernel_shape=[a.kernel for a in axes],
                strides=[a.stride for a in axes], dilations=[a.dilation for a in axes],
            )  # fmt: skip
        else:
            pooled = transposed(build, [(single, ones)], axes, 1, 1, 1)
        return build.op("Reshape", pooled, build.integers([-1, self.channels, *after]))


def _padded(build: Builder, x: Value, axes: Sequence[Axis], value: float = 0.0) -> Value:
    """x with explicit padding for every window's reach."""
    for i, a in enumerate(axes):
        x = build.pad(x, 2 + i, a.before, max(a.overhang, 0), 2 + len(axes), value)
    return x


@defines("MaxPool")
def max_pool(node: NodeProto, build: Builder) -> Special:
    """MaxPool with any padding, stride, dilation and ceil_mode."""
    if attributes(node).get("storage_order"):
        raise refuse(node, "storage_order=1 is not supported", "export with storage_order=0")
    return _max_pool(node, build, windows(node, build))


@defines("GlobalMaxPool")
def global_max_pool(node: NodeProto, build: Builder) -> Special:
    """The largest element over all spatial axes."""
    return _max_pool(node, build, _whole(node, build))


@defines("ReduceMax")
def reduce_max(node: NodeProto, build: Builder) -> Layer:
    """The largest element over spatial axes, with or without keepdims."""
    shape, reduced = build.facts.shape(node.input[0]), _reduced(node, build)
    if not reduced:
        return identity(node, build)
    if min(reduced) < 2 or not isinstance(shape[1], int):
        reason = f"the largest over axes {reduced} of {shown(shape)}: only those behind the channels have a rule"
        raise uncovered(node, build, reason)
    return _max_pool(node, build, _whole(node, build, reduced))


def _max_pool(node: NodeProto, build: Builder, axes: tuple[Axis, ...]) -> Special:
    nodes, source, wider = with_padding(node, build, axes, _is_lowest)
    if any((a.count(0, a.size) == 0).any() for a in wider):  # a window of nothing else
        nodes, source, wider = (node,), node.input[0], axes
    x, y = build.tensor(source), build.tensor(node.output[0])
    apart = _pads_lowest(source, build)
    shape, kept = build.facts.shape(y.name), (*build.facts.shape(source)[:2], *(a.out for a in wider))

    def unsqueezed(v: Value) -> Value:
        """What has the output's shape, with the axes that a reduction leaves out."""
        return v if len(shape) == len(kept) else build.reshape(v, kept, of=shape)

    def squeezed(v: Symbol) -> Symbol:
        return v if len(shape) == len(kept) or not isinstance(v, Value) else build.reshape(v, shape, of=kept)

    def backward(r: Relevance, rule: Rule) -> tuple[Relevance | None, ...]:
        vanishes = r.vanishes_with(y.name)
        routed, summed = winner(build, x, unsqueezed(y), unsqueezed(r.value), wider, vanishes, finite=not apart)
        return (Relevance(routed, x if vanishes else None, over_channels=summed),)

    def as_average() -> Linear:
        """The average pooling of the same geometry, whose output the model does not compute."""
        counts = [1.0 / a.count(0, a.size) for a in wider]
        layer = _average(nodes, source, build, wider, outer(build, counts, x))
        z = squeezed(layer.apply(layer.x, layer.w, None))
        assert isinstance(z, Value)
        return replace(
            layer, z=z, apply=lambda xs, w, b: squeezed(layer.apply(xs, w, b)),
            transpose=lambda s, w: layer.transpose(unsqueezed(s), w),
        )  # fmt: skip

    def misfit(rule: Rule) -> str:
        if not isinstance(rule, PoolingRule):
            return "does not fit a layer of kind max pooling"
        if rule.average and apart:
            return "has nothing to share out beside the lowest of numbers, which a Pad adds"
        return ""

    return Special(
        name=layer_name(node), kind="max pooling", nodes=nodes, inputs=(source,), output=y.name,
        backward=backward, misfit=misfit, linear=as_average,
    )  # fmt: skip


def _is_lowest(value: np.ndarray) -> bool:
    """Whether a padded value is -inf or the lowest number of its type, which never wins."""
    return bool(np.all(value <= np.finfo(value.dtype).min))


def _pads_lowest(name: str, build: Builder) -> bool:
    """Whether a tensor comes from a Pad, one that is no pooling's own, of such values, or of some not known."""
    pad = build.facts.model.producer.get(name)
    if pad is None or pad.op_type != "Pad":
        return False
    value, amounts = value_added(pad, build), build.facts.value(pad.input[1])
    adds = amounts is None or bool(np.any(amounts > 0))
    return adds and (value is None or _is_lowest(value))


def winner(
    build: Builder, x: Value, y: Value, r: Value, axes: Sequence[Axis], vanishes: bool, finite: bool = True
) -> tuple[Value, Value | None]:
    """Relevance r of the pooled y at the first largest element of each window of x, and its sum over the channels,
    taken of the taps before they are put together; None where nothing is put together. Whether r `vanishes` where y is
    zero, and x is `finite`: differences of infinities are none."""
    stages = [x]
    for i in reversed(range(1, len(axes))):
        stages.append(_pool_along(build, stages[-1], axes[i], i, len(axes)))
    channels = channels_of_steps(build, x, build.facts.shape(x.name)) if finite else 0
    last, won = 0, list[tuple[int, Value]]()
    for i, before, after in zip(range(len(axes)), reversed(stages), [y, *reversed(stages[1:])], strict=True):
        if axes[i].kernel > 1 or axes[i].stride > 1 or axes[i].before:
            few = channels if _differ(before, axes[i], vanishes) else 0
            last, won = i, _won(build, before, after, r, i, axes, few)
            r = _put_together(build, won, i, axes)
    sums = [(tap, build.op("ReduceSum", part, build.integers([1]), keepdims=1, step="sum")) for tap, part in won]
    return r, _put_together(build, sums, last, axes) if sums else None


def _pool_along(build: Builder, x: Value, a: Axis, i: int, rank: int, step: str = "pooled") -> Value:
    """MaxPool along the i-th of `rank` axes only, with the windows of a."""
    if a.kernel == a.stride == 1:
        return x

    pads = (a.before, max(a.overhang, 0))
    if max(pads) >= a.kernel:  # more than MaxPool allows
        x, pads = build.pad(x, 2 + i, *pads, 2 + rank, _lowest(x)), (0, 0)
    return build.op(
        "MaxPool", x, kernel_shape=_only(i, rank, a.kernel), strides=_only(i, rank, a.stride),
        dilations=_only(i, rank, a.dilation), pads=[*_only(i, rank, pads[0], 0), *_only(i, rank, pads[1], 0)],
        step=step,
    )  # fmt: skip


def _only(i: int, rank: int, v: int, rest: int = 1) -> list[int]:
    """v for the i-th axis, the same for all others."""
    return [v if k == i else rest for k in range(rank)]


def _tap(build: Builder, x: Value, tap: int, i: int, axes: Sequence[Axis]) -> Value | None:
    """What a tap of every window along the i-th axis reads, a number below all that occur where that is padding; None
    where it is nothing else.

    Every stride-th element from the first on is a pooling of single elements, which ONNX Runtime shares among threads
    and does in the memory layout of its convolutions; a Slice it does not."""
    a, rank = axes[i], len(axes)
    by, phase = _read(tap, a)
    have, stride = len(range(phase, a.size, a.stride)), a.stride
    if not phase:
        single = Axis(a.size, out=have, kernel=1, stride=stride)
        x, stride = _pool_along(build, x, single, i, rank, "phase"), 1
    return _shifted(build, x, 2 + i, by, have, a.out, 2 + rank, _lowest(x), phase, stride)


def _read(tap: int, a: Axis) -> tuple[int, int]:
    """(by, phase): the tap of window o reads element stride·(o + by) + phase."""
    return divmod(tap * a.dilation - a.before, a.stride)


def _lowest(x: Value) -> float:
    """A finite number below all that occur: runtimes disagree on infinities."""
    return max(-3e38, float(np.finfo(helper.tensor_dtype_to_np_dtype(x.element_type)).min))


def _won(
    build: Builder, x: Value, y: Value, r: Value, i: int, axes: Sequence[Axis], channels: int
) -> list[tuple[int, Value]]:
    """What each tap along the i-th axis gets: a window's relevance goes to the first that no later one exceeds, found
    from differences in each of so many `channels`, or, where there are none, to the first that equals the maximum."""
    shape: Shape = ("N", channels, *(a.size for a in axes[:i]), *(a.out for a in axes[i:]))
    won = []
    for tap in range(axes[i].kernel - 1):
        if channels:
            # Kept from the forward pass on, what exceeds would take a quarter of the memory of x.
            r, exceeded = build.in_turn(r, _exceeded(build, x, tap, i, axes, channels), shape)
            rest = build.op("Mul", r, exceeded)
            won.append((tap, build.op("Sub", r, rest)))
            r = rest
        elif (taken := _tap(build, x, tap, i, axes)) is not None:
            part = build.masked(r, build.op("Equal", taken, y))
            r = build.op("Sub", r, part)
            won.append((tap, part))
    return [*won, (axes[i].kernel - 1, r)]  # no tap before the last was the largest: it is


def _differ(x: Value, a: Axis, vanishes: bool) -> bool:
    """Whether differences tell what wins: there are few, and what a convolution reads as zero is padding, which wins
    only where all of x that it is beside is zero, and R with it."""
    padded = a.before > 0 or a.overhang > 0
    return 1 < a.kernel <= 3 and (not padded or (vanishes and x.sign is Sign.NONNEGATIVE))


def _exceeded(build: Builder, x: Value, tap: int, i: int, axes: Sequence[Axis], channels: int) -> Value:
    """1 where a later tap along the i-th axis is larger than this one, else 0. One convolution reads both: where it
    rounds what it reads (TF32), the maximum y would differ from the very x that it is."""
    a, rank = axes[i], len(axes)
    pads = [*_only(i, rank, a.before, 0), *_only(i, rank, max(a.overhang, 0), 0)]

    def larger(later: int) -> Value:
        weight = np.zeros(a.kernel)
        weight[[tap, later]] = -1, 1
        return exceeds(
            build, x, weight.reshape(_only(i, rank, a.kernel)), channels, "exceeded", pads=pads,
            strides=_only(i, rank, a.stride), dilations=_only(i, rank, a.dilation),
        )  # fmt: skip

    return reduce(lambda v, w: build.op("Max", v, w), map(larger, range(tap + 1, a.kernel)))


def _put_together(build: Builder, won: Sequence[tuple[int, Value]], i: int, axes: Sequence[Axis]) -> Value:
    """The elements along the i-th axis from what the taps of every window got; the axes behind are still pooled."""
    a, axis, rank = axes[i], 2 + i, 2 + len(axes)
    counts = [len(range(phase, a.size, a.stride)) for phase in range(a.stride)]
    found: list[Symbol] = [None] * a.stride
    for tap, part in won:
        by, phase = _read(tap, a)
        found[phase] = build.add(found[phase], _shifted(build, part, axis, -by, a.out, counts[0], rank, 0.0))
    whole = interleaved(build, found, axis, counts[0], [behind.out for behind in axes[i + 1 :]])
    assert isinstance(whole, Value)
    return whole if counts[0] * a.stride == a.size else build.slice(whole, axis, 0, a.size)


def _shifted(
    build: Builder, v: Value, axis: int, by: int, have: int, want: int, rank: int, fill: float,
    phase: int = 0, stride: int = 1,
) -> Value | None:  # fmt: skip
    """The elements [by, by + want) of the `have` that v has along an axis, counting every stride-th from `phase` on;
    `fill` where there is none, and None where there is none at all."""
    first, last = max(by, 0), min(by + want, have)
    if first >= last:
        return None
    if (first, last, stride) != (0, have, 1):
        v = build.slice(v, axis, phase + stride * first, phase + stride * (last - 1) + 1, stride)
    return build.pad(v, axis, first - by, by + want - last, rank, fill)

"""Convolution, in any number of dimensions, with groups.

    z[n, o, p] = Σ_{i, k} w[o, i, k] · x[n, i, stride·p + dilation·k - before] + b[o]

Zeros that a Pad before it adds are padding like its own: x is then what was padded.

Its adjoint is the transposed convolution with the same weight. For stride 1 that is a convolution with the kernel
reversed and its channel axes swapped, which runtimes do faster. For larger strides it is one such convolution for each
phase of the input, or ConvTranspose.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any

import numpy as np
from onnx import NodeProto

from onnxlrp.graph.build import Builder, One, Symbol, Value
from onnxlrp.graph.facts import attributes
from onnxlrp.layers.phases import Phase, by_phases, side_by_side
from onnxlrp.layers.registry import Inputs, Linear, defines, layer_name, refuse
from onnxlrp.layers.window import Axis, outer, windows, with_padding

# A strided convolution's adjoint is faster phase by phase than as ConvTranspose where it has so many channels, and so
# many products for each element that is put together: on ONNX Runtime's CPU up to 2.3 times in ResNet-50, and slower
# below (1 x 1 kernels with 512 outputs). With fewer channels the phases go side by side into one convolution: for
# ResNet-50's image as fast or up to 1.5 times, by machine, and for a single channel 5 times. So do the neighbours of a
# stride of 1: VGG-16's image takes 0.6 of the time with AVX-512. (Not of others: OpenVINO's CPU plugin is wrong where a
# convolution of one channel has a stride of 3 or more, and a single output along an axis.)
MANY, WORK = 16, 200


@defines("Conv")
def convolution(node: NodeProto, build: Builder) -> Linear:
    """A Conv whose weight does not depend on the image."""
    facts = build.facts
    if not facts.known(node.input[1]):
        raise refuse(node, "the shape of its weight is not known", "export with constant weights")
    weight_shape = [int(d) for d in facts.shape(node.input[1])]
    own = windows(node, build, kernel=weight_shape[2:])
    nodes, source, axes = with_padding(node, build, own, lambda value: not np.any(value))
    x, w, z = (build.tensor(name) for name in (source, node.input[1], node.output[0]))
    b = build.tensor(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    groups = int(attributes(node).get("group", 1))
    channels = facts.shape(node.input[0])[1]
    if channels != weight_shape[1] * groups:
        reason = f"its input has {channels} channels, its weight {weight_shape} takes {weight_shape[1] * groups}"
        raise refuse(node, reason, "correct --input-shape, or export the model again")
    conv = Convolution(build, axes, weight_shape[0], weight_shape[1] * groups, groups)
    return Linear(
        name=layer_name(node), kind="convolution", nodes=nodes,
        inputs=(source,), output=node.output[0], x=(x,), w=w, b=b, z=z, apply=conv.apply, transpose=conv.transpose,
        transposes=conv.transposes, transpose_sum=conv.transpose_sum if any(a.stride > 1 for a in axes) else None,
        outputs=weight_shape[0], out_axis=0, in_axis=1 if groups == 1 else None,
        alike=groups == 1, pads=any(a.before or a.after for a in axes),
    )  # fmt: skip


class Convolution:
    """The linear map of a convolution and its adjoint, as nodes."""

    def __init__(self, build: Builder, axes: Sequence[Axis], outputs: int, inputs: int, groups: int) -> None:
        self.build, self.axes, self.groups = build, axes, groups
        self.outputs, self.inputs = outputs, inputs
        self.sizes = [a.size for a in axes]

    def apply(self, xs: Inputs, w: Symbol, b: Symbol) -> Symbol:
        """A(w) x + b: [N, inputs, *sizes] -> [N, outputs, *outs], size 1 where all channels or samples are equal."""
        (x,) = xs
        if x is None or w is None:
            return b if b is None else self._channelwise(b)
        if isinstance(w, One):
            return self.build.add(self._window_sums(x), self._channelwise(b))
        if isinstance(x, One):
            x = self.build.broadcast(self.build.constant(1.0, w), (1, self.inputs, *self.sizes))
        assert isinstance(x, Value) and isinstance(w, Value)
        if self.groups == 1 and len(self.axes) == 2 and x.repeats is not None and x.repeats.size <= self.inputs:
            return self.build.add(self._level(x.repeats, w), self._channelwise(b))
        bias = b if not isinstance(b, One) else self.build.constant(np.ones(self.outputs), w)
        return self.build.op("Conv", x, w, *([bias] if bias else []), step="z", **self._attributes(self.groups))

    def _channelwise(self, b: Symbol) -> Symbol:
        """A bias [outputs] as [1, outputs, 1, …], or a single one where all outputs have the same."""
        if isinstance(b, Value) and b.array is not None and np.all(b.array == b.array.flat[0]):
            return self.build.constant(b.array.flat[0], b)
        return self.build.reshape(b, (1, self.outputs, *[1] * len(self.axes))) if isinstance(b, Value) else b

    def _level(self, values: np.ndarray, w: Value) -> Value:
        """A(w) x where x is level, one value a channel: w summed over each window's taps that lie inside the input.
        Runtimes fold it when they load the model, and OpenCV refuses a convolution of a constant."""
        build, x = self.build, self.build.constant(values, w)
        taps = build.op("ReduceSum", build.op("Mul", w, x), build.integers([1]), keepdims=0, step="taps")
        rows, columns = (build.constant(a.inside(), w) for a in self.axes)
        sums = build.op("MatMul", build.op("MatMul", rows, taps), build.op("Transpose", columns, perm=[1, 0]))
        return build.op("Unsqueeze", sums, build.integers([0]), step="level")

    def _window_sums(self, x: Symbol) -> Symbol:
        """A(1) x: the sum of each window over all its group's channels."""
        build = self.build
        if isinstance(x, One):
            counts = [
                a.count(0, a.size) * (self.inputs // self.groups if i == 0 else 1.0) for i, a in enumerate(self.axes)
            ]
            return outer(build, counts, build.constant(1.0))
        assert isinstance(x, Value)
        sums = self._over_groups(x, self.inputs, self.sizes)
        z = build.op("Conv", sums, self._ones(x, self.groups), **self._attributes(self.groups))
        return self._each(z, self.outputs, [a.out for a in self.axes])

    def transpose(self, s: Value, w: Symbol) -> Inputs:
        """A(w)ᵀ s: [N, outputs, *outs] -> [N, inputs, *sizes], size 1 where all channels are equal. With w = ONE
        and one group, s may be summed over its channels."""
        if w is None:
            return (None,)
        if not isinstance(w, One):
            return self.transpose_sum([(s, w)])
        outs = [a.out for a in self.axes]
        summed = self.groups == 1 and self.build.is_whole(s, ("N", 1, *outs))
        sums = s if summed else self._over_groups(s, self.outputs, outs)
        spread = transposed(
            self.build, [(sums, self._ones(s, self.groups))], self.axes, self.groups, self.groups, self.groups
        )
        return (self._each(spread, self.inputs, self.sizes),)

    def transpose_sum(self, pairs: Sequence[tuple[Value, Value]]) -> Inputs:
        """Σ A(w)ᵀ s of several s and w, summed before a stride's phases are put together."""
        c = transposed(self.build, pairs, self.axes, self.outputs, self.inputs, self.groups)
        return (self.build.whole(c, ("N", self.inputs, *self.sizes)),)

    def transposes(self, s: Value, ws: Sequence[Symbol]) -> Sequence[Inputs] | None:
        """`transpose` for several weights: as one convolution, side by side as its channels, where those are few and
        leave most of what a runtime computes at once unused. None where they do not."""
        build, weights = self.build, [w for w in ws if isinstance(w, Value)]
        together = self.inputs * len(ws)
        if len(ws) < 2 or len(weights) < len(ws) or self.groups > 1 or together >= MANY:
            return None
        stacked = build.op("Concat", *weights, axis=1, step="w")
        c = transposed(build, [(s, stacked)], self.axes, self.outputs, together, 1)
        return [
            (build.whole(build.slice(c, 1, k, k + self.inputs), ("N", self.inputs, *self.sizes)),)
            for k in range(0, together, self.inputs)
        ]

    def _over_groups(self, a: Value, channels: int, spatial: Sequence[int]) -> Value:
        """The sum over the channels of each group: [N, channels, *spatial] -> [N, groups, *spatial]."""
        build = self.build
        if channels == self.groups:
            return a
        if self.groups == 1:
            return build.op("ReduceSum", a, build.integers([1]), keepdims=1, step="sum")
        split = build.op("Reshape", a, build.integers([0, self.groups, channels // self.groups, *spatial]))
        return build.op("ReduceSum", split, build.integers([2]), keepdims=0, step="sum")

    def _each(self, a: Value, channels: int, spatial: Sequence[int]) -> Value:
        """Every group's channel repeated for the channels of that group; a single one broadcasts by itself."""
        if self.groups in (1, channels):
            return a
        build, per = self.build, channels // self.groups
        split = build.op("Reshape", a, build.integers([0, self.groups, 1, *spatial]))
        wide = build.op("Expand", split, build.integers([1, self.groups, per, *spatial]))
        return build.op("Reshape", wide, build.integers([0, channels, *spatial]))

    def _ones(self, like: Value, channels: int) -> Value:
        return self.build.constant(np.ones([channels, 1, *(a.kernel for a in self.axes)]), like)

    def _attributes(self, groups: int) -> dict[str, Any]:
        return {
            "kernel_shape": [a.kernel for a in self.axes],
            "strides": [a.stride for a in self.axes],
            "dilations": [a.dilation for a in self.axes],
            "pads": [a.before for a in self.axes] + [a.after for a in self.axes],
            "group": groups,
        }


def transposed(
    build: Builder, pairs: Sequence[tuple[Value, Value]], axes: Sequence[Axis], outputs: int, inputs: int, groups: int
) -> Value:
    """Σ A(w)ᵀ s, the adjoints of convolutions with weights w [outputs, inputs / groups, *kernel]: s [N, outputs, *outs]
    -> [N, inputs, *sizes]."""
    every_s, every_w = zip(*pairs, strict=True)

    def summed(parts: Iterable[Value]) -> Value:
        return reduce(lambda a, b: build.op("Add", a, b, step="c"), parts)

    def convolved(ws: Sequence[Value], windows: Sequence[Phase], channels: int) -> Value:
        kernel = [p.taps for p in windows]
        return summed(
            build.op(
                "Conv", s, flipped(build, w, kernel, outputs, channels, groups), step="c", kernel_shape=kernel,
                strides=[p.stride for p in windows], dilations=[a.dilation for a in axes],
                pads=[*(p.before for p in windows), *(p.after for p in windows)], group=groups,
            )
            for s, w in zip(every_s, ws, strict=True)
        )  # fmt: skip

    stride = math.prod(a.stride for a in axes)
    work = len(pairs) * outputs * math.prod(a.kernel / a.stride for a in axes)
    if build.exact and groups == 1 and inputs < MANY and (stride > 1 or (work >= WORK and len(axes) == 2)):
        spread = side_by_side(build, every_w, axes, inputs, convolved, stride if stride > 1 else MANY // inputs)
        if spread is not None:
            return spread
    if build.exact and all(a.stride == 1 and a.before < a.extent and a.overhang < a.extent for a in axes):
        whole = [Phase(0, a.kernel, a.extent - 1 - a.before, a.extent - 1 - a.overhang) for a in axes]
        return convolved(every_w, whole, inputs)
    if build.exact and groups == 1 and ((inputs >= MANY and work >= WORK) or outputs == inputs):
        spread = by_phases(build, every_w, axes, inputs, convolved)
        if spread is not None:
            return spread
    return summed(_conv_transpose(build, s, w, axes, outputs, inputs, groups) for s, w in pairs)


def _conv_transpose(
    build: Builder, s: Value, w: Value, axes: Sequence[Axis], outputs: int, inputs: int, groups: int
) -> Value:
    """`transposed` as ConvTranspose with symmetric pads and an output_padding below the stride, the form that every
    runtime gets right."""
    if groups == 1 and outputs == inputs:
        # OpenVINO's CPU plugin is silently wrong where one weight of this shape serves both Conv and ConvTranspose. (A
        # small one is folded into the same constant again: `transposed` takes phases instead.)
        w = build.op("Neg", build.op("Neg", w))
    symmetric = all(a.before == a.after and 0 <= a.before - a.overhang < a.stride for a in axes)
    pads = [a.before if symmetric else 0 for a in axes]
    missing = [a.size + (2 if symmetric else 1) * a.before - a.reach for a in axes]
    spread = build.op(
        "ConvTranspose", s, w, step="c", kernel_shape=[a.kernel for a in axes], strides=[a.stride for a in axes],
        dilations=[a.dilation for a in axes], pads=pads * 2,
        output_padding=[min(max(m, 0), a.stride - 1) for a, m in zip(axes, missing, strict=True)], group=groups,
    )  # fmt: skip
    return spread if symmetric else _cropped(build, spread, axes)


def _cropped(build: Builder, spread: Value, axes: Sequence[Axis]) -> Value:
    """From all positions that windows reach to those of the input: padding cut off, unread elements zero."""
    for i, a in enumerate(axes):
        have = a.reach + min(max(a.size + a.before - a.reach, 0), a.stride - 1)
        short = a.before + a.size - have
        spread = build.pad(spread, 2 + i, 0, max(short, 0), 2 + len(axes))
        if a.before or short < 0:
            spread = build.slice(spread, 2 + i, a.before, a.before + a.size)
    return spread


def flipped(build: Builder, w: Value, kernel: Sequence[int], outputs: int, inputs: int, groups: int) -> Value:
    """The weight of the adjoint: [outputs, inputs / groups, *k] -> [inputs, outputs / groups, *k], kernel reversed."""
    rank = len(kernel)
    if inputs > groups or outputs > groups:
        if groups > 1:
            w = build.op("Reshape", w, build.integers([groups, outputs // groups, inputs // groups, *kernel]))
            w = build.op("Transpose", w, perm=[0, 2, 1, *range(3, 3 + rank)])
            w = build.op("Reshape", w, build.integers([inputs, outputs // groups, *kernel]))
        else:
            w = build.op("Transpose", w, perm=[1, 0, *range(2, 2 + rank)])
    turned = [i for i, k in enumerate(kernel) if k > 1]
    if not turned:
        return w
    limits = ([-1] * len(turned), [-kernel[i] - 1 for i in turned], [2 + i for i in turned], [-1] * len(turned))
    return build.op("Slice", w, *(build.integers(v) for v in limits), step="flip")

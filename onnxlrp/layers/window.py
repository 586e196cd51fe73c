"""The geometry that convolutions and poolings share: a window sliding along each spatial axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
from onnx import NodeProto

from onnxlrp.graph.build import Builder, Value
from onnxlrp.graph.facts import attributes
from onnxlrp.layers.registry import refuse


@dataclass(frozen=True)
class Axis:
    """One spatial axis: `size` input elements, `out` windows of `kernel` taps, `before`/`after` padded elements.

    Tap i of window o reads input element stride·o + dilation·i - before.
    """

    size: int
    out: int
    kernel: int
    stride: int = 1
    dilation: int = 1
    before: int = 0
    after: int = 0

    @property
    def extent(self) -> int:
        """Input elements from a window's first tap to its last, both counted."""
        return self.dilation * (self.kernel - 1) + 1

    @property
    def reach(self) -> int:
        """Padded input elements up to the last window's last tap."""
        return self.stride * (self.out - 1) + self.extent

    @property
    def overhang(self) -> int:
        """How far the last window reaches past the input's end; negative where it stops short of it."""
        return self.reach - self.before - self.size

    def inside(self, low: int = 0, high: int | None = None) -> np.ndarray:
        """[windows, taps]: whether each tap reads an element in [low, high), by default one of the input."""
        reads = self.stride * np.arange(self.out)[:, None] + self.dilation * np.arange(self.kernel) - self.before
        return (reads >= low) & (reads < (self.size if high is None else high))

    def count(self, low: int, high: int) -> np.ndarray:
        """Per window, how many of its taps read elements in [low, high)."""
        return self.inside(low, high).sum(1)


def windows(node: NodeProto, build: Builder, kernel: Sequence[int] | None = None) -> tuple[Axis, ...]:
    """The axes of a Conv or pooling node, auto_pad and ceil_mode resolved to numbers."""
    facts, given = build.facts, attributes(node)
    sizes, outs = facts.shape(node.input[0])[2:], facts.shape(node.output[0])[2:]
    if not all(isinstance(d, int) for d in (*sizes, *outs)):
        reason = f"its spatial size {sizes} -> {outs} is not known before the model runs"
        raise refuse(node, reason, "fix the input's size with --input-shape")
    rank = len(sizes)
    kernels = [int(k) for k in kernel or given["kernel_shape"]]
    strides, dilations = given.get("strides") or [1] * rank, given.get("dilations") or [1] * rank
    axes = [
        Axis(int(n), int(o), k, s, d) for n, o, k, s, d in zip(sizes, outs, kernels, strides, dilations, strict=True)
    ]
    mode, pads = given.get("auto_pad", "NOTSET"), given.get("pads") or [0] * 2 * rank
    if mode == "NOTSET":
        return tuple(replace(a, before=pads[i], after=pads[rank + i]) for i, a in enumerate(axes))
    return tuple(a if mode == "VALID" else same(a, mode) for a in axes)


def same(a: Axis, mode: str) -> Axis:
    """The axis with the padding of auto_pad SAME_UPPER or SAME_LOWER: an odd element goes to the end or the start."""
    total = max(a.overhang, 0)
    less, more = total // 2, total - total // 2
    return replace(a, before=less, after=more) if mode == "SAME_UPPER" else replace(a, before=more, after=less)


def with_padding(
    node: NodeProto, build: Builder, axes: tuple[Axis, ...], own: Callable[[np.ndarray], bool]
) -> tuple[tuple[NodeProto, ...], str, tuple[Axis, ...]]:
    """The nodes that act as one with a Conv or pooling node, the tensor they read, and the axes over that one's
    elements: a Pad before it is its padding where the value that it adds is its `own`."""
    pad = build.facts.model.producer.get(node.input[0])
    added = _around(pad, build, len(axes), own) if pad is not None else None
    if pad is None or added is None:
        return (node,), node.input[0], axes
    wider = (
        replace(a, size=a.size - start - end, before=a.before + start, after=a.after + end)
        for a, (start, end) in zip(axes, added, strict=True)
    )
    return (pad, node), pad.input[0], tuple(wider)


def _around(
    node: NodeProto, build: Builder, rank: int, own: Callable[[np.ndarray], bool]
) -> list[tuple[int, int]] | None:
    """How many elements a Pad adds before and after each of `rank` spatial axes; None where it is no such node, adds
    another value, or does anything else."""
    facts = build.facts
    if node.op_type != "Pad" or attributes(node).get("mode", "constant") != "constant":
        return None
    value, amounts = value_added(node, build), facts.value(node.input[1])
    stated = len(node.input) > 3 and bool(node.input[3])
    axes = facts.value(node.input[3]) if stated else np.arange(rank + 2)
    if amounts is None or axes is None or value is None or not own(value):
        return None
    where = [int(a) % (rank + 2) for a in axes]
    half = len(amounts) // 2
    pads = {axis: (int(amounts[k]), int(amounts[half + k])) for k, axis in enumerate(where)}
    if min(map(min, pads.values()), default=0) < 0 or any(pads.get(axis, (0, 0)) != (0, 0) for axis in (0, 1)):
        return None
    return [pads.get(2 + i, (0, 0)) for i in range(rank)]


def value_added(pad: NodeProto, build: Builder) -> np.ndarray | None:
    """The value that a Pad adds, zero unless it says otherwise; None where it is not known before the model runs."""
    stated = len(pad.input) > 2 and bool(pad.input[2])
    return build.facts.value(pad.input[2]) if stated else np.zeros([])


def outer(build: Builder, vectors: Sequence[np.ndarray], like: Value) -> Value:
    """The outer product of one vector an axis, [1, 1, *axes]: small constants multiplied when the model loads."""
    rank = len(vectors)
    shaped = [
        build.constant(v.reshape([1, 1, *(-1 if i == k else 1 for i in range(rank))]), like)
        for k, v in enumerate(vectors)
    ]
    return reduce(lambda a, b: build.op("Mul", a, b, step="count"), shaped)

"""1 where a sum of neighbouring elements of a channel is above zero, else 0: a convolution of each channel by itself,
with weights so large that cutting its result at 0 and 1 makes a step of it.

ONNX Runtime computes that in the memory layout of its convolutions, in one node; what compares or rounds it has put in
order first. float16 has no such weights. Where a provider is told to round what convolutions read (TF32, bfloat16),
elements that it makes equal are equal here, as in the convolutions that made them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxlrp.graph.blocks import fills_blocks
from onnxlrp.graph.build import Builder, Value
from onnxlrp.graph.facts import Shape


def in_blocks(build: Builder, a: Value, shape: Shape) -> Value:
    """`a`, of `shape`, in the layout of convolutions where steps are computed there: a pooling of single elements leads
    into it, and changes nothing. From opset 22 on CUDA has none."""
    if build.is_blocked(a) or not channels_of_steps(build, a, shape) or build.facts.model.opset >= 22:
        return a
    return build.op("MaxPool", a, kernel_shape=[1, 1], strides=[1, 1], step="blocks")


def channels_of_steps(build: Builder, x: Value, shape: Shape) -> int:
    """The channels of x where steps of it are computed like this; else 0."""
    there = build.exact and build.dialect.steps == "steep" and fills_blocks(x.element_type, shape)
    return int(shape[1]) if there else 0


def step(build: Builder, x: Value, weight: np.ndarray, channels: int, called: str, **geometry: Any) -> Value:
    """1 where Σ weight · x is 1 or more, 0 where it is 0 or less, that sum between. `weight` has the axes of a window;
    `geometry` are a convolution's strides, dilations and pads."""
    each = build.constant(np.tile(weight, (channels, 1, *[1] * weight.ndim)), x)
    large = build.op("Conv", x, each, kernel_shape=list(weight.shape), group=channels, step="steep", **geometry)
    return build.mark_blocked(build.op("Clip", large, build.constant(0.0, x), build.constant(1.0, x), step=called))

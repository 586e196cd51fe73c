"""1 where an element, or a sum of neighbours in a channel, is above zero, else 0: a convolution of each channel by
itself, with weights so large that cutting its result at 0 and 1 makes a step of it.

ONNX Runtime computes that in the memory layout of its convolutions, in a node or two; what compares or rounds it has
put in order first. float16 has no such weights. Where a provider is told to round what convolutions read (TF32,
bfloat16), elements that it makes equal are equal here, as in the convolutions that made them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxlrp.graph.blocks import fills_blocks
from onnxlrp.graph.build import Builder, Value
from onnxlrp.graph.facts import Shape

STEEP = 2.0**96


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


def step(build: Builder, x: Value, channels: int, called: str) -> Value:
    """1 from x = 2⁻⁹⁶ ≈ 1e-29 on, and where 2⁹⁶·x is infinite; 0 where x is 0 or less, 2⁹⁶·x between."""
    large = _by_channel(build, x, np.full([1, 1], STEEP), channels, step="steep")
    return build.mark_blocked(build.op("Clip", large, build.constant(0.0, x), build.constant(1.0, x), step=called))


def exceeds(build: Builder, x: Value, weight: np.ndarray, channels: int, called: str, **geometry: Any) -> Value:
    """The step of Σ weight · x. `weight` has the axes of a window; `geometry` are a convolution's strides, dilations
    and pads. Weights that were large themselves would make a difference of infinities of two large x."""
    difference = _by_channel(build, x, weight, channels, step="difference", **geometry)
    return step(build, build.op("Relu", difference, step="excess"), channels, called)


def _by_channel(build: Builder, x: Value, weight: np.ndarray, channels: int, **given: Any) -> Value:
    each = build.constant(np.tile(weight, (channels, 1, *[1] * weight.ndim)), x)
    return build.op("Conv", x, each, kernel_shape=list(weight.shape), group=channels, **given)

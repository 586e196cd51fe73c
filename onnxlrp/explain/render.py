"""Pictures drawn by the graph: relevance becomes colours, alone or over the picture it explains, as `look` has it.

All of it is standard operators on maps [M, H, W], one for each sample and target. What is not plain arithmetic is the
percentile q at which the scale ends. With the n values that are not zero sorted downwards, it lies at the place
p = (n - 1) · (1 - q), between two of the largest few, which TopK finds; max(0, 1 - |i - p|) are the weights of the line
between the two.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from onnx import TensorProto

from onnxlrp import look
from onnxlrp.graph.build import Builder, Value

RENDER: Mapping[str, str] = {
    "heatmap": "relevance in colour",
    "overlay": "relevance in colour over the picture in grey",
}
HALF = look.ENTRIES // 2
GREY = (19595.0, 38470.0, 7471.0)  # Rec. 601 in 1/65536, rounded as Pillow rounds: exact in float32


def heatmap(build: Builder, maps: Value, size: tuple[int, int], cmap: str) -> Value:
    """Relevance [M, H, W] as colours, uint8 [M, H, W, 3]."""
    colours = _coloured(build, normalised(build, maps, size), cmap)
    return build.op("Cast", colours, to=TensorProto.UINT8)


def overlay(build: Builder, maps: Value, pixels: Value, size: tuple[int, int], cmap: str) -> Value:
    """Relevance [M, H, W] over `pixels` [M, H, W, 3] (0 to 255, whole numbers), uint8 [M, H, W, 3]."""
    values = normalised(build, _softened(build, normalised(build, maps, size), size), size)
    one = build.constant(1.0)
    strength = (
        build.op("Abs", values)
        if look.is_diverging(cmap)
        else build.op("Clip", values, build.constant(0.0), one, step="strength")
    )
    hue = build.add(build.scale(look.HUE_SPAN, strength), build.constant(look.HUE_FROM))
    colours = _coloured(build, build.op("Mul", build.sign(values), build.tensor_of(hue, values)), cmap)
    power = build.op("Pow", strength, build.constant(look.COVER_POWER))
    cover = build.op("Unsqueeze", build.tensor_of(build.scale(look.COVER, power), values), build.integers([-1]))
    under = build.op("Mul", _grey(build, pixels), build.op("Sub", one, cover))
    mixed = build.op("Add", under, build.op("Mul", colours, cover))
    return build.op("Cast", build.op("Round", mixed), to=TensorProto.UINT8)


def normalised(build: Builder, maps: Value, size: tuple[int, int]) -> Value:
    """[M, H, W] in -1..1: divided by the percentile of its strength; zeros stay zeros."""
    count = size[0] * size[1]
    tail = 1.0 - look.PERCENTILE / 100.0
    strength = build.op("Reshape", build.op("Abs", maps), build.integers([-1, count]), step="strength")
    some = build.op("Cast", build.op("Greater", strength, build.constant(0.0)), to=TensorProto.FLOAT)
    known = build.op("ReduceSum", some, build.integers([1]), keepdims=1, step="count")
    place = build.op("Mul", build.op("Relu", build.op("Sub", known, build.constant(1.0))), build.constant(tail))
    most = min(count, math.floor((count - 1) * tail) + 2)
    largest = build.ops("TopK", strength, build.integers([most]), outputs=2, axis=1)[0]
    away = build.op("Abs", build.op("Sub", build.constant(np.arange(most)), place))
    weight = build.op("Relu", build.op("Sub", build.constant(1.0), away), step="weight")
    limit = build.op("ReduceSum", build.op("Mul", largest, weight), build.integers([1]), keepdims=1, step="limit")
    empty = build.op("Cast", build.op("Equal", limit, build.constant(0.0)), to=TensorProto.FLOAT)
    limit = build.op("Unsqueeze", build.op("Add", limit, empty), build.integers([2]))
    return build.op("Clip", build.op("Div", maps, limit), build.constant(-1.0), build.constant(1.0), step="normalised")


def _softened(build: Builder, values: Value, size: tuple[int, int]) -> Value:
    """[M, H, W] under a Gaussian, along one side and then the other."""
    weights = look.gaussian(*size)
    reach = len(weights) // 2
    planes = build.op("Unsqueeze", values, build.integers([1]))
    for shape, pads in (((1, 1, -1, 1), [reach, 0, reach, 0]), ((1, 1, 1, -1), [0, reach, 0, reach])):
        planes = build.op("Conv", planes, build.constant(weights.reshape(shape)), pads=pads, step="softened")
    return build.op("Squeeze", planes, build.integers([1]))


def _coloured(build: Builder, values: Value, cmap: str) -> Value:
    """The colours [M, H, W, 3] of values in -1..1, as floats from 0 to 255."""
    places = build.op("Add", build.op("Round", build.op("Mul", values, build.constant(HALF))), build.constant(HALF))
    table = build.constant(look.table(cmap))
    return build.op("Gather", table, build.op("Cast", places, to=TensorProto.INT32), axis=0, step="colours")


def _grey(build: Builder, pixels: Value) -> Value:
    """[M, H, W, 3] to grey [M, H, W, 1], in whole numbers."""
    weighed = build.op("Mul", pixels, build.constant(GREY))
    total = build.op("ReduceSum", weighed, build.integers([3]), keepdims=1, step="grey")
    shifted = build.op("Add", total, build.constant(32768.0))
    return build.op("Floor", build.op("Mul", shifted, build.constant(1 / 65536)))

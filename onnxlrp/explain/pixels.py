"""From pixels to the image input and back, inside the graph.

With pixels as the input, uint8 [N, H, W, 3] in RGB as every picture decoder gives them, nodes before the classifier's
own compute its image: the pre-processing of the metadata, (pixel / scale - mean) / std, as arithmetic. Relevance goes
the way back: transposed, its colours in the pixels' order; that of a grey image is divided among red, green and blue
by their part in its luminance.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from onnx import NodeProto, TensorProto

from onnxlrp import contract
from onnxlrp.errors import Problem
from onnxlrp.graph.build import Builder, Value, export
from onnxlrp.graph.facts import Facts, Shape
from onnxlrp.graph.tidy import tidy

COLOURS = 3
SAY = "say how pictures become the input, for example with --preprocess imagenet"


@dataclass(frozen=True)
class Entrance:
    """The nodes and constants that make the image out of pixels, and the shape [N, H, W, 3] of those."""

    nodes: list[NodeProto]
    constants: list[TensorProto]
    shape: Shape


def problems(shape: Shape, way: contract.Preprocessing | None, option: str) -> list[Problem]:
    """Why pixels and the image input cannot be turned into each other."""
    if way is None:
        return [Problem(option, "the pre-processing is not known", SAY)]
    if len(shape) != 4:
        return [Problem(option, f"the input has {len(shape)} axes, a batch of pictures has 4", "leave it out")]
    channels = shape[_channel_axis(way)]
    if channels not in (1, COLOURS):
        return [Problem(option, f"the input has {channels} channels, a picture has 1 or 3", "leave it out")]
    return []


def entrance(facts: Facts, way: contract.Preprocessing) -> Entrance:
    """What makes the classifier's image input, under its own name, out of pixels."""
    shape = facts.shape(facts.image)
    build = Builder(facts)
    pixels = Value(contract.PIXELS, TensorProto.UINT8)
    with build.scope("preprocessing", "pixels to the image input"):
        image = build.op("Cast", pixels, to=TensorProto.FLOAT)
        if way.color_order == "L":
            luminance = build.op("Mul", image, build.constant(contract.LUMINANCE))
            image = build.op("ReduceSum", luminance, build.integers([3]), keepdims=1, step="luminance")
        elif way.color_order == "BGR":
            image = build.op("Gather", image, build.integers([2, 1, 0]), axis=3, step="bgr")
        scaled = build.div(image, build.constant(way.scale))
        shifted = build.sub(scaled, build.constant(np.array(way.mean)))
        normal = build.tensor_of(build.div(shifted, build.constant(np.array(way.std))), image)
        if way.layout == "NCHW":
            normal = build.op("Transpose", normal, perm=[0, 3, 1, 2])
        if (element_type := facts.element_type(facts.image)) != TensorProto.FLOAT:
            normal = build.op("Cast", normal, to=element_type)
    build.output(normal, facts.image)
    graph, constants, notes = build.finish([facts.image])
    nodes = export(tidy(graph), notes)
    used = {name for node in nodes for name in node.input}
    height, width = (d for i, d in enumerate(shape) if i not in (0, _channel_axis(way)))
    kept = [tensor for name, tensor in constants.items() if name in used]
    return Entrance(nodes, kept, (shape[0], height, width, COLOURS))


def after(way: contract.Preprocessing) -> contract.Preprocessing:
    """What is left to do for a host that feeds pixels: resize, no more."""
    return replace(way, mean=(0.0,), std=(1.0,), color_order="RGB", layout="NHWC", scale=1.0)


def to_pixels(build: Builder, relevance: Value, way: contract.Preprocessing, ahead: int) -> Value:
    """Relevance of the image as that of the pixels: [N, (K,) H, W, 3]. `ahead` counts the axes before the image's."""
    last = ahead + 2
    if way.layout == "NCHW":
        relevance = build.op("Transpose", relevance, perm=[*range(ahead), ahead + 1, last, ahead])
    if way.color_order == "L":
        return build.op("Mul", relevance, build.constant(contract.LUMINANCE, relevance), step="colours")
    if way.color_order == "BGR":
        return build.op("Gather", relevance, build.integers([2, 1, 0]), axis=last, step="rgb")
    return relevance


def to_picture(build: Builder, image: Value, way: contract.Preprocessing) -> Value:
    """The image as pixels again, [N, H, W, 3] in RGB, whole numbers from 0 to 255 in float32."""
    if image.element_type != TensorProto.FLOAT:
        image = build.op("Cast", image, to=TensorProto.FLOAT)
    if way.layout == "NCHW":
        image = build.op("Transpose", image, perm=[0, 2, 3, 1])
    moved = build.add(build.op("Mul", image, build.constant(np.array(way.std))), build.constant(np.array(way.mean)))
    scaled = build.tensor_of(build.scale(way.scale, moved), image)
    whole = build.op("Round", build.op("Clip", scaled, build.constant(0.0), build.constant(255.0)), step="pixels")
    if way.color_order == "BGR":
        return build.op("Gather", whole, build.integers([2, 1, 0]), axis=3, step="rgb")
    return build.op("Concat", whole, whole, whole, axis=3) if way.color_order == "L" else whole


def _channel_axis(way: contract.Preprocessing) -> int:
    return 1 if way.layout == "NCHW" else 3

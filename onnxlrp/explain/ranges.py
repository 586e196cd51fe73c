"""Between which values a layer's input lies, when it is the image, or the image moved and scaled on its way there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from onnxlrp.graph.build import ONE, Symbol, Value
from onnxlrp.layers.registry import Diagonal, Layer, Routing

Range = tuple[tuple[float, ...], tuple[float, ...]]
KEEPS_CHANNELS = frozenset({"Identity", "Cast", "Dropout", "Transpose", "Pad"})


def input_range(name: str, layers: Sequence[Layer], image: str, bounds: Range) -> Range | Layer:
    """The lowest and highest values of the tensor `name`, one or one a channel, given the `bounds` of the image; else
    the layer that keeps them from being known."""
    producers = {layer.output: layer for layer in layers}
    return _range(name, producers, image, bounds)


def _range(name: str, producers: Mapping[str, Layer], image: str, bounds: Range) -> Range | Layer:
    if name == image:
        return bounds
    layer = producers[name]
    before = _range(layer.inputs[0], producers, image, bounds)
    if isinstance(before, Layer):
        return before
    if isinstance(layer, Routing) and len(layer.inputs) == 1:
        return before if len(before[0]) == 1 or KEEPS_CHANNELS.issuperset(layer.op_types) else layer
    if not isinstance(layer, Diagonal) or not layer.mergeable:
        return layer
    factor, shift = _numbers(layer.factor), _numbers(layer.shift)
    if factor is None or shift is None:
        return layer
    ends = [np.atleast_1d(factor * np.array(end) + shift) for end in before]
    low, high = np.minimum(*ends), np.maximum(*ends)
    return tuple(map(float, low)), tuple(map(float, high))


def _numbers(v: Symbol) -> np.ndarray | None:
    """A symbol's values in a row; None where they are not known."""
    if isinstance(v, Value):
        return None if v.array is None else np.asarray(v.array, np.float64).reshape(-1)
    return np.ones(1) if v is ONE else np.zeros(1)

"""The sheets of a case: relevance at every tapped layer, and the channels of each layer that matter most."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from onnxlrp.look import DEFAULT
from onnxlrp.run.drawing import Heading, printed
from onnxlrp.run.explaining import Case
from onnxlrp.run.heatmap import as_map
from onnxlrp.run.sheet import Row, Tile, channel_sheet, contact_sheet

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Layer:
    """A tapped tensor of a case, with the names of those right behind it that hold the very same relevance."""

    names: tuple[str, ...]
    values: Array

    @property
    def title(self) -> str:
        """The first name, and the last word of the others."""
        return " + ".join([self.names[0], *(name.rpartition("/")[2] for name in self.names[1:])])

    @property
    def channels(self) -> Array | None:
        """[C, …], channels first; None for a single value a pixel, and for tokens."""
        if self.values.ndim == 1:
            return self.values
        if self.values.ndim < 3:
            return None
        return np.moveaxis(self.values, -1, 0) if _channels_last(self.values.shape) else self.values

    def most_relevant(self, count: int) -> list[tuple[int, float]]:
        """The `count` channels with the largest |relevance|, each with its share of Σ|relevance of a channel|, signed;
        no more than have any."""
        if self.channels is None:
            return []
        sums = self.channels.reshape(len(self.channels), -1).sum(axis=1, dtype=np.float64)
        total = float(np.abs(sums).sum())
        order = np.argsort(-np.abs(sums), kind="stable")[:count]
        return [(int(c), float(sums[c] / total)) for c in order if sums[c] != 0]


def layers_of(case: Case) -> list[Layer]:
    """The tapped layers in the model's order; one that hands on the relevance of the one before is one with it."""
    found: list[Layer] = []
    for name, values in case.taps.items():
        short, values = _short(name), values.reshape(-1) if _is_vector(values.shape) else values
        if found and np.array_equal(found[-1].values, values):
            found[-1] = Layer((*found[-1].names, short), values)
        else:
            found.append(Layer((short,), values))
    return found


def _short(name: str) -> str:
    """A tensor's name without what torch and TensorFlow hang on, and without the parents that a module's name repeats
    (`/layer1/layer1.0/conv1/Conv_output_0`)."""
    return re.sub(r"/([^/]+)/(?=\1\.)", "/", name.removesuffix("_output_0").removesuffix(":0"))


def _is_vector(shape: tuple[int, ...]) -> bool:
    """Channels of a single pixel."""
    return len(shape) > 1 and max(shape) == np.prod(shape)


def draw_layers(case: Case, layout: str, heading: Heading, cmap: str = DEFAULT) -> Image.Image:
    """The picture, its relevance and that of every tapped layer, each on its own scale.

    The scores are left out where all relevance is that of one class: it starts there, which the heading says.
    """
    tiles = [Tile("image", case.shown, " × ".join(map(str, case.shown.shape[1::-1])) + " pixels")]
    tiles.append(Tile("relevance", as_map(case.relevance, layout), _note(case.relevance)))
    for layer in layers_of(case):
        if layer.values.shape == case.scores.shape and np.count_nonzero(layer.values) == 1:
            continue
        flat = layer.values.ndim == 1
        values = layer.values if flat else as_map(layer.values, _layout(layer.values.shape))
        tiles.append(Tile(layer.title, values, _note(layer.values)))
    return contact_sheet(tiles, heading, cmap)


def draw_channels(case: Case, heading: Heading, count: int, cmap: str = DEFAULT) -> Image.Image:
    """The `count` most relevant channels of every tapped layer that has channels with pixels."""
    return channel_sheet(list(_rows(layers_of(case), count)), heading, cmap)


def most_relevant_channels(case: Case, count: int) -> dict[str, list[dict[str, float]]]:
    """{layer: its most relevant channels, each with its share}, ready for JSON."""
    return {
        layer.names[0]: [{"channel": c, "share": share} for c, share in layer.most_relevant(count)]
        for layer in layers_of(case)
        if layer.channels is not None
    }


def _rows(layers: Sequence[Layer], count: int) -> Iterator[Row]:
    for layer in layers:
        channels = layer.channels
        if channels is None or channels.ndim != 3 or len(channels) == 1:
            continue
        tiles = [
            Tile(f"channel {c}", channels[c], f"{printed(f'{100 * share:+.0f}')} %")
            for c, share in layer.most_relevant(count)
        ]
        yield Row(layer.title, _note(layer.values), Tile("all channels", channels.sum(axis=0)), tiles)


def _note(values: Array) -> str:
    """The shape and the sum."""
    return f"{' × '.join(map(str, values.shape))}    sum {printed(f'{values.sum(dtype=np.float64):+#.3g}')}"


def _layout(shape: tuple[int, ...]) -> str:
    return "NHWC" if _channels_last(shape) else "NCHW"


def _channels_last(shape: tuple[int, ...]) -> bool:
    """ONNX puts channels first; a graph exported from TensorFlow keeps some tensors with channels last."""
    return len(shape) == 3 and shape[0] == shape[1] != shape[2]

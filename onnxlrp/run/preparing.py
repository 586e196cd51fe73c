"""From a picture to the classifier's input: size, channels, layout and scale, as the model says or as it is guessed.

The choice is made once per model (`fit`), where it can be checked against the input's declared shape; then each picture
only follows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from onnxlrp.contract import LUMINANCE, PREPROCESS_PRESETS, ColorOrder, Layout, Preprocessing, told_layout
from onnxlrp.errors import OnnxLrpError, Problem
from onnxlrp.run.images import Picture, resized

GUESS = "unit"
GUESS_WARNING = (
    "the model does not say how pictures are prepared for it: pixels are scaled to 0..1, which is a guess. "
    f"Say it with --preprocess {'|'.join(PREPROCESS_PRESETS)}, or convert with --mean, --std and --size."
)

USE_PYTHON = "use the Python API: Explainer.explain takes any array"

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class Prepared:
    """`values` is one input without batch axis ([C, H, W] or [H, W, C]); `shown` uint8 [H, W, 3] what it looks like."""

    values: npt.NDArray[np.float32]
    shown: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Fitted:
    """A pre-processing that fits a model: `channels` is 1 or 3, and mean and std have one value or `channels`.

    `doubt` is what the user should be told where it is not the one that the model states, else "".
    """

    preprocessing: Preprocessing
    channels: int
    doubt: str = ""

    def __call__(self, picture: Picture) -> Prepared:
        """Resize, order the colours, scale and normalise one picture."""
        way = self.preprocessing
        pixels = picture.pixels if way.size is None else resized(picture.pixels, way.size)
        planes = _with_channels(pixels, self.channels)
        if way.color_order == "BGR":
            planes = planes[..., ::-1]
        mean, std = np.array(way.mean, np.float32), np.array(way.std, np.float32)
        values = (planes / np.float32(way.scale) - mean) / std
        if way.layout == "NCHW":
            values = np.moveaxis(values, 2, 0)
        return Prepared(np.ascontiguousarray(values, np.float32), Picture(picture.path, pixels).rgb)

    def level(self, pixel: float) -> npt.NDArray[np.float32]:
        """What a grey pixel (0 black, 255 white) becomes: [C, 1, 1] or [1, 1, C], to be spread over an input."""
        way = self.preprocessing
        grey = np.full(self.channels, pixel / way.scale, np.float32)
        values = (grey - np.array(way.mean, np.float32)) / np.array(way.std, np.float32)
        return values.astype(np.float32).reshape((-1, 1, 1) if way.layout == "NCHW" else (1, 1, -1))


def fit(shape: Shape, stated: Preprocessing | None, override: str | None = None) -> Fitted:
    """How pictures become an input of `shape` (batch first, None where free).

    `stated` is what the model says of itself; `override` names a preset that goes before it (but keeps its size and
    layout). With neither, pixels are scaled to 0..1. Raises `OnnxLrpError` where the shape is no picture's or does not
    fit the pre-processing.
    """
    if len(shape) != 4:
        reason = f"has {len(shape)} axes, a batch of pictures has 4"
        raise OnnxLrpError(Problem("the model's input", reason, USE_PYTHON))
    way = _chosen(stated, override)
    layout = told_layout(shape) or (stated.layout if stated else way.layout)
    if stated and override is None and layout != stated.layout:
        reason = f"is {_text(shape)}, which does not fit the stated layout {stated.layout}"
        raise OnnxLrpError(Problem("the model's input", reason, f"convert it with --layout {layout}"))
    height, width, declared = (shape[2], shape[3], shape[1]) if layout == "NCHW" else shape[1:]
    channels = declared or (1 if way.color_order == "L" else 3)
    if channels not in (1, 3):
        reason = f"has {channels} channels, a picture has 1 or 3"
        raise OnnxLrpError(Problem("the model's input", reason, USE_PYTHON))
    for name, values in (("mean", way.mean), ("std", way.std)):
        if len(values) not in (1, channels):
            reason = f"has {len(values)} values of {name} for an input with {_count(channels)}"
            remedy = f"choose another --preprocess, or convert with --{name} for {_count(channels)}"
            raise OnnxLrpError(Problem("the pre-processing", reason, remedy))
    size = _size((height, width), way.size or (stated.size if stated else None))
    chosen = replace(way, layout=layout, size=size, color_order=_color_order(way, channels))
    return Fitted(chosen, channels, _doubt(stated, override, chosen, channels))


def _doubt(stated: Preprocessing | None, override: str | None, chosen: Preprocessing, channels: int) -> str:
    """What there is to be told of the pre-processing `chosen`; "" where the model states it."""
    if stated is None:
        return "" if override else GUESS_WARNING
    if _numbers(stated, channels) == _numbers(chosen, channels):
        return ""
    return f"the model states another pre-processing, which --preprocess {override} goes before."


def _numbers(way: Preprocessing, channels: int) -> tuple[object, ...]:
    """What becomes of each channel of a pixel, in one form for all ways to write it."""
    each = (values * channels if len(values) == 1 else values for values in (way.mean, way.std))
    return (_color_order(way, channels), way.scale, *each)


def _color_order(way: Preprocessing, channels: int) -> ColorOrder:
    """That of an input with 1 or 3 channels."""
    if channels == 1:
        return "L"
    return "RGB" if way.color_order == "L" else way.color_order


def _chosen(stated: Preprocessing | None, override: str | None) -> Preprocessing:
    if override is None:
        return stated or PREPROCESS_PRESETS[GUESS]
    return _preset(PREPROCESS_PRESETS, override)


def _preset(presets: Mapping[str, Preprocessing], name: str) -> Preprocessing:
    if name not in presets:
        raise OnnxLrpError(Problem(f"preprocess {name!r}", "unknown", f"choose one of {', '.join(presets)}"))
    return presets[name]


def layout_of(shape: Shape, stated: Preprocessing | None = None) -> Layout:
    """Where an input's channels are: as its shape gives away, else as the model says (`stated`), else first."""
    return told_layout(shape) or (stated.layout if stated else "NCHW")


def _size(declared: tuple[int | None, int | None], stated: tuple[int, int] | None) -> tuple[int, int] | None:
    """(H, W) to resize to, or None where any size will do."""
    height, width = declared
    if stated is None:
        if (height is None) != (width is None):
            reason = f"fixes only one side of a picture ({height or 'any'} x {width or 'any'})"
            raise OnnxLrpError(Problem("the model's input", reason, "convert it with --size H,W"))
        return (height, width) if height and width else None
    if any(d is not None and d != s for d, s in zip(declared, stated, strict=True)):
        reason = f"asks for {stated[0]} x {stated[1]} pixels, the model takes {height or 'any'} x {width or 'any'}"
        raise OnnxLrpError(Problem("the pre-processing", reason, "convert it with the right --size"))
    return stated


def _with_channels(pixels: npt.NDArray[np.float32], channels: int) -> npt.NDArray[np.float32]:
    """[H, W, channels]: colours become luminance for a grey model, grey is repeated for a colour model."""
    if pixels.ndim == 2:
        return np.repeat(pixels[..., None], channels, axis=2)
    return pixels if channels == 3 else (pixels @ np.array(LUMINANCE, np.float32))[..., None]


def _count(channels: int) -> str:
    return "1 channel" if channels == 1 else f"{channels} channels"


def _text(shape: Shape) -> str:
    return "[" + ", ".join("N" if i == 0 else str(s or "any") for i, s in enumerate(shape)) + "]"

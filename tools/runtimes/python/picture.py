"""From a picture to the explainer's input, and from relevance to a heatmap: what a host does around the explainer.

The explainer's metadata says how pictures are prepared. Several of the runtimes here do not show it, so it is read
from the file itself: `metadata_props` are field 14 of an ONNX model, pairs of strings.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

ANCHORS = np.array(
    [(11, 42, 120), (63, 123, 224), (169, 205, 251), (255, 255, 255), (255, 184, 166), (232, 65, 58), (125, 7, 22)]
)  # colours from relevance -1 over 0 to 1, evenly spaced
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # what a grey model sees of colours
PERCENTILE = 99.8  # of |R|: the relevance that gets the last colour


def levels(path: Path) -> np.ndarray:
    """float32 [H, W] (grey) or [H, W, 3] (RGB), 0..255, as `onnxlrp run` reads a picture: grey of sixteen bits keeps
    its fractions, and what is transparent is laid over white."""
    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode.startswith("I"):
        return np.asarray(image).astype(np.float32) * np.float32(255 / 65535)
    mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return np.asarray(image.convert(mode), np.float32)


def prepare(path: Path, way: dict) -> np.ndarray:
    """[1, C, H, W] or [1, H, W, C] float32: size, colours, scale and normalisation as the explainer says."""
    pixels = levels(path)
    height, width = pixels.shape[:2]
    if way["size"] and (height, width) != tuple(way["size"]):
        raise SystemExit(f"{path}: is {width} x {height} pixels, not {way['size'][1]} x {way['size'][0]}; resize it")
    if way["color_order"] == "L":
        pixels = (pixels if pixels.ndim == 2 else pixels @ LUMINANCE)[..., None]
    elif pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    if way["color_order"] == "BGR":
        pixels = pixels[..., ::-1]
    mean, std = np.array(way["mean"], np.float32), np.array(way["std"], np.float32)
    values = (pixels / np.float32(way["scale"]) - mean) / std
    return np.ascontiguousarray((values if way["layout"] == "NHWC" else values.transpose(2, 0, 1))[None])


def draw(relevance: np.ndarray, layout: str) -> np.ndarray:
    """uint8 [H, W, 3]: relevance summed over channels, blue below zero, white at it, red above; both on one scale."""
    values = relevance.astype(np.float64).sum(2 if layout == "NHWC" else 0)
    strength = np.abs(values[values != 0])
    limit = np.percentile(strength, PERCENTILE) if strength.size else 1.0
    steps = np.rint(np.clip(values / limit, -1, 1) * 128).astype(int) + 128  # 257 colours, the middle one is zero
    places = np.arange(257) * (len(ANCHORS) - 1) / 256
    table = np.stack([np.interp(places, np.arange(len(ANCHORS)), ANCHORS[:, c]) for c in range(3)], 1)
    return np.rint(table).astype(np.uint8)[steps]


def save(pixels: np.ndarray, path: Path) -> None:
    """Write uint8 [H, W, 3] as a picture."""
    Image.fromarray(pixels).save(path)


def metadata(path: Path) -> dict[str, str]:
    """The key-value pairs that an ONNX file carries, read without any library."""
    pairs = (dict(_fields(value)) for number, value in _fields(path.read_bytes()) if number == 14)
    return {bytes(pair[1]).decode(): bytes(pair.get(2, b"")).decode() for pair in pairs}


def ports(path: Path) -> tuple[list[str], list[str]]:
    """The names of a model's inputs and outputs, in order: fields 11 and 12 of the graph, which is field 7."""
    graph = next(list(_fields(value)) for number, value in _fields(path.read_bytes()) if number == 7)
    named = [(number, bytes(dict(_fields(value))[1]).decode()) for number, value in graph if number in (11, 12)]
    return [name for number, name in named if number == 11], [name for number, name in named if number == 12]


def _fields(data: bytes | memoryview) -> Iterator[tuple[int, memoryview]]:
    """The length-delimited fields of a protobuf message: their numbers and contents. Others are skipped."""
    data, place = memoryview(data), 0

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = data[place]
            place += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while place < len(data):
        key = varint()
        if key & 7 == 2:
            size = varint()
            yield key >> 3, data[place : place + size]
            place += size
        elif key & 7 == 0:
            varint()
        else:
            place += 8 if key & 7 == 1 else 4

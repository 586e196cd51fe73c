"""From a picture to the explainer's input, and from relevance to a heatmap: what a host does around the explainer.

The explainer's metadata says how pictures are prepared. Several of the runtimes here do not show it, so it is read
from the file itself: `metadata_props` are field 14 of an ONNX model, pairs of strings.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

ANCHORS = np.array(
    [(11, 42, 120), (63, 123, 224), (169, 205, 251), (255, 255, 255), (255, 184, 166), (232, 65, 58), (125, 7, 22)]
)  # colours from relevance -1 over 0 to 1, evenly spaced
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # what a grey model sees of colours
PERCENTILE = 99.8  # of |R|: the relevance that gets the last colour
DTYPES = {1: "float32", 2: "uint8", 7: "int64", 10: "float16", 11: "float64"}  # ONNX's numbers
CONTRACT = "1"  # what these programs know of explainers


class Refusal(Exception):
    """What cannot be done: the thing, the reason and the remedy in one line."""

    def __init__(self, thing: object, reason: str, remedy: str) -> None:
        super().__init__(f"{thing}: {reason}; {remedy}")


def levels(path: Path) -> np.ndarray:
    """float32 [H, W] (grey) or [H, W, 3] (RGB), 0..255, as `onnxlrp run` reads a picture: grey of sixteen bits keeps
    its fractions, and what is transparent is laid over white. Raises `Refusal` for what is no picture."""
    try:
        image = ImageOps.exif_transpose(Image.open(path))
    except Exception as error:  # of many types: each format has its own
        raise Refusal(
            path, f"cannot be read as a picture ({why(error)})", "check the path, or save it as PNG"
        ) from error
    if image.mode.startswith("I"):
        return np.asarray(image).astype(np.float32) * np.float32(255 / 65535)
    mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return np.asarray(image.convert(mode), np.float32)


def prepare(path: Path, way: dict, shape: tuple[int, ...]) -> np.ndarray:
    """[C, H, W] or [H, W, C] float32 for an input of `shape` (batch first, 0 where free): size, colours, scale and
    normalisation as the explainer says. Raises `Refusal` for a picture of another size."""
    pixels = levels(path)
    rows, columns, channels = shape[1:] if way["layout"] == "NHWC" else (*shape[2:], shape[1])
    size = way["size"] or (rows or pixels.shape[0], columns or pixels.shape[1])
    if pixels.shape[:2] != tuple(size):
        reason = f"has {pixels.shape[1]} x {pixels.shape[0]} pixels, the explainer takes {size[1]} x {size[0]}"
        raise Refusal(path, reason, "resize it")
    if channels == 1:
        pixels = (pixels if pixels.ndim == 2 else pixels @ LUMINANCE)[..., None]
    elif pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    if way["color_order"] == "BGR":
        pixels = pixels[..., ::-1]
    mean, std = np.array(way["mean"], np.float32), np.array(way["std"], np.float32)
    values = (pixels / np.float32(way["scale"]) - mean) / std
    return values if way["layout"] == "NHWC" else values.transpose(2, 0, 1)


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
    """Write uint8 [H, W, 3] as a PNG; raises `Refusal` where that cannot be."""
    try:
        Image.fromarray(pixels).save(path, format="PNG")
    except OSError as error:
        raise Refusal(path, f"cannot be written ({why(error)})", "check the folder and its permissions") from error


def why(error: Exception) -> str:
    """What an error says, in one line that does not fill the screen."""
    return " ".join(str(getattr(error, "strerror", None) or error or repr(error)).split())[:300]


def metadata(path: Path) -> dict[str, str]:
    """What an explainer says of itself, read from its file without any library; raises `Refusal` for another file."""
    try:
        pairs = [dict(_fields(value)) for number, value in _fields(path.read_bytes()) if number == 14]
        known = {bytes(pair[1]).decode(): bytes(pair.get(2, b"")).decode() for pair in pairs}
    except OSError as error:
        raise Refusal(path, f"cannot be read ({why(error)})", "check the path") from error
    except (IndexError, KeyError, ValueError):  # no ONNX file, or not the whole of one
        known = {}
    if (version := known.get("onnxlrp.contract")) is None:
        raise Refusal(path, "is no explainer, or is cut off", "make one with onnxlrp convert MODEL --preprocess NAME")
    if version != CONTRACT:
        remedy = "take the program that came with the onnxlrp that wrote it"
        raise Refusal(path, f"was written for contract {version}, this program knows {CONTRACT}", remedy)
    return known


def stated(path: Path, known: dict[str, str], key: str) -> Any:
    """What an explainer says in JSON, None where it is silent; raises `Refusal` for what is no JSON."""
    try:
        return json.loads(known[key]) if key in known else None
    except ValueError as error:
        raise Refusal(path, f"its metadata {key} is no JSON", "convert the classifier again") from error


class Port(NamedTuple):
    """An input or output: its name, its type, and its shape with 0 for what is free."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]


def ports(path: Path) -> tuple[list[Port], list[Port]]:
    """A model's inputs and outputs, in order: fields 11 and 12 of the graph, which is field 7."""
    graph = next(list(_fields(value)) for number, value in _fields(path.read_bytes()) if number == 7)
    return [_port(value) for number, value in graph if number == 11], [_port(v) for n, v in graph if n == 12]


def _port(data: memoryview) -> Port:
    """What a ValueInfoProto says: the name (1) and the type (2), of a tensor (1), with element type (1) and shape (2),
    whose dimensions (1) have a number (1) where they are fixed."""
    value = dict(_fields(data))
    tensor = dict(_fields(dict(_fields(value[2]))[1]))
    shape = tuple(dict(_fields(dim)).get(1, 0) for _, dim in _fields(tensor.get(2, b"")))
    return Port(bytes(value[1]).decode(), np.dtype(DTYPES[tensor[1]]), shape)


def _fields(data: bytes | memoryview) -> Iterator[tuple[int, Any]]:
    """The fields of a protobuf message: their numbers, and their contents or whole numbers. Others are skipped."""
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
            yield key >> 3, varint()
        else:
            place += 8 if key & 7 == 1 else 4

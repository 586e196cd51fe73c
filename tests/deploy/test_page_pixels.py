"""The page's own decoding, resizing and normalisation against Pillow's and onnxlrp's, number for number.

Without resizing they are exactly equal. Resizing rounds to float32 between rows and columns: the page does rows
first, Pillow 13 for some sizes columns, and then the last bit of a float differs.
"""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import Browser, Page
from PIL import Image

from onnxlrp.contract import LUMINANCE, PREPROCESS_PRESETS, Preprocessing
from onnxlrp.run.images import read_picture
from onnxlrp.run.preparing import fit

Array = np.ndarray[Any, Any]
DRAW = np.random.default_rng(5)
LAST_BIT = 4e-7  # of the largest value that an input can have: a few roundings of a float32


def noise(*shape: int, top: int = 256) -> Array:
    """Random whole numbers, so that no two ways of rounding agree by chance."""
    return DRAW.integers(0, top, shape)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The image as a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def desk(browser: Browser, exported: Path) -> Page:
    """A tab with the page's scripts, which is not otherwise used."""
    tab = Page(browser)
    tab.open(exported.joinpath("index.html").as_uri())
    return tab


def of(mode: str, *shape: int) -> Image.Image:
    """A random image of 37 x 23 in a mode of Pillow's."""
    return Image.fromarray(noise(23, 37, *shape).astype(np.uint8), mode)


def paletted() -> Image.Image:
    """A random image of 37 x 23 with a palette of 16 colours."""
    image = Image.fromarray(noise(23, 37, top=16).astype(np.uint8), "P")
    image.putpalette(noise(48).tolist())
    return image


def interlaced(samples: Array) -> bytes:
    """A grey PNG of 16 bits whose rows come in Adam7's passes, which Pillow reads but does not write."""
    rows = b""
    for left, top, across, down in ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)):  # fmt: skip # noqa: E501
        part = samples[top::down, left::across].astype(">u2")
        rows += b"".join(b"\0" + row.tobytes() for row in part if part.size)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], 16, 0, 0, 0, 1)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def prepared(desk: Page, data: bytes, name: str, way: dict[str, Any]) -> tuple[Array, Array]:
    """What the page makes of a picture's bytes: the values of the input, and what is shown of it [H, W, 4]."""
    script = f"""(async () => {{
      const bytes = Uint8Array.from(atob("{base64.b64encode(data).decode()}"), (c) => c.charCodeAt(0));
      const picture = await onnxlrp.pictures.read(new Blob([bytes]), {json.dumps(name)});
      const made = onnxlrp.preparing.prepare(picture, {json.dumps(way)});
      return [[...made.values], [...made.shown]];
    }})()"""
    values, shown = desk.run(script)
    height, width = way["size"]
    return np.array(values, np.float64), np.array(shown, np.uint8).reshape(height, width, 4)


def compare(
    desk: Page, data: bytes, name: str, folder: Path, stated: Preprocessing, channels: int
) -> tuple[Array, Array]:
    """How far the page is from `onnxlrp run`: the values, of the largest possible; what is shown, in levels."""
    path = folder / name
    path.write_bytes(data)
    height, width = stated.size or (0, 0)
    shape = (None, channels, height, width) if stated.layout == "NCHW" else (None, height, width, channels)
    fitted = fit(shape, stated)
    made = fitted(read_picture(path))
    chosen = fitted.preprocessing
    way = {k: getattr(chosen, k) for k in ("size", "mean", "std", "scale", "color_order", "layout")}
    values, shown = prepared(desk, data, name, {**way, "channels": fitted.channels, "luminance": LUMINANCE})
    expected = made.values.astype(np.float64).reshape(-1)
    assert values.shape == expected.shape
    apart = np.abs(values - expected) / max(abs(v) for bound in chosen.bounds() for v in bound)
    return apart, np.abs(shown[..., :3].astype(int) - made.shown.astype(int))


PNGS = {
    "1 bit": lambda: encoded(Image.fromarray(noise(23, 37, top=2).astype(bool))),
    "grey": lambda: encoded(of("L")),
    "grey, transparent": lambda: encoded(of("LA", 2)),
    "grey, one value transparent": lambda: encoded(of("L"), transparency=7),
    "palette of 4 bits": lambda: encoded(paletted(), bits=4),
    "palette, transparent": lambda: encoded(paletted(), transparency=bytes(noise(16).astype(np.uint8))),
    "colour": lambda: encoded(of("RGB", 3)),
    "colour, transparent": lambda: encoded(of("RGBA", 4)),
    "grey of 16 bits": lambda: encoded(Image.fromarray(noise(23, 37, top=65536).astype(np.uint16))),
    "grey of 16 bits, interlaced": lambda: interlaced(noise(23, 37, top=65536)),
}


@pytest.mark.parametrize("kind", PNGS)
def test_every_png_is_read_to_the_last_bit(kind: str, desk: Page, tmp_path: Path) -> None:
    """What the model is fed and what is shown are exactly those of `onnxlrp run`."""
    stated = Preprocessing(size=(23, 37), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    apart, levels = compare(desk, PNGS[kind](), "picture.png", tmp_path, stated, 3)
    assert apart.max() == 0
    assert levels.max() == 0


WAYS = {
    "smaller": (Preprocessing(size=(224, 224)), 3),
    "larger": (Preprocessing(size=(330, 410)), 3),
    "one side larger": (Preprocessing(size=(40, 300)), 3),
    "the same": (Preprocessing(size=(301, 260)), 3),
    "imagenet": (Preprocessing(**{**PREPROCESS_PRESETS["imagenet"].__dict__, "size": (64, 64)}), 3),
    "caffe, channels last": (
        Preprocessing(**{**PREPROCESS_PRESETS["caffe"].__dict__, "size": (64, 64), "layout": "NHWC"}),
        3,
    ),
    "grey": (Preprocessing(size=(64, 64), mean=(0.5,), std=(0.25,), color_order="L"), 1),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_preparation_is_that_of_run(way: str, desk: Page, tmp_path: Path) -> None:
    """Pillow's resampling in float32, the colours' order, the layout and the scale; luminance to a rounding."""
    stated, channels = WAYS[way]
    image = encoded(Image.fromarray(noise(301, 260, 3).astype(np.uint8)))
    apart, levels = compare(desk, image, "picture.png", tmp_path, stated, channels)
    exact = way == "the same"
    assert apart.max() <= (0 if exact else LAST_BIT)
    assert levels.max() <= (0 if exact else 1)
    assert (levels > 0).mean() < 1e-4  # a value beside a half


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF", "BMP"])
def test_other_formats_are_read_by_the_browser(kind: str, desk: Page, tmp_path: Path) -> None:
    """Lossless ones exactly; JPEG as the browser's decoder rounds it, close to Pillow's."""
    ramp = np.add.outer(np.arange(120), np.arange(160)) % 256
    image = Image.fromarray(np.stack([ramp, ramp[::-1], 255 - ramp], axis=2).astype(np.uint8))
    options = {"JPEG": {"quality": 90}, "WEBP": {"lossless": True}}.get(kind, {})
    data = encoded(image.quantize(64) if kind == "GIF" else image, kind, **options)
    apart, levels = compare(desk, data, f"picture.{kind.lower()}", tmp_path, Preprocessing(size=(60, 80)), 3)
    assert apart.max() <= (0.02 if kind == "JPEG" else LAST_BIT)
    assert levels.max() <= (4 if kind == "JPEG" else 1)


def test_a_turned_photograph_is_put_upright(desk: Page, tmp_path: Path) -> None:
    """EXIF's orientation is obeyed, as `onnxlrp run` does."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.linear_gradient("L").resize((64, 32)).convert("RGB"), "JPEG", exif=exif.tobytes(), quality=95)
    apart, _ = compare(desk, data, "turned.jpg", tmp_path, Preprocessing(size=(64, 32)), 3)
    assert apart.max() <= 0.02

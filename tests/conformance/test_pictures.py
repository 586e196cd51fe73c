"""A picture of any kind is the same picture to every host as to `onnxlrp run`.

Relevance is the input times a weight of random sign, and the heatmap's colours span a few grey levels around the middle
one: so the heatmap shows each value of the input, and a fraction of a level is seen.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import onnxlrp
from onnxlrp.contract import Preprocessing
from tests.conformance import hosts
from tests.explain.networks import network

HEIGHT, WIDTH = 48, 64
LINEAR = """
linear (float[N, CHANNELS, 48, 64] image, float[SIZE, 2] w, float[2] b) => (float[N, 2] logits) {
  [flatten] f = Flatten(image)
  [dense] logits = Gemm(f, w, b)
}"""
HOSTS = ("onnxruntime", "node", "cpp")  # one for each language; the hosts in Python share theirs
GREY, RGB, GREY_ALPHA, RGBA = 0, 2, 4, 6  # PNG's numbers


def _near(channels: int, seed: int = 0) -> np.ndarray:
    """Levels around the middle one."""
    return np.random.default_rng(seed).integers(124, 133, (HEIGHT, WIDTH, channels))


def _of(mode: str, *alpha: np.ndarray, **options: object) -> Callable[[Path], None]:
    """Saves a picture of eight bits in a mode of Pillow's."""
    samples = np.concatenate([_near(len(mode) - len(alpha)), *alpha], axis=2).astype(np.uint8)
    return lambda path: Image.fromarray(samples.squeeze(), mode).save(path, **options)


def _palette(**options: object) -> Callable[[Path], None]:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 16, (HEIGHT, WIDTH)).astype(np.uint8), "P")
    image.putpalette(_near(3).reshape(-1)[:48].tolist())
    return lambda path: image.save(path, **options)


def _bits(path: Path) -> None:
    Image.fromarray(np.random.default_rng(2).integers(0, 2, (HEIGHT, WIDTH)).astype(bool)).save(path)


def _sixteen(kind: int, *alpha: np.ndarray, clear: int | None = None) -> Callable[[Path], None]:
    """Saves a picture of sixteen bits, most kinds of which Pillow reads but does not write."""
    channels = {GREY: 1, RGB: 3, GREY_ALPHA: 1, RGBA: 3}[kind]
    noise = np.random.default_rng(3).integers(0, 257, (HEIGHT, WIDTH, channels))
    samples = np.concatenate([_near(channels) * 257 + noise - 128, *alpha], axis=2).astype(">u2")

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    def save(path: Path) -> None:
        parts = chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, kind, 0, 0, 0))
        if clear is not None:
            parts += chunk(b"tRNS", struct.pack(">H", samples.flat[clear]))
        parts += chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in samples)))
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts + chunk(b"IEND", b""))

    return save


# Little of what is transparent is seen over white, so most of it is nearly opaque.
ALPHA = np.random.default_rng(4).integers(251, 256, (HEIGHT, WIDTH, 1))
KINDS: Mapping[str, Callable[[Path], None]] = {
    "1 bit": _bits,
    "grey": _of("L"),
    "grey, transparent": _of("LA", ALPHA),
    "grey, one level transparent": _of("L", transparency=124),
    "colour": _of("RGB"),
    "colour, transparent": _of("RGBA", ALPHA),
    "colour with a gamma": lambda path: _with_gamma(path),
    "palette": _palette(bits=4),
    "palette, transparent": _palette(transparency=bytes(ALPHA.reshape(-1)[:16].tolist())),
    "grey of 16 bits": _sixteen(GREY),
    "grey of 16 bits, one level transparent": _sixteen(GREY, clear=7),
    "grey of 16 bits, transparent": _sixteen(GREY_ALPHA, ALPHA * 257),
    "colour of 16 bits": _sixteen(RGB),
    "colour of 16 bits, transparent": _sixteen(RGBA, ALPHA * 257),
}


def _with_gamma(path: Path) -> None:
    """A colour picture that says what its levels mean on a screen, which changes nothing for a classifier."""
    _of("RGB")(path)
    data = path.read_bytes()
    gamma = b"gAMA" + struct.pack(">I", 100000)
    chunk = struct.pack(">I", 4) + gamma + struct.pack(">I", zlib.crc32(gamma))
    path.write_bytes(data[:33] + chunk + data[33:])  # after the signature and IHDR


@pytest.fixture(scope="module")
def explainers(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """An explainer of grey pictures and one of colours, by their channels."""
    folder = tmp_path_factory.mktemp("linear")
    for channels in (1, 3):
        text = LINEAR.replace("CHANNELS", str(channels)).replace("SIZE", str(channels * HEIGHT * WIDTH))
        way = Preprocessing(mean=(128.0,), std=(4.0,), scale=1.0, color_order="L" if channels == 1 else "BGR")
        converted = onnxlrp.convert(network(text), composite="input_x_gradient", preprocess=way)
        converted.save(folder / f"{channels}.onnx")
    return {channels: folder / f"{channels}.onnx" for channels in (1, 3)}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("host", HOSTS)
def test_a_picture_is_read_as_onnxlrp_run_reads_it(
    host: str, kind: str, channels: int, explainers: dict[int, Path], tmp_path: Path
) -> None:
    picture = tmp_path / "picture.png"
    KINDS[kind](picture)
    said = hosts.heatmap(host, explainers[channels], picture, tmp_path / "host.png")
    own = hosts.own_heatmap(explainers[channels], picture, tmp_path / "own")
    hosts.assert_same(tmp_path / "host.png", own)
    assert own.stem.removeprefix("picture.").replace("-", " ") in said[-1]

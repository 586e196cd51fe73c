"""Pictures from disk: found, read with care, and turned into what a classifier takes.

A picture that would be misread is refused with the reason rather than guessed at: what the model sees must be what the
user sees. Grey pictures keep their 16 bits on the way to the model; transparency is laid over white, as viewers do.
"""

from __future__ import annotations

import contextlib
import glob
import struct
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from onnxlrp.errors import OnnxLrpError, Problem, raise_if_any

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".pgm", ".ppm", ".jp2", ".avif")
FULL_16_BIT = 65535.0

_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error, zlib.error)
_RESAVE = "save it again as an 8-bit or 16-bit PNG"


@dataclass(frozen=True)
class Picture:
    """A picture as read: `pixels` float32 [H, W] (grey) or [H, W, 3] (RGB), 0..255; 16-bit grey keeps its fractions.

    `frames` is how many its file holds, of which these are the first.
    """

    path: Path
    pixels: npt.NDArray[np.float32]
    frames: int = 1

    @property
    def rgb(self) -> npt.NDArray[np.uint8]:
        """uint8 [H, W, 3], for display."""
        colours = self.pixels if self.pixels.ndim == 3 else np.repeat(self.pixels[..., None], 3, axis=2)
        return np.asarray(np.clip(np.rint(colours), 0, 255).astype(np.uint8))


def find_images(places: Sequence[str | Path]) -> list[Path]:
    """The pictures at `places`, in order and without repeats.

    A place is a file (taken whatever its ending), a folder (its pictures by ending, sorted, not those of its
    sub-folders) or a glob pattern. Raises `OnnxLrpError` naming every place that gives no picture.
    """
    found: list[Path] = []
    problems: list[Problem] = []
    for place in places:
        try:
            here = _at_place(Path(place))
        except OSError as error:  # a name too long, a folder that may not be read
            here = Problem(str(place), f"cannot be read ({error.strerror})", "check the path")
        if isinstance(here, Problem):
            problems.append(here)
        else:
            found += here
    raise_if_any(problems)
    return list(dict.fromkeys(found))


def read_picture(path: str | Path) -> Picture:
    """Read any picture Pillow can, as grey where it is grey and else as RGB.

    EXIF rotation is applied; of several frames (an animation, a stack) the first is taken; palettes are resolved;
    transparent pixels are laid over white; CMYK becomes RGB; 16-bit grey is scaled by its full range (65535 becomes
    255). Raises `OnnxLrpError` where the file is no picture, is cut off, is far too large, or has pixels without a
    known range.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise OnnxLrpError(Problem(str(path), "is a folder", "name the pictures in it"))
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                opened.load()
                upright = ImageOps.exif_transpose(opened)
                return Picture(path, _pixels(upright, path), _frames(opened))
    except FileNotFoundError:
        raise OnnxLrpError(Problem(str(path), "there is no such file", "check the path")) from None
    except PermissionError as error:
        raise OnnxLrpError(Problem(str(path), "cannot be read (permission denied)", "check its permissions")) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        limit = (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000
        remedy = "cut it or make it smaller first"
        raise OnnxLrpError(Problem(str(path), f"has more than {limit} million pixels", remedy)) from error
    except _BROKEN as error:
        raise OnnxLrpError(_not_a_picture(path, error)) from error


def resized(pixels: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """`pixels` [H, W] or [H, W, 3] at `size` (H, W): bilinear with antialiasing, straight (no crop, ratio not kept)."""
    if pixels.shape[:2] == size:
        return pixels
    planes = pixels[..., None] if pixels.ndim == 2 else pixels
    height, width = size
    smaller = [
        np.asarray(Image.fromarray(np.ascontiguousarray(plane)).resize((width, height), Image.Resampling.BILINEAR))
        for plane in np.moveaxis(planes, 2, 0)
    ]
    return np.stack(smaller, axis=2).reshape(*size, *pixels.shape[2:]).astype(np.float32)


def _at_place(place: Path) -> list[Path] | Problem:
    """The pictures at one place, sorted, or why there are none."""
    if place.is_dir():
        inside = sorted(p for p in place.iterdir() if p.suffix.lower() in EXTENSIONS and p.is_file())
        remedy = f"it needs files that end in {', '.join(EXTENSIONS[:6])}, …"
        return inside or Problem(str(place), "holds no pictures", remedy)
    if place.exists():
        return [place]
    if glob.has_magic(str(place)):
        matches = sorted(Path(match) for match in glob.glob(str(place), recursive=True))
        files = [match for match in matches if match.is_file()]
        return files or Problem(str(place), "the pattern matches no file", "check the folder and the ending")
    return Problem(str(place), "there is no such file", "check the path")


def _pixels(image: Image.Image, path: Path) -> npt.NDArray[np.float32]:
    """float32 [H, W] or [H, W, 3] in 0..255 from an image in any mode."""
    sixteen_bits = image.mode.startswith("I;16") or (image.mode == "I" and path.suffix.lower() in (".png", ".pgm"))
    if sixteen_bits:
        return np.asarray(image).astype(np.float32) * np.float32(255.0 / FULL_16_BIT)
    if image.mode in ("I", "F"):
        kind = "32-bit integer" if image.mode == "I" else "floating-point"
        raise OnnxLrpError(Problem(str(path), f"has {kind} pixels, whose range is not known", _RESAVE))
    if image.has_transparency_data:
        image = _over_white(image)
    grey = image.mode in ("1", "L")
    return np.asarray(image.convert("L" if grey else "RGB")).astype(np.float32)


def _frames(image: Image.Image) -> int:
    """How many frames a file holds; 1 where they cannot be counted, for then only the first is whole."""
    if image.format == "MPO":  # a camera's JPEG: what follows are previews of the picture
        return 1
    with contextlib.suppress(*_BROKEN):
        return int(getattr(image, "n_frames", 1))
    return 1


def _over_white(image: Image.Image) -> Image.Image:
    """The image without its transparency, in L or RGB."""
    grey = image.mode in ("1", "L", "LA", "La")
    layered = image.convert("RGBA")
    page = Image.new("RGBA", layered.size, "white")
    page.alpha_composite(layered)
    return page.convert("L" if grey else "RGB")


def _not_a_picture(path: Path, error: Exception) -> Problem:
    """Why a file cannot be read as a picture, with the remedy for the formats doctors have."""
    try:
        with open(path, "rb") as file:
            head = file.read(132)
    except OSError as failure:
        return Problem(str(path), f"cannot be read ({failure.strerror})", "check the path")
    if not head:
        return Problem(str(path), "is empty (0 bytes)", "copy it again")
    if head[128:132] == b"DICM":
        return Problem(str(path), "is a DICOM file", "export its pixels, windowed, as a 16-bit grey PNG")
    if path.name.lower().endswith((".nii", ".nii.gz", ".mha", ".nrrd")):
        return Problem(str(path), "is a volume, not a picture", "export the slice as a 16-bit grey PNG")
    if isinstance(error, UnidentifiedImageError):
        return Problem(str(path), "is not a picture in a known format", "pass PNG, JPEG, TIFF, BMP, GIF or WebP")
    return Problem(str(path), f"is damaged or cut off ({_first_line(error)})", "copy it again, or " + _RESAVE)


def _first_line(error: Any) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]

"""Files that are whole or not there: written beside their place under another name, then moved onto it."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from onnxlrp.errors import OnnxLrpError, Problem, RunError


def write_atomic(path: str | Path, data: bytes) -> Path:
    """Write `data` to `path`, replacing what is there only once all of it is on the disk; returns `path`.

    Raises `RunError` (disk full, no permission) with nothing left behind.
    """
    path = Path(path)
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name[:32]}.", suffix=".part", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes files that only their owner can read
        os.replace(temporary, path)
    except OSError as error:
        reason = f"cannot be written ({error.strerror or error})"
        raise RunError(Problem(str(path), reason, "check the folder's permissions and free space")) from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
    return path


def output_folder(path: str | Path) -> Path:
    """The folder `path`, made where it is not there; raises `OnnxLrpError` where it cannot be a folder."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise OnnxLrpError(Problem(str(path), "is a file, not a folder", "choose another -o")) from None
    except OSError as error:
        raise OnnxLrpError(Problem(str(path), f"cannot be made ({error.strerror})", "choose another -o")) from error
    return path


def png(image: Image.Image) -> bytes:
    """The image as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")  # optimize=True costs a second for a percent
    return buffer.getvalue()


def npy(array: npt.NDArray[Any]) -> bytes:
    """The array as a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask

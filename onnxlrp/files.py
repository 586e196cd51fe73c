"""Files that are whole or not there.

Each is written beside its destination under a temporary name, brought to the disk, and moved into place when all of
them are there. What exists already is replaced only on request.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from onnxlrp.errors import OnnxLrpError, Problem, RunError

_UMASK = threading.Lock()

Write = Callable[[IO[bytes]], object]


def write_whole(path: str | Path, data: bytes) -> Path:
    """Write `data` to `path`, replacing what is there; returns `path`. Raises as `write_all` does."""
    (written,) = write_all([(Path(path), lambda file: file.write(data))])
    return written


def refuse_existing(path: Path, force: bool) -> None:
    """Raise `OnnxLrpError` where nothing can be written at `path`, or where something is that must not be replaced."""
    elsewhere = "write elsewhere with -o"
    try:
        if path.is_dir() or not path.name:
            raise OnnxLrpError(Problem(str(path), "is a folder", "name a file to write"))
        if path.exists() and not path.is_file():
            raise OnnxLrpError(Problem(str(path), "is a device or a pipe, not a file", elsewhere))
        if path.exists() and not force:
            remedy = "choose another name with -o, or replace it with --force"
            raise OnnxLrpError(Problem(str(path), "exists already", remedy))
        if _real(path).is_symlink():
            raise OnnxLrpError(Problem(str(path), "is a link that leads back to itself", elsewhere))
        parent = _real(path).parent
        if not parent.exists():
            raise OnnxLrpError(Problem(str(parent), "there is no such folder", f"create it, or {elsewhere}"))
        if not parent.is_dir():
            raise OnnxLrpError(Problem(str(parent), "is a file, not a folder", elsewhere))
    except OSError as error:  # a name too long, a folder that may not be entered, links in a circle
        raise OnnxLrpError(Problem(str(path), f"cannot be written ({error.strerror})", elsewhere)) from None


def write_all(files: Sequence[tuple[Path, Write]]) -> list[Path]:
    """Write every file, or none: each is filled under a temporary name beside its place, and all are moved at the end.

    Files that exist are replaced and keep their permissions. Returns the paths. Raises `OnnxLrpError` where a file
    cannot be created, `RunError` where writing fails; whatever is raised, no temporary file stays.
    """
    with contextlib.ExitStack() as stack:
        written = [(path, stack.enter_context(_temporary(_real(path), write))) for path, write in files]
        for path, partial in written:
            with _explained(path):
                partial.replace(_real(path))
        for folder in {_real(path).parent for path, _ in files}:
            _sync(folder)
    return [path for path, _ in files]


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


@contextlib.contextmanager
def _temporary(path: Path, write: Write) -> Iterator[Path]:
    """A file beside `path`, filled by `write` and safe on the disk; gone at the end unless it was moved away."""
    try:
        if path.is_dir():
            raise OnnxLrpError(Problem(str(path), "is a folder", "move it away, or write elsewhere with -o"))
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:32]}.", suffix=".part")
    except OSError as error:
        remedy = "check the folder's permissions, or write elsewhere with -o"
        raise OnnxLrpError(Problem(str(path), f"cannot be written ({error.strerror})", remedy)) from None
    try:
        with _explained(path):
            with os.fdopen(handle, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, _mode(path))
        yield Path(name)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(name)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """An `OSError` within it becomes a `RunError` about the file at `path`."""
    try:
        yield
    except OSError as error:
        remedy = "free some space, or write elsewhere with -o"
        raise RunError(Problem(str(path), f"cannot be written ({error.strerror or error})", remedy)) from None


def _real(path: Path) -> Path:
    """Where the file really is: a link is followed, so that it stays a link."""
    return Path(os.path.realpath(path)) if os.path.islink(path) else path


def _mode(path: Path) -> int:
    """The permissions of the file that is replaced, else those the user gives to new files (mkstemp gives fewer)."""
    if os.path.exists(path):
        return stat.S_IMODE(path.stat().st_mode)
    with _UMASK:  # it can only be read by setting it
        mask = os.umask(0)
        os.umask(mask)
    return 0o666 & ~mask


def _sync(folder: Path) -> None:
    """Bring the folder's entries to the disk, where the system can do that."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

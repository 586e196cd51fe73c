"""Writing a model: whole or not at all.

Files are written beside their destination under a temporary name, brought to the disk, and moved into place when all
of them are there. Weights go to the disk one by one (see `stream`), so that models over protobuf's 2 GB work.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from onnx import ModelProto, TensorProto

from onnxlrp.errors import OnnxLrpError, Problem, RunError
from onnxlrp.graph import stream, weights
from onnxlrp.graph.model import is_large, skeleton

LIMIT = 2_000_000_000  # bytes in one file; protobuf cannot hold 2^31
MOVED = 1 << 16  # bytes; a tensor above it goes to the second file where there are two
PAGE = 4096  # tensors start at its multiples, so that runtimes can map the file into memory

Write = Callable[[IO[bytes]], object]


def save(proto: ModelProto, path: str | os.PathLike[str], folder: Path | None, force: bool = False) -> list[Path]:
    """Write `proto` to `path` as one file, or with PATH.data beside it where the weights are too large for one.

    `folder` is where the proto's external data lies. Returns the files written. Raises `OnnxLrpError` where the file
    exists (unless `force`) or cannot be created, `RunError` where the disk is full. A link is followed: the file it
    points to is written.
    """
    target = Path(path)
    data = target.with_name(target.name + ".data")
    outside = weights.external(proto)
    size = _size(proto)
    two = size >= LIMIT
    for file in (target, data) if two else (target,):
        refuse_existing(file, force)
        _refuse_own_weights(file, outside, folder)
    if not two:
        return write_all([(target, lambda file: stream.write_model(proto, folder, file))])
    light, large = _divided(proto, data.name, folder)
    return write_all(
        [
            (data, lambda file: _write_weights(file, large, folder)),
            (target, lambda file: file.write(light.SerializeToString())),
        ]
    )[::-1]


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
        if not parent.is_dir():
            reason = "is a file, not a folder" if parent.exists() else "there is no such folder"
            raise OnnxLrpError(Problem(str(parent), reason, f"create it, or {elsewhere}"))
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


@contextlib.contextmanager
def _temporary(path: Path, write: Write) -> Iterator[Path]:
    """A file beside `path`, filled by `write` and safe on the disk; gone at the end unless it was moved away."""
    try:
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
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _mode(path: Path) -> int:
    """The permissions of the file that is replaced, else those the user gives to new files (mkstemp gives fewer)."""
    if path.exists():
        return stat.S_IMODE(path.stat().st_mode)
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


def _refuse_own_weights(path: Path, outside: Sequence[TensorProto], folder: Path | None) -> None:
    """Raise `OnnxLrpError` where `path` is a file that the model's weights are read from."""
    sources = {weights.place(t, folder).path for t in outside}
    if path.exists() and any(source.samefile(path) for source in sources):
        raise OnnxLrpError(Problem(str(path), "holds the classifier's weights", "choose another name with -o"))


def _size(proto: ModelProto) -> int:
    """The bytes of the model with all its weights."""
    initializers = [t for t in proto.graph.initializer if is_large(t)]
    elsewhere = [t for t in weights.in_nodes(proto) if weights.is_external(t)]
    return int(skeleton(proto).ByteSize()) + sum(map(weights.size, (*initializers, *elsewhere)))


def _divided(proto: ModelProto, location: str, folder: Path | None) -> tuple[ModelProto, list[TensorProto]]:
    """The model with its large initializers described as lying in the file `location`, and those initializers in the
    order in which they are to lie there. They are not copied."""
    light, large, end = stream.without_initializers(proto, folder), [], 0
    for tensor in proto.graph.initializer:
        size = weights.size(tensor)
        if not weights.is_external(tensor) and size <= MOVED:
            light.graph.initializer.append(tensor)
            continue
        start = _aligned(end)
        end = start + size
        entry = light.graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        entry.data_location = TensorProto.EXTERNAL
        for key, text in (("location", location), ("offset", str(start)), ("length", str(size))):
            entry.external_data.add(key=key, value=text)
        large.append(tensor)
    return light, large


def _aligned(position: int) -> int:
    return -(-position // PAGE) * PAGE


def _write_weights(out: IO[bytes], large: Sequence[TensorProto], folder: Path | None) -> None:
    """The tensors' values one after another, each from the start of a page."""
    for tensor in large:
        out.write(b"\0" * (_aligned(out.tell()) - out.tell()))
        stream.write_values(tensor, folder, out)

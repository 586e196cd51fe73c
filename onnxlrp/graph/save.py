"""Writing a model: whole or not at all.

Files are written beside their destination under a temporary name and moved into place at the end. Weights that already
lie in an external file are copied from disk to disk, never through memory, so that models over protobuf's 2 GB work.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from onnx import ModelProto, external_data_helper, numpy_helper

from onnxlrp.errors import OnnxLrpError, Problem, RunError
from onnxlrp.graph.model import external_tensors

LIMIT = 2_000_000_000  # bytes; protobuf cannot hold 2^31
CHUNK = 1 << 24


def save(proto: ModelProto, path: str | os.PathLike[str], folder: Path | None, force: bool = False) -> list[Path]:
    """Write `proto` to `path` as one file, or with PATH.data beside it where the weights are too large for one.

    `folder` is where the proto's external data lies. Returns the files written. Raises `OnnxLrpError` where the file
    exists (unless `force`) or cannot be created, `RunError` where the disk is full.
    """
    target = Path(path)
    refuse_existing(target, force)
    external = external_tensors(proto)
    inside = proto.ByteSize()
    outside = sum(_length(t) for t in external)
    if not external and inside < LIMIT:
        return [atomically(target, lambda partial: partial.write_bytes(proto.SerializeToString()))]
    if inside + outside < LIMIT:
        return [atomically(target, lambda partial: partial.write_bytes(_embedded(proto, folder).SerializeToString()))]
    data = target.with_name(target.name + ".data")
    refuse_existing(data, force)
    copy = ModelProto()
    copy.CopyFrom(proto)
    written = atomically(data, lambda partial: _pack(copy, folder, partial, data.name))
    try:
        return [atomically(target, lambda partial: partial.write_bytes(copy.SerializeToString())), written]
    except BaseException:
        data.unlink(missing_ok=True)
        raise


def refuse_existing(path: Path, force: bool) -> None:
    """Raise `OnnxLrpError` where something is at `path` that must not be replaced."""
    if path.is_dir():
        raise OnnxLrpError(Problem(str(path), "is a folder", "name a file to write"))
    if path.exists() and not force:
        raise OnnxLrpError(
            Problem(str(path), "exists already", "choose another name with -o, or replace it with --force")
        )


def atomically(path: Path, write: Callable[[Path], object]) -> Path:
    """Let `write` fill a temporary file in the folder of `path`, then move it there; leaves nothing where it fails."""
    if not path.parent.is_dir():
        raise OnnxLrpError(
            Problem(str(path.parent), "there is no such folder", "create it, or write elsewhere with -o")
        )
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    except OSError as error:
        reason = f"cannot be written ({error.strerror})"
        raise OnnxLrpError(
            Problem(str(path), reason, "check the folder's permissions, or write elsewhere with -o")
        ) from None
    os.close(handle)
    partial = Path(name)
    try:
        write(partial)
        partial.chmod(0o666 & ~_umask())
        partial.replace(path)
    except OSError as error:
        raise RunError(
            Problem(str(path), f"cannot be written ({error.strerror})", "free some space, or write elsewhere")
        ) from None
    finally:
        partial.unlink(missing_ok=True)
    return path


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _length(tensor: object) -> int:
    return external_data_helper.ExternalDataInfo(tensor).length or 0  # type: ignore[arg-type]


def _embedded(proto: ModelProto, folder: Path | None) -> ModelProto:
    """A copy of the model with its external tensors inside."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    external_data_helper.load_external_data_for_model(copy, str(folder or "."))
    return copy


def _pack(proto: ModelProto, folder: Path | None, partial: Path, location: str) -> None:
    """Copy all external and all large tensors into one file, and point `proto` to it."""
    with partial.open("wb") as out:
        for tensor in proto.graph.initializer:
            if not external_data_helper.uses_external_data(tensor) and tensor.ByteSize() < 1 << 20:
                continue
            out.seek(-(-out.tell() // 4096) * 4096)
            offset = out.tell()
            if external_data_helper.uses_external_data(tensor):
                info = external_data_helper.ExternalDataInfo(tensor)
                with ((folder or Path()) / info.location).open("rb") as source:
                    source.seek(info.offset or 0)
                    _copy(source, out, info.length)
            else:
                out.write(numpy_helper.to_array(tensor).tobytes())
                tensor.raw_data = b" "
            length = out.tell() - offset
            external_data_helper.set_external_data(tensor, location, offset, length)
            tensor.ClearField("raw_data")


def _copy(source, out, length: int | None) -> None:  # type: ignore[no-untyped-def]
    """Copy `length` bytes, or all that are left."""
    if length is None:
        shutil.copyfileobj(source, out, CHUNK)
        return
    while length > 0:
        chunk = source.read(min(CHUNK, length))
        if not chunk:
            raise OSError(5, "the weights' file ended early")
        out.write(chunk)
        length -= len(chunk)

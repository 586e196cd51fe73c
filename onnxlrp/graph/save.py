"""Writing a model: whole or not at all.

Weights go to the disk one by one (see `stream`), so that models over protobuf's 2 GB work.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from onnx import ModelProto, TensorProto

from onnxlrp.errors import OnnxLrpError, Problem
from onnxlrp.files import refuse_existing, write_all
from onnxlrp.graph import stream, weights
from onnxlrp.graph.model import is_large, skeleton

LIMIT = 2_000_000_000  # bytes in one file; protobuf cannot hold 2^31
MOVED = 1 << 16  # bytes; a tensor above it goes to the second file where there are two
PAGE = 4096  # tensors start at its multiples, so that runtimes can map the file into memory


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

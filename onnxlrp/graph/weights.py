"""The bytes of tensors, inside the model's file or in another one beside it.

Sizes follow from types and shapes: asking protobuf for them would serialise every weight once more.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from onnxlrp.errors import Problem

PACKED = {"UINT4": 4, "INT4": 4, "FLOAT4E2M1": 4, "UINT2": 2, "INT2": 2}  # bits an element
BITS = {number: PACKED[name] for name, number in TensorProto.DataType.items() if name in PACKED}
PIECE = 1 << 24  # bytes, of whole elements
OPAQUE = frozenset({TensorProto.STRING, TensorProto.UNDEFINED})  # types whose size does not follow from the shape


@dataclass(frozen=True)
class Place:
    """Where the values of an external tensor lie: bytes `offset` to `offset + length` of the file at `path`."""

    path: Path
    offset: int
    length: int


def tensors(proto: ModelProto) -> Iterator[TensorProto]:
    """Every tensor that may hold weights: initializers, and the values of nodes' attributes, those of subgraphs too."""
    yield from proto.graph.initializer
    yield from in_nodes(proto)


def in_nodes(proto: ModelProto) -> Iterator[TensorProto]:
    """The tensors that nodes' attributes hold, those of subgraphs and functions too."""
    for node in (*proto.graph.node, *(n for f in proto.functions for n in f.node)):
        yield from _of_node(node)


def _of_node(node: NodeProto) -> Iterator[TensorProto]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        for graph in (*((attribute.g,) if attribute.HasField("g") else ()), *attribute.graphs):
            yield from graph.initializer
            for inner in graph.node:
                yield from _of_node(inner)


def is_external(tensor: TensorProto) -> bool:
    """Whether the tensor's values lie in another file."""
    return tensor.data_location == TensorProto.EXTERNAL


def external(proto: ModelProto) -> list[TensorProto]:
    """The tensors whose values lie in other files."""
    return [t for t in tensors(proto) if is_external(t)]


def size(tensor: TensorProto) -> int:
    """How many bytes the tensor's values take."""
    if tensor.data_type in OPAQUE or tensor.data_type not in helper.get_all_tensor_dtypes():
        return int(tensor.ByteSize())
    bits = BITS.get(tensor.data_type) or 8 * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return -(-math.prod(tensor.dims) * bits // 8)


def place(tensor: TensorProto, folder: Path | None) -> Place:
    """Where an external tensor lies, for a model in `folder`; raises `ValueError` where its numbers are none."""
    said = {entry.key: entry.value for entry in tensor.external_data}
    offset, length = int(said.get("offset", 0)), int(said.get("length", size(tensor)))
    if offset < 0 or length < 0:
        raise ValueError(f"offset {offset}, length {length}")
    return Place((folder or Path()) / said.get("location", ""), offset, length)


def values(tensor: TensorProto, folder: Path | None) -> bytes:
    """The tensor's values as they lie in an external file: little-endian, packed."""
    if is_external(tensor):
        at = place(tensor, folder)
        with at.path.open("rb") as file:
            file.seek(at.offset)
            return file.read(at.length)
    if tensor.HasField("raw_data"):
        return tensor.raw_data
    return numpy_helper.from_array(numpy_helper.to_array(tensor)).raw_data


def pieces(tensor: TensorProto, folder: Path | None) -> Iterator[bytes | memoryview]:
    """The same bytes, at most `PIECE` at a time; raises `OSError` where an external file has too few."""
    if not is_external(tensor):
        whole = memoryview(values(tensor, folder))
        yield from (whole[start : start + PIECE] for start in range(0, len(whole), PIECE))
        return
    at = place(tensor, folder)
    left = at.length
    with at.path.open("rb") as source:
        source.seek(at.offset)
        while left > 0:
            piece = source.read(min(PIECE, left))
            if not piece:
                raise OSError(5, f"{at.path} ended early")
            yield piece
            left -= len(piece)


def is_finite(tensor: TensorProto, folder: Path | None) -> bool:
    """Whether none of a floating-point tensor's values is NaN or infinite."""
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return all(np.isfinite(np.frombuffer(piece, dtype)).all() for piece in pieces(tensor, folder))


def inside(tensor: TensorProto, folder: Path | None) -> TensorProto:
    """The tensor with its values inside: itself, or a copy of one that is external."""
    if not is_external(tensor):
        return tensor
    copy = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    copy.raw_data = values(tensor, folder)
    return copy


def embed(tensor: TensorProto, folder: Path | None) -> None:
    """Bring the values of an external tensor inside."""
    tensor.raw_data = values(tensor, folder)
    tensor.ClearField("data_location")
    del tensor.external_data[:]


def problems(proto: ModelProto, folder: Path | None) -> list[Problem]:
    """What is wrong with the weights: a file that is missing, outside the model's folder or too short, or as many bytes
    as do not fit the shape. One problem a file."""
    found: dict[str, Problem] = {}
    for tensor in tensors(proto):
        problem = _external_problem(tensor, folder) if is_external(tensor) else _inner_problem(tensor)
        if problem is not None:
            found.setdefault(problem.node, problem)
    return list(found.values())


def _inner_problem(tensor: TensorProto) -> Problem | None:
    if not tensor.HasField("raw_data") or tensor.data_type in OPAQUE:
        return None
    got, needed = len(tensor.raw_data), size(tensor)
    if got == needed:
        return None
    reason = f"holds {got} bytes, and its shape {list(tensor.dims)} needs {needed}"
    return Problem(f"tensor {tensor.name}", reason, "the file is damaged: copy or export it again")


def _external_problem(tensor: TensorProto, folder: Path | None) -> Problem | None:
    said = {entry.key: entry.value for entry in tensor.external_data}
    location = said.get("location", "")
    if folder is None:
        reason = f"its values lie in another file ({location}), and a ModelProto does not say where that is"
        return Problem(f"tensor {tensor.name}", reason, "pass the model's path, or load it with its external data")
    if not location or Path(location).is_absolute() or ".." in location.replace("\\", "/").split("/"):
        remedy = "only files beside the model or below are read: put it there, or export again into one file"
        return Problem(f"external data {location!r}", "lies outside the model's folder", remedy)
    try:
        at = place(tensor, folder)
    except ValueError as error:
        reason = f"its place in {location} cannot be read ({error})"
        return Problem(f"tensor {tensor.name}", reason, "the file is damaged: copy or export it again")
    name = os.path.relpath(at.path) if at.path.is_relative_to(Path.cwd()) else str(at.path)
    try:
        if not at.path.is_file():
            remedy = "put it beside the model, under that name, or export again into one file"
            return Problem(name, "the model keeps its weights in this file, which is missing", remedy)
        at.path.open("rb").close()
    except OSError as error:
        reason = f"the model keeps its weights in this file, which cannot be read ({error.strerror})"
        return Problem(name, reason, "check its name, its permissions and those of the folders around it")
    if at.offset + at.length > at.path.stat().st_size:
        reason = f"is cut off: {at.path.stat().st_size} bytes, and {tensor.name} needs {at.offset + at.length}"
        return Problem(name, reason, "copy or export it again")
    if at.length != size(tensor):
        reason = f"{at.length} bytes in {location} for the shape {list(tensor.dims)}, which needs {size(tensor)}"
        return Problem(f"tensor {tensor.name}", reason, "the model does not fit its weights: export it again")
    return None

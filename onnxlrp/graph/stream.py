"""A model as the bytes of its file, a piece at a time.

`SerializeToString` needs the whole model in memory twice more. Here each weight goes to the file on its own, and one
that lies in an external file straight from there, so that writing takes no more memory than the largest weight. The
pieces are ordinary protobuf: a message is its fields one after another, in any order.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO

from onnx import GraphProto, ModelProto, TensorProto

from onnxlrp.graph import weights

GRAPH = ModelProto.DESCRIPTOR.fields_by_name["graph"].number
INITIALIZER = GraphProto.DESCRIPTOR.fields_by_name["initializer"].number
RAW_DATA = TensorProto.DESCRIPTOR.fields_by_name["raw_data"].number


def write_model(proto: ModelProto, folder: Path | None, out: IO[bytes]) -> None:
    """Write the model as one file: weights in external files, which lie in `folder`, come inside."""
    light = without_initializers(proto, folder)
    inner = light.graph.SerializeToString(deterministic=True)
    light.ClearField("graph")
    heads = [_head(t) for t in proto.graph.initializer]
    tensors = [len(head) + values for head, values in heads]
    out.write(light.SerializeToString(deterministic=True))
    out.write(_prefix(GRAPH, len(inner) + sum(len(_prefix(INITIALIZER, n)) + n for n in tensors)))
    out.write(inner)
    for tensor, (head, values), length in zip(proto.graph.initializer, heads, tensors, strict=True):
        out.write(_prefix(INITIALIZER, length) + head)
        if values:
            write_values(tensor, folder, out)


def write_values(tensor: TensorProto, folder: Path | None, out: IO[bytes]) -> None:
    """Write the tensor's values as they lie in `raw_data` and in external files; raises `OSError` where some miss."""
    for piece in weights.pieces(tensor, folder):
        out.write(piece)


def without_initializers(proto: ModelProto, folder: Path | None) -> ModelProto:
    """A copy of the model but for its initializers, which are not copied. Weights in nodes come inside."""
    light = ModelProto()
    for field, value in proto.ListFields():
        if field.name != "graph":
            _assign(light, field.name, value)
    for field, value in proto.graph.ListFields():
        if field.name != "initializer":
            _assign(light.graph, field.name, value)
    for tensor in weights.in_nodes(light):
        if weights.is_external(tensor):
            weights.embed(tensor, folder)
    return light


def _head(tensor: TensorProto) -> tuple[bytes, int]:
    """A tensor's bytes up to its values, and how many bytes of values follow; all of it where they are not raw."""
    if not weights.is_external(tensor) and not tensor.HasField("raw_data"):
        return tensor.SerializeToString(deterministic=True), 0
    bare = TensorProto(data_type=tensor.data_type, dims=tensor.dims, name=tensor.name)
    bare.metadata_props.extend(tensor.metadata_props)
    if tensor.HasField("doc_string"):
        bare.doc_string = tensor.doc_string
    length = weights.size(tensor)
    return bare.SerializeToString(deterministic=True) + _prefix(RAW_DATA, length), length


def _prefix(field: int, length: int) -> bytes:
    """What goes before a field of `length` bytes."""
    return _varint(field << 3 | 2) + _varint(length)


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; all bytes but the last have their highest bit set."""
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])


def _assign(message: ModelProto | GraphProto, name: str, value: object) -> None:
    """Copy one field of a protobuf message: a message, a list of them, or a plain value."""
    if hasattr(value, "CopyFrom"):
        getattr(message, name).CopyFrom(value)
    elif hasattr(value, "extend"):
        getattr(message, name).extend(value)
    else:
        setattr(message, name, value)

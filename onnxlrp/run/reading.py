"""A model as it is given (a path, bytes or a ModelProto), read far enough to know what it is."""

from __future__ import annotations

from pathlib import Path

import onnx

from onnxlrp.graph.model import parse, read, with_graph


def read_model(given: str | Path | bytes | onnx.ModelProto) -> tuple[onnx.ModelProto, str]:
    """The model's protobuf (external data left where it is) and the name to call it by in messages.

    Raises `OnnxLrpError` where there is no such file, it cannot be read, or it holds no ONNX model.
    """
    if isinstance(given, onnx.ModelProto):
        return with_graph(given, "model"), "model"
    if isinstance(given, bytes):
        return parse(given, "model"), "model"
    return read(Path(given)), str(given)


def metadata_of(model: onnx.ModelProto) -> dict[str, str]:
    """The model's metadata_props as a dict."""
    return {entry.key: entry.value for entry in model.metadata_props}

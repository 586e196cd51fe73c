"""A model as it is given (a path, bytes or a ModelProto), read far enough to know what it is."""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from onnxlrp.errors import OnnxLrpError, Problem


def read_model(given: str | Path | bytes | onnx.ModelProto) -> tuple[onnx.ModelProto, str]:
    """The model's protobuf (external data left where it is) and the name to call it by in messages.

    Raises `OnnxLrpError` where there is no such file, it cannot be read, or it holds no ONNX model.
    """
    if isinstance(given, onnx.ModelProto):
        return _with_graph(given, "model"), "model"
    if isinstance(given, bytes):
        return _parse(given, "model"), "model"
    path = Path(given)
    if path.is_dir():
        raise OnnxLrpError(Problem(str(path), "is a folder", "name the .onnx file in it"))
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise OnnxLrpError(Problem(str(path), "there is no such file", "check the path")) from None
    except OSError as error:
        raise OnnxLrpError(Problem(str(path), f"cannot be read ({error.strerror})", "check its permissions")) from error
    return _parse(data, str(path)), str(path)


def metadata_of(model: onnx.ModelProto) -> dict[str, str]:
    """The model's metadata_props as a dict."""
    return {entry.key: entry.value for entry in model.metadata_props}


def _parse(data: bytes, name: str) -> onnx.ModelProto:
    try:
        model = onnx.load_model_from_string(data)
    except (DecodeError, ValueError, RuntimeError) as error:
        reason = f"is not an ONNX file, or is cut off ({len(data)} bytes)"
        raise OnnxLrpError(Problem(name, reason, "export the classifier again, or copy it again")) from error
    return _with_graph(model, name)


def _with_graph(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    if not model.graph.node:
        raise OnnxLrpError(Problem(name, "holds no ONNX graph", "pass a model exported to ONNX"))
    return model

"""A classifier as it came: the ModelProto, untouched, with its tensors' producers and consumers at hand.

Weights are never copied or parsed here. `skeleton` is the same model with its large tensors turned into graph inputs:
small enough to check, convert and infer on, whatever the weights' size.
"""

from __future__ import annotations

import collections
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, NodeProto, TensorProto, external_data_helper, numpy_helper

from onnxlrp import contract
from onnxlrp.errors import OnnxLrpError, Problem

LARGE = 2048  # bytes; a tensor above it is data (a weight), one below it may be a shape or a parameter
CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap"})


class Model:
    """A ModelProto with look-ups by tensor name. `folder` is where its external data lies (None: all inside)."""

    def __init__(self, proto: ModelProto, folder: Path | None = None, name: str = "model") -> None:
        self.proto = proto
        self.folder = folder
        self.name = name
        graph = proto.graph
        self.nodes: list[NodeProto] = list(graph.node)
        self.initializers: dict[str, TensorProto] = {t.name: t for t in graph.initializer}
        self.inputs = [v for v in graph.input if v.name not in self.initializers]
        self.outputs = list(graph.output)
        self.producer: dict[str, NodeProto] = {out: n for n in self.nodes for out in n.output if out}
        self.consumers: dict[str, list[NodeProto]] = collections.defaultdict(list)
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                self.consumers[name].append(node)

    @property
    def opset(self) -> int:
        """The version of the default operator set."""
        return default_opset(self.proto)

    @property
    def tensor_names(self) -> set[str]:
        """Every name that a tensor of the graph bears."""
        graph = self.proto.graph
        return {v.name for v in graph.input} | set(self.initializers) | set(self.producer)

    @property
    def metadata(self) -> dict[str, str]:
        """The model's metadata_props as a dict."""
        return {p.key: p.value for p in self.proto.metadata_props}

    def array(self, tensor: TensorProto) -> np.ndarray:
        """The values of an initializer, read from its external file where it has one."""
        if external_data_helper.uses_external_data(tensor):
            copy = TensorProto()
            copy.CopyFrom(tensor)
            external_data_helper.load_external_data_for_tensor(copy, str(self.folder or "."))
            return numpy_helper.to_array(copy)
        return numpy_helper.to_array(tensor)


def default_opset(proto: ModelProto) -> int:
    """The version of the default operator set that `proto` imports; 1 where it names none."""
    return next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 1)


def load(source: str | os.PathLike[str] | ModelProto) -> Model:
    """Read a classifier from a file or take a ModelProto (which is copied, never changed).

    External data stays on disk; its files are only checked to be there and long enough. Raises `OnnxLrpError` for what
    is no readable, valid ONNX model, or is an explainer already.
    """
    if isinstance(source, ModelProto):
        proto = ModelProto()
        proto.CopyFrom(source)
        model = Model(proto)
    else:
        path = Path(source)
        model = Model(_parse(path), path.resolve().parent, str(source))
        _check_external_data(model)
    if not model.nodes:
        raise OnnxLrpError(Problem(model.name, "holds no ONNX graph", "pass a classifier exported to ONNX"))
    if contract.KEY_CONTRACT in model.metadata:
        remedy = "convert the original classifier, or explain with this file: onnxlrp run"
        raise OnnxLrpError(Problem(model.name, "is an explainer already (it carries onnxlrp.contract)", remedy))
    check(model)
    return model


def _parse(path: Path) -> ModelProto:
    """The protobuf in the file at `path`, external data left where it is."""
    if path.is_dir():
        raise OnnxLrpError(Problem(str(path), "is a folder", "name the .onnx file in it"))
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise OnnxLrpError(Problem(str(path), "there is no such file", "check the path")) from None
    except OSError as error:
        remedy = "check its permissions"
        raise OnnxLrpError(Problem(str(path), f"cannot be read ({error.strerror})", remedy)) from None
    if not data:
        raise OnnxLrpError(Problem(str(path), "is empty (0 bytes)", "export or copy the model again"))
    try:
        return onnx.load_model_from_string(data)
    except (DecodeError, ValueError, RuntimeError):
        remedy = "export the classifier to ONNX (torch.onnx.export, tf2onnx, …), or copy it again"
        raise OnnxLrpError(
            Problem(str(path), f"is not an ONNX file, or is cut off ({len(data)} bytes)", remedy)
        ) from None


def _check_external_data(model: Model) -> None:
    """Every external tensor's file must be there, inside the model's folder, and long enough."""
    problems: dict[str, Problem] = {}
    for tensor in external_tensors(model.proto):
        info = external_data_helper.ExternalDataInfo(tensor)
        path = (model.folder or Path()) / info.location
        remedy = "put it beside the model, or export again into one file"
        if Path(info.location).is_absolute() or ".." in Path(info.location).parts:
            problems[info.location] = Problem(info.location, "external data outside the model's folder", remedy)
        elif not path.is_file():
            problems[info.location] = Problem(str(path), f"the weights' file of {model.name} is missing", remedy)
        elif (needed := (info.offset or 0) + (info.length or 0)) > path.stat().st_size:
            reason = f"is cut off: {path.stat().st_size} bytes, at least {needed} needed for {tensor.name}"
            problems[info.location] = Problem(str(path), reason, "copy or export it again")
    if problems:
        raise OnnxLrpError(*problems.values())


def external_tensors(proto: ModelProto) -> list[TensorProto]:
    """The initializers whose values lie in another file."""
    return [t for t in proto.graph.initializer if external_data_helper.uses_external_data(t)]


def check(model: Model) -> None:
    """Raise `OnnxLrpError` unless onnx's checker accepts the model."""
    try:
        onnx.checker.check_model(skeleton(model.proto))
    except (onnx.checker.ValidationError, RuntimeError, ValueError) as error:
        reason = f"is not valid ONNX: {str(error).strip().splitlines()[0]}"
        raise OnnxLrpError(Problem(model.name, reason, "export it again with a current exporter")) from None


def skeleton(proto: ModelProto, extra_nodes: Iterable[NodeProto] = ()) -> ModelProto:
    """`proto` without its large tensors: each becomes a graph input of its type and shape.

    Checking or inferring on it costs nothing however large the weights are.
    """
    bare = ModelProto(ir_version=proto.ir_version, opset_import=proto.opset_import, functions=proto.functions)
    graph = bare.graph
    graph.name = proto.graph.name or "graph"
    graph.node.extend(proto.graph.node)
    graph.node.extend(extra_nodes)
    graph.input.extend(proto.graph.input)
    graph.output.extend(proto.graph.output)
    listed = {v.name for v in graph.input}
    for tensor in proto.graph.initializer:
        if is_large(tensor):
            if tensor.name not in listed:
                graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
        else:
            graph.initializer.append(tensor)
    return bare


def is_large(tensor: TensorProto) -> bool:
    """Whether a tensor is data rather than a parameter: over `LARGE` bytes, or kept outside the file."""
    return external_data_helper.uses_external_data(tensor) or tensor.ByteSize() > LARGE

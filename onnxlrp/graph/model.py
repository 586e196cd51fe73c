"""A classifier as it came: the ModelProto, untouched, with its tensors' producers and consumers at hand.

Weights are never copied or parsed here. `skeleton` is the same model with its large tensors turned into graph inputs:
small enough to check, convert and infer on, whatever the weights' size.
"""

from __future__ import annotations

import collections
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from onnxlrp import contract
from onnxlrp.errors import OnnxLrpError, Problem, raise_if_any
from onnxlrp.graph import weights

PROTOBUF_LIMIT = 2**31  # bytes that one message, and so one file, can have at most
LARGE = 2048  # bytes; a tensor above it is data (a weight), one below it may be a shape or a parameter
MISTAKEN = {  # how files begin that bear a model's name all the same: what they are, and the remedy
    (b"version https://git-lfs",): ("is a Git LFS pointer, not the model", "fetch the model itself: git lfs pull"),
    (b"<!doctype html", b"<html"): ("is a web page, not a model", "download the file, not the page about it"),
}
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
        self._finite: dict[str, bool] = {}
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
        return numpy_helper.to_array(weights.inside(tensor, self.folder))

    def is_finite(self, name: str) -> bool:
        """Whether no value of a floating-point initializer is NaN or infinite; each is read once."""
        if name not in self._finite:
            self._finite[name] = weights.is_finite(self.initializers[name], self.folder)
        return self._finite[name]


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
        model = Model(with_graph(proto, "model"))
    else:
        path = Path(source)
        model = Model(read(path), path.resolve().parent, str(source))
    if contract.KEY_CONTRACT in model.metadata:
        remedy = "convert the original classifier, or explain with this file: onnxlrp run"
        raise OnnxLrpError(Problem(model.name, "is an explainer already (it carries onnxlrp.contract)", remedy))
    raise_if_any(weights.problems(model.proto, model.folder))
    check(model)
    return model


def read(path: Path) -> ModelProto:
    """The model in the file at `path`, external data left where it is.

    Raises `OnnxLrpError` where there is no such file, it cannot be read, or it holds no ONNX model.
    """
    name = str(path)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise OnnxLrpError(Problem(name, "is a folder", "name the .onnx file in it"))
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):  # it may have no end
            raise OnnxLrpError(Problem(name, "is a device, not a file", "name the .onnx file"))
        data = path.read_bytes()
    except FileNotFoundError:
        raise OnnxLrpError(Problem(name, "there is no such file", "check the path")) from None
    except PermissionError:
        remedy = "check its permissions, and those of the folders around it"
        raise OnnxLrpError(Problem(name, "cannot be read (permission denied)", remedy)) from None
    except (OSError, ValueError) as error:
        reason = f"cannot be read ({getattr(error, 'strerror', None) or error})"
        raise OnnxLrpError(Problem(name, reason, "check the path")) from None
    return parse(data, name)


def parse(data: bytes, name: str) -> ModelProto:
    """The model in the bytes of a file called `name` in messages; raises `OnnxLrpError` where they hold none."""
    if not data:
        raise OnnxLrpError(Problem(name, "is empty (0 bytes)", "export or copy the model again"))
    if len(data) >= PROTOBUF_LIMIT:
        reason = f"is {len(data) / 1e9:.1f} GB in one file, and ONNX files end at 2 GB"
        raise OnnxLrpError(Problem(name, reason, "export it again with external data"))
    try:
        proto = onnx.load_model_from_string(data)
    except (DecodeError, ValueError, RuntimeError):
        reason = f"is not an ONNX file, or is cut off ({len(data)} bytes)"
        remedy = "export the classifier to ONNX (torch.onnx.export, tf2onnx, …), or copy it again"
        for starts, known in MISTAKEN.items():
            if data[:100].lstrip().lower().startswith(starts):
                reason, remedy = known
        raise OnnxLrpError(Problem(name, reason, remedy)) from None
    return with_graph(proto, name)


def with_graph(proto: ModelProto, name: str) -> ModelProto:
    """`proto`; raises `OnnxLrpError` where it holds no node: bytes of any kind may parse as a protobuf message."""
    if not proto.graph.node:
        raise OnnxLrpError(Problem(name, "holds no ONNX graph", "pass a classifier exported to ONNX"))
    return proto


def check(model: Model) -> None:
    """Raise `OnnxLrpError` unless onnx's checker accepts the model, and nothing is in it that no runtime takes."""
    raise_if_any(list(_refused(model)))
    try:
        onnx.checker.check_model(skeleton(model.proto))
    except (onnx.checker.ValidationError, RuntimeError, ValueError) as error:
        words = " ".join(str(error).split())
        reason = f"is not valid ONNX: {words if len(words) <= 240 else words[:237] + '...'}"
        raise OnnxLrpError(Problem(model.name, reason, "export it again with a current exporter")) from None


def _refused(model: Model) -> Iterator[Problem]:
    """What the checker says badly or not at all."""
    proto, graph = model.proto, model.proto.graph
    if proto.ir_version > onnx.IR_VERSION:
        reason = (
            f"is of IR version {proto.ir_version}, and the installed onnx {onnx.__version__} knows {onnx.IR_VERSION}"
        )
        yield Problem(model.name, reason, "run pip install -U onnx, or export it for an older IR version")
    if graph.sparse_initializer:
        reason = f"keeps {len(graph.sparse_initializer)} weights as sparse tensors"
        yield Problem(model.name, reason, "export it with dense weights")
    for value in (*model.inputs, *model.outputs):
        if value.type.WhichOneof("value") == "tensor_type" and not value.type.tensor_type.HasField("shape"):
            kind = "input" if value in model.inputs else "output"
            remedy = f"export the model with the shapes of its {kind}s"
            yield Problem(f"{kind} {value.name}", "declares no shape, not even how many dimensions it has", remedy)
    for what, names in (("node name", [n.name for n in model.nodes]), ("output", [o.name for o in model.outputs])):
        twice = [name for name, times in collections.Counter(names).items() if name and times > 1]
        if twice:
            others = f" and {len(twice) - 1} others" if len(twice) > 1 else ""
            reason = f"uses the {what} {twice[0]!r}{others} more than once, which ONNX Runtime refuses"
            yield Problem(model.name, reason, "give each its own in the model")


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
    return weights.is_external(tensor) or weights.size(tensor) > LARGE

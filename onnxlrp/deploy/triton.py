"""An explainer as a model of NVIDIA's Triton Inference Server: NAME/config.pbtxt, NAME/labels.txt, NAME/1/model.onnx.

Triton batches requests itself. It then counts the batch as an axis of its own: `dims` leave it out, and a tensor that
has no other, as `target` [N], is declared as `dims: [ 1 ]` and reshaped to nothing. That needs every input and output
to begin with the open batch; otherwise Triton is told of whole shapes, and passes requests on one by one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from onnxlrp import contract
from onnxlrp.deploy.folder import refuse_filled, whole_folder
from onnxlrp.deploy.opening import Axis, Opened, Tensor, open_explainer
from onnxlrp.errors import OnnxLrpError, Problem
from onnxlrp.graph.save import save

VERSION = "1"  # Triton's name for the folder of a model's first version
MODEL, LABELS, CONFIG = "model.onnx", "labels.txt", "config.pbtxt"
WRITTEN = (CONFIG, LABELS, f"{VERSION}/{MODEL}", f"{VERSION}/{MODEL}.data")
MAX_BATCH = 8  # samples in a run of the model unless the user says otherwise
MOST_BATCH = 2**31 - 1  # of Triton's max_batch_size, an int32
QUEUE_MICROSECONDS = 2000  # that a request waits for company: well below what one explanation takes
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")

# ONNX's name of a type -> Triton's
TYPES = {
    "FLOAT": "TYPE_FP32", "FLOAT16": "TYPE_FP16", "DOUBLE": "TYPE_FP64", "BFLOAT16": "TYPE_BF16",
    "BOOL": "TYPE_BOOL", "UINT8": "TYPE_UINT8", "UINT16": "TYPE_UINT16", "UINT32": "TYPE_UINT32",
    "UINT64": "TYPE_UINT64", "INT8": "TYPE_INT8", "INT16": "TYPE_INT16", "INT32": "TYPE_INT32", "INT64": "TYPE_INT64",
    "STRING": "TYPE_STRING",
}  # fmt: skip


@dataclass(frozen=True)
class Served:
    """How an explainer is served: its name there, its tensors, and the most samples in a run (0: Triton must not batch,
    and `why` says why)."""

    name: str
    opened: Opened
    max_batch: int
    why: str = ""


def export_triton(
    model: str, repository: Path, *, name: str | None = None, max_batch: int | None = None, force: bool = False
) -> list[Path]:
    """Write the explainer `model` to `repository`/NAME; returns the files.

    `name` is by default made of the file's name, `max_batch` 8 where the batch is open. Raises `OnnxLrpError` where
    the explainer cannot be served this way or NAME is there already (unless `force`; other versions
    of the model stay safe from that), `RunError` where the disk fails.
    """
    name = name or default_name(model)
    if NAME.fullmatch(name) is None:
        reason = "is no name for a model: letters, digits, _, - and . make one, and it does not begin with . or -"
        raise OnnxLrpError(Problem(f"--name {name!r}", reason, "choose another"))
    refuse_filled(repository / name, force, WRITTEN)
    served = plan_serving(name, open_explainer(model), max_batch)
    labels = served.opened.explainer.labels
    config = write_config(served)
    with whole_folder(repository / name) as staged:
        (staged / CONFIG).write_text(config, encoding="utf-8", newline="\n")
        if labels:
            lines = [" ".join(label.split()) for label in labels]  # one a line is the file's only form
            (staged / LABELS).write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
        (staged / VERSION).mkdir()
        save(served.opened.proto, staged / VERSION / MODEL, served.opened.folder)
    return sorted(path for path in (repository / name).rglob("*") if path.is_file())


def default_name(model: str) -> str:
    """vgg.v2.lrp.onnx as vgg_v2_lrp: clients write it in addresses and code."""
    return re.sub(r"[^A-Za-z0-9]+", "_", Path(model).name.removesuffix(".onnx")).strip("_") or "explainer"


def plan_serving(name: str, opened: Opened, max_batch: int | None) -> Served:
    """Whether Triton may batch, and how much; raises `OnnxLrpError` where what is asked for cannot be had."""
    tensors = (*opened.inputs, *opened.outputs)
    for tensor in tensors:
        _type(tensor)
        if not tensor.shape:
            reason = "is a single number without a batch, which Triton has no form for"
            raise OnnxLrpError(Problem(tensor.name, reason, "convert the classifier without that input or output"))
    batch = opened.input.shape[0]
    apart = [t for t in tensors if t.shape[0] != batch]
    if isinstance(batch, int):
        why = f"the batch of {opened.explainer.name} is fixed at {batch}"
        remedy = "export the classifier with an open batch"
    elif apart:
        why = f"{apart[0].name} [{_text(apart[0].shape)}] does not begin with the batch of {opened.input.name}"
        remedy = "convert the classifier without that input or output"
    else:
        return Served(name, opened, MAX_BATCH if max_batch is None else max_batch, "as asked for with --max-batch 0")
    if max_batch:
        raise OnnxLrpError(Problem(f"--max-batch {max_batch}", f"{why}, so Triton cannot batch", remedy))
    return Served(name, opened, 0, why)


def write_config(served: Served) -> str:
    """The text of config.pbtxt, with comments for whoever tunes it."""
    opened = served.opened
    labels = opened.explainer.labels
    blocks = [_head(served), *(_tensor("input", t, served, _about(t, opened)) for t in opened.inputs)]
    for tensor in opened.outputs:
        filed = (
            [f"  label_filename: {_quoted(LABELS)}"] if labels and tensor.name == opened.explainer.output_name else []
        )
        blocks.append(_tensor("output", tensor, served, _about(tensor, opened), filed))
    blocks += [_INSTANCES, *([_batching(served)] if served.max_batch else []), _warmup(served)]
    return "\n".join(blocks)


def _head(served: Served) -> str:
    composite = served.opened.explainer.composite
    lines = [
        f"# Written by onnxlrp {contract.package_version()}: a classifier that also returns the relevance of every",
        f"# pixel{f', by the rules of {composite}' if composite else ''}. How pictures become its input stands in",
        f"# the model's metadata ({contract.KEY_PREPROCESS}). Triton leaves it to the client, or a model before.",
        f"name: {_quoted(served.name)}",
        'backend: "onnxruntime"',
        f"default_model_filename: {_quoted(MODEL)}",
        "",
    ]
    if served.max_batch:
        lines.append("# Dims below leave out the batch, which Triton puts before them.")
    else:
        lines.append(f"# Triton does not batch, {served.why}: dims below are whole shapes, -1 is any size.")
    return "\n".join([*lines, f"max_batch_size: {served.max_batch}", ""])


def _tensor(kind: str, tensor: Tensor, served: Served, about: str, more: Sequence[str] = ()) -> str:
    dims = _dims(tensor, served)
    lines = [f"# {about}"] if about else []
    lines += [f"{kind} {{", f"  name: {_quoted(tensor.name)}", f"  data_type: {_type(tensor)}"]
    if dims:
        lines.append(f"  dims: [ {', '.join(map(str, dims))} ]")
    else:
        lines += ["  dims: [ 1 ]", "  reshape: { shape: [ ] }  # the model takes [N], not [N, 1]"]
        if kind == "output":
            lines[-1] = "  reshape: { shape: [ ] }  # the model gives [N], not [N, 1]"
    return "\n".join([*lines, *more, "}", ""])


def _about(tensor: Tensor, opened: Opened) -> str:
    """What a client should know of a tensor."""
    explainer = opened.explainer
    if tensor.name == explainer.input_name:
        return "pictures, pre-processed" if explainer.dtype.kind == "f" else "pictures: RGB pixels, 0 to 255"
    if tensor.name.startswith(contract.condition_name("")):
        return "how much relevance each channel of that layer lets pass: 1 all, 0 none"
    meanings = {
        contract.TARGET: "the class to explain for each picture; -1 is the one with the highest score",
        contract.START: "the relevance of each class score to start from",
        contract.RELEVANCE: f"relevance of each element of {explainer.input_name}",
        contract.EXPLAINED: "the class that was explained",
        contract.HEATMAP: "relevance summed over channels",
        contract.RENDER: "relevance as an RGB picture",
        explainer.output_name: f"{explainer.scores} of the classes",
    }
    return meanings.get(tensor.name, "")


def _dims(tensor: Tensor, served: Served) -> list[int]:
    """A tensor's sizes as Triton counts them, -1 where one is open."""
    axes = tensor.shape[1:] if served.max_batch else tensor.shape
    return [axis if isinstance(axis, int) else -1 for axis in axes]


_INSTANCES = """\
# One copy of the model on each GPU, or one on the CPU where there is none.
instance_group: [ { kind: KIND_AUTO, count: 1 } ]
"""


def _batching(served: Served) -> str:
    return (
        "# Requests that come within this time of each other are answered in one run.\n"
        f"dynamic_batching: {{ max_queue_delay_microseconds: {QUEUE_MICROSECONDS} }}\n"
    )


def _warmup(served: Served) -> str:
    """One run before the model is called ready: ONNX Runtime plans, and a GPU picks its kernels, at the first."""
    lines = [
        "# The first run is slow: it is made, with zeros, before the model is called ready.",
        "model_warmup {",
        '  name: "first run"',
        *(["  batch_size: 1"] if served.max_batch else []),
    ]
    for tensor in served.opened.inputs:
        dims = [1 if axis == -1 else axis for axis in _dims(tensor, served)] or [1]
        value = f"data_type: {_type(tensor)} dims: [ {', '.join(map(str, dims))} ] zero_data: true"
        lines += [f"  inputs {{ key: {_quoted(tensor.name)} value {{ {value} }} }}"]
    return "\n".join([*lines, "}", ""])


def _type(tensor: Tensor) -> str:
    name = onnx.TensorProto.DataType.Name(tensor.element_type)
    if name not in TYPES:
        reason = f"is {name.lower()}, a type that Triton does not know"
        raise OnnxLrpError(Problem(tensor.name, reason, f"it knows {', '.join(t.lower() for t in TYPES)}"))
    return TYPES[name]


def _quoted(text: str) -> str:
    """A string of protobuf's text format: names in a model can hold anything."""
    plain = {'"': '\\"', "\\": "\\\\", "\n": "\\n"}
    return '"' + "".join(plain.get(c) or (c if c.isprintable() else _octal(c)) for c in text) + '"'


def _octal(character: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in character.encode())


def _text(shape: Iterable[Axis]) -> str:
    return ", ".join(str(axis) or "?" for axis in shape)

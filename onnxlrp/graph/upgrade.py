"""Models brought to an operator set and an IR version the relevance part can be written in.

Opset 17 is the first with all operators used, and the newest that every runtime reads. A classifier at 17 or above is
left as it is. One below is converted by onnx, and its answers before and after are compared. An IR version newer
than the operators ask for is lowered, as runtimes refuse versions they do not know.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import onnx
import onnx.inliner
from onnx import ModelProto, helper

from onnxlrp.errors import OnnxLrpError, Problem
from onnxlrp.graph.facts import declared_shape
from onnxlrp.graph.model import Model, default_opset, is_large, skeleton

LOWEST, HIGHEST = 17, 25
IR, NEWEST_IR = 8, 10
TRIAL_SIZES = (224, 64, 32, 299, 8)  # of dimensions that the model leaves open, when its answers are compared


def upgrade(model: Model) -> Model:
    """The same classifier at opset 17 or later, without model-local functions.

    Raises `OnnxLrpError` where onnx cannot convert it, or where its answers changed.
    """
    proto = model.proto
    if proto.functions:
        _replace_graph(proto, onnx.inliner.inline_local_functions(skeleton(proto)))
        del proto.functions[:]
        model = Model(proto, model.folder, model.name)
    if model.opset > HIGHEST:
        reason = f"uses opset {model.opset}; up to {HIGHEST} is known"
        raise OnnxLrpError(Problem(model.name, reason, "export it with opset 17 to 21"))
    if model.opset < LOWEST:
        before = skeleton(proto)
        _replace_graph(proto, _converted(model))
        _compare(model, before, skeleton(proto))
        proto.ir_version = max(IR, proto.ir_version)
        model = Model(proto, model.folder, model.name)
    proto.graph.name = proto.graph.name or "classifier"  # ONNX demands one
    if proto.ir_version > NEWEST_IR:
        proto.ir_version = max(IR, helper.find_min_ir_version_for(proto.opset_import, ignore_unknown=True))
    return model


def _converted(model: Model) -> ModelProto:
    """The model's skeleton at opset `LOWEST`."""
    bare = skeleton(model.proto)
    bare.ir_version = max(bare.ir_version, IR)
    try:
        return onnx.version_converter.convert_version(bare, LOWEST)
    except (RuntimeError, onnx.version_converter.ConvertError) as error:
        reason = f"cannot be converted from opset {model.opset} to {LOWEST}: {_line(error)}"
        raise OnnxLrpError(Problem(model.name, reason, f"export it again with opset {LOWEST} or later")) from None


def _replace_graph(proto: ModelProto, changed: ModelProto) -> None:
    """Give `proto` the nodes, small tensors and operator sets of a changed skeleton; all else stays as it is."""
    graph = proto.graph
    own = {v.name for v in graph.input}
    large = {t.name for t in graph.initializer if is_large(t)}
    inputs = [v for v in changed.graph.input if v.name in own or v.name not in large]
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name not in large:
            del graph.initializer[index]
    graph.initializer.extend(changed.graph.initializer)
    for field, values in (
        (graph.node, changed.graph.node),
        (graph.input, inputs),
        (proto.opset_import, changed.opset_import),
    ):
        del field[:]
        field.extend(values)


def _compare(model: Model, before: ModelProto, after: ModelProto) -> None:
    """The outputs on a random input, before and after, must agree to rounding. Weights are fed, not serialised."""
    weights = {t.name: model.array(t) for t in model.proto.graph.initializer if is_large(t)}
    first = None
    for feeds in _feeds(model):
        try:
            first = _answers(before, {**feeds, **weights})
            break
        except Exception as error:  # onnxruntime raises types of its own
            reason = f"does not run in ONNX Runtime at opset {default_opset(before)}: {_line(error)}"
    if first is None:
        raise OnnxLrpError(Problem(model.name, reason, "export it again with opset 17 or later"))
    try:
        second = _answers(after, {**feeds, **weights})
    except Exception as error:
        reason = f"does not run any more when converted to opset {default_opset(after)}: {_line(error)}"
        raise OnnxLrpError(Problem(model.name, reason, "export it again with opset 17 or later")) from None
    for value, old, new in zip(model.outputs, first, second, strict=True):
        if not _agree(old, new):
            reason = f"output {value.name} changed on conversion from opset {default_opset(before)} to {LOWEST}"
            raise OnnxLrpError(Problem(model.name, reason, "export it again with opset 17 or later"))


def _agree(before: object, after: object) -> bool:
    """Whether two outputs are the same to rounding; one that is no tensor of numbers is not compared."""
    if not (isinstance(before, np.ndarray) and isinstance(after, np.ndarray)) or before.dtype.kind not in "fiub":
        return True
    if before.shape != after.shape:
        return False
    scale = float(np.abs(before.astype(np.float64)).max(initial=0.0))
    return np.allclose(before, after, rtol=1e-4, atol=1e-5 * scale + 1e-30, equal_nan=True)


def _feeds(model: Model) -> Iterator[dict[str, np.ndarray]]:
    """Random inputs, with one size after the other for dimensions that the model leaves open."""
    shapes = {v.name: declared_shape(v.type) for v in model.inputs}
    types = {v.name: helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type) for v in model.inputs}
    open_sizes = any(d is None for shape in shapes.values() for d in shape[1:])
    for size in itertools.islice(TRIAL_SIZES, None if open_sizes else 1):
        generator = np.random.default_rng(0)
        sizes = {
            name: [d or (1 if i == 0 else 3 if i == 1 else size) for i, d in enumerate(shape)]
            for name, shape in shapes.items()
        }
        yield {name: generator.random(s).astype(types[name]) for name, s in sizes.items()}


def _answers(bare: ModelProto, feeds: dict[str, np.ndarray]) -> list[object]:
    """The outputs of a skeleton whose weights are fed as inputs."""
    import onnxruntime as ort  # late: only old models need it here

    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(bare.SerializeToString(), options, providers=["CPUExecutionProvider"])
    asked = {i.name for i in (*session.get_inputs(), *session.get_overridable_initializers())}
    answers: list[object] = session.run(None, {k: v for k, v in feeds.items() if k in asked})
    return answers


def _line(error: Exception) -> str:
    words = " ".join(str(error).split())
    return words if len(words) <= 240 else words[:237] + "..."

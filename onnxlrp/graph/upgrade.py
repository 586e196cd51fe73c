"""Older operator sets brought up to one the relevance part can be written in.

Opset 17 is the first with all operators used, and the newest that every runtime reads. A classifier at 17 or above is
left as it is. One below is converted by onnx, and its answers before and after are compared.
"""

from __future__ import annotations

import os

import numpy as np
import onnx
import onnx.inliner
from onnx import ModelProto, helper

from onnxlrp.errors import OnnxLrpError, Problem
from onnxlrp.graph.facts import declared_shape
from onnxlrp.graph.model import Model, default_opset, is_large, skeleton

LOWEST, HIGHEST = 17, 25
IR = 8


def upgrade(model: Model) -> Model:
    """The same classifier at opset 17 or later, without model-local functions.

    Raises `OnnxLrpError` where onnx cannot convert it, or where its answers changed.
    """
    proto = model.proto
    if proto.functions:
        proto = _inlined(proto)
        model = Model(proto, model.folder, model.name)
    if model.opset > HIGHEST:
        reason = f"uses opset {model.opset}; up to {HIGHEST} is known"
        raise OnnxLrpError(Problem(model.name, reason, "export it with opset 17 to 21"))
    if model.opset >= LOWEST:
        return model
    converted = _converted(model)
    _compare(model, converted)
    return Model(converted, model.folder, model.name)


def _inlined(proto: ModelProto) -> ModelProto:
    """Model-local functions replaced by their bodies: most runtimes know no functions."""
    weights = list(proto.graph.initializer)
    bare = skeleton(proto)
    return _with_weights(onnx.inliner.inline_local_functions(bare), proto, weights)


def _converted(model: Model) -> ModelProto:
    bare = skeleton(model.proto)
    bare.ir_version = max(bare.ir_version, IR)
    try:
        return _with_weights(
            onnx.version_converter.convert_version(bare, LOWEST), model.proto, list(model.proto.graph.initializer)
        )
    except (RuntimeError, onnx.version_converter.ConvertError) as error:
        reason = f"cannot be converted from opset {model.opset} to {LOWEST}: {str(error).splitlines()[0]}"
        raise OnnxLrpError(Problem(model.name, reason, f"export it again with opset {LOWEST} or later")) from None


def _with_weights(bare: ModelProto, original: ModelProto, weights: list[onnx.TensorProto]) -> ModelProto:
    """A changed skeleton with the original's inputs, weights and metadata."""
    large = {t.name for t in weights if is_large(t)}
    own = {v.name for v in original.graph.input}
    inputs = [v for v in bare.graph.input if v.name in own or v.name not in large]
    del bare.graph.input[:]
    bare.graph.input.extend(inputs)
    bare.graph.initializer.extend(t for t in weights if t.name in large)
    bare.metadata_props.extend(original.metadata_props)
    for name in ("producer_name", "producer_version", "domain", "model_version", "doc_string"):
        setattr(bare, name, getattr(original, name))
    bare.ir_version = max(IR, original.ir_version)
    return bare


def _compare(model: Model, converted: ModelProto) -> None:
    """The outputs on a random input, before and after, must agree to rounding."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime as ort

    generator = np.random.default_rng(0)
    answers = []
    feeds = {
        v.name: generator.random([d or 1 for d in declared_shape(v.type)]).astype(
            helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type)
        )
        for v in model.inputs
    }
    options = ort.SessionOptions()
    options.log_severity_level = 4
    for proto in (model.proto, converted):
        if external := [t.name for t in proto.graph.initializer if is_large(t) and not t.HasField("raw_data")]:
            del external
        try:
            session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
            answers.append(session.run(None, feeds))
        except Exception as error:  # onnxruntime raises types of its own
            reason = f"does not run in ONNX Runtime at opset {default_opset(proto)}: {str(error).splitlines()[0]}"
            raise OnnxLrpError(Problem(model.name, reason, "export it again with opset 17 or later")) from None
    for value, before, after in zip(model.outputs, *answers, strict=True):
        if not np.allclose(before, after, rtol=1e-4, atol=1e-5 * (np.abs(before).max() + 1e-30)):
            difference = float(np.abs(before - after).max())
            reason = (
                f"output {value.name} changed by {difference:.3g} on conversion to opset {default_opset(converted)}"
            )
            raise OnnxLrpError(Problem(model.name, reason, "export it again with opset 17 or later"))

"""The classifiers, their explainers, and the models that onnx-ad makes of them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

import onnxlrp
from onnxlrp.contract import PREPROCESS_PRESETS
from onnxlrp.explain.assemble import assemble
from onnxlrp.explain.cost import costs
from onnxlrp.explain.emit import emit
from onnxlrp.explain.examine import examine
from onnxlrp.explain.options import Options
from tools.bench.onnx_side import ROUNDED, explainer_path, gradient_path, model_path
from tools.bench.results import HIGH, LOW


def export(network: str, folder: Path) -> None:
    """Write the classifier as ONNX and its weights for torch."""
    import torch

    from tools import zoo
    from tools.bench.torch_side import weights_path

    net = zoo.build(network)
    torch.save(net.state_dict(), weights_path(folder, network))
    path = model_path(folder, network)
    part = path.with_suffix(".part")  # a model that is cut off would be taken for one that is there
    zoo.legacy(net, zoo.images(1), part)
    part.replace(path)


def halve(network: str, folder: Path) -> None:
    """Write the classifier in float16: weights, input and output. And in float32 with the same weights: rounding them
    makes another classifier, whose relevance is another."""
    proto = onnx.load(model_path(folder, network))
    for precision, kind in (("float16", np.float16), (ROUNDED, np.float32)):
        for tensor in proto.graph.initializer:
            if tensor.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16):
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(kind), tensor.name))
        for value in (*proto.graph.input, *proto.graph.output):
            value.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
        del proto.graph.value_info[:]
        onnx.save(proto, model_path(folder, network, precision))


def options_of(composite: str) -> dict[str, Any]:
    """What to convert with."""
    text = f"epsilon_gamma_box(low={LOW}, high={HIGH})" if composite == "epsilon_gamma_box" else composite
    return {"composite": text, "preprocess": PREPROCESS_PRESETS["imagenet"]}


def explain(network: str, composite: str, precision: str, folder: Path) -> float:
    """Write the explainer; the forward passes that its rules imply, counted in operations."""
    path, options = model_path(folder, network, precision), options_of(composite)
    onnxlrp.convert(path, **options).save(explainer_path(folder, network, composite, precision), force=True)
    study = examine(path, Options(**options))
    counted = costs(study, assemble(study, emit(study)))
    return 1 + sum(c.relevance.flops for c in counted) / sum(c.forward.flops for c in counted)


def differentiate(network: str, batch: int, precision: str, folder: Path) -> None:
    """Write onnx-ad's model of the gradient. It wants every shape declared, so the batch size is fixed in the model."""
    from onnx_ad import reverse

    proto: ModelProto = onnx.load(model_path(folder, network, precision))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    made = reverse(onnx.shape_inference.infer_shapes(proto), layout="onnx")
    for value in (*made.graph.input, *made.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == "nadj":  # how many gradients at once
                dim.dim_value = 1
    onnx.save(made, gradient_path(folder, network, batch, precision))


def digest(path: Path) -> str:
    """The start of a file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def worst_distance(found: np.ndarray, expected: np.ndarray) -> float:
    """Relative L2, of the worst image."""
    first, second = (a.reshape(len(a), -1).astype(np.float64) for a in (found, expected))
    return float((np.linalg.norm(first - second, axis=1) / np.linalg.norm(second, axis=1)).max())

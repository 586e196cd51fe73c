"""Write a trained network as one ONNX file that says itself how to feed it, and prove that it answers like torch."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from tools.mri.networks import MEAN, STD
from tools.mri.slices import CLASSES, SIZE

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

OPSET = 17
MOST_BYTES = 1_500_000
TOLERANCE = 1e-4
PREPROCESS = {"size": [SIZE, SIZE], "mean": [MEAN], "std": [STD], "color_order": "L", "layout": "NCHW", "scale": 255}


def export(network: nn.Module, path: Path, images: Tensor) -> str:
    """Save to `path`, compare with torch on normalised images [count, 1, H, W], and return a printable line."""
    torch.onnx.export(
        network,
        (images[:2],),
        str(path),
        dynamo=False,
        opset_version=OPSET,
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "N"}, "logits": {0: "N"}},
    )
    model = onnx.load(path)
    properties = {"onnxlrp.preprocess": json.dumps(PREPROCESS), "onnxlrp.labels": json.dumps(CLASSES)}
    onnx.helper.set_model_props(model, properties)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    size = path.stat().st_size
    if size > MOST_BYTES:
        message = f"{path.name} has {size} bytes, more than {MOST_BYTES}"
        raise ValueError(message)
    difference = max(_difference(network, path, images), _difference(network, path, images[:1]))
    if difference > TOLERANCE:
        message = f"{path.name} differs from torch by {difference:.2e}, more than {TOLERANCE:.0e}"
        raise ValueError(message)
    return f"{path.name}: {size} bytes, largest difference between ONNX Runtime and torch {difference:.1e}"


def _difference(network: nn.Module, path: Path, images: Tensor) -> float:
    """The largest difference of a logit, relative to the largest logit."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (answered,) = session.run(["logits"], {"image": images.numpy()})
    with torch.no_grad():
        expected = network(images).numpy()
    return float(np.abs(answered - expected).max() / np.abs(expected).max())

"""What explainers say: in ONNX Runtime, or in float64 by interpreting the graph."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import ModelProto
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from torch import Tensor, nn
from torch.nn import functional

from tools import zoo

LEVELS = ort.GraphOptimizationLevel


def exported(network: nn.Module, x: Tensor, kind: str = "legacy", batch: str | int = "N") -> ModelProto:
    """A network as ONNX in memory, through one of the zoo's exports."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        zoo.EXPORTS[kind](network, x, path, batch)
        return onnx.load(path)


def exported64(network: nn.Module, x: Tensor) -> ModelProto:
    """The same in float64, for `run64`."""
    return exported(network.double(), x.double())


def run(
    proto: ModelProto, x: np.ndarray, targets: Sequence[int] | None = None, level: LEVELS = LEVELS.ORT_ENABLE_ALL
) -> dict[str, np.ndarray]:
    """Every output of a model on ONNX Runtime's CPU provider, by name."""
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = 3
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    feeds = {session.get_inputs()[0].name: x}
    if targets is not None:
        feeds["target"] = np.asarray(targets, np.int64)
    return dict(zip(names, session.run(names, feeds), strict=True))


def run64(proto: ModelProto, x: np.ndarray, targets: Sequence[int]) -> np.ndarray:
    """The relevance of a float64 explainer. No runtime convolves in float64: the graph is interpreted, node by node, by
    onnx's evaluator, with torch for the convolutions."""
    evaluator = ReferenceEvaluator(proto, new_ops=[Conv, ConvTranspose])
    found = evaluator.run(["relevance"], {proto.graph.input[0].name: x, "target": np.asarray(targets, np.int64)})
    return np.asarray(found[0])


class Conv(OpRun):
    """Convolution in two dimensions with symmetric or asymmetric padding."""

    op_domain = ""

    def _run(self, x: np.ndarray, w: np.ndarray, b: np.ndarray | None = None, **given: Any) -> tuple[np.ndarray]:
        top, left, bottom, right = given["pads"] or [0, 0, 0, 0]
        padded = functional.pad(torch.from_numpy(np.array(x)), (left, right, top, bottom))
        w_, b_ = torch.from_numpy(np.array(w)), None if b is None else torch.from_numpy(np.array(b))
        z = functional.conv2d(padded, w_, b_, given["strides"] or 1, 0, given["dilations"] or 1, given["group"] or 1)
        return (z.numpy(),)


class ConvTranspose(OpRun):
    """Its adjoint, with symmetric padding."""

    op_domain = ""

    def _run(self, s: np.ndarray, w: np.ndarray, b: np.ndarray | None = None, **given: Any) -> tuple[np.ndarray]:
        pads, rest = given["pads"] or [0] * 4, given["output_padding"] or 0
        if pads[:2] != pads[2:] or b is not None:
            raise NotImplementedError(given)
        s_, w_ = torch.from_numpy(np.array(s)), torch.from_numpy(np.array(w))
        x = functional.conv_transpose2d(
            s_, w_, None, given["strides"] or 1, pads[:2], rest, given["group"] or 1, given["dilations"] or 1
        )
        return (x.numpy(),)


def distances(found: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """The relative L2 distance of each image's relevance to what it should be."""
    flat, truth = (a.reshape(len(a), -1).astype(np.float64) for a in (found, exact))
    return np.linalg.norm(flat - truth, axis=1) / np.linalg.norm(truth, axis=1)


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """How alike two images' relevance is: 1 where it is the same but for a factor."""
    a, b = (v.reshape(len(v), -1).astype(np.float64) for v in (one, other))
    return (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))

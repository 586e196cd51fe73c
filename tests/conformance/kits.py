"""Kits as graphs/conformance is one, made for a test."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto

from tools import conformance

Tensors = Mapping[str, np.ndarray]


def write(folder: Path, asked: Mapping[str, tuple[ModelProto, Tensors, Tensors]], kind: str = "") -> Path:
    """A kit in `folder` of models by name, each with its inputs and what it must answer; within which tolerance, if not
    that of the output's name."""
    (folder / "explainers").mkdir(parents=True)
    listed = []
    for name, (model, feeds, answers) in asked.items():
        onnx.save(model, folder / "explainers" / f"{name}.onnx")
        outputs = [
            {**conformance.entry(folder, name, k, v), "tolerance": kind or conformance.kind_of(k, v.dtype)}
            for k, v in answers.items()
        ]
        inputs = [conformance.entry(folder, name, k, v) for k, v in feeds.items()]
        listed.append({"name": name, "explainer": f"explainers/{name}.onnx", "inputs": inputs, "outputs": outputs})
    manifest = {"kit": 1, "tolerances": conformance.TOLERANCES, "cases": listed, "drawings": []}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder

"""What must hold on a GPU beside the times: placement, CUDA graphs, agreement with the CPU and of float16."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from onnxlrp.contract import EXPLAINED, PREDICTED, RELEVANCE, TARGET
from tools.bench import models, onnx_side
from tools.bench.onnx_side import INPUT, ROUNDED, Place
from tools.bench.results import DEFAULT
from tools.cuda_placement.place import placed

BATCH = 2


def checks(network: str, composite: str, folder: Path, place: Place) -> dict[str, float]:
    """By what was checked: nodes of the explainer that CUDA does not run and Memcpy nodes; with the default composite
    distances in relative L2 too. Both of float32 and float16 explainers must be there for these."""
    import onnxruntime as ort

    ort.preload_dlls()
    where: Any = placed(str(onnx_side.explainer_path(folder, network, composite)))
    found = {"not on CUDA": float(sum(where["cpu"].values())), "Memcpy": float(where["memcpy"])}
    if composite != DEFAULT:
        return found
    single, half = replace(place, precision="float32"), replace(place, precision="float16")
    exact, classes = _explained(network, composite, folder, single)

    def relevance(where: Place) -> np.ndarray:
        return _explained(network, composite, folder, where, classes)[0]

    found["to the CPU"] = models.worst_distance(exact, relevance(replace(single, device="cpu")))
    if onnx_side.explainer_path(folder, network, composite, "float16").exists():
        short = relevance(half)
        models.explain(network, composite, ROUNDED, folder)
        found["float16"] = models.worst_distance(short, exact)
        found["float16, same weights"] = models.worst_distance(short, relevance(replace(single, precision=ROUNDED)))
    found["replay"] = _replayed(network, composite, folder, single)
    return found


def _explained(
    network: str, composite: str, folder: Path, place: Place, classes: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Relevance for the given classes, or for those predicted, and the classes."""
    path = onnx_side.explainer_path(folder, network, composite, place.precision)
    asked = np.full(BATCH, PREDICTED, np.int64) if classes is None else classes
    opened = onnx_side.session(path, place, BATCH)
    found = opened.run([RELEVANCE, EXPLAINED], {INPUT: onnx_side.images(BATCH, place), TARGET: asked})
    return np.asarray(found[0]), np.asarray(found[1])


def _replayed(network: str, composite: str, folder: Path, place: Place) -> float:
    """A CUDA graph captured with some images and replayed with others, against a plain run with these."""
    import onnxruntime as ort

    path = onnx_side.explainer_path(folder, network, composite)
    images, targets = onnx_side.images(BATCH, place), np.full(BATCH, PREDICTED, np.int64)
    opened = onnx_side.session(path, place, BATCH, graph=True)
    given, target = (ort.OrtValue.ortvalue_from_numpy(a, "cuda", 0) for a in (images[::-1].copy(), targets))
    out = ort.OrtValue.ortvalue_from_shape_and_type(list(images.shape), images.dtype, "cuda", 0)
    binding = opened.io_binding()
    binding.bind_ortvalue_input(INPUT, given)
    binding.bind_ortvalue_input(TARGET, target)
    binding.bind_ortvalue_output(RELEVANCE, out)
    for _ in range(2):
        opened.run_with_iobinding(binding)  # captured
    given.update_inplace(images)
    opened.run_with_iobinding(binding)  # replayed
    binding.synchronize_outputs()
    return models.worst_distance(out.numpy(), _explained(network, composite, folder, place)[0])

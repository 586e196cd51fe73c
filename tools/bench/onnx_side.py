"""The contestants that run in ONNX Runtime: the plain forward pass, explainers, gradients made by onnx-ad."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort

from onnxlrp.contract import RELEVANCE, TARGET
from onnxlrp.run.memory import returning_memory, save_memory
from onnxlrp.run.runtime import CUDA_OPTIONS
from tools.bench.results import FIXED, FORWARD, GRAPH, OPEN, OURS
from tools.bench.timing import Call

INPUT, BATCH_NAME = "image", "N"  # of the exported models
SIZE = 224
CLASSES = 1000
ROUNDED = "rounded"
SPINNING = {  # what the worker threads of a session do while they wait
    "stop": {"session.force_spinning_stop": "1"},  # spin within a run, as by default, but not between runs
    "off": {"session.intra_op.allow_spinning": "0"},
    "default": {},
}


@dataclass(frozen=True)
class Place:
    """On what everything of a row runs, ONNX Runtime and torch alike."""

    device: str = "cpu"
    threads: int = 1
    spinning: str = "stop"
    precision: str = "float32"

    @property
    def numpy_type(self) -> type[np.floating[Any]]:
        """The type of images and weights."""
        return np.float16 if self.precision == "float16" else np.float32


def model_path(folder: Path, network: str, precision: str = "float32") -> Path:
    """Where a classifier is: in float32, float16, or in float32 with weights `rounded` to those of float16."""
    return folder / f"{network}{f'.{precision}' if precision in ('float16', ROUNDED) else ''}.onnx"


def explainer_path(folder: Path, network: str, composite: str, precision: str = "float32") -> Path:
    """Where an explainer is."""
    return model_path(folder, network, precision).with_suffix(f".{composite}.onnx")


def gradient_path(folder: Path, network: str, batch: int, precision: str = "float32") -> Path:
    """Where onnx-ad's model is, which is for one batch size."""
    return model_path(folder, network, precision).with_suffix(f".{batch}.ad.onnx")


def session(path: Path, place: Place, batch: int | None = None, graph: bool = False) -> Any:
    """A session on the device; with the batch size fixed, or captured in a CUDA graph too."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = place.threads
    for key, value in SPINNING[place.spinning].items():
        options.add_session_config_entry(key, value)
    if batch is not None:
        options.add_free_dimension_override_by_name(BATCH_NAME, batch)
    provider, settings = "CPUExecutionProvider", {}
    if place.device == "cpu":
        save_memory(options)  # as `onnxlrp run` does, and for the plain forward pass too
    if place.device == "cuda":
        ort.preload_dlls()
        provider = "CUDAExecutionProvider"
        tf32, captured = place.precision == "tf32", graph
        settings = {**CUDA_OPTIONS, "use_tf32": str(int(tf32)), "enable_cuda_graph": str(int(captured))}
    with returning_memory():
        opened = ort.InferenceSession(str(path), options, providers=[(provider, settings)])
    if opened.get_providers()[0] != provider:
        raise RuntimeError(f"{provider} does not run here: {opened.get_providers()} do")
    return opened


def images(batch: int, place: Place) -> np.ndarray:
    """Images of noise with the statistics of ImageNet's."""
    noise = np.random.default_rng(0).standard_normal((batch, 3, SIZE, SIZE))
    return noise.astype(place.numpy_type)


def bound(opened: Any, feeds: dict[str, np.ndarray], wanted: str, shape: tuple[int, ...], device: str) -> Call:
    """A call: on the CPU `run`; on CUDA a run from and to the same buffers on the GPU, waited for."""
    if device == "cpu":
        return lambda: opened.run([wanted], feeds)[0]
    kind = next(iter(feeds.values())).dtype
    made = {name: ort.OrtValue.ortvalue_from_numpy(array, "cuda", 0) for name, array in feeds.items()}
    out = ort.OrtValue.ortvalue_from_shape_and_type(list(shape), kind, "cuda", 0)
    binding = opened.io_binding()
    for name, value in made.items():
        binding.bind_ortvalue_input(name, value)
    binding.bind_ortvalue_output(wanted, out)

    def call() -> Any:
        assert made  # the buffers live as long as the call does
        opened.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return out

    return call


def contestant(name: str, network: str, batch: int, composite: str, folder: Path, place: Place) -> Call:
    """The forward pass or the explainer with the batch open or fixed, or onnx-ad's gradient, by its name."""
    fed = {INPUT: images(batch, place)}
    if name == "onnx-ad":
        opened = session(gradient_path(folder, network, batch, place.precision), place, batch)
        start = np.zeros((batch, CLASSES, 1), place.numpy_type)
        start[:, 0] = 1
        return bound(opened, {**fed, "adj_logits": start}, "adj_image", (*fed[INPUT].shape, 1), place.device)
    mode = next(m for m in (GRAPH, FIXED, OPEN) if name.endswith(m))
    path, wanted, shape = model_path(folder, network, place.precision), "logits", (batch, CLASSES)
    if name.startswith(OURS):
        path, wanted = explainer_path(folder, network, composite, place.precision), RELEVANCE
        shape = fed[INPUT].shape
        fed[TARGET] = np.full(batch, -1, np.int64)
    elif not name.startswith(FORWARD):
        raise KeyError(name)
    return bound(session(path, place, batch if mode else None, mode == GRAPH), fed, wanted, shape, place.device)

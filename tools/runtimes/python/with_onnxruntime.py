"""ONNX Runtime on the CPU. ORT_LEVEL=basic turns off the optimisations that group sums in another order."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import kit
import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime as ort

BASIC = os.environ.get("ORT_LEVEL") == "basic"


def opens(path: Path, feeds: kit.Feeds, outputs: list[str]) -> kit.Run:
    """A session; it needs no shapes beforehand."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "0"))
    if BASIC:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    taken = {i.name for i in session.get_inputs()}

    def run(feeds: kit.Feeds) -> Mapping[str, np.ndarray]:
        given = {name: value for name, value in feeds.items() if name in taken}
        return dict(zip(outputs, session.run(outputs, given), strict=True))

    return run


if __name__ == "__main__":
    kit.main(f"ONNX Runtime {ort.__version__}{', BASIC' if BASIC else ''}", opens)

"""OpenVINO on the CPU, in float32 (where the processor has bfloat16, OpenVINO would otherwise compute in it)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import kit
import numpy as np
import openvino

CORE = openvino.Core()
CONFIG = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": int(os.environ.get("OMP_NUM_THREADS", "0"))}


def opens(path: Path, feeds: kit.Feeds, outputs: list[str]) -> kit.Run:
    """A compiled model; an open batch stays open."""
    compiled = CORE.compile_model(CORE.read_model(path), "CPU", CONFIG)
    taken = {port.get_any_name() for port in compiled.inputs}

    def run(feeds: kit.Feeds) -> Mapping[str, np.ndarray]:
        found = compiled({name: value for name, value in feeds.items() if name in taken})
        return {name: found[name].copy() for name in outputs}

    return run


if __name__ == "__main__":
    kit.main(f"OpenVINO {openvino.__version__.split('-')[0]}", opens)

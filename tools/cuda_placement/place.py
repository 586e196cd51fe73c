"""Print what of each model CUDA would not run: `LD_LIBRARY_PATH=STUBS python -m tools.cuda_placement.place MODEL...`

A JSON line for each model: the nodes on CUDA, those on the CPU by operator, and the Memcpy nodes between. With the
libraries of `stubs` it works without a GPU; sessions are made and never run.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnx
import onnxruntime as ort

CUDA = "CUDAExecutionProvider"


def placed(path: str) -> dict[str, object]:
    """Where ONNX Runtime puts a model's nodes. Raises `SystemExit` where the CUDA provider does not load."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "placed.onnx")
        session = ort.InferenceSession(path, options, providers=[CUDA])
        if session.get_providers()[0] != CUDA:
            raise SystemExit(
                "the CUDA provider did not load: set LD_LIBRARY_PATH to what tools.cuda_placement.stubs made"
            )
        graph = onnx.load(options.optimized_model_filepath, load_external_data=False).graph
    providers = Counter(
        (part.ep_name, node.op_type)
        for part in session.get_provider_graph_assignment_info()
        for node in part.get_nodes()
    )
    elsewhere = {op: count for (provider, op), count in providers.items() if provider != CUDA}
    return {
        "model": Path(path).name,
        "cuda": sum(providers.values()) - sum(elsewhere.values()),
        "cpu": elsewhere,
        "memcpy": sum(node.op_type.startswith("Memcpy") for node in graph.node),
    }


if __name__ == "__main__":
    for model in sys.argv[1:]:
        print(json.dumps(placed(model)), flush=True)

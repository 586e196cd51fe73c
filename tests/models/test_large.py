"""A classifier of more than protobuf's 2 GB: zeros, but for a few weights, in a file that takes no room on the disk."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

FEATURES, UNITS, CLASSES = 4 * 32 * 32, 134_300, 3  # the dense layer between has 2.2 GB of weights
NEEDED = 12e9  # bytes free on the disk

CONVERT = """
import sys, onnxlrp
from pathlib import Path
files = onnxlrp.convert(sys.argv[1]).save(sys.argv[2])
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(*files, peak.split()[1], sep="\\n")
"""


def write_classifier(path: Path) -> None:
    """Conv, Relu, a dense layer of 2.2 GB, of which only the first units have weights, and a small one."""
    random = np.random.default_rng(0)
    dense = random.normal(size=(8, FEATURES)).astype(np.float32)
    with path.with_name("weights.bin").open("wb") as file:
        file.write(dense.tobytes())
        file.truncate(UNITS * FEATURES * 4)
    large = TensorProto(name="w2", data_type=TensorProto.FLOAT, dims=[UNITS, FEATURES])
    large.data_location = TensorProto.EXTERNAL
    large.external_data.add(key="location", value="weights.bin")
    head = np.zeros((CLASSES, UNITS), np.float32)
    head[:, :8] = random.normal(size=(CLASSES, 8))
    convolution = random.normal(size=(4, 1, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("Flatten", ["r"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w2"], ["d"], "dense", transB=1),
        helper.make_node("Relu", ["d"], ["e"], "relu2"),
        helper.make_node("Gemm", ["e", "w3"], ["logits"], "head", transB=1),
    ]
    ends = [("image", [1, 1, 32, 32]), ("logits", [1, CLASSES])]
    image, logits = (helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in ends)
    initializers = [numpy_helper.from_array(convolution, "w1"), large, numpy_helper.from_array(head, "w3")]
    graph = helper.make_graph(nodes, "large", [image], [logits], initializers)
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )


def light(path: Path) -> ModelProto:
    return onnx.load(path, load_external_data=False)


@pytest.mark.slow
def test_more_than_two_gigabytes(tmp_path: Path) -> None:
    if shutil.disk_usage(tmp_path).free < NEEDED:
        pytest.skip(f"needs {NEEDED / 1e9:.0f} GB of free disk")
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    source, explainer = tmp_path / "in" / "large.onnx", tmp_path / "out" / "large.lrp.onnx"
    write_classifier(source)
    said = subprocess.run(
        [sys.executable, "-c", CONVERT, str(source), str(explainer)], capture_output=True, text=True, check=True
    ).stdout.split()
    data = explainer.with_name("large.lrp.onnx.data")
    assert said[:2] == [str(explainer), str(data)]
    assert int(said[2]) * 1024 < 400e6, "the weights do not go through memory"
    assert sorted(p.name for p in explainer.parent.iterdir()) == [explainer.name, data.name]
    assert explainer.stat().st_size < 5e6
    assert data.stat().st_size < 1.02 * (source.with_name("weights.bin").stat().st_size)
    before = light(source).graph.node
    assert list(light(explainer).graph.node[: len(before)]) == list(before)
    shutil.rmtree(source.parent)  # the explainer stands alone
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # nothing is computed in advance
    session = ort.InferenceSession(str(explainer), options, providers=["CPUExecutionProvider"])
    image = np.random.default_rng(1).random((1, 1, 32, 32), np.float32)
    relevance, explained = session.run(["relevance", "explained"], {"image": image, "target": np.array([2])})
    assert relevance.shape == image.shape
    assert np.isfinite(relevance).all()
    assert np.abs(relevance).max() > 0
    assert explained.tolist() == [2]

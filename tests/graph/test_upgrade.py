"""Older operator sets, functions and IR versions, brought to what the relevance part is written in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import onnxlrp
from onnxlrp.errors import OnnxLrpError
from onnxlrp.graph import upgrade as upgrading
from onnxlrp.graph.model import Model, load
from onnxlrp.graph.upgrade import upgrade


def old(opset: int = 11, ir: int = 6, sizes: tuple[int | str, int | str] = (8, 8), large: bool = False) -> ModelProto:
    """A classifier whose Dropout, ReduceSum and Squeeze are written differently since."""
    random = np.random.default_rng(0)
    channels = 64 if large else 4
    weights = {"w": random.normal(size=(channels, 3, 3, 3)), "g": random.normal(size=(channels, 5)), "b": np.ones(5)}
    tensors = [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv"),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], "pool"),
        helper.make_node("Squeeze", ["p"], ["s"], "squeeze", axes=[2, 3]),
        helper.make_node("Dropout", ["s"], ["d"], "dropout"),
        helper.make_node("Gemm", ["d", "g", "b"], ["y"], "fc"),
    ]
    ends = [("x", ["N", 3, *sizes]), ("y", ["N", 5])]
    image, scores = (helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in ends)
    listed = [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in tensors] if ir < 4 else []
    graph = helper.make_graph(nodes, "old", [image, *listed], [scores], tensors)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)
    proto.producer_name = "somebody"
    return proto


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("ir", [3, 6])
@pytest.mark.parametrize("opset", [9, 11, 12])
def test_an_old_operator_set(opset: int, ir: int, large: bool) -> None:
    before = old(opset, ir, large=large)
    after = upgrade(load(before)).proto
    onnx.checker.check_model(after, full_check=True)
    assert after.opset_import[0].version == 17
    assert after.ir_version == 8
    assert after.producer_name == "somebody"
    assert [n.name for n in after.graph.node if n.op_type != "Constant"] == [n.name for n in before.graph.node]
    for tensor in before.graph.initializer:
        (same,) = (t for t in after.graph.initializer if t.name == tensor.name)
        np.testing.assert_array_equal(numpy_helper.to_array(same), numpy_helper.to_array(tensor))


def test_sizes_that_are_open_are_tried() -> None:
    model = upgrade(load(old(sizes=("H", "W"))))
    assert model.opset == 17


def test_weights_in_another_file(tmp_path: Path) -> None:
    onnx.save(old(large=True), tmp_path / "a.onnx", save_as_external_data=True, location="w", size_threshold=0)
    files = onnxlrp.convert(tmp_path / "a.onnx").save(tmp_path / "b.onnx")
    (tmp_path / "w").unlink()
    onnx.checker.check_model(str(files[0]), full_check=True)


def test_answers_that_change_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = upgrading._converted

    def wrong(model: Model) -> ModelProto:
        proto = real(model)
        next(n for n in proto.graph.node if n.op_type == "Relu").op_type = "Neg"
        return proto

    monkeypatch.setattr(upgrading, "_converted", wrong)
    with pytest.raises(OnnxLrpError, match="output y changed on conversion from opset 11 to 17"):
        upgrade(load(old()))


def test_a_model_that_does_not_run() -> None:
    proto = old()
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones((4, 7, 3, 3), np.float32), "w"))
    with pytest.raises(OnnxLrpError, match="does not run in ONNX Runtime at opset 11"):
        upgrade(load(proto))


def test_functions_become_nodes() -> None:
    proto = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17, "own" : 1]>
        net (float[N, 3, 4, 4] x) => (float[N, 48] y) { f = Flatten(x) y = own.Twice(f) }
        <domain: "own", opset_import: ["" : 17]> Twice (a) => (b) { b = Add(a, a) }
    """)
    upgraded = upgrade(load(proto)).proto
    assert [n.op_type for n in upgraded.graph.node] == ["Flatten", "Add"]
    assert not upgraded.functions


def test_an_ir_version_that_runtimes_do_not_know_is_lowered() -> None:
    proto = old(17, onnx.IR_VERSION)
    for node in proto.graph.node:
        del node.attribute[:]
    proto.graph.node[3].op_type = "Flatten"
    proto.graph.node[4].op_type = "Identity"
    assert upgrade(load(proto)).proto.ir_version == 8
    assert proto.ir_version == onnx.IR_VERSION, "what the caller passed is not changed"

"""Equal things written differently give equal results, whatever the values."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx.parser
import pytest
from onnx import ModelProto, TensorProto, helper

from onnxlrp.graph.build import Builder, Value, export
from onnxlrp.graph.dialect import PORTABLE, Dialect
from onnxlrp.graph.facts import infer
from onnxlrp.graph.model import Model
from tests.explain.networks import run

TYPES = {np.float16: TensorProto.FLOAT16, np.float32: TensorProto.FLOAT, np.float64: TensorProto.DOUBLE}


def written(dialect: Dialect, element_type: int, channels: int = 4) -> ModelProto:
    """A model of mask, sign and quotient: v where x > 0, the sign of x, v ÷ x."""
    name = TensorProto.DataType.Name(element_type).lower()
    proto = onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["" : 17]>
    g ({name}[N] x, {name}[N] v) => ({name}[N] kept, {name}[N] signs, {name}[N] ratio) {{ y = Identity(x) }}""")
    model = Model(proto)
    build = Builder(infer(model, "x"), dialect=dialect)
    x, v = Value("x", element_type), Value("v", element_type)
    values = (
        build.masked(v, build.op("Greater", x, build.constant(0.0, x))),
        build.sign(x),
        build.quotient(v, x, channels),
    )
    outputs = [build.output(a, b).name for a, b in zip(values, ("kept", "signs", "ratio"), strict=True)]
    graph, constants, notes = build.finish(outputs)
    proto.graph.node.extend(export(graph, notes))
    used = {name for node in proto.graph.node for name in node.input}
    proto.graph.initializer.extend(t for name, t in constants.items() if name in used)
    return proto


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("dialect", [Dialect(sign="comparisons"), Dialect(quotient="plain")])
def test_forms_agree(dialect: Dialect, dtype: Any) -> None:
    """On numbers of either sign, both zeros, the smallest and largest there are."""
    info = np.finfo(dtype)
    sizes = [0, info.smallest_subnormal, info.smallest_normal, 1e-7, 1e-3, 1, 3, info.max / 2, info.max, np.inf]
    x = np.array([s for size in sizes for s in (size, -size)], dtype)
    v = np.random.default_rng(0).normal(size=len(x)).astype(dtype)
    plain, other = (run(written(d, TYPES[dtype]), {"x": x, "v": v}) for d in (PORTABLE, dialect))
    np.testing.assert_array_equal(plain["kept"], np.where(x > 0, v, 0))
    np.testing.assert_array_equal(plain["signs"], np.sign(x))
    np.testing.assert_array_equal(other["kept"], plain["kept"])
    np.testing.assert_array_equal(other["signs"], plain["signs"])
    large = np.abs(x) >= 1e-3
    np.testing.assert_allclose(other["ratio"][large], plain["ratio"][large], 1e-3 if dtype is np.float16 else 0)
    for of, ratio in ((PORTABLE, plain["ratio"]), (dialect, other["ratio"])):
        assert np.isfinite(ratio[:2]).all() == (of.quotient == "guarded" and dtype is not np.float16)


def test_a_form_is_of_its_operators() -> None:
    """Each dialect changes what it names, and nothing else."""

    def operators(dialect: Dialect, channels: int = 4) -> list[str]:
        nodes = written(dialect, TensorProto.FLOAT, channels).graph.node
        return sorted(n.op_type for n in nodes if n.op_type != "Identity")

    plain = ["Greater", "Cast", "Mul", "Sign", "Div"]
    assert operators(PORTABLE) == sorted([*plain, "Add"])
    assert operators(PORTABLE, channels=16) == operators(PORTABLE, channels=0) == sorted(plain)
    assert operators(Dialect("plain")) == sorted(plain)
    signs = ["Greater", "Cast", "Mul", "Less", "Cast", "Sub", "Div"]  # Greater and its Cast serve both
    assert operators(Dialect("plain", "comparisons")) == sorted(signs)


def test_a_mask_keeps_what_is_known_of_the_sign() -> None:
    """A product with 0 and 1 has the sign of the other factor, which later rules ask for."""
    proto = helper.make_model(helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N"])], [
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N"])]),
        opset_imports=[helper.make_opsetid("", 17)])  # fmt: skip
    build = Builder(infer(Model(proto), "x"))
    y = build.tensor("y")
    assert build.masked(y, build.op("Greater", y, build.constant(1.0, y))).sign is y.sign

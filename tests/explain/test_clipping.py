"""A relu, or a relu with a limit, in other operators: the same relevance."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto

import onnxlrp
from onnxlrp.errors import OnnxLrpError

from .networks import explain, images, network

RELU = {
    "a number": "a = Max(z, zero)",
    "zeros of its shape, expanded": "shape = Shape(z) zeros = Expand(zero, shape) a = Max(z, zeros)",
    "zeros of its shape, filled": "shape = Shape(z) zeros = ConstantOfShape(shape) a = Max(zeros, z)",
}
LIMITED = {
    "Min of Max": "b = Max(z, zero) a = Min(b, one)",
    "Max of Min": "b = Min(one, z) a = Max(b, zero)",
    "Min of a relu": "b = Relu(z) a = Min(b, one)",
}
SIZE = (3, 20, 20)  # more zeros than are worked out


def clipped(nodes: str) -> ModelProto:
    """A classifier whose z becomes a, by what is fed or constant."""
    inputs = "float[N, 3, 20, 20] image" + (", float fed" if "fed" in nodes else "")
    weights = "float[8, 3, 3, 3] w1, float[8] b1, float[8, 3] w2, float[3] b2, float[8, 1, 1] b3"
    numbers = "float zero = {0}, float one = {1}"
    return network(f"""net ({inputs}, {weights}) => (float[N, 3] y) <{numbers}> {{
      z = Conv(image, w1, b1)
      {nodes}
      p = GlobalAveragePool(a) f = Flatten(p) y = Gemm(f, w2, b2)
    }}""")


@pytest.mark.parametrize("composite", ["epsilon_plus_flat", "epsilon_alpha2_beta1", "gradient", "guided_backprop"])
@pytest.mark.parametrize("spelt", RELU)
def test_as_relu(spelt: str, composite: str) -> None:
    found, expected = (
        explain(clipped(nodes), images(shape=SIZE), [0, 1, 2], composite=composite)["relevance"]
        for nodes in (RELU[spelt], "a = Relu(z)")
    )
    assert np.abs(expected).max() > 0
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("composite", ["epsilon_plus_flat", "gradient"])
@pytest.mark.parametrize("spelt", LIMITED)
def test_as_clip(spelt: str, composite: str) -> None:
    found, expected = (
        explain(clipped(nodes), images(shape=SIZE), [0, 1, 2], composite=composite)["relevance"]
        for nodes in (LIMITED[spelt], "a = Clip(z, zero, one)")
    )
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ("a = Max(z, z)", "only Max of one activation and one constant is known"),
        ("a = Max(z, zero, one)", "only Max of one activation and one constant is known"),
        ("a = Min(z, b3)", "a bound of z is not one number"),
        ("a = Clip(z, zero, fed)", "a bound of z is not one number"),
    ],
)
def test_what_is_no_clipping(nodes: str, reason: str) -> None:
    with pytest.raises(OnnxLrpError, match=reason):
        onnxlrp.convert(clipped(nodes))

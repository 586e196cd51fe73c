"""Sums that keep their axes, of size 1: what comes back is made as large as it was before it meets a window."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

from .networks import distance, explain, network

SUMMED = """
summed (float[N, 1, 3, 3] image, float[1, 1, 1, 1] w1, float[1, 1, 3, 3] w2, float[2, 1, 1, 1] w3)
  => (float[N, 2, 1, 1] logits) <int64[2] axes = {2, 3}> {
  [conv1] z1 = Conv<kernel_shape = [1, 1]>(image, w1)
  [relu1] a1 = Relu(z1)
  [conv2] z2 = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(a1, w2)
  [total] t = ReduceSum<keepdims = 1>(z2, axes)
  [head] logits = Conv<kernel_shape = [1, 1]>(t, w3)
}"""
RECTIFIED = SUMMED.replace("(z2, axes)", "(a2, axes)").replace("  [total]", "  [relu2] a2 = Relu(z2)\n  [total]")
GREY = """
grey (float[N, 3, 3, 3] image, float[1, 1, 3, 3] w2, float[9, 2] w3) => (float[N, 2] logits) <int64[1] axes = {1}> {
  [grey] g = ReduceSum<keepdims = 1>(image, axes)
  [conv] z = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(g, w2)
  [flatten] f = Flatten(z)
  [dense] logits = Gemm(f, w3)
}"""
SUMMED_BEFORE_DENSE = """
dense (float[N, 1, 3, 3] image, float[2, 1, 3, 3] w1, float[2, 2, 3, 3] w2, float[2, 2] w3) => (float[N, 2] logits)
<int64[2] axes = {2, 3}> {
  [conv1] z1 = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(image, w1)
  [relu1] a1 = Relu(z1)
  [conv2] z2 = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(a1, w2)
  [total] t = ReduceSum<keepdims = 1>(z2, axes)
  [flatten] f = Flatten(t)
  [dense] logits = Gemm(f, w3)
}"""
WINDOWS = np.array([[4, 6, 4], [6, 9, 6], [4, 6, 4]], np.float32)  # how many windows of 3 × 3 read a pixel


def of_ones(text: str) -> ModelProto:
    """With all weights 1."""
    proto = network(text)
    for tensor in proto.graph.initializer:
        if tensor.name.startswith("w"):
            ones = np.ones_like(numpy_helper.to_array(tensor))
            tensor.CopyFrom(numpy_helper.from_array(ones, tensor.name))
    return proto


@pytest.mark.parametrize("level", ["exact", "none"])
@pytest.mark.parametrize("composite", ["gradient", "guided_backprop", "deconvnet"])
@pytest.mark.parametrize("text", [SUMMED, RECTIFIED, GREY])
def test_derivatives(text: str, composite: str, level: str) -> None:
    channels = 3 if text is GREY else 1
    x = np.ones((2, channels, 3, 3), np.float32)
    found = explain(of_ones(text), x, [0, 1], composite=composite, optimize=level)["relevance"]
    np.testing.assert_array_equal(found, np.broadcast_to(WINDOWS, x.shape))


@pytest.mark.parametrize("composite", ["epsilon_gamma_box(low=-3, high=3)", "epsilon_plus", "epsilon_alpha2_beta1"])
def test_quotients(composite: str) -> None:
    """Of a convolution whose outputs, of either sign, are summed."""
    proto = network(SUMMED_BEFORE_DENSE)
    x = np.random.default_rng(1).normal(size=(2, 1, 3, 3)).astype(np.float32)
    exact, none = (explain(proto, x, [0, 1], composite=composite, optimize=o)["relevance"] for o in ("exact", "none"))
    assert np.isfinite(exact).all() and np.abs(exact).max() > 0
    assert distance(exact, none) < 1e-5


def test_flat_over_an_average() -> None:
    """Whose adjoint is as small as the average."""
    text = SUMMED.replace("ReduceSum<keepdims = 1>(z2, axes)", "GlobalAveragePool(z2)")
    x = np.ones((1, 1, 3, 3), np.float32)
    found = explain(of_ones(text), x, [0], composite="gradient", rules={"total": "flat"})["relevance"]
    np.testing.assert_allclose(found[0, 0], WINDOWS / 9, rtol=1e-5)

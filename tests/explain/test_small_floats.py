"""Relevance in float16 does not get lost where a score is spread over many units."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

import onnxlrp
from onnxlrp.explain import small_floats
from tests.explain.networks import network, of_type

# 2048 units at each of 4 × 4 positions: of a score of 0.004 each gets a tenth of float16's smallest step.
WIDE = """
wide (float[N, 3, 4, 4] image, float[2048, 3, 1, 1] w1, float[2048] b1, float[8, 2048, 1, 1] w2, float[8] b2,
      float[8, 3] w3, float[3] b3) => (float[N, 3] logits) {
  [conv1] z1 = Conv(image, w1, b1)
  [relu1] a1 = Relu(z1)
  [conv2] z2 = Conv(a1, w2, b2)
  [relu2] a2 = Relu(z2)
  [average] g = GlobalAveragePool(a2)
  [flatten] f = Flatten(g)
  [dense] logits = Gemm(f, w3, b3)
}"""


def classifier(last: float) -> ModelProto:
    """With weights that float16 holds exactly, and scores of about the size of those of the last layer."""
    proto = network(WIDE)
    for tensor in proto.graph.initializer:
        values = numpy_helper.to_array(tensor)
        values = values * (last if tensor.name == "w3" else 0.05 if tensor.name == "w2" else 1)
        values = np.zeros_like(values) if tensor.name == "b3" else values
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16).astype(np.float32), tensor.name))
    return proto


def relevance(proto: ModelProto, x: np.ndarray, **options: Any) -> np.ndarray:
    """Of class 1, computed in the model's own type: ONNX Runtime's CPU would go on in float32."""
    made = onnxlrp.convert(proto, **options).model
    feeds = {"image": x, "target": np.ones(len(x), np.int64)}
    (found,) = ReferenceEvaluator(made).run(["relevance"], feeds)
    return np.asarray(found, np.float64)


@pytest.mark.parametrize(("last", "close"), [(0.003, 0.03), (1.0, 0.02), (100.0, 0.02)])
@pytest.mark.parametrize(
    "options",
    [{}, {"composite": "epsilon_gamma_box(low=-3, high=3)"}, {"composite": "excitation_backprop"}, {"taps": ["all"]}],
)
def test_as_in_float32(last: float, close: float, options: dict[str, Any]) -> None:
    proto = classifier(last)
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 4)).astype(np.float16)
    expected = relevance(proto, x.astype(np.float32), **options)
    found = relevance(of_type(proto, TensorProto.FLOAT16), x, **options)
    assert np.linalg.norm(found - expected) < close * np.linalg.norm(expected)


def test_it_would_be_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Started as it is."""
    monkeypatch.setattr(small_floats, "spreads_in_float16", lambda *_: False)
    proto = classifier(0.003)
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 4)).astype(np.float16)
    expected = relevance(proto, x.astype(np.float32))
    found = relevance(of_type(proto, TensorProto.FLOAT16), x)
    assert np.linalg.norm(found - expected) > 0.1 * np.linalg.norm(expected)


@pytest.mark.parametrize(
    "options",
    [
        *({"start": s} for s in ("one-hot", "contrastive", "softmax-gradient", "fed")),
        {"composite": "epsilon_alpha2_beta1"},
    ],
)
def test_what_divides_by_something_else_stays_as_it_is(options: dict[str, Any]) -> None:
    """Other starts by other scores than their own, alpha_beta by contributions of one sign, however small."""
    made = onnxlrp.convert(of_type(classifier(1.0), TensorProto.FLOAT16), **options).model
    assert not [n.name for n in made.graph.node if "enlarged" in n.doc_string]


def test_taps_whose_first_axis_is_not_the_batch() -> None:
    """As tokens may be: each sample in its own size all the same."""
    text = """
net (float[N, 5, 3] image, float[3, 6] w1, float[6, 2] w2, float[2] b2) => (float[N, 2] logits) {
  turned = Transpose<perm = [1, 0, 2]>(image) z = MatMul(turned, w1) [relu] a = Relu(z)
  back = Transpose<perm = [1, 0, 2]>(a) m = ReduceMean<axes = [1], keepdims = 0>(back) logits = Gemm(m, w2, b2)
}"""
    proto = network(text)
    x = np.random.default_rng(0).normal(size=(5, 5, 3)).astype(np.float16)  # as many samples as tokens
    feeds = {"target": np.ones(5, np.int64)}
    plain = onnxlrp.convert(proto, taps=["all"]).model
    expected = ReferenceEvaluator(plain).run(["relevance/a"], {"image": x.astype(np.float32), **feeds})[0]
    short = onnxlrp.convert(of_type(proto, TensorProto.FLOAT16), taps=["all"]).model
    found = ReferenceEvaluator(short).run(["relevance/a"], {"image": x, **feeds})[0]
    np.testing.assert_allclose(found.astype(np.float64), expected, rtol=0.05, atol=0.02 * np.abs(expected).max())


@pytest.mark.parametrize("gain", [0.25, 10, 1000])
def test_gamma_on_black_pixels(gain: float) -> None:
    """Where a unit and what stabilises it are next to nothing, relevance is not infinite times zero; nor is it where γ
    times a unit is out of range."""
    text = """
net (float[N, 3, 8, 8] image, float[4, 3, 3, 3] w1, float[4, 4, 3, 3] w2, float[16, 2] w3, float[2] b3)
  => (float[N, 2] logits) {
  z1 = Conv<pads = [1, 1, 1, 1]>(image, w1) a1 = Relu(z1) z2 = Conv<pads = [1, 1, 1, 1]>(a1, w2)
  p = AveragePool<kernel_shape = [4, 4], strides = [4, 4]>(z2) a2 = Relu(p) f = Flatten(a2) logits = Gemm(f, w3, b3)
}"""
    x = np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype(np.float16)
    x[..., 3:] = 0
    found = relevance(
        of_type(network(text), TensorProto.FLOAT16), x, composite=f"epsilon_gamma_box(low=-3, high=3, gamma={gain})"
    )
    assert np.isfinite(found).all() and np.abs(found).max() > 0


@pytest.mark.parametrize("composite", ["epsilon_plus", "epsilon_alpha2_beta1", "excitation_backprop", "seed"])
@pytest.mark.parametrize("behind", ["a2 = LeakyRelu(z2)", "sum = Add(z2, a1) a2 = Relu(sum)", "a2 = Relu(z2)"])
def test_units_that_one_sign_decides(composite: str, behind: str) -> None:
    """What contributes with the other sign is zero there, and relevance that is divided by it out of range."""
    text = f"""
net (float[N, 3, 6, 6] image, float[4, 3, 3, 3] w1, float[4] b1, float[4, 4, 1, 1] w2, float[4] b2, float[4, 2] w3,
     float[2] b3) => (float[N, 2] logits) {{
  z1 = Conv<pads = [1, 1, 1, 1]>(image, w1, b1) a1 = Relu(z1) z2 = Conv(a1, w2, b2) {behind}
  g = GlobalAveragePool(a2) f = Flatten(g) logits = Gemm(f, w3, b3)
}}"""
    proto = network(text)
    for tensor in proto.graph.initializer:
        values = numpy_helper.to_array(tensor).copy()
        if tensor.name in ("w2", "b2"):
            values[0], values[1] = -abs(values[0]) - 0.25, abs(values[1]) + 0.25
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16).astype(np.float32), tensor.name))
    x = np.random.default_rng(0).normal(size=(4, 3, 6, 6)).astype(np.float16)
    expected = relevance(proto, x.astype(np.float32), composite=composite)
    with np.errstate(over="ignore"):
        found = relevance(of_type(proto, TensorProto.FLOAT16), x, composite=composite)
    assert np.linalg.norm(found - expected) < 0.03 * np.linalg.norm(expected)

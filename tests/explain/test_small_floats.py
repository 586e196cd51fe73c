"""Relevance in float16 does not get lost where a score is spread over many units."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

import onnxlrp
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
@pytest.mark.parametrize("options", [{}, {"start": "contrastive"}, {"composite": "epsilon_gamma_box(low=-3, high=3)"}])
def test_as_in_float32(last: float, close: float, options: dict[str, Any]) -> None:
    proto = classifier(last)
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 4)).astype(np.float16)
    expected = relevance(proto, x.astype(np.float32), **options)
    found = relevance(of_type(proto, TensorProto.FLOAT16), x, **options)
    assert np.linalg.norm(found - expected) < close * np.linalg.norm(expected)


def test_it_would_be_lost() -> None:
    """As it stands, without what the optimiser adds."""
    proto = classifier(0.003)
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 4)).astype(np.float16)
    expected = relevance(proto, x.astype(np.float32))
    found = relevance(of_type(proto, TensorProto.FLOAT16), x, optimize="none")
    assert np.linalg.norm(found - expected) > 0.1 * np.linalg.norm(expected)

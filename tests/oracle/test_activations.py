"""Activations: relevance passes, or meets the derivative, which is restated as a difference quotient in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import ModelProto, TensorProto
from onnx.reference import ReferenceEvaluator

from onnxlrp.explain.backward import propagate
from onnxlrp.explain.plan import Plan, Step, unfit
from onnxlrp.graph.build import Value
from onnxlrp.layers.registry import Activation, Relevance
from onnxlrp.rules.catalogue import CATALOGUE
from tests.explain.networks import of_type

from . import cases
from .emitting import extended, layers_of

STEP = 1e-5
Array = np.ndarray
# rule: R_x from R, f'(x) and x
RESTATED: dict[str, Callable[[Array, Array, Array], Array]] = {
    "pass": lambda r, d, x: r,
    "gradient": lambda r, d, x: r * d,
    "guided": lambda r, d, x: np.maximum(r, 0) * d,
    "deconvnet": lambda r, d, x: np.maximum(r, 0),
    "beta_smooth": lambda r, d, x: r / (1 + np.exp(-10 * x)),
}


def derivative(proto: ModelProto, x: Array) -> Array:
    """(f(x + h) - f(x - h)) / 2h, for an x that is nowhere as close as h to a kink."""
    f = ReferenceEvaluator(of_type(proto, TensorProto.DOUBLE))
    above, below = (f.run(None, {"x": x + step})[0] for step in (STEP, -STEP))
    return (above - below) / (2 * STEP)


@pytest.mark.parametrize("rule", RESTATED)
@pytest.mark.parametrize("name", cases.names("activation"))
def test_relevance_is_the_restatement(name: str, rule: str) -> None:
    proto, made = cases.case(name), CATALOGUE[rule].make()
    generator = np.random.default_rng(4)
    shape = cases.image_shape(proto, 3)
    x = generator.normal(scale=2.0, size=shape).astype(np.float32)
    r = generator.normal(size=shape).astype(np.float32)
    expected = RESTATED[rule](r, derivative(proto, x.astype(np.float64)), x)
    for exact in (True, False):
        build, (layer,) = layers_of(proto, exact)
        assert isinstance(layer, Activation)
        refused = bool(unfit(layer, made, build.facts))
        assert refused == (rule == "beta_smooth" and not layer.rectifies)  # which smooths a relu
        if refused:
            continue
        source = Value("fed", TensorProto.FLOAT)
        steps = (Step(layer, made, "the test says so"),)
        found = propagate(build, Plan("oracle", steps, ()), {"y": Relevance(source)})["x"].value
        results = cases.run(extended(proto, build, {"found": found}, [source]), {"x": x, "fed": r})
        np.testing.assert_allclose(results["found"], expected, rtol=1e-5, atol=1e-6)

"""Deletion curves, on a classifier whose answer is known pixel by pixel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxlrp import Explainer, Explanation
from onnxlrp.errors import OnnxLrpError
from onnxlrp.measure.faithfulness import deletion, patches

SIDE = 6
WEIGHT = np.random.default_rng(1).normal(size=(SIDE * SIDE, 2)).astype(np.float32)


def explainer() -> Explainer:
    """scores = image @ WEIGHT, so that relevance is exact."""
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, SIDE, SIDE])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(WEIGHT, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return Explainer(model, "cpu", composite="lrp_0")


def explained() -> tuple[Explainer, np.ndarray, Explanation]:
    opened = explainer()
    x = np.random.default_rng(2).normal(size=(4, 1, SIDE, SIDE)).astype(np.float32)
    return opened, x, opened.explain(x, [0, 1, 0, 1])


def test_the_curve_of_a_linear_model_is_the_sum_of_what_is_left() -> None:
    opened, x, said = explained()
    curve = deletion(opened, x, said, patch=1)
    parts = -np.sort(-said.relevance.reshape(4, -1).astype(np.float64), axis=1)
    left = parts.sum(1, keepdims=True) - np.cumsum(np.pad(parts, ((0, 0), (1, 0))), axis=1)
    np.testing.assert_allclose(curve.scores, left, atol=1e-4)
    np.testing.assert_allclose(curve.area, (left[:, :1] - left).mean(1), atol=1e-4)
    np.testing.assert_allclose(curve.replaced, np.arange(37) / 36)
    np.testing.assert_allclose(curve.scores[:, -1], 0.0, atol=1e-5)


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_the_best_order_beats_chance_beats_the_worst(patch: int) -> None:
    opened, x, said = explained()
    best, worst = (deletion(opened, x, said, patch=patch, order=order).area for order in ("most", "least"))
    chance = np.mean([deletion(opened, x, said, patch=patch, order="random", seed=s).area for s in range(20)], axis=0)
    assert (best > chance).all()
    assert (chance > worst).all()


def test_steps_fill_and_progress() -> None:
    opened, x, said = explained()
    told: list[tuple[int, int]] = []
    curve = deletion(
        opened, x, said, patch=2, steps=4, fill=0.5, progress=lambda done, total: told.append((done, total))
    )
    assert curve.scores.shape == (4, 5)
    assert told == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]
    filled = opened.predict(np.full_like(x, 0.5))[range(4), said.target]
    np.testing.assert_allclose(curve.scores[:, -1], filled, rtol=1e-4)
    np.testing.assert_allclose(curve.scores[:, 0], said.logits[range(4), said.target], rtol=1e-5)


def test_patches_cover_every_pixel_once() -> None:
    for layout, shape in (("NCHW", (3, 7, 10)), ("NHWC", (7, 10, 3))):
        covered = np.zeros(shape, int)
        for place in patches(shape, layout, 4):
            covered[place] += 1
        assert (covered == 1).all()


def test_what_does_not_fit_is_refused() -> None:
    opened, x, said = explained()
    with pytest.raises(OnnxLrpError, match=r"\[3, 1, 6, 6\]"):
        deletion(opened, x[:3], said)
    with pytest.raises(OnnxLrpError, match="most, least or random"):
        deletion(opened, x, said, order="best")  # type: ignore[arg-type]
    with pytest.raises(OnnxLrpError, match="patch"):
        deletion(opened, x, replace(said), patch=0)

"""SmoothGrad and integrated gradients against torch's autograd, occlusion against a loop over windows."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

from onnxlrp import attributors
from onnxlrp.errors import OnnxLrpError
from onnxlrp.run.session import Explainer

networks = pytest.importorskip("torch_network", reason="needs torch (extra: reference)")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's, of its own exporter
TARGETS = np.array([2, 0, 3])
occlusion = functools.partial(attributors.occlusion, window=4)  # the usual one is larger than these pictures


@functools.cache
def explainer(composite: str = "gradient", batch: int | str = "N", **options: Any) -> Explainer:
    return Explainer(networks.exported(batch), "cpu", composite=composite, **options)


def distance(found: np.ndarray, exact: np.ndarray) -> float:
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


@pytest.mark.parametrize("batch", ["N", 2])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_smoothgrad_is_the_mean_gradient_under_the_same_noise(batch: int | str, batch_size: int) -> None:
    x = networks.images()
    said = attributors.smoothgrad(
        explainer(batch=batch), x, TARGETS, noise=0.3, samples=5, seed=7, batch_size=batch_size
    )
    deviation = 0.3 * (x.max((1, 2, 3)) - x.min((1, 2, 3)))[:, None, None, None]
    noisy = [x + deviation * np.random.default_rng((7, k)).standard_normal(x.shape[1:]) for k in range(4)]
    exact = np.mean([networks.gradient(n.astype(np.float32), TARGETS) for n in [*noisy, x]], axis=0)
    assert said.relevance.dtype == np.float32
    assert distance(said.relevance, exact) < 1e-5
    assert said.target.tolist() == TARGETS.tolist()
    np.testing.assert_allclose(said.logits, networks.scores(x), rtol=1e-4, atol=1e-5)


def test_smoothgrad_of_one_sample_is_the_relevance_itself() -> None:
    x, lrp = networks.images(), explainer("epsilon_plus")
    np.testing.assert_array_equal(attributors.smoothgrad(lrp, x, samples=1).relevance, lrp.explain(x).relevance)
    np.testing.assert_allclose(
        attributors.smoothgrad(lrp, x, samples=4, noise=0).relevance, lrp.explain(x).relevance, rtol=1e-4, atol=1e-7
    )


def test_the_noise_of_an_input_does_not_hang_on_its_place() -> None:
    x = networks.images()
    together = attributors.smoothgrad(explainer(), x, TARGETS, samples=3).relevance
    alone = attributors.smoothgrad(explainer(), x[2:], TARGETS[2:], samples=3).relevance
    np.testing.assert_allclose(together[2:], alone, rtol=1e-4, atol=1e-6)
    other = attributors.smoothgrad(explainer(), x[2:], TARGETS[2:], samples=3, seed=1).relevance
    assert distance(other, alone) > 1e-3


@pytest.mark.parametrize("baseline", [0.0, -1.5, "channels", "batch"])
def test_integrated_gradients_against_autograd(baseline: Any) -> None:
    x = networks.images()
    if baseline == "channels":
        baseline = np.array([0.5, -1.0]).reshape(2, 1, 1)
    elif baseline == "batch":
        baseline = np.random.default_rng(0).normal(size=x.shape)
    said = attributors.integrated_gradients(explainer(), x, TARGETS, baseline=baseline, steps=6, batch_size=5)
    base = np.broadcast_to(baseline, x.shape).astype(np.float64)
    middles = [base + (k + 0.5) / 6 * (x - base) for k in range(6)]
    exact = (x - base) * np.mean([networks.gradient(m.astype(np.float32), TARGETS) for m in middles], axis=0)
    assert distance(said.relevance, exact) < 1e-5


def test_integrated_gradients_are_complete() -> None:
    x, base = networks.images(), np.full((3, *networks.SHAPE), 0.4)
    said = attributors.integrated_gradients(explainer(), x, TARGETS, baseline=0.4, steps=300)
    fall = (networks.scores(x) - networks.scores(base))[range(3), TARGETS]
    np.testing.assert_allclose(said.relevance.sum((1, 2, 3)), fall, atol=2e-4)


def test_integrated_gradients_need_gradients() -> None:
    for other in (explainer("epsilon_plus"), explainer("gradient", start="logit")):
        with pytest.raises(OnnxLrpError, match="--composite gradient"):
            attributors.integrated_gradients(other, networks.images())
    ruled = Explainer(networks.exported(), "cpu", composite="gradient", rules={"Gemm": "epsilon"})
    with pytest.raises(OnnxLrpError, match="epsilon"):
        attributors.integrated_gradients(ruled, networks.images())


def test_the_predicted_class_is_that_of_the_input_itself() -> None:
    x = networks.images()
    predicted = networks.scores(x).argmax(1)
    for attribute in (attributors.smoothgrad, attributors.integrated_gradients, occlusion):
        open_question, named = attribute(explainer(), x), attribute(explainer(), x, predicted)
        assert open_question.target.tolist() == predicted.tolist()
        np.testing.assert_array_equal(open_question.relevance, named.relevance)
    fixed = explainer(target="predicted")
    for attribute in (attributors.smoothgrad, attributors.integrated_gradients):
        with pytest.raises(OnnxLrpError, match="without --target"):
            attribute(fixed, x)


def test_several_targets_and_fed_starts() -> None:
    x, several = networks.images(), np.array([[2, 1], [0, 3], [3, 0]])
    many, fed = explainer(targets_per_input=2), explainer(start="fed")
    for attribute in (attributors.smoothgrad, attributors.integrated_gradients, occlusion):
        both = attribute(many, x, several)
        assert both.relevance.shape == (3, 2, *networks.SHAPE)
        for k in range(2):
            one = attribute(explainer(), x, several[:, k])
            np.testing.assert_allclose(both.relevance[:, k], one.relevance, rtol=1e-4, atol=1e-6)
            if attribute is not occlusion:
                hot = np.eye(networks.CLASSES)[several[:, k]]
                np.testing.assert_allclose(attribute(fed, x, start=hot).relevance, one.relevance, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("window", "stride"), [(3, 2), (4, None), ((5, 3), (2, 3)), (1, 1), ((12, 14), 1)])
def test_occlusion_against_a_loop(window: Any, stride: Any) -> None:
    x, fill = networks.images(2), np.array([0.3, -0.7], np.float32).reshape(2, 1, 1)
    said = attributors.occlusion(explainer(), x, TARGETS[:2], window=window, stride=stride, fill=fill, batch_size=7)
    sides = (window, window) if isinstance(window, int) else window
    steps = stride or tuple(max(s // 2, 1) for s in sides)
    steps = (steps, steps) if isinstance(steps, int) else steps
    firsts = [
        sorted({*range(0, size - side + 1, step), size - side})
        for size, side, step in zip(networks.SHAPE[1:], sides, steps, strict=True)
    ]
    total, count = np.zeros((2, *networks.SHAPE[1:])), np.zeros(networks.SHAPE[1:])
    whole = networks.scores(x)[range(2), TARGETS[:2]]
    for top in firsts[0]:
        for left in firsts[1]:
            hidden = x.copy()
            hidden[:, :, top : top + sides[0], left : left + sides[1]] = fill
            fall = whole - networks.scores(hidden)[range(2), TARGETS[:2]]
            total[:, top : top + sides[0], left : left + sides[1]] += fall[:, None, None]
            count[top : top + sides[0], left : left + sides[1]] += 1
    exact = total / count
    np.testing.assert_allclose(said.relevance.sum(1), exact, rtol=1e-3, atol=1e-5)


def test_progress_is_told_to_the_end() -> None:
    x, told = networks.images(), []
    attributors.integrated_gradients(
        explainer(), x, steps=4, batch_size=5, progress=lambda done, total: told.append((done, total))
    )
    assert told == [(5, 12), (10, 12), (12, 12)]


@pytest.mark.parametrize(
    ("attribute", "options", "message"),
    [
        (attributors.smoothgrad, {"samples": 0}, "samples 0"),
        (attributors.smoothgrad, {"noise": -0.1}, "below zero"),
        (attributors.smoothgrad, {"noise": np.inf}, "noise inf: is not a finite number"),
        (attributors.smoothgrad, {"noise": np.nan}, "noise nan: is not a finite number"),
        (attributors.smoothgrad, {"seed": -1}, "seed"),
        (attributors.smoothgrad, {"batch_size": 0}, "batch_size 0"),
        (attributors.integrated_gradients, {"steps": 1.5}, "steps 1.5"),
        (attributors.integrated_gradients, {"baseline": [1.0, 2.0, 3.0]}, r"shape \[3\]"),
        (attributors.occlusion, {"window": 0}, "window 0"),
        (attributors.occlusion, {"window": (3, 3, 3)}, "3 sides"),
        (attributors.occlusion, {"window": 3, "stride": 4}, "stride 4: is more than the window's 3 pixels"),
        (attributors.occlusion, {"window": (5, 3), "stride": (2, 4)}, "stride 4: is more than the window's 3 pixels"),
        (attributors.occlusion, {"window": (12, 15)}, "window 15: is larger than the picture, whose side is 14 pixels"),
        (attributors.occlusion, {"window": 4, "target": 4}, "out of range"),
        (attributors.occlusion, {"window": 4, "target": 1.0}, "dtype"),
    ],
)
def test_wrong_options_are_named(attribute: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OnnxLrpError, match=message):
        attribute(explainer(), networks.images(), **options)

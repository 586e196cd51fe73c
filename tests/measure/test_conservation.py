"""Sums of relevance against what set out, on the trained classifier."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnxlrp import Explainer
from onnxlrp.errors import OnnxLrpError
from onnxlrp.measure.conservation import conservation, start_of, table

MODEL = Path(__file__).parents[2] / "graphs" / "models" / "mri_vgg.onnx"


@functools.cache
def explainer(**options: Any) -> Explainer:
    return Explainer(MODEL, "cpu", **{"composite": "epsilon_plus", "taps": ("all",), **options})


def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(3, 1, 128, 128)).astype(np.float32)


def test_every_tap_is_weighed_against_the_logit() -> None:
    said = explainer().explain(images(), [0, 1, 2])
    balances = conservation(explainer(), said)
    assert balances[0].tensor == "image"
    assert len(balances) == 1 + len(explainer().taps)
    logits = said.logits[range(3), [0, 1, 2]]
    for balance in balances:
        np.testing.assert_allclose(balance.start, logits, rtol=1e-6)
        np.testing.assert_allclose(balance.share, balance.total / logits, rtol=1e-5)
    np.testing.assert_allclose(balances[0].total, said.relevance.sum((1, 2, 3)), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(balances[-1].share, 1.0, rtol=1e-5)  # nothing is lost at the logits themselves
    lines = table(balances).splitlines()
    assert len(lines) == 1 + len(balances)
    assert lines[-1].split()[-2:] == ["1.000", "1.000"]


def test_without_biases_nothing_is_lost() -> None:
    model = onnx.load(MODEL)
    for tensor in model.graph.initializer:
        if len(tensor.dims) == 1:
            tensor.raw_data = bytes(len(tensor.raw_data))
    free = Explainer(model, "cpu", composite="epsilon", taps=["all"])
    for balance in conservation(free, free.explain(images(), 1)):
        np.testing.assert_allclose(balance.share, 1.0, rtol=1e-3)


def test_starts_of_all_kinds() -> None:
    one_hot = explainer(start="one-hot")
    assert start_of(one_hot, one_hot.explain(images())).tolist() == [1.0] * 3
    for kind in ("contrastive", "softmax-gradient"):
        other = explainer(start=kind)
        said = other.explain(images())
        with pytest.raises(OnnxLrpError, match=f"the start {kind}.*start="):
            conservation(other, said)
        assert conservation(other, said, start=2.0)[0].start.tolist() == [2.0] * 3
    fed = explainer(start="fed")
    with pytest.raises(OnnxLrpError, match="fed"):
        conservation(fed, fed.explain(images(), start=np.eye(3)))
    many = explainer(targets_per_input=2)
    with pytest.raises(OnnxLrpError, match="several classes"):
        conservation(many, many.explain(images(), [0, 1]))

"""Laws on whole networks: conservation, and that a deep explanation is a simple one where theory says so."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import onnxlrp
from onnxlrp.contract import PREPROCESS_PRESETS
from tools import zoo

from . import onnx_side, zennit_side
from .networks import subject

CONSERVING = ["epsilon_plus", "epsilon_plus_flat", "epsilon_gamma_box", "epsilon", "excitation_backprop"]


def total(relevance: np.ndarray) -> np.ndarray:
    """Each image's sum."""
    return relevance.reshape(len(relevance), -1).sum(1, dtype=np.float64)


@pytest.mark.parametrize("composite", CONSERVING)
@pytest.mark.parametrize("network", ["vgg11", "resnet18"])
def test_without_biases_relevance_sums_to_the_logit(network: str, composite: str) -> None:
    """What absorbs relevance is the bias and ε. In float64, so that no denominator close to ε drowns it in rounding."""
    it = subject(network, 32, 2)
    bare = zoo.without_bias(it.network)
    proto = onnx_side.exported64(bare, it.x)
    made = onnxlrp.convert(proto, composite=composite, preprocess=PREPROCESS_PRESETS["imagenet"]).model
    found = onnx_side.run64(made, it.x.double().numpy(), it.targets)
    logits = zennit_side.logits(bare, it.x)[np.arange(2), it.targets]
    if composite == "excitation_backprop":  # its relus take their derivative, which is zero where relevance is
        assert (total(found) * np.sign(logits) > 0).all()
        return
    np.testing.assert_allclose(total(found), logits, rtol=2e-3)


@pytest.mark.parametrize("composite", ["epsilon_plus", "epsilon_alpha2_beta1"])
@pytest.mark.parametrize("network", ["vgg11_bn", "resnet50", "mri_resnet"])
def test_biases_absorb_what_theory_says(network: str, composite: str) -> None:
    """ΣR in float32 is that of zennit in float64, biases and all."""
    it = subject(network, 32)
    made = onnxlrp.convert(it.proto, composite=composite).model
    found = onnx_side.run(made, it.image, it.targets)["relevance"]
    exact = zennit_side.relevance(it.network, it.x, it.targets, zennit_side.preset(composite), torch.float64)
    error = np.abs(total(found) - total(exact)) / np.abs(exact).reshape(len(exact), -1).sum(1)
    assert np.median(error) < 1e-4, error


@pytest.mark.parametrize("network", ["vgg11", "resnet18"])
def test_lrp_0_without_biases_is_input_times_gradient(network: str) -> None:
    it = subject(network, 32, 2)
    bare = zoo.without_bias(it.network)
    made = onnxlrp.convert(onnx_side.exported64(bare, it.x), composite="lrp_0").model
    found = onnx_side.run64(made, it.x.double().numpy(), it.targets)
    scores = zennit_side.logits(bare, it.x)[np.arange(2), it.targets]
    gradient = zennit_side.gradient(bare, it.x, it.targets, torch.float64) * it.x.double().numpy()
    # Relevance starts at the logit, the gradient at 1: for a network of degree one, both sum to the logit.
    np.testing.assert_allclose(total(gradient), scores, rtol=1e-6)
    assert onnx_side.distances(found, gradient).max() < 1e-3

"""Relevance against zennit's: the formula in float64, and the rounding in float32.

In float64 the explainer must give what zennit gives but for the order of summation. In float32 it may be no further
from zennit's float64 than twice zennit's own float32. That is a comparison of medians over the images: the ratio on one
image is luck, as a unit with a denominator close to ε amplifies rounding a thousandfold, for either implementation or
for the other. Against the same luck zennit runs with both of torch's convolutions, and the worse counts. At
ORT_ENABLE_ALL sums are grouped in another way, which costs a few roundings of the whole map's size (FLOOR).
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from onnxlrp.contract import PREPROCESS_PRESETS

from . import onnx_side
from .networks import GREY, subject
from .onnx_side import LEVELS, cosines, distances
from .rows import Row, composites, single_rules

SIZES = {"vgg16": 32, "vgg16_bn": 32, "resnet18": 64, "resnet50": 64, "mri_vgg": 128, "mri_resnet": 128}
LARGE = ["vgg16", "vgg16_bn", "resnet18", "resnet50"]
PLUS = ["epsilon_plus_flat", "epsilon_plus"]
SMALL = [("vgg11_bn", 32), ("resnet18", 32)]
ROWS = [r.name for r in (*composites(GREY), *single_rules(GREY))]
MOST, FLOOR, SAME_FORMULA = 2.0, 1e-6, 1e-10


def row(name: str, network: str) -> Row:
    """A row by its name, for the pre-processing of a network."""
    preprocess = GREY if network.startswith("mri") else PREPROCESS_PRESETS["imagenet"]
    return next(r for r in (*composites(preprocess), *single_rules(preprocess)) if r.name == name)


@functools.lru_cache(maxsize=8)
def exact(network: str, size: int, name: str, count: int = 6) -> np.ndarray:
    """Relevance in float64 by zennit or torch."""
    it = subject(network, size, count)
    return row(name, network).measure(it.network, it.x, it.targets, torch.float64)


def compare(network: str, size: int, name: str, count: int = 6) -> None:
    """The comparison in float32."""
    it, truth, asked = subject(network, size, count), exact(network, size, name, count), row(name, network)
    theirs = 0.0
    for enabled in (True, False):
        with torch.backends.mkldnn.flags(enabled=enabled):
            found = asked.measure(it.network, it.x, it.targets, torch.float32)
        theirs = max(theirs, float(np.median(distances(found, truth))))
    made = asked.explainer(it.proto, it.preprocess)
    for level, floor in ((LEVELS.ORT_ENABLE_EXTENDED, 0.0), (LEVELS.ORT_ENABLE_ALL, FLOOR)):
        answers = onnx_side.run(made, it.image, it.targets, level)
        ours = np.median(distances(answers["relevance"], truth))
        assert ours <= max(MOST * theirs, floor), f"{level}: {ours:.2e}, zennit in float32 {theirs:.2e}"
        assert np.array_equal(answers["explained"], it.targets)


@pytest.mark.parametrize("name", [*PLUS, "gradient", "input_x_gradient"])
@pytest.mark.parametrize("network", SIZES)
def test_rounds_no_worse_than_zennit(network: str, name: str) -> None:
    compare(network, SIZES[network], name)


@pytest.mark.slow
@pytest.mark.parametrize("name", PLUS)
@pytest.mark.parametrize("network", LARGE)
def test_rounds_no_worse_than_zennit_at_full_size(network: str, name: str) -> None:
    compare(network, 224, name, 5)


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize(("network", "size"), SMALL)
def test_is_the_same_formula(network: str, size: int, name: str) -> None:
    check_formula(network, size, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("network", SIZES)
def test_is_the_same_formula_everywhere(network: str, name: str) -> None:
    check_formula(network, 64, name)


def check_formula(network: str, size: int, name: str) -> None:
    """The comparison in float64."""
    it, asked = subject(network, size, 2), row(name, network)
    made = asked.explainer(it.proto64, it.preprocess)
    found = onnx_side.run64(made, it.x.double().numpy(), it.targets)
    assert distances(found, exact(network, size, name, 2)).max() <= SAME_FORMULA


@pytest.mark.parametrize("network", ["vgg16", "resnet18", "mri_vgg", "mri_resnet"])
def test_two_targets_give_different_maps(network: str) -> None:
    it = subject(network, SIZES[network])
    made = row("epsilon_plus_flat", network).explainer(it.proto, it.preprocess)
    one, other = (onnx_side.run(made, it.image, it.targets * 0 + t)["relevance"] for t in (0, 1))
    alike = cosines(one, other)
    assert np.median(alike) < 0.9, alike


@pytest.mark.parametrize("network", ["vgg16_bn", "mri_resnet"])
def test_the_predicted_class_is_explained_on_request(network: str) -> None:
    it = subject(network, SIZES[network])
    made = row("epsilon_plus", network).explainer(it.proto, it.preprocess)
    asked = onnx_side.run(made, it.image, it.targets * 0 - 1)
    assert np.array_equal(asked["explained"], asked[it.proto.graph.output[0].name].argmax(1))
    assert np.array_equal(onnx_side.run(made, it.image, asked["explained"])["relevance"], asked["relevance"])

"""Stabilisers, the bias left out, ε = 0, bounds per channel, fixed batches: the linear rules' settings."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from onnx import TensorProto

from onnxlrp.explain.decompose import decompose
from onnxlrp.graph.build import Builder, Value
from onnxlrp.layers.registry import Layer, Linear, Relevance
from onnxlrp.rules.catalogue import CATALOGUE
from onnxlrp.rules.rule import LinearRule

from . import cases
from .emitting import emitted, relevance, relevances
from .restatement import RESTATEMENTS, Stabilizer, share
from .test_linear import BATCH, REPRESENTATIVE, RESTATED, compared, drawn, make, measured, restated, sound_seed

STABILISERS = [Stabilizer(0.3, "sign"), Stabilizer(0.3, "clip"), Stabilizer(0.25, "norm")]
DIVIDING = [rule for rule in RESTATED if rule != "gradient"]
WITHOUT_BIAS = [
    *("conv_no_bias", "gemm_no_bias", "matmul_3d", "averagepool_overlap", "averagepool_padded", "globalaveragepool"),
    *("reducemean", "add", "sum_three", "add_broadcast"),
]


@pytest.mark.parametrize("variant", ["mixed", "nonnegative", "gated"])
@pytest.mark.parametrize("bias", ["keep", "zero"])
@pytest.mark.parametrize("stab", STABILISERS, ids=lambda s: s.kind)
@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_stabilisers_and_bias(name: str, stab: Stabilizer, bias: str, variant: str) -> None:
    """Every rule under every stabiliser, with and without the bias."""
    settings = {"epsilon": stab.epsilon, "stabilizer": stab.kind, "bias": bias}
    seed = sound_seed(name, variant, *((rule, stab, bias) for rule in DIVIDING))
    rules = {rule: make(rule, **settings) for rule in DIVIDING}
    results = relevances(
        cases.case(name, variant), rules, measured(name, variant, seed)[0], drawn(name, variant, seed), "nodes"
    )
    wrong = {}
    for rule, result in results.items():
        if isinstance(result, Exception):
            wrong[rule] = repr(result)
        elif (error := compared(result, restated(name, variant, rule, seed, stab, bias))) > 1:
            wrong[rule] = f"{error:.3g} times the error that float32 allows"
    assert not wrong, wrong


@pytest.mark.parametrize("variant", ["mixed", "nonnegative", "gated"])
@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_lrp_0(name: str, variant: str) -> None:
    """ε = 0, also where units are silent: no NaN."""
    stab = Stabilizer(0.0)
    seed = sound_seed(name, variant, ("epsilon", stab, "keep"))
    result = relevance(
        cases.case(name, variant),
        make("epsilon", epsilon=0.0),
        measured(name, variant, seed)[0],
        drawn(name, variant, seed),
    )
    assert compared(result, restated(name, variant, "epsilon", seed, stab)) <= 1


@pytest.mark.parametrize("rule", [rule for rule in DIVIDING if rule != "alpha_beta"])
@pytest.mark.parametrize("name", WITHOUT_BIAS)
def test_nothing_is_lost_without_bias(name: str, rule: str) -> None:
    """ΣR_x = ΣR for b = 0 and tiny ε. An output that nothing contributes to (zplus: no positive product) has nobody to
    give its relevance to; alpha_beta conserves only where no output is of that kind."""
    stab = Stabilizer(1e-12)
    seed = sound_seed(name, "mixed", (rule, stab, "keep"))
    image, x, _, w, _ = measured(name, "mixed", seed)
    fed = drawn(name, "mixed", seed)
    if rule in ("zplus", "zplus_ones"):
        flat = np.ones((BATCH, x[0].size)) if rule == "zplus_ones" else x.reshape(BATCH, -1)
        taken = np.maximum(flat, 0) @ np.maximum(w, 0).T + np.minimum(flat, 0) @ np.minimum(w, 0).T
        fed = fed * (taken > 0).reshape(fed.shape)
    result = relevance(cases.case(name), make(rule, epsilon=1e-12), image, fed)
    expected = restated(name, "mixed", rule, seed, stab)
    sums, given = (v.reshape(BATCH, -1).astype(np.float64).sum(1) for v in (result, fed))
    assert np.all(np.abs(sums - given) <= expected.error.sum(1) + 1e-7 * np.abs(expected.relevance).sum(1) + 1e-6)


@pytest.mark.parametrize(
    "name", ["conv_padded", "conv_stride_leftover", "conv_groups_stride", "conv_bn", "gemm_transb"]
)
def test_bounds_per_channel(name: str) -> None:
    """zbox with a low and a high for every channel."""
    stab = Stabilizer(0.05)
    image, x, _, w, b = measured(name, "mixed")
    low, high = -2.0 - np.arange(x.shape[1]), 1.5 + 0.5 * np.arange(x.shape[1])
    fed = drawn(name, "mixed")
    rule = CATALOGUE["zbox"].make(low=tuple(low), high=tuple(high), epsilon=stab.epsilon)
    along = (1, -1, *[1] * (x.ndim - 2))
    bounds = [np.broadcast_to(v.reshape(along), x.shape).reshape(BATCH, -1) for v in (low, high)]
    flat, r = (v.reshape(BATCH, -1).astype(np.float64) for v in (x, fed))
    expected = RESTATEMENTS["zbox"](flat, w, b, r, stab, *bounds)
    assert not expected.doubtful
    assert compared(relevance(cases.case(name), rule, image, fed), expected) <= 1


@pytest.mark.parametrize("name", cases.names("linear"))
def test_a_fixed_batch_is_a_batch(name: str) -> None:
    """A model that fixes its batch gives what one with an open batch gives; samples do not mix."""
    variant = "nonnegative"
    image, fed = measured(name, variant)[0], drawn(name, variant)
    rules = {rule: make(rule, epsilon=0.05) for rule in ("epsilon", "zplus", "flat")}
    both, pair, one = (
        relevances(cases.case(name, variant, batch), rules, image[:size], fed[:size])
        for batch, size in ((None, 2), (2, 2), (1, 1))
    )
    for rule, expected in both.items():
        other, single = pair[rule], one[rule]
        assert not isinstance(expected, Exception) and not isinstance(other, Exception), (expected, other)
        assert not isinstance(single, Exception), single
        tolerance = 1e-5 * np.abs(expected).max()
        np.testing.assert_allclose(other, expected, rtol=0, atol=tolerance, err_msg=rule)
        np.testing.assert_allclose(single, expected[:1], rtol=0, atol=tolerance, err_msg=rule)


def test_main_leaves_identity_skips_out() -> None:
    """All of a sum's relevance to the inputs that are no identity skips."""
    image, *_ = measured("add", "mixed")
    fed = drawn("add", "mixed")
    rule = make("main", epsilon=0.05)

    def parts(build: Builder, layer: Layer) -> dict[str, Value]:
        assert isinstance(layer, Linear) and isinstance(rule, LinearRule)
        both = decompose(
            rule, dataclasses.replace(layer, skips=(False, True)), Relevance(Value("fed", TensorProto.FLOAT)), build
        )
        assert both[0] is not None and both[1] is None
        return {"main": both[0].value}

    result = emitted(cases.case("add"), parts, {"fed": fed}, image)["main"]
    r = fed.reshape(BATCH, -1).astype(np.float64)
    one = np.eye(r.shape[1])
    assert compared(result, share(r, Stabilizer(0.05), (np.ones_like(r), one, 0.0))) <= 1

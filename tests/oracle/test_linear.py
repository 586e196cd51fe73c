"""Every linear layer under every linear rule, against the restatement on the layer's dense matrix."""

from __future__ import annotations

import functools
import zlib
from typing import Any

import numpy as np
import pytest

from onnxlrp.rules.catalogue import CATALOGUE
from onnxlrp.rules.rule import LinearRule, Rule

from . import cases
from .emitting import relevances
from .restatement import RESTATEMENTS, Restated, Stabilizer

EPSILON = 0.05  # large enough to matter
PARAMETERS: dict[str, dict[str, float]] = {
    "alpha_beta": {"alpha": 2.0, "beta": 1.0},
    "gamma": {"gamma": 0.25},
    "zbox": {"low": -2.5, "high": 3.0},
}
LINEAR_RULES = sorted(
    name for name, entry in CATALOGUE.items() if isinstance(entry.make(**PARAMETERS.get(name, {})), LinearRule)
)
RESTATED = [name for name in LINEAR_RULES if name in RESTATEMENTS]
VARIANTS = [
    *(("mixed", "folded"), ("mixed", "nodes"), ("nonnegative", "nodes")),
    *(("gated", "folded"), ("gated", "nodes"), ("nonnegative", "terms")),
]
REPRESENTATIVE = [
    *("conv_padded", "conv_groups_stride", "conv_bn", "gemm_transb", "matmul_3d_add", "add", "averagepool_padded"),
]
BATCH = 2


@functools.cache
def measured(name: str, variant: str, seed: int = 0) -> tuple[np.ndarray, ...]:
    """image, x, y, W, b of a case in float64 but the image, for random numbers of a seed."""
    proto = cases.case(name, variant)
    generator = np.random.default_rng([zlib.crc32(name.encode()), seed])
    image = generator.normal(size=cases.image_shape(proto, BATCH)).astype(np.float32)
    found = cases.tensors(proto, image)
    return image, found["x"], found["y"], *matrix(name)


@functools.cache
def matrix(name: str) -> tuple[np.ndarray, np.ndarray]:
    """W and b of a case."""
    proto = cases.case(name)
    image = np.zeros(cases.image_shape(proto, BATCH), np.float32)
    return cases.dense(proto, cases.tensors(proto, image)["x"])


def drawn(name: str, variant: str, seed: int = 0) -> np.ndarray:
    """Relevance to feed at the output; where that is a Relu's, a multiple of it, as a rectified unit's is."""
    y = measured(name, variant, seed)[2]
    fed = np.random.default_rng([zlib.crc32(variant.encode()), seed]).normal(size=y.shape)
    return (fed * np.maximum(y, 0) if variant == "gated" else fed).astype(np.float32)


def make(name: str, **given: object) -> Rule:
    """The catalogue's rule with the parameters of the tests."""
    return CATALOGUE[name].make(**PARAMETERS.get(name, {}), **given)


@functools.cache
def restated(name: str, variant: str, rule: str, seed: int, stab: Stabilizer, bias: str = "keep") -> Restated:
    """The same in float64, on the dense matrix."""
    _, x, _, w, b = measured(name, variant, seed)
    flat = np.asarray(x, np.float64).reshape(BATCH, -1)
    r = np.asarray(drawn(name, variant, seed), np.float64).reshape(BATCH, -1)
    given: dict[str, Any] = {**PARAMETERS.get(rule, {}), **({"forward_bias": b} if rule == "gamma" else {})}
    return RESTATEMENTS[rule](flat, w, b if bias == "keep" else np.zeros_like(b), r, stab, **given)


def sound_seed(name: str, variant: str, *chosen: tuple[str, Stabilizer, str]) -> int:
    """The first seed for which no denominator of the rules chosen is so small that float32 may get its sign wrong."""
    for seed in range(40):
        if not any(restated(name, variant, rule, seed, stab, bias).doubtful for rule, stab, bias in chosen):
            return seed
    raise AssertionError(f"{name}, {variant}: no seed keeps every denominator away from zero")


def compared(found: np.ndarray, expected: Restated, floor: float = 1e-7) -> float:
    """The largest error as a multiple of what float32 allows: 1 or less is right."""
    assert found.dtype == np.float32
    allowed = expected.error + floor * np.abs(expected.relevance).max() + 1e-30
    difference = np.abs(found.reshape(expected.relevance.shape) - expected.relevance)
    assert not np.isnan(difference).any(), "NaN in the relevance"
    return float((difference / allowed).max())


def test_every_linear_rule_is_restated() -> None:
    """A rule without a restatement is a rule without a test."""
    assert set(LINEAR_RULES) <= set(RESTATEMENTS), set(LINEAR_RULES) - set(RESTATEMENTS)


@functools.cache
def found(name: str, variant: str, how: str) -> tuple[int, dict[str, np.ndarray | Exception]]:
    """The product's relevance of x under every rule, and the seed it was computed for."""
    seed = sound_seed(name, variant, *((rule, Stabilizer(EPSILON), "keep") for rule in RESTATED))
    rules = {rule: make(rule, **({} if rule == "gradient" else {"epsilon": EPSILON})) for rule in RESTATED}
    image, fed = measured(name, variant, seed)[0], drawn(name, variant, seed)
    return seed, relevances(cases.case(name, variant), rules, image, fed, how)


@pytest.mark.parametrize("rule", RESTATED)
@pytest.mark.parametrize("name", cases.names("linear"))
def test_relevance_is_the_restatement(name: str, rule: str) -> None:
    """float32 relevance within its rounding error of the float64 restatement, and its sum as conservation has it."""
    wrong = {v: what for v in VARIANTS if (what := fault(name, rule, *v))}
    assert not wrong, wrong


def fault(name: str, rule: str, variant: str, how: str) -> str:
    """What is wrong with a rule's relevance of a case; empty where nothing is."""
    seed, results = found(name, variant, how)
    result, expected = results[rule], restated(name, variant, rule, seed, Stabilizer(EPSILON))
    if isinstance(result, Exception):
        return repr(result)
    if (error := compared(result, expected)) > 1:
        return f"{error:.3g} times the error that float32 allows"
    sums = result.reshape(BATCH, -1).astype(np.float64).sum(1)
    allowed = expected.error.sum(1) + 1e-7 * np.abs(expected.relevance).sum(1)
    if rule != "gradient" and np.any(np.abs(sums - expected.conserved) > allowed):
        return f"sums to {sums}, conservation says {expected.conserved}"
    return ""

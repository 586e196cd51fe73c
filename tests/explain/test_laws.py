"""Exact laws, over whole networks: what must hold whatever the weights are."""

from __future__ import annotations

import numpy as np
import pytest

from onnxlrp.explain.composite import WEIGHTED, Case, Composite
from onnxlrp.explain.presets import COMMON
from onnxlrp.rules.catalogue import parse
from onnxlrp.rules.rule import Rule

from .networks import PLAIN, RESIDUAL, distance, explain, images, network
from .restated import Network

TEXTS = {"plain": PLAIN, "residual": RESIDUAL}
TARGETS = [0, 1, 2]


def everywhere(rule: str, *first: Case) -> Composite:
    """One rule for all convolutions and dense layers."""
    return Composite("test", (*first, Case(parse(rule), WEIGHTED), *COMMON))


def maps(name: str, composite: str | Composite, bias: bool = True, nonnegative: bool = False, **options: object):  # type: ignore[no-untyped-def]
    """Logits and relevance, float64, of a network under a composite."""
    proto, x = network(TEXTS[name], bias=bias), images(nonnegative=nonnegative)
    found = explain(proto, x, TARGETS, composite=composite, **options)
    return found["logits"].astype(np.float64), found["relevance"].astype(np.float64)


@pytest.mark.parametrize("nonnegative", [True, False])
@pytest.mark.parametrize("name", TEXTS)
def test_zplus_is_alpha_beta_1_0(name: str, nonnegative: bool) -> None:
    """For inputs of either sign."""
    one, other = (maps(name, everywhere(r), nonnegative=nonnegative)[1] for r in ("zplus", "alpha_beta(1, 0)"))
    assert distance(one, other) < 1e-6


def test_gamma_becomes_zplus() -> None:
    """As γ → ∞, for non-negative input and where z > 0; the last layer, whose logits may be negative, is left to
    epsilon."""
    last = Case(parse("epsilon"), WEIGHTED, last=True)
    limit = maps("plain", everywhere("zplus", last), nonnegative=True)[1]
    distances = [
        distance(maps("plain", everywhere(f"gamma({g})", last), nonnegative=True)[1], limit) for g in (1.0, 100.0, 1e4)
    ]
    assert distances[0] > 10 * distances[1] > 100 * distances[2]
    assert distances[2] < 1e-2


@pytest.mark.parametrize("name", TEXTS)
def test_lrp_0_is_input_times_gradient(name: str) -> None:
    """On a relu network without biases."""
    one, other = (maps(name, c, bias=False)[1] for c in ("lrp_0", "input_x_gradient"))
    assert distance(one, other) < 1e-4


@pytest.mark.parametrize("name", TEXTS)
def test_gamma_0_is_lrp_0(name: str) -> None:
    """Both branches of gamma meet where γ = 0."""
    one, other = (maps(name, everywhere(r))[1] for r in ("gamma(0, epsilon=1e-9)", "epsilon(0)"))
    assert distance(one, other) < 1e-3


CONSERVING = {
    "epsilon": everywhere("epsilon(1e-9)"),
    "lrp_0": "lrp_0",
    "gamma": everywhere("gamma(0.25)"),
    "wsquare": everywhere("wsquare"),
    "flat": everywhere("flat"),
    "zbox first": everywhere("gamma(0.25)", Case(parse("zbox(-4, 4)"), WEIGHTED, first=True)),
}
# zplus loses what arrives at a unit without any positive contribution. Before a relu there is none such; before a sum
# there may be.
BEFORE_RELU = {name: name for name in ("epsilon_plus", "epsilon_plus_flat", "seed")}


@pytest.mark.parametrize(
    ("name", "composite"),
    [(n, c) for n in TEXTS for c in (CONSERVING | BEFORE_RELU if n == "plain" else CONSERVING)],
)
def test_relevance_is_conserved(name: str, composite: str) -> None:
    """Without biases what the image gets is the target's logit, all of it."""
    logits, relevance = maps(name, (CONSERVING | BEFORE_RELU)[composite], bias=False)
    assert np.allclose(relevance.sum((1, 2, 3)), logits[range(3), TARGETS], rtol=2e-3)


@pytest.mark.parametrize("residual", ["epsilon", "ratio", "equal", "main", "latest", "simple"])
def test_residual_modes_conserve(residual: str) -> None:
    """Over the whole network."""
    logits, relevance = maps("residual", everywhere("flat"), bias=False, residual=residual)
    assert np.allclose(relevance.sum((1, 2, 3)), logits[range(3), TARGETS], rtol=2e-3)


@pytest.mark.parametrize("composite", ["epsilon_plus", "gradient"])
def test_relevance_is_linear_in_what_it_starts_from(composite: str) -> None:
    """R(a s + b t) = a R(s) + b R(t): what lets several targets share one forward pass."""
    proto, x = network(RESIDUAL), images()
    one, other = np.random.default_rng(1).normal(size=(2, 3, 4)).astype(np.float32)

    def mapped(start: np.ndarray) -> np.ndarray:
        return explain(proto, x, composite=composite, start="fed", fed_start=start)["relevance"].astype(np.float64)

    assert distance(mapped(2 * one - 3 * other), 2 * mapped(one) - 3 * mapped(other)) < 1e-5


@pytest.mark.parametrize("composite", ["epsilon_plus_flat", "lrp_0", "epsilon_alpha2_beta1", "guided_backprop"])
def test_samples_do_not_see_each_other(composite: str) -> None:
    """A batch gives what its samples give alone."""
    proto, x = network(RESIDUAL), images()
    batch = explain(proto, x, TARGETS, composite=composite)["relevance"]
    for i in range(3):
        alone = explain(proto, x[i : i + 1], TARGETS[i : i + 1], composite=composite)["relevance"]
        assert distance(alone, batch[i : i + 1].astype(np.float64)) < 1e-6


@pytest.mark.parametrize("composite", ["epsilon_plus_flat", "epsilon_alpha2_beta1_flat"])
def test_a_constant_image_gives_numbers(composite: str) -> None:
    """Black and white images: every denominator may be zero, and no NaN comes of it."""
    for value in (0.0, 1.0, -1.0):
        for bias in (True, False):
            found = explain(
                network(PLAIN, bias=bias), np.full([2, 3, 6, 6], value, np.float32), [0, 1], composite=composite
            )
            assert np.isfinite(found["relevance"]).all()


def test_the_restatement_agrees_with_its_own_network() -> None:
    """The float64 network is the float32 one: its logits are the explainer's."""
    for text in TEXTS.values():
        proto = network(text)
        assert distance(explain(proto, images(), TARGETS)["logits"], Network(proto).logits(images())) < 1e-6


def test_rules_are_data() -> None:
    """Equal when read from equal words."""
    one, other = (parse("alpha_beta(2.0, beta=1.0)") for _ in range(2))
    assert isinstance(one, Rule)
    assert one == other

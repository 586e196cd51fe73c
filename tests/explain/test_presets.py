"""Every composite that comes with the product: which layer gets which rule, and the map of a whole network."""

from __future__ import annotations

import numpy as np
import pytest
from oracle.restatement import Stabilizer, minus, plus, share

import onnxlrp
from onnxlrp.explain.presets import PRESETS, named

from .conftest import Subject, subject
from .networks import CLOSE, PLAIN, distance, explain, images, network
from .restated import MODES, Rule, Seen, average, deconvnet, gradient, guided, linear, smooth
from .test_edits import WEIGHTED, largest

LOW, HIGH = -3.0, 3.5
BOX = linear("zbox", low=LOW, high=HIGH)
ZPLUS, EPSILON, ALPHA_BETA = linear("zplus"), linear("epsilon"), linear("alpha_beta", alpha=2.0, beta=1.0)
GAMMA, FLAT = linear("gamma", gamma=0.25), linear("flat")
DERIVATIVE = {"Conv": linear("gradient"), "Gemm": linear("gradient"), "GlobalAveragePool": linear("gradient")}

# preset as a user writes it: rules by node or operator, of the plain network
RESTATED: dict[str, dict[str, Rule]] = {
    "epsilon_plus_flat": {"conv1": FLAT, "Conv": ZPLUS, "Gemm": EPSILON},
    "epsilon_plus": {"Conv": ZPLUS, "Gemm": EPSILON},
    "epsilon_alpha2_beta1_flat": {"conv1": FLAT, "Conv": ALPHA_BETA, "Gemm": EPSILON},
    "epsilon_alpha2_beta1": {"Conv": ALPHA_BETA, "Gemm": EPSILON},
    f"epsilon_gamma_box(low={LOW}, high={HIGH})": {"conv1": BOX, "Conv": GAMMA, "Gemm": EPSILON},
    "excitation_backprop": {"Conv": ZPLUS, "Gemm": ZPLUS, "Relu": gradient},
    "lrp_0": {"Conv": linear("epsilon", 0.0), "Gemm": linear("epsilon", 0.0)},
    "epsilon(epsilon=0.01)": {"Conv": linear("epsilon", 0.01), "Gemm": linear("epsilon", 0.01)},
    "seed": {
        "conv1": linear("zplus_ones"), "Conv": ZPLUS, "Gemm": linear("zplus", bias="zero"), "MaxPool": average,
    },
    "gradient": {**DERIVATIVE, "Relu": gradient},
    "input_x_gradient": {**DERIVATIVE, "Relu": gradient},
    "guided_backprop": {**DERIVATIVE, "Relu": guided},
    "deconvnet": {**DERIVATIVE, "Relu": deconvnet},
    "beta_smooth(beta=3.0)": {**DERIVATIVE, "Relu": lambda seen: smooth(seen, 3.0)},
}  # fmt: skip
GRADIENTS = ("gradient", "input_x_gradient", "guided_backprop", "deconvnet", "beta_smooth(beta=3.0)")
ELSEWHERE = {"montavon_vgg": "test_montavon_vgg"}  # needs a deeper network


def at_the_stem(rules: dict[str, Rule]) -> dict[str, Rule]:
    """The rules for the residual network, whose first layer has another name."""
    return {("stem" if name == "conv1" else name): rule for name, rule in rules.items()}


def test_every_preset_is_restated() -> None:
    """A preset without a restatement is a preset without a test."""
    assert {p.partition("(")[0] for p in RESTATED} | set(ELSEWHERE) == set(PRESETS)


@pytest.mark.parametrize("preset", RESTATED)
def test_preset(plain: Subject, preset: str) -> None:
    """The map of a network with convolutions, max pooling and dense layers."""
    start = plain.hot if preset in GRADIENTS else plain.start
    expected = plain.restated.relevance(plain.x, start, RESTATED[preset])["image"]
    expected = expected * plain.x if preset == "input_x_gradient" else expected
    assert distance(explain(plain.proto, plain.x, plain.targets, composite=preset)["relevance"], expected) < CLOSE


@pytest.mark.parametrize("preset", [p for p in RESTATED if p != "seed"])
def test_preset_in_a_residual_network(residual: Subject, preset: str) -> None:
    """With its own treatment of sums and average pooling."""
    rules = at_the_stem(RESTATED[preset])
    if preset in GRADIENTS:
        rules["Add"] = lambda seen: [seen.r] * len(seen.xs)
    start = residual.hot if preset in GRADIENTS else residual.start
    expected = residual.restated.relevance(residual.x, start, rules)["image"]
    expected = expected * residual.x if preset == "input_x_gradient" else expected
    found = explain(residual.proto, residual.x, residual.targets, composite=preset)["relevance"]
    assert distance(found, expected) < CLOSE


def test_gradient_is_the_derivative(plain: Subject) -> None:
    """By differences of the logits in float64."""
    found = explain(plain.proto, plain.x, plain.targets, composite="gradient")["relevance"]
    step = 1e-6
    for place in [(0, 0, 0), (1, 3, 2), (2, 5, 5), (0, 2, 4)]:
        moved = plain.x.astype(np.float64)
        moved[(slice(None), *place)] += step
        slope = ((plain.restated.logits(moved) - plain.logits) * plain.hot).sum(1) / step
        assert np.allclose(found[(slice(None), *place)], slope, rtol=1e-3, atol=1e-4)


OTHERS: dict[str, Rule] = {  # R f'(x)
    "Tanh": lambda seen: [seen.r * (1 - seen.y**2)],
    "Sigmoid": lambda seen: [seen.r * seen.y * (1 - seen.y)],
    "LeakyRelu": lambda seen: [seen.r * np.where(seen.xs[0] > 0, 1, 0.01)],
    "Elu": lambda seen: [seen.r * np.where(seen.xs[0] > 0, 1, seen.y + 1)],
}


@pytest.mark.parametrize("operator", OTHERS)
@pytest.mark.parametrize("preset", GRADIENTS)
def test_only_relus_have_a_rule_of_their_own(preset: str, operator: str) -> None:
    """Guided backpropagation, DeconvNet and smoothed relus take the plain derivative of other activations."""
    other = subject(network(PLAIN.replace("Relu(z1)", f"{operator}(z1)")), images())
    expected = other.restated.relevance(other.x, other.hot, {**RESTATED[preset], **OTHERS})["image"]
    expected = expected * other.x if preset == "input_x_gradient" else expected
    assert distance(explain(other.proto, other.x, other.targets, composite=preset)["relevance"], expected) < CLOSE
    rules = onnxlrp.convert(other.proto, composite=preset).plan.rules
    assert rules["relu1"] == "gradient"
    assert rules["relu2"] == str(named(preset).cases[0].rule)


DEEP = (
    "deep (float[N, 3, 6, 6] a0, "
    + ", ".join(f"float[4, {4 if i else 3}, 3, 3] w{i}, float[4] b{i}" for i in range(5))
    + ", float[4, 3] w6, float[3] b6) => (float[N, 3] logits) {\n"
    + "".join(
        f"[conv{i}] z{i} = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(a{i}, w{i}, b{i})\n"
        f"[relu{i}] a{i + 1} = Relu(z{i})\n"
        for i in range(5)
    )
    + "[average] g = GlobalAveragePool(a5)\n[flatten] f = Flatten(g)\n[dense] logits = Gemm(f, w6, b6)\n}"
)


def test_montavon_vgg() -> None:
    """zbox first, gamma below half of the weighted layers, epsilon of 0.25·rms above it, LRP-0 for dense layers."""
    deep = subject(network(DEEP), images())
    upper = linear("epsilon", 0.25, "norm")
    rules = {"conv0": BOX, "conv1": GAMMA, "conv2": GAMMA, "conv3": upper, "conv4": upper}
    composite = f"montavon_vgg(low={LOW}, high={HIGH})"
    plan = onnxlrp.convert(deep.proto, composite=composite).plan.rules
    assert [plan[f"conv{i}"].partition("(")[0] for i in range(5)] == ["zbox", "gamma", "gamma", "epsilon", "epsilon"]
    assert plan["dense"] == "epsilon(epsilon=0.0)"
    found = explain(deep.proto, deep.x, deep.targets, composite=composite)["relevance"]
    expected = deep.restated.relevance(deep.x, deep.start, {**rules, "Gemm": linear("epsilon", 0.0)})["a0"]
    assert distance(found, expected) < CLOSE


def test_the_box_comes_from_the_pre_processing(plain: Subject) -> None:
    """Black and white pixels after normalisation, per channel, where zbox has no bounds of its own."""
    preprocess = onnxlrp.Preprocessing(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
    low, high = preprocess.bounds()
    along = [np.repeat(np.asarray(v), 36)[None] for v in (low, high)]
    rules = {"conv1": linear("zbox", low=along[0], high=along[1]), "Conv": GAMMA, "Gemm": EPSILON}
    found = explain(plain.proto, plain.x, plain.targets, composite="epsilon_gamma_box", preprocess=preprocess)
    assert distance(found["relevance"], plain.restated.relevance(plain.x, plain.start, rules)["image"]) < CLOSE
    with pytest.raises(onnxlrp.OnnxLrpError, match="zbox needs the lowest and highest value"):
        onnxlrp.convert(plain.proto, composite="epsilon_gamma_box")


# -- the recipe of this project's ancestor ----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["latest", "simple", "flows_skip", "flows_skip_simple"])
def test_seed_recipe(residual: Subject, mode: str) -> None:
    """zplus everywhere, ones at the input, max pooling as average, its four skip modes, its filter, and a start that
    is the class's own, which it lacked."""
    rules = {**at_the_stem(RESTATED["seed"]), "Add": MODES[mode]}
    edits = {t: largest(0.4) for t in WEIGHTED["residual"]}
    options = {"composite": "seed", "residual": mode, "start": "one-hot"}
    found = explain(residual.proto, residual.x, residual.targets, keep=0.4, **options)
    expected = residual.restated.relevance(residual.x, residual.hot, rules, edits)["image"]
    assert distance(found["relevance"], expected) < CLOSE
    maps = [explain(residual.proto, residual.x, [t] * 3, **options)["relevance"] for t in (0, 1)]
    assert distance(maps[0], maps[1].astype(np.float64)) > 1e-3


# -- options of the rules over a whole network ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sign", "clip", "norm"])
@pytest.mark.parametrize("epsilon", [0.05, 0.25])
def test_stabilisers(plain: Subject, kind: str, epsilon: float) -> None:
    """z + ε·sign(z); sign(z)·max(|z|, ε); z + ε·rms(z)·sign(z), the mean over all axes but the batch."""
    text = f"epsilon({epsilon}, stabilizer='{kind}')"
    rule = linear("epsilon", epsilon, kind)
    found = explain(plain.proto, plain.x, plain.targets, rules={"Conv": text, "Gemm": text})["relevance"]
    expected = plain.restated.relevance(plain.x, plain.start, {"Conv": rule, "Gemm": rule})["image"]
    assert distance(found, expected) < CLOSE


@pytest.mark.parametrize("name", ["epsilon", "zplus", "alpha_beta", "wsquare"])
def test_bias_zero(plain: Subject, name: str) -> None:
    """The bias left out of the denominator: it takes no share."""
    text = f"{name}(epsilon=0.01, bias='zero')"
    rule = linear(name, 0.01, bias="zero")
    found = explain(plain.proto, plain.x, plain.targets, rules={"Conv": text, "Gemm": text})["relevance"]
    expected = plain.restated.relevance(plain.x, plain.start, {"Conv": rule, "Gemm": rule})["image"]
    assert distance(found, expected) < CLOSE


def test_gamma_without_bias(plain: Subject) -> None:
    """Which branch an output takes is still decided by the whole z, bias and all."""

    def rule(seen: Seen) -> list[np.ndarray]:
        x, w = seen.xs[0], seen.w
        assert w is not None
        z, up, down = x @ w.T + seen.b, w + 0.25 * plus(w), w + 0.25 * minus(w)
        above = share(seen.r * (z > 0), Stabilizer(0.01), (plus(x), up, 0.0), (minus(x), down, 0.0))
        below = share(seen.r * (z < 0), Stabilizer(0.01), (plus(x), down, 0.0), (minus(x), up, 0.0))
        return [above.relevance + below.relevance]

    text = "gamma(epsilon=0.01, bias='zero')"
    found = explain(plain.proto, plain.x, plain.targets, rules={"Conv": text, "Gemm": text})["relevance"]
    expected = plain.restated.relevance(plain.x, plain.start, {"Conv": rule, "Gemm": rule})["image"]
    assert distance(found, expected) < CLOSE


def test_a_rule_of_the_user_s_wins(plain: Subject) -> None:
    """Over the composite; the first pattern that matches over later ones."""
    rules = {"conv2": "gamma(0.1)", "Conv": "wsquare", "dense?": "zplus"}
    expected = {"conv2": linear("gamma", gamma=0.1), "Conv": linear("wsquare"), "Gemm": ZPLUS}
    found = explain(plain.proto, plain.x, plain.targets, rules=rules)["relevance"]
    assert distance(found, plain.restated.relevance(plain.x, plain.start, expected)["image"]) < CLOSE
    plan = onnxlrp.convert(plain.proto, rules=rules).plan
    assert plan.rules["conv2"] == "gamma(gamma=0.1)"
    assert next(s.why for s in plan.steps if s.layer.name == "conv2") == "--rule: matches conv2"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("epsilon_pluss", "did you mean epsilon_plus"),
        ("epsilon_plus(3)", "its parameters do not fit"),
        ("epsilon(gamma=1)", "has no parameter 'gamma'"),
        ("epsilon(", "cannot be read"),
        ("montavon_vgg", "zbox needs"),
    ],
)
def test_a_composite_that_is_none(text: str, sentence: str) -> None:
    """A sentence with the closest one, or the right form."""
    with pytest.raises(onnxlrp.OnnxLrpError, match=f"(?i){sentence}"):
        onnxlrp.convert(network(PLAIN), composite=text)


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        ("zpluss", "did you mean zplus"),
        ("epsilon(-1)", "must be 0 or a positive number"),
        ("alpha_beta(3, 1)", "alpha - beta must be 1"),
        ("epsilon(stabilizer='abs')", "none of sign, clip, norm"),
        ("epsilon(bias='half')", "neither keep nor zero"),
        ("gamma(-0.5)", "must not be negative"),
        ("winner", "does not fit a layer of kind convolution"),
        ("guided", "does not fit a layer of kind convolution"),
    ],
)
def test_a_rule_that_does_not_fit(rule: str, sentence: str) -> None:
    """A sentence with what would."""
    with pytest.raises(onnxlrp.OnnxLrpError, match=f"(?i){sentence}"):
        onnxlrp.convert(network(PLAIN), rules={"conv1": rule})


def test_smoothing_is_for_relus() -> None:
    """Of another activation it would be another function's derivative."""
    with pytest.raises(onnxlrp.OnnxLrpError, match=r"relu1 \(Tanh\).*beta_smooth.*is for relus only"):
        onnxlrp.convert(network(PLAIN.replace("Relu(z1)", "Tanh(z1)")), rules={"relu1": "beta_smooth"})


def test_presets_are_found_by_name() -> None:
    """With their parameters."""
    assert named("epsilon(epsilon=0.5)").cases[0].rule.parameters == (("epsilon", 0.5),)

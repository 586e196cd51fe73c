"""Batch normalisation in every order: as if it had been merged into the linear layer beside it.

Each network with a batch normalisation stands beside the same one merged by hand, which is restated. The classifier's
own nodes stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

import onnxlrp
from onnxlrp.errors import OnnxLrpError
from onnxlrp.explain.composite import WEIGHTED, Case, Composite
from onnxlrp.explain.presets import COMMON
from onnxlrp.rules.catalogue import gamma

from .networks import CLOSE, distance, explain, images, network
from .restated import Network, Rule, linear, one_hot
from .test_presets import GRADIENTS, RESTATED

Weights = dict[str, np.ndarray]
RULES: dict[str, tuple[dict[str, Rule], dict[str, object]]] = {
    "zplus": ({"Conv": linear("zplus"), "Gemm": linear("epsilon")}, {"composite": "epsilon_plus"}),
    "gamma": (
        {"Conv": linear("gamma", gamma=0.3), "Gemm": linear("gamma", gamma=0.3)},
        {"composite": Composite("gamma", (Case(gamma(0.3), WEIGHTED), *COMMON))},
    ),
    "epsilon": ({"Conv": linear("epsilon", 0.01), "Gemm": linear("epsilon", 0.01)}, {"composite": "epsilon(0.01)"}),
}
EPS = 1e-3


def factor_and_shift(w: Weights) -> tuple[np.ndarray, np.ndarray]:
    """γ/√(var + eps) and β - μ of the same."""
    factor = w["w_gamma"] / np.sqrt(w["v_var"] + EPS)
    return factor, w["b_beta"] - w["b_mean"] * factor


def after(w: Weights) -> Weights:
    """Conv or Gemm, then BN: outputs are scaled."""
    factor, shift = factor_and_shift(w)
    return {"w1": w["w1"] * factor.reshape(-1, *[1] * (w["w1"].ndim - 1)), "b1": w["b1"] * factor + shift}


def before(w: Weights) -> Weights:
    """BN, then Conv or Gemm: inputs are scaled, and the shift goes through the weight into the bias."""
    factor, shift = factor_and_shift(w)
    along = (1, -1, *[1] * (w["w1"].ndim - 2))
    moved = (w["w1"] * shift.reshape(along)).reshape(len(w["w1"]), -1).sum(1)
    return {"w1": w["w1"] * factor.reshape(along), "b1": w["b1"] + moved}


NORM = "float[{c}] w_gamma, float[{c}] b_beta, float[{c}] b_mean, float[{c}] v_var"
BN = f"BatchNormalization<epsilon = {EPS}>({{}}, w_gamma, b_beta, b_mean, v_var)"
CONV = "Conv<kernel_shape = [3, 3], pads = [{p}, {p}, {p}, {p}]>({x}, w1, b1)"


def convolutional(body: str, channels: int, size: int = 4, more: str = "") -> str:
    """A network: `body` gives z from the image, then relu, flatten and a dense layer."""
    weights = f"float[4, 3, 3, 3] w1, float[4] b1, {more or NORM.format(c=channels)}"
    weights += f", float[{4 * size * size}, 3] w2, float[3] b2"
    return f"""net (float[N, 3, 6, 6] image, {weights}) => (float[N, 3] y) {{
      {body}
      [relu] a = Relu(z)
      [flatten] f = Flatten(a)
      [dense] y = Gemm(f, w2, b2)
    }}"""


def dense(body: str, channels: int, more: str = "") -> str:
    """The same with dense layers on a flattened image."""
    weights = f"float[5, 12] w1, float[5] b1, {more or NORM.format(c=channels)}"
    return f"""net (float[N, 3, 2, 2] image, {weights}, float[5, 3] w2, float[3] b2) => (float[N, 3] y) {{
      [first] x = Flatten(image)
      {body}
      [relu] a = Relu(z)
      [dense] y = Gemm(a, w2, b2)
    }}"""


GEMM = "Gemm<transB = 1>({x}, w1, b1)"
CHANNELS = "float[4, 1, 1] w_scale, float[4, 1, 1] b_shift"


def scaled_and_shifted(w: Weights) -> Weights:
    """Conv, then · scale + shift."""
    scale, shift = w["w_scale"].reshape(-1), w["b_shift"].reshape(-1)
    return {"w1": w["w1"] * scale.reshape(-1, 1, 1, 1), "b1": w["b1"] * scale + shift}


def moved_scaled_and_shifted(w: Weights) -> Weights:
    """Conv, then (z - mean) · scale + shift."""
    scale, shift = w["w_scale"].reshape(-1), w["b_shift"].reshape(-1)
    return {"w1": w["w1"] * scale.reshape(-1, 1, 1, 1), "b1": (w["b1"] - w["b_mean"].reshape(-1)) * scale + shift}


Order = tuple[str, str, Callable[[Weights], Weights], tuple[int, ...]]
PLAIN_CONV = convolutional("[layer] z = " + CONV.format(p=0, x="image"), 4)
PLAIN_PADDED = convolutional("[layer] z = " + CONV.format(p=1, x="image"), 4, size=6)
PLAIN_GEMM = dense("[layer] z = " + GEMM.format(x="x"), 5)
# name: the network, the same with its weights merged, how they merge, the image's shape
ORDERS: dict[str, Order] = {
    "Conv→BN": (
        convolutional(f"[layer] c = {CONV.format(p=1, x='image')}\n[bn] z = {BN.format('c')}", 4, size=6),
        PLAIN_PADDED, after, (3, 6, 6),
    ),
    "Gemm→BN": (dense(f"[layer] c = {GEMM.format(x='x')}\n[bn] z = {BN.format('c')}", 5), PLAIN_GEMM, after, (3, 2, 2)),
    "BN→Conv": (
        convolutional(f"[bn] n = {BN.format('image')}\n[layer] z = {CONV.format(p=0, x='n')}", 3),
        PLAIN_CONV, before, (3, 6, 6),
    ),
    "BN→Gemm": (
        dense(f"[bn] n = {BN.format('x')}\n[layer] z = {GEMM.format(x='n')}", 12),
        PLAIN_GEMM, before, (3, 2, 2),
    ),
    "Conv→Mul→Add": (
        convolutional(
            f"[layer] c = {CONV.format(p=1, x='image')}\n[m] d = Mul(c, w_scale)\n[s] z = Add(d, b_shift)",
            4, size=6, more=CHANNELS,
        ),
        PLAIN_PADDED, scaled_and_shifted, (3, 6, 6),
    ),
    "Conv→Sub→Mul→Add": (
        convolutional(
            f"""[layer] c = {CONV.format(p=1, x="image")}
            [minus] e = Sub(c, b_mean)
            [m] d = Mul(e, w_scale)
            [s] z = Add(d, b_shift)""",
            4, size=6, more=CHANNELS + ", float[4, 1, 1] b_mean",
        ),
        PLAIN_PADDED, moved_scaled_and_shifted, (3, 6, 6),
    ),
}  # fmt: skip


def weights_of(proto: ModelProto) -> Weights:
    """Every weight in float64."""
    return {t.name: numpy_helper.to_array(t).astype(np.float64) for t in proto.graph.initializer}


def merged_by_hand(proto: ModelProto, text: str, merge: Callable[[Weights], Weights]) -> Network:
    """The restatement of the network in `text` with the weights of `proto`, merged."""
    restated = Network(network(text))
    new = {**weights_of(proto), **merge(weights_of(proto))}
    for tensor in (t for t in restated.proto.graph.initializer if t.name in new):
        tensor.CopyFrom(numpy_helper.from_array(new[tensor.name].astype(np.float64), tensor.name))
    return restated


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("order", ORDERS)
def test_order(order: str, rule: str) -> None:
    """The explainer's map is the merged network's."""
    text, plain, merge, shape = ORDERS[order]
    proto = network(text)
    restated, x = merged_by_hand(proto, plain, merge), images(shape=shape)
    logits, (rules, options) = restated.logits(x), RULES[rule]
    found = explain(proto, x, [0, 1, 2], **options)
    assert distance(found["y"], logits) < 1e-5, "the network was not merged rightly by hand"
    expected = restated.relevance(x, logits * one_hot([0, 1, 2], 3), rules)
    assert distance(found["relevance"], expected["image"]) < CLOSE


@pytest.mark.parametrize("order", ORDERS)
def test_the_plan_shows_one_layer(order: str) -> None:
    """A normalisation that is merged has no rule of its own; the forward nodes are untouched."""
    proto = network(ORDERS[order][0])
    conversion = onnxlrp.convert(proto)
    assert "bn" not in conversion.plan.rules
    assert len(conversion.plan.rules) == 3
    count = len(proto.graph.node)
    kept = [n.SerializeToString() for n in conversion.model.graph.node[:count]]
    assert kept == [n.SerializeToString() for n in proto.graph.node]


@pytest.mark.parametrize("order", ORDERS)
def test_what_is_joined_has_no_rule_and_lends_no_name_for_one(order: str) -> None:
    """A rule for it never goes to the layer it is joined to, which has names of its own."""
    proto = network(ORDERS[order][0])
    (joined,) = (s.layer for s in onnxlrp.convert(proto).plan.steps if len(s.layer.nodes) > 1)
    for node in joined.nodes:
        for name in [] if node is joined.own else [node.op_type, node.name, f"*{node.op_type}"]:
            with pytest.raises(OnnxLrpError, match=f"acts as one with {joined.name}.*the whole layer: {joined.name}"):
                onnxlrp.convert(proto, rules={name: "pass"})
    for name in (joined.name, joined.own.op_type, joined.own.output[0], joined.output):
        assert onnxlrp.convert(proto, rules={name: "gamma(1)"}).plan.rules[joined.name] == "gamma(gamma=1)"


def test_names_that_have_a_rule() -> None:
    """What is suggested for a rule is a name that can have one; a path's first slash may be left out."""
    body = f"[layer] c = {CONV.format(p=1, x='image')}\n[norm] z = {BN.format('c')}"
    proto = network(convolutional(body, 4, size=6))
    for node in proto.graph.node:
        node.name = "/" + node.name
        for names in (node.input, node.output):
            names[:] = [f"/{name}" if name in ("c", "z") else name for name in names]
    with pytest.raises(OnnxLrpError, match=r"norn=gamma.*matches no layer on the way") as caught:
        onnxlrp.convert(proto, rules={"norn": "gamma"})
    assert "norm" not in str(caught.value)
    for name in ("layer", "/layer", "z", "/z", "c", "/c"):
        assert onnxlrp.convert(proto, rules={name: "gamma(1)"}).plan.rules["/layer"] == "gamma(gamma=1)"


def test_a_rule_for_sums_leaves_biases_alone() -> None:
    """`Add` is a residual sum; the one that adds a bias is part of the layer it is added in."""
    bias = f"[layer] c = {CONV.format(p=1, x='image')}\n[bias] d = Add(c, b_shift)\n[other] e = Relu(d)\n"
    proto = network(convolutional(bias + "[sum] z = Add(d, e)", 4, size=6, more="float[4, 1, 1] b_shift"))
    given = onnxlrp.convert(proto, rules={"Add": "equal"}).plan.rules
    assert given == {**onnxlrp.convert(proto).plan.rules, "sum": "equal"}


@pytest.mark.parametrize("rule", RULES)
def test_before_a_padded_convolution_it_passes(rule: str) -> None:
    """There it does not merge exactly (Pahde et al. 2023): the zeros of the padding are not shifted."""
    proto = network(convolutional(f"[bn] n = {BN.format('image')}\n[layer] z = {CONV.format(p=1, x='n')}", 3, size=6))
    x, restated = images(), Network(proto)
    rules, options = RULES[rule]
    expected = restated.relevance(x, restated.logits(x) * one_hot([0, 1, 2], 3), rules)
    assert onnxlrp.convert(proto).plan.rules["bn"] == "pass"
    assert distance(explain(proto, x, [0, 1, 2], **options)["relevance"], expected["image"]) < CLOSE


@pytest.mark.parametrize("rule", RULES)
def test_before_a_relu_and_padding(rule: str) -> None:
    """BN→ReLU→padded Conv: it does not merge through the relu either, so it passes."""
    text = convolutional(
        f"[bn] n = {BN.format('image')}\n[relu0] p = Relu(n)\n[layer] z = {CONV.format(p=1, x='p')}", 3, size=6
    )
    proto, x = network(text), images()
    restated, (rules, options) = Network(proto), RULES[rule]
    expected = restated.relevance(x, restated.logits(x) * one_hot([0, 1, 2], 3), rules)
    assert distance(explain(proto, x, [0, 1, 2], **options)["relevance"], expected["image"]) < CLOSE


@pytest.mark.parametrize("rule", RULES)
def test_through_a_relu(rule: str) -> None:
    """BN→ReLU→Conv, as in DenseNet: merged, with what the relu silences moved to its threshold (Pahde et al. 2023)."""
    text = convolutional(
        f"[bn] n = {BN.format('image')}\n[relu0] p = Relu(n)\n[layer] z = {CONV.format(p=0, x='p')}", 3
    )
    proto, x = network(text), images()
    restated, (rules, options) = Network(proto), RULES[rule]
    tensors = restated.tensors(x)
    w = weights_of(proto)
    factor, shift = (v.reshape(1, -1, 1, 1) for v in factor_and_shift(w))
    lifted = (tensors["p"] - shift) / factor
    merged = merged_by_hand(proto, PLAIN_CONV, before)
    arriving = restated.relevance(x, tensors["y"] * one_hot([0, 1, 2], 3), rules)["z"]
    expected = merged.relevance(lifted, merged.logits(lifted) * one_hot([0, 1, 2], 3), rules)
    assert distance(merged.tensors(lifted)["z"], tensors["z"]) < 1e-6
    assert distance(expected["z"], arriving) < 1e-6
    assert distance(explain(proto, x, [0, 1, 2], **options)["relevance"], expected["image"]) < CLOSE


@pytest.mark.parametrize("preset", [*GRADIENTS, "excitation_backprop"])
def test_not_through_a_relu_that_has_a_rule(preset: str) -> None:
    """BN→ReLU→Conv where the relu's own rule says what becomes of a silent unit."""
    text = convolutional(
        f"[bn] n = {BN.format('image')}\n[relu0] p = Relu(n)\n[layer] z = {CONV.format(p=0, x='p')}", 3
    )
    proto, x = network(text), images()
    restated, rules = Network(proto), {**RESTATED[preset], "BatchNormalization": linear("gradient")}
    start = one_hot([0, 1, 2], 3) * (1 if preset in GRADIENTS else restated.logits(x))
    expected = restated.relevance(x, start, rules)["image"] * (x if preset == "input_x_gradient" else 1)
    for level in ("exact", "none"):
        found = explain(proto, x, [0, 1, 2], composite=preset, optimize=level)["relevance"]
        assert distance(found, expected) < CLOSE, level


PREACTIVATED = f"""net (float[N, 3, 6, 6] image, float[3, 3, 1, 1] w0, float[3, 3, 1, 1] w1, {NORM.format(c=3)},
                        float[108, 3] w2, float[3] b2) => (float[N, 3] y) {{
      [bn0] n0 = {BN.format("image")}
      [relu0] p0 = Relu(n0)
      [conv0] z0 = Conv(p0, w0)
      [between] a = Relu(z0)
      [bn1] n1 = {BN.format("a")}
      [relu1] p1 = Relu(n1)
      [conv1] z1 = Conv(p1, w1)
      [flatten] f = Flatten(z1)
      [dense] y = Gemm(f, w2, b2)
    }}"""


@pytest.mark.parametrize("given", [{"relu1": "gradient"}, {"bn1": "epsilon"}])
def test_what_has_a_rule_stays_apart(given: dict[str, str]) -> None:
    """And the rule is its own, not that of the convolution behind it."""
    planned = onnxlrp.convert(network(PREACTIVATED), rules=given).plan
    assert {s.layer.name: len(s.layer.nodes) for s in planned.steps} == {
        "conv0": 3, "between": 1, "bn1": 1, "relu1": 1, "conv1": 1, "flatten": 1, "dense": 1,
    }  # fmt: skip
    (name,) = given
    assert planned.rules[name].startswith(given[name])
    assert planned.rules["conv1"] == "zplus"


@pytest.mark.parametrize("given", ["Relu", "relu?", "BatchNormalization", "relu1"])
def test_to_pass_is_what_they_do(given: str) -> None:
    """Saying so changes nothing: the rule is not that of what they are joined to."""
    proto, x = network(PREACTIVATED), images()
    said = explain(proto, x, [0, 1, 2], rules={given: "pass"})["relevance"]
    np.testing.assert_array_equal(said, explain(proto, x, [0, 1, 2])["relevance"])


@pytest.mark.parametrize("rule", RULES)
def test_training_mode(rule: str) -> None:
    """training_mode = 1 normalises by the batch's own mean and variance, which are taken as constants."""
    trained = BN.replace(f"epsilon = {EPS}", f"epsilon = {EPS}, training_mode = 1").format("c")
    body = f"[layer] c = {CONV.format(p=1, x='image')}\n[bn] z, running_mean, running_var = {trained}"
    proto, x = network(convolutional(body, 4, size=6)), images()
    unnormalised = merged_by_hand(proto, PLAIN_PADDED, lambda w: {})
    z = unnormalised.tensors(x)["z"]

    def merge(w: Weights) -> Weights:
        return after({**w, "b_mean": z.mean((0, 2, 3)), "v_var": z.var((0, 2, 3))})

    restated, (rules, options) = merged_by_hand(proto, PLAIN_PADDED, merge), RULES[rule]
    found = explain(proto, x, [0, 1, 2], **options)
    assert distance(found["y"], restated.logits(x)) < 1e-5
    expected = restated.relevance(x, restated.logits(x) * one_hot([0, 1, 2], 3), rules)
    assert distance(found["relevance"], expected["image"]) < CLOSE


def test_shared_convolution_is_not_merged() -> None:
    """Where something else reads the convolution's output, or it is an output itself, the layer stays apart."""
    body = f"[layer] c = {CONV.format(p=1, x='image')}\n[bn] n = {BN.format('c')}\n[both] z = Add(n, c)"
    rules = onnxlrp.convert(network(convolutional(body, 4, size=6))).plan.rules
    assert rules["bn"] == "pass"
    tapped = onnxlrp.convert(network(ORDERS["Conv→BN"][0]), taps=["Conv"])
    assert "relevance/z" in {o.name for o in tapped.model.graph.output}

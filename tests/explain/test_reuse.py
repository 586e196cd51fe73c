"""What the model computes is read, and what runtimes can do at once is one node: convolutions are counted."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

import onnxlrp

from .networks import CLOSE, PLAIN, RESIDUAL, distance, explain, images, network, of_type

BOX = "zbox(low=-3, high=3)"
RULES = [BOX, "epsilon(bias=zero)", "epsilon(0.1,stabilizer=norm,bias=zero)", "zplus", "gamma", "gamma(1e-3)",
         "gamma(1e3)", "alpha_beta", "alpha_beta(3,2,bias=zero)", "alpha_beta(2,1,stabilizer=clip)"]  # fmt: skip

# Two convolutions of what has both signs, summed: relevance does not vanish with the output of either.
SIGNED = """
signed (float[N, 3, 6, 6] image, float[4, 3, 3, 3] w1, float[4] b1, float[4, 3, 1, 1] w2, float[4] b2,
        float[4, 4] w3, float[4] b3) => (float[N, 4] logits) {
  [conv1] z1 = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(image, w1, b1)
  [conv2] z2 = Conv<kernel_shape = [1, 1]>(image, w2, b2)
  [sum] s1 = Add(z1, z2)
  [relu1] a1 = Relu(s1)
  [average] g = GlobalAveragePool(a1)
  [flatten] f = Flatten(g)
  [dense] logits = Gemm(f, w3, b3)
}"""


def convolutions(rule: str, layer: str, optimize: str, text: str = PLAIN) -> int:
    """How many of them the rule takes beside the layer's own."""
    made = onnxlrp.convert(network(text), rules={layer: rule}, optimize=optimize).model
    return sum(n.name.startswith(f"lrp/{layer}/") and n.op_type.startswith("Conv") for n in made.graph.node)


@pytest.mark.parametrize(
    ("rule", "layer", "exact", "none"),
    [
        (BOX, "conv1", 1, 4),  # z from the layer's output; the adjoints of w⁺ and w⁻ side by side
        ("epsilon(bias=zero)", "conv2", 2, 2),  # not from the output: see below
        ("epsilon", "conv2", 1, 1),
        ("zplus", "conv1", 3, 4),  # of x⁺ and of x⁻; adjoints side by side
        ("zplus", "conv2", 2, 4),  # x is never negative
        ("gamma", "conv2", 2, 8),  # nor is z where R is not zero
        ("alpha_beta(2, 1)", "conv2", 3, 8),  # z⁺ is z less z⁻
        ("alpha_beta(2, 1)", "conv1", 4, 8),  # z⁻ of x⁺ and of x⁻; adjoints side by side
    ],
)
def test_convolutions_of_a_layer(rule: str, layer: str, exact: int, none: int) -> None:
    assert convolutions(rule, layer, "exact") == exact
    assert convolutions(rule, layer, "none") == none


def test_only_exact_knows_where_relevance_vanishes() -> None:
    """Behind a relu epsilon divides by relu(z) + ε; without optimisation by z, guarded on both sides of zero."""
    for level, divisor in (("exact", "a2"), ("none", "z2")):
        made = onnxlrp.convert(network(PLAIN), rules={"conv2": "epsilon"}, optimize=level).model
        read = {name for n in made.graph.node if n.name.startswith("lrp/conv2/") for name in n.input}
        assert read & {"a2", "z2"} == {divisor}


def test_gamma_is_sorted_by_weight_and_not_by_side() -> None:
    """p of x⁺ and of x⁻, the adjoint of w and, side by side, those of w⁺ and w⁻; and nothing takes z apart."""
    assert convolutions("gamma", "conv1", "exact", SIGNED) == 2 + 2
    assert convolutions("gamma", "conv1", "none", SIGNED) == 4 + 4
    made = onnxlrp.convert(network(RESIDUAL), rules={"conv4": "gamma"}).model
    own = Counter(n.op_type for n in made.graph.node if n.name.startswith("lrp/conv4/"))
    assert own["Conv"] == 1 + 2
    assert not {"Max", "Clip", "Greater", "Less"} & own.keys()


def two_layers(weights: tuple[float, ...], bias: float) -> ModelProto:
    """Two convolutions without a relu, the first one's weights of given signs and sizes by input channel."""
    proto = network("""
    net (float[N, 3, 2, 2] image, float[4, 3, 1, 1] w1, float[4] b1, float[2, 4, 2, 2] w2) => (float[N, 2] logits) {
      [conv1] z = Conv<kernel_shape = [1, 1]>(image, w1, b1)
      [conv2] y = Conv<kernel_shape = [2, 2]>(z, w2)
      [flatten] logits = Flatten(y)
    }""")
    factors = {"w1": np.float32(weights).reshape(3, 1, 1), "b1": np.float32(bias)}
    for tensor in proto.graph.initializer:
        if tensor.name in factors:
            values = np.abs(numpy_helper.to_array(tensor)) * factors[tensor.name]
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return proto


@pytest.mark.parametrize(
    ("rule", "weights", "bias"),
    [
        # All contributions are positive, and of those γ times as large as w nothing is left.
        *[(f"gamma({gain})", (1, 1, 1), -20) for gain in (0.25, 1, 1e3, 1e6)],
        # z⁺ would be nothing but the rounding of z and z⁻, were it their difference.
        ("alpha_beta(2, 1, epsilon=1e-9)", (1e-5, -1, -1), 0),
    ],
)
def test_sums_below_zero_cost_no_precision(rule: str, weights: tuple[float, ...], bias: float) -> None:
    proto, rules = two_layers(weights, bias), {"conv1": rule, "conv2": "epsilon"}
    x = np.random.default_rng(0).uniform(0.1, 1, (2, 3, 2, 2)).astype(np.float32)
    assert distance(explain(proto, x, [0, 1], rules=rules)["relevance"], in_float64(proto, x, rules)) < 1e-6


def in_float64(proto: ModelProto, x: np.ndarray, rules: dict[str, str]) -> np.ndarray:
    """The relevance of x for the classes 0, 1, … by the plain form of the rules."""
    wide = onnxlrp.convert(of_type(proto, TensorProto.DOUBLE), rules=rules, optimize="none").model
    feeds = {"image": x.astype(np.float64), "target": np.arange(len(x))}
    return ReferenceEvaluator(wide).run(["relevance"], feeds)[0]


def strided(inputs: int, outputs: int) -> ModelProto:
    """A network with a convolution of stride 2, `conv1`, and kernel 1 × 1."""
    return network(f"""
    net (float[N, 3, 8, 8] image, float[{inputs}, 3, 3, 3] w0, float[{outputs}, {inputs}, 1, 1] w1,
         float[{outputs}, 3] w2) => (float[N, 3] logits) {{
      [conv0] z0 = Conv<kernel_shape = [3, 3]>(image, w0)
      [relu0] a0 = Relu(z0)
      [conv1] z1 = Conv<kernel_shape = [1, 1], strides = [2, 2]>(a0, w1)
      [relu1] a1 = Relu(z1)
      [average] g = GlobalAveragePool(a1)
      [flatten] f = Flatten(g)
      [dense] logits = Gemm(f, w2)
    }}""")


def test_strided_adjoints_are_summed_before_they_are_put_together() -> None:
    """From so many outputs on, counted together, in phases."""

    def operators(rule: str) -> Counter[str]:
        made = onnxlrp.convert(strided(16, 512), rules={"conv1": rule}).model
        return Counter(n.op_type for n in made.graph.node if n.name.startswith("lrp/conv1/"))

    one, two = operators("zplus"), operators("alpha_beta(alpha=2, beta=1)")
    assert (one["ConvTranspose"], one["Conv"]) == (1, 1)
    # |z⁻| and two adjoints, of which as many are put together as of one.
    assert (two["ConvTranspose"], two["Conv"], two["Concat"]) == (0, 3, 2)


@pytest.mark.parametrize("channels", [6, 80])
def test_a_square_weight_never_serves_both_a_convolution_and_its_transpose(channels: int) -> None:
    """OpenVINO is silently wrong there, whether the weight is small enough to be folded or not."""
    model = onnxlrp.convert(strided(channels, channels), composite="epsilon_plus").model
    weights = [{n.input[1] for n in model.graph.node if n.op_type == kind} for kind in ("Conv", "ConvTranspose")]
    assert weights[0] and not weights[0] & weights[1]
    exact, none = (
        explain(strided(channels, channels), images(shape=(3, 8, 8)), [0, 1, 2], optimize=o)["relevance"]
        for o in ("exact", "none")
    )
    assert distance(exact, none.astype(np.float64)) < CLOSE


@pytest.mark.parametrize("text", [PLAIN, RESIDUAL, SIGNED], ids=["behind relus", "and in a sum", "of both signs"])
@pytest.mark.parametrize("rule", RULES)
def test_the_result_is_the_same(rule: str, text: str) -> None:
    """Where relevance vanishes with the relu behind a layer, and where it does not."""
    exact, none = (
        explain(network(text), images(), [0, 1, 2], rules={"conv?": rule}, optimize=o)["relevance"]
        for o in ("exact", "none")
    )
    assert distance(exact, none.astype(np.float64)) < CLOSE


@pytest.mark.parametrize("rule", [BOX, "epsilon(bias=zero)", "zplus"])
def test_a_large_bias_costs_no_precision(rule: str) -> None:
    """The layer's output less its bias has the rounding error of both."""
    proto = network(PLAIN)
    for tensor in proto.graph.initializer:
        if tensor.name in ("b1", "b2"):
            tensor.CopyFrom(numpy_helper.from_array(100 * numpy_helper.to_array(tensor), tensor.name))
    x, rules = images(), {"conv?": rule}
    assert distance(explain(proto, x, [0, 1, 2], rules=rules)["relevance"], in_float64(proto, x, rules)) < 1e-5

"""A summand that a convolution makes for its sum alone is not kept: it is what the others leave of the sum."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper
from onnx.reference import ReferenceEvaluator

import onnxlrp

from .networks import distance, explain, images, network, of_type

# An identity skip, a sum of three with a convolution last, and one of two convolutions.
SUMS = """
sums (float[N, 3, 8, 8] image, float[4, 3, 3, 3] w0, float[4] b0, float[4, 4, 3, 3] w1, float[4] b1,
      float[4, 4, 1, 1] w2, float[4] b2, float[6, 4, 3, 3] w3, float[6] b3, float[6, 4, 1, 1] w4, float[6] b4,
      float[6, 4] w5, float[4] b5) => (float[N, 4] logits) {
  [stem] z0 = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(image, w0, b0)
  [relu0] a0 = Relu(z0)
  [conv1] z1 = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(a0, w1, b1)
  [skip] s1 = Add(z1, a0)
  [relu1] a1 = Relu(s1)
  [conv2] z2 = Conv<kernel_shape = [1, 1]>(a1, w2, b2)
  [three] s2 = Sum(a0, a1, z2)
  [relu2] a2 = Relu(s2)
  [conv3] z3 = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(a2, w3, b3)
  [conv4] z4 = Conv<kernel_shape = [1, 1]>(a2, w4, b4)
  [two] s3 = Add(z3, z4)
  [relu3] a3 = Relu(s3)
  [average] g = GlobalAveragePool(a3)
  [flatten] f = Flatten(g)
  [dense] logits = Gemm(f, w5, b5)
}"""


SIZES = {"z1": ["N", 4, 8, 8], "z3": ["N", 6, 8, 8]}


def unread(proto: ModelProto, **options: object) -> set[str]:
    """Which convolutions' outputs relevance is computed without, of those that are summed."""
    model = onnxlrp.convert(proto, **{"composite": "epsilon_plus", "output": "logits", **options}).model
    read = {i for n in model.graph.node if n.name.startswith("lrp/") for i in n.input}
    return {"z1", "z2", "z3", "z4"} - read


def altered(**consumers: str) -> ModelProto:
    """The network with one more output, or one more reader of a tensor."""
    proto = network(SUMS)
    for kind, name in consumers.items():
        if kind == "output":
            proto.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, SIZES[name]))
        else:
            proto.graph.node.append(helper.make_node("Identity", [name], ["other"], "other"))
            proto.graph.output.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, SIZES[name]))
    return proto


def test_one_summand_a_sum_is_not_read() -> None:
    assert unread(network(SUMS)) == {"z1", "z2", "z3"}
    assert unread(network(SUMS), composite="epsilon_alpha2_beta1_flat") == {"z1", "z2", "z3"}


def test_it_is_read_where_it_is_at_hand_anyway() -> None:
    """By its own rule, as a model's output, by other nodes; and where a difference is not the same."""
    assert unread(network(SUMS), optimize="none") == set()
    assert unread(network(SUMS), rules={"conv1": "epsilon", "conv3": "gamma"}) == {"z2", "z4"}
    assert unread(altered(output="z1")) == {"z2", "z3"}
    assert unread(altered(reader="z3")) == {"z1", "z2", "z4"}
    assert unread(of_type(network(SUMS), TensorProto.FLOAT16)) == set()
    assert unread(network(SUMS.replace("a3 = Relu(s3)", "a3 = Sigmoid(s3)"))) == {"z1", "z2"}


OF_SUMS = ["epsilon", "epsilon(epsilon=0.25, stabilizer=norm)", "epsilon(epsilon=0.1, stabilizer=clip)", "ratio",
           "ratio(epsilon=0.25, stabilizer=norm)", "zplus", "gamma", "alpha_beta", "flat", "wsquare"]  # fmt: skip


def both(proto: ModelProto, **options: object) -> list[np.ndarray]:
    """Relevance in float64 with a summand taken from the others, and without."""
    feeds = {"image": images(shape=(3, 8, 8)).astype(np.float64), "target": np.arange(3)}
    wide = of_type(proto, TensorProto.DOUBLE)
    models = [onnxlrp.convert(wide, optimize=level, **options).model for level in ("exact", "none")]
    return [ReferenceEvaluator(model).run(["relevance"], feeds)[0] for model in models]


@pytest.mark.parametrize("composite", ["epsilon_plus", "epsilon_plus_flat", "epsilon_alpha2_beta1", "gradient"])
@pytest.mark.parametrize("residual", ["epsilon", "ratio", "equal", "main", "flows_skip"])
def test_the_result_is_the_same(composite: str, residual: str) -> None:
    found, expected = both(network(SUMS), composite=composite, residual=residual)
    assert np.abs(expected).max() > 0
    assert distance(found, expected) < 1e-12


@pytest.mark.parametrize("rule", OF_SUMS)
def test_the_result_is_the_same_by_every_rule_of_sums(rule: str) -> None:
    """One whose ε comes from all elements of z, too."""
    assert distance(*both(network(SUMS), composite="epsilon_plus", rules={"Add": rule, "Sum": rule})) < 1e-12


@pytest.mark.parametrize("scale", [1e-3, 1e-5, 1e-7])
@pytest.mark.parametrize("rule", OF_SUMS)
def test_a_branch_far_smaller_than_the_other_costs_no_precision(rule: str, scale: float) -> None:
    """Its relevance is as small: what the difference loses is lost of the whole. Where it is not, there is none."""
    proto = network(SUMS)
    for tensor in proto.graph.initializer:
        if tensor.name in ("w1", "b1", "w3", "b3"):
            tensor.raw_data = (np.frombuffer(tensor.raw_data, np.float32) * np.float32(scale)).tobytes()
    options = {"composite": "epsilon_plus", "rules": {"Add": rule, "Sum": rule}}
    found = explain(proto, images(shape=(3, 8, 8)), [0, 1, 2], **options)["relevance"]
    assert distance(found, both(proto, **options)[1]) < 1e-5

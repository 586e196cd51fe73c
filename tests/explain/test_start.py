"""Where relevance starts, and for which class."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

import onnxlrp

from .conftest import Subject
from .networks import CLOSE, distance, explain, images, network, run
from .restated import Network, Rule, one_hot

Rules = dict[str, Rule]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities."""
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def test_logit(plain: Subject, default_rules: Rules) -> None:
    """By default the target's logit, everything else zero."""
    found = explain(plain.proto, plain.x, plain.targets)
    expected = plain.restated.relevance(plain.x, plain.start, default_rules)["image"]
    assert distance(found["relevance"], expected) < CLOSE
    assert list(found["explained"]) == plain.targets


def test_one_hot(plain: Subject, default_rules: Rules) -> None:
    """1 at the target."""
    found = explain(plain.proto, plain.x, plain.targets, start="one-hot")["relevance"]
    assert distance(found, plain.restated.relevance(plain.x, plain.hot, default_rules)["image"]) < CLOSE


def test_contrastive(plain: Subject, default_rules: Rules) -> None:
    """max(0, R - R_dual), where the dual starts with the target's logit spread evenly over the other classes."""
    found = explain(plain.proto, plain.x, plain.targets, start="contrastive")["relevance"]
    spread = plain.start.sum(1, keepdims=True) * (1 - plain.hot) / 3
    own, dual = (plain.restated.relevance(plain.x, s, default_rules)["image"] for s in (plain.start, spread))
    assert distance(found, np.maximum(own - dual, 0)) < CLOSE
    assert found.min() == 0 < found.max()


def test_softmax_gradient(plain: Subject, default_rules: Rules) -> None:
    """y_t (1 - y_t) at the target, -y_t y_n at every other class n."""
    found = explain(plain.proto, plain.x, plain.targets, start="softmax-gradient")["relevance"]
    y = softmax(plain.logits)
    own = (y * plain.hot).sum(1, keepdims=True)
    start = np.where(plain.hot == 1, own * (1 - own), -own * y)
    assert distance(found, plain.restated.relevance(plain.x, start, default_rules)["image"]) < CLOSE


def test_fed(plain: Subject, default_rules: Rules) -> None:
    """Whatever the caller feeds; the class explained is where that is largest, and there is no input `target`."""
    given = np.random.default_rng(3).normal(size=(3, 4)).astype(np.float32)
    conversion = onnxlrp.convert(plain.proto, start="fed")
    assert [i.name for i in conversion.model.graph.input] == ["image", "start"]
    found = run(conversion.model, {"image": plain.x, "start": given})
    assert distance(found["relevance"], plain.restated.relevance(plain.x, given, default_rules)["image"]) < CLOSE
    assert list(found["explained"]) == list(given.argmax(1))


@pytest.mark.parametrize("squashing", ["Softmax", "LogSoftmax", "Sigmoid"])
def test_a_final_softmax_is_left_out(plain: Subject, squashing: str) -> None:
    """Relevance starts from what enters it: the map is that of the network without it."""
    proto = type(plain.proto)()
    proto.CopyFrom(plain.proto)
    proto.graph.node.append(helper.make_node(squashing, ["logits"], ["answer"]))
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["N", 4]))
    found, without = (explain(p, plain.x, plain.targets) for p in (proto, plain.proto))
    assert np.array_equal(found["relevance"], without["relevance"])
    assert np.array_equal(found["explained"], without["explained"])


def test_two_targets_give_two_maps(plain: Subject) -> None:
    """The known defect of this project's ancestor: all classes gave the same map."""
    maps = [explain(plain.proto, plain.x, [t] * 3)["relevance"].reshape(3, -1) for t in range(4)]
    for i, one in enumerate(maps):
        for other in maps[:i]:
            cosine = (one * other).sum(1) / (np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1))
            assert np.abs(cosine).max() < 0.999


def test_minus_one_asks_for_the_predicted_class(plain: Subject) -> None:
    """Also beside other targets in one batch."""
    predicted = [int(t) for t in plain.logits.argmax(1)]
    mixed = [-1, (predicted[1] + 1) % 4, -1]
    found = explain(plain.proto, plain.x, mixed)
    stated = explain(plain.proto, plain.x, [predicted[0], mixed[1], predicted[2]])
    assert list(found["explained"]) == [predicted[0], mixed[1], predicted[2]]
    assert np.array_equal(found["relevance"], stated["relevance"])


def test_target_predicted_and_fixed(plain: Subject) -> None:
    """`target="predicted"` and `target=2` leave the input out."""
    for option, meant in (("predicted", plain.logits.argmax(1)), (2, [2, 2, 2]), (0, [0, 0, 0])):
        found = explain(plain.proto, plain.x, target=option)
        assert list(found["explained"]) == list(meant)
        assert np.array_equal(found["relevance"], explain(plain.proto, plain.x, meant)["relevance"])


@pytest.mark.parametrize("option", [4, -1, "second"])
def test_a_target_that_is_none_is_refused(plain: Subject, option: object) -> None:
    """With the valid ones."""
    with pytest.raises(onnxlrp.OnnxLrpError, match="0 to 3, input or predicted"):
        onnxlrp.convert(plain.proto, target=option)


@pytest.mark.parametrize("start", ["logit", "one-hot", "contrastive", "softmax-gradient"])
def test_several_targets_equal_one_at_a_time(residual: Subject, start: str) -> None:
    """`targets_per_input=3`: target [N, 3] -> relevance [N, 3, …], heatmap [N, 3, H, W], taps likewise."""
    targets = np.array([[0, 1, 2], [3, 3, -1], [-1, 2, 0]])
    options = {"start": start, "taps": ["conv3"], "heatmap": True}
    many = explain(residual.proto, residual.x, targets, targets_per_input=3, **options)
    assert many["relevance"].shape == (3, 3, 3, 6, 6)
    assert many["heatmap"].shape == (3, 3, 6, 6)
    for k in range(3):
        one = explain(residual.proto, residual.x, targets[:, k], **options)
        assert list(many["explained"][:, k]) == list(one["explained"])
        for name in ("relevance", "heatmap", "relevance/z3"):
            assert distance(many[name][:, k], one[name].astype(np.float64)) < 1e-6, name


def test_several_targets_run_the_model_once(residual: Subject) -> None:
    """Only the backward part grows with the number of targets."""
    one, three = (
        onnxlrp.convert(residual.proto, **options).model.graph.node for options in ({}, {"targets_per_input": 3})
    )
    count = len(residual.proto.graph.node)
    assert [n.SerializeToString() for n in one[:count]] == [n.SerializeToString() for n in three[:count]]
    forward = [
        n for n in three[count:] if n.op_type == "Conv" and n.input[0] in {o for m in three[:count] for o in m.output}
    ]
    assert len({n.output[0] for n in forward}) == len(forward) <= 8, "modified forwards are shared by the targets"


def test_scores_of_rank_four(default_rules: Rules) -> None:
    """A network that ends in a 1×1 convolution: scores [N, K, 1, 1]."""
    proto = network("""
        ends_in_conv (float[N, 3, 4, 4] image, float[4, 3, 4, 4] w1, float[4] b1, float[5, 4, 1, 1] w2, float[5] b2)
          => (float[N, 5, 1, 1] scores) {
          [conv1] z = Conv<kernel_shape = [4, 4]>(image, w1, b1)
          [relu1] a = Relu(z)
          [conv2] scores = Conv<kernel_shape = [1, 1]>(a, w2, b2)
        }""")
    x, restated = images(shape=(3, 4, 4)), Network(proto)
    start = restated.logits(x) * one_hot([0, 1, 4], 5).reshape(3, 5, 1, 1)
    found = explain(proto, x, [0, 1, 4])
    assert distance(found["relevance"], restated.relevance(x, start, default_rules)["image"]) < CLOSE

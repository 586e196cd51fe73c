"""The masks of relus: behind a pooling, and in the layout of convolutions, which 16 channels fill. Nothing changes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

import onnxlrp

from .conftest import Subject, subject
from .networks import CLOSE, distance, explain, images, network, of_type, run
from .test_presets import GRADIENTS, RESTATED

# A stem with overlapping poolings, an identity skip, a strided block with a convolutional skip.
BLOCKS = """
blocks (float[N, 3, 11, 11] image, float[16, 3, 3, 3] w0, float[16] b0, float[16, 16, 3, 3] w1, float[16] b1,
        float[16, 16, 1, 1] w2, float[16] b2, float[32, 16, 3, 3] w3, float[32] b3, float[32, 16, 1, 1] w4,
        float[32] b4, float[32, 4] w5, float[4] b5) => (float[N, 4] logits) {
  [stem] z0 = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(image, w0, b0)
  [relu0] a0 = Relu(z0)
  [pool] p0 = MaxPool<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]>(a0)
  [conv1] z1 = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(p0, w1, b1)
  [relu1] a1 = Relu(z1)
  [conv2] z2 = Conv<kernel_shape = [1, 1]>(a1, w2, b2)
  [identity_skip] s2 = Add(z2, p0)
  [relu2] a2 = Relu(s2)
  [conv3] z3 = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2]>(a2, w3, b3)
  [conv_skip] z4 = Conv<kernel_shape = [1, 1], strides = [2, 2]>(a2, w4, b4)
  [projected_skip] s4 = Add(z3, z4)
  [relu4] a4 = Relu(s4)
  [average] g = GlobalAveragePool(a4)
  [flatten] f = Flatten(g)
  [dense] logits = Gemm(f, w5, b5)
}"""
PRESETS = ("gradient", "guided_backprop", "excitation_backprop")


@pytest.fixture(scope="module")
def blocks() -> Subject:
    """With 60 % of the pixels black: windows of the pooling whose largest is zero."""
    x = images(shape=(3, 11, 11))
    x[:, :, np.random.default_rng(3).random((11, 11)) < 0.6] = 0
    return subject(network(BLOCKS, seed=2), x)


def written(model: ModelProto, prefix: str = "lrp/") -> Counter[str]:
    """How many nodes of each operator the relevance part has under a name."""
    return Counter(n.op_type for n in model.graph.node if n.name.startswith(prefix))


def steps(model: ModelProto) -> list[str]:
    """What is cut behind convolutions of single channels, in order."""
    single = {n.output[0] for n in model.graph.node if any(a.name == "group" and a.i > 1 for a in n.attribute)}
    return [n.name for n in model.graph.node if n.op_type == "Clip" and n.input[0] in single]


def ways_in(model: ModelProto) -> list[str]:
    """The poolings of single elements, in order."""
    return [n.name for n in model.graph.node if n.op_type == "MaxPool" and n.name.endswith("/blocks")]


@pytest.mark.parametrize("preset", PRESETS)
def test_equal_to_the_restatement(preset: str, blocks: Subject) -> None:
    """The map, the relevance before and behind the pooling; what is watched is what it would be without masks."""
    rules, start = RESTATED[preset], blocks.start
    if preset in GRADIENTS:
        rules, start = {**rules, "Add": lambda seen: [seen.r] * len(seen.xs)}, blocks.hot
    expected = blocks.restated.relevance(blocks.x, start, rules)
    for taps in ([], ["relu0", "pool", "relu2"]):
        found = explain(blocks.proto, blocks.x, blocks.targets, composite=preset, taps=taps)
        assert distance(found["relevance"], expected["image"]) < CLOSE
        for name in ("a0", "p0", "a2") if taps else ():
            assert distance(found[f"relevance/{name}"], expected[name]) < CLOSE, name


@pytest.mark.parametrize(
    "options", [{}, {"keep": 0.5}, {"conditions": {"relu0": [1, 3, 4, 8]}}, {"max_pool": "average"}]
)
@pytest.mark.parametrize("preset", PRESETS)
def test_equal_to_the_plain_form(preset: str, options: dict[str, object], blocks: Subject) -> None:
    exact, none = (
        explain(blocks.proto, blocks.x, blocks.targets, composite=preset, optimize=level, **options)["relevance"]
        for level in ("exact", "none")
    )
    assert np.abs(exact).max() > 0
    assert distance(exact, none) < 1e-5


def test_a_relu_before_a_pooling_is_masked_behind_it(blocks: Subject) -> None:
    """Unless its own relevance is asked for, or changed there, or something else reads it."""

    def before(proto: ModelProto, **options: object) -> int:
        return sum(written(onnxlrp.convert(proto, composite="gradient", **options).model, "lrp/relu0/").values())

    assert before(blocks.proto) == 0
    assert before(blocks.proto, taps=["relu0"]) > 0
    assert before(blocks.proto, conditions={"relu0": [1]}) > 0
    assert before(blocks.proto, optimize="none") > 0
    branched = ModelProto()
    branched.CopyFrom(blocks.proto)
    next(n for n in branched.graph.node if n.name == "conv1").input[0] = "down"
    at = next(i for i, n in enumerate(branched.graph.node) if n.name == "conv1")
    branched.graph.node.insert(
        at, helper.make_node("MaxPool", ["a0"], ["down"], "other", kernel_shape=[1, 1], strides=[2, 2])
    )
    assert before(branched) > 0
    exact, none = (explain(branched, blocks.x, blocks.targets, composite="gradient", optimize=o)["relevance"]
                   for o in ("exact", "none"))  # fmt: skip
    assert distance(exact, none) < 1e-5


def test_one_way_into_the_layout_a_stage(blocks: Subject) -> None:
    """Masks are steep where 16 channels fill blocks; a pooling of single elements leads into them where a stage's
    relevance comes from elsewhere: once behind the average, once behind the strided convolutions' adjoints."""
    model = onnxlrp.convert(blocks.proto, composite="gradient").model
    assert ways_in(model) == ["lrp/relu4/blocks", "lrp/relu2/blocks"]
    assert sum(n.endswith("/active") for n in steps(model)) == 4  # of the relus; the pooling has more
    assert not written(model)["Ceil"]
    plain = onnxlrp.convert(blocks.proto, composite="gradient", optimize="none").model
    assert not ways_in(plain) and not steps(plain)
    expanded = [n.name for n in model.graph.node if n.op_type == "Expand" and n.name.startswith("lrp/")]
    assert expanded == ["lrp/dense/r", "lrp/average/r"]
    assert not ways_in(onnxlrp.convert(blocks.proto, composite="excitation_backprop").model)  # no mask is left there


def test_what_exceeds_in_a_pooling_is_not_kept_from_the_forward_pass_on(blocks: Subject) -> None:
    """Relevance comes first: the step is computed where it is multiplied by."""
    model = onnxlrp.convert(blocks.proto, composite="epsilon_plus").model
    exceeded = [n for n in model.graph.node if n.name.startswith("lrp/pool/exceeded")]
    assert len(exceeded) == 2 * 3
    readers = [n for n in model.graph.node if n.name.startswith("lrp/pool/mul")]
    late = {n.output[0] for n in model.graph.node if n.op_type == "Reshape" and "/late" in n.name}
    assert len(readers) == 2 * 2 and all(set(n.input) <= late for n in readers)


def test_a_relu_written_as_clip_is_one(blocks: Subject) -> None:
    clipped = ModelProto()
    clipped.CopyFrom(blocks.proto)
    clipped.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(0), "zero"))
    for node in clipped.graph.node:
        if node.op_type == "Relu":
            node.op_type = "Clip"
            node.input.append("zero")
    one, other = (onnxlrp.convert(p, composite="gradient").model for p in (clipped, blocks.proto))
    assert written(one) == written(other)


def test_from_opset_22_on_nothing_is_pooled_to_get_there() -> None:
    """The CUDA provider has no MaxPool of that opset."""
    assert not ways_in(onnxlrp.convert(network(BLOCKS, opset=22), composite="gradient").model)


@pytest.mark.parametrize("runtime", ["web", "openvino", "tensorrt", "coreml"])
def test_elsewhere_masks_are_rounded(runtime: str, blocks: Subject) -> None:
    converted = onnxlrp.convert(blocks.proto, composite="gradient", target_runtime=runtime).model
    assert not steps(converted)
    assert not ways_in(converted)
    found = run(converted, {"image": blocks.x, "target": np.array(blocks.targets)})["relevance"]
    assert distance(found, explain(blocks.proto, blocks.x, blocks.targets, composite="gradient")["relevance"]) < 1e-5


@pytest.mark.parametrize("element_type", [TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_other_types_are_rounded(element_type: int, blocks: Subject) -> None:
    """2⁹⁶ is beyond float16."""
    proto = of_type(blocks.proto, element_type)
    assert not steps(onnxlrp.convert(proto, composite="gradient").model)


def test_small_activations_count() -> None:
    """Every number from 2⁻⁹⁶ on is active, in either form."""
    proto = network("""
    small (float[N, 16, 1, 1] image, float[16, 16, 1, 1] w0, float[16, 2] w1) => (float[N, 2] logits) {
      [same] z = Conv<kernel_shape = [1, 1]>(image, w0)
      [relu] a = Relu(z)
      [flatten] f = Flatten(a)
      [dense] logits = Gemm(f, w1)
    }""")
    identity = next(t for t in proto.graph.initializer if t.name == "w0")
    identity.CopyFrom(onnx.numpy_helper.from_array(np.eye(16, dtype=np.float32)[:, :, None, None], "w0"))
    tiny = 2.0**-96
    x = np.array([0, -0.0, tiny, -tiny, 2 * tiny, 1e-28, -1e-28, 1e-10, 1e-3, 1, -1, 3, 1e10, 1e30, -1e30, 3e38],
                 np.float32).reshape(1, 16, 1, 1)  # fmt: skip
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
    expected = np.where(x > 0, weights["w1"][:, 0].reshape(1, 16, 1, 1), 0)
    for runtime in ("portable", "openvino"):
        model = onnxlrp.convert(proto, composite="gradient", target_runtime=runtime).model
        assert bool(steps(model)) == (runtime == "portable")
        np.testing.assert_array_equal(run(model, {"image": x, "target": np.array([0])})["relevance"], expected)


@pytest.mark.parametrize("preset", ["guided_backprop", "deconvnet"])
def test_what_is_clipped_away_whole_is_zeros(preset: str) -> None:
    """Where all weights behind a relu are ≤ 0, no relevance is above zero, and that is known."""
    proto = network("""
    negative (float[N, 2, 4, 4] image, float[2, 2, 1, 1] w0, float[2, 2, 2, 2] w1) => (float[N, 2, 1, 1] logits) {
      [conv] z = Conv<kernel_shape = [1, 1]>(image, w0)
      [relu] a = Relu(z)
      [pool] p = MaxPool<kernel_shape = [1, 1], strides = [2, 2]>(a)
      [head] logits = Conv<kernel_shape = [2, 2]>(p, w1)
    }""")
    last = next(t for t in proto.graph.initializer if t.name == "w1")
    last.CopyFrom(onnx.numpy_helper.from_array(-np.abs(onnx.numpy_helper.to_array(last)), "w1"))
    found = explain(proto, images(shape=(2, 4, 4)), [0, 1, 1], composite=preset)["relevance"]
    np.testing.assert_array_equal(found, np.zeros((3, 2, 4, 4)))

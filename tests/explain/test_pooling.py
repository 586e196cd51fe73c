"""Max pooling: to the winner, or as if it were an average."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import ModelProto

import onnxlrp

from .conftest import Subject, subject
from .networks import CLOSE, PLAIN, RESIDUAL, distance, explain, images, network
from .restated import Rule, average, linear, winner

Rules = dict[str, Rule]


@pytest.mark.parametrize(("mode", "rule"), [("winner", winner), ("average", average)])
def test_mode(plain: Subject, default_rules: Rules, mode: str, rule: Rule) -> None:
    """The map, and the relevance of what is pooled."""
    found = explain(plain.proto, plain.x, plain.targets, max_pool=mode, taps=["relu1"])
    expected = plain.restated.relevance(plain.x, plain.start, {**default_rules, "MaxPool": rule})
    assert distance(found["relevance/a1"], expected["a1"]) < CLOSE
    assert distance(found["relevance"], expected["image"]) < CLOSE


@pytest.mark.parametrize("mode", ["winner", "average"])
def test_overlapping_windows(mode: str) -> None:
    """3×3 windows of stride 2, as ResNet has them: nothing is lost where they overlap."""
    proto = network("""
        overlapping (float[N, 2, 7, 7] image, float[18, 3] w1, float[3] b1) => (float[N, 3] logits) {
          [pool] p = MaxPool<kernel_shape = [3, 3], strides = [2, 2]>(image)
          [flatten] f = Flatten(p)
          [dense] logits = Gemm(f, w1, b1)
        }""")
    small = subject(proto, images(shape=(2, 7, 7)))
    rules = {"Gemm": linear("epsilon"), "MaxPool": winner if mode == "winner" else average}
    found = explain(proto, small.x, small.targets, max_pool=mode, composite="epsilon", taps=["flatten", "pool"])
    expected = small.restated.relevance(small.x, small.start, rules)
    assert distance(found["relevance"], expected["image"]) < CLOSE
    if mode == "winner":
        assert np.allclose(found["relevance"].sum((1, 2, 3)), found["relevance/p"].sum((1, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize("window", ["[2, 2]", "[3, 3], pads = [1, 1, 1, 1]", "[1, 3], pads = [0, 1, 0, 1]"])
def test_flat_behind_it_takes_the_sum_over_channels(window: str) -> None:
    """The same map, and the relevance of what is pooled, in all its channels, is not made."""
    proto = network(PLAIN.replace("MaxPool<kernel_shape = [2, 2]", f"MaxPool<kernel_shape = {window}"))
    found = {o: explain(proto, images(), [0, 1, 2], optimize=o)["relevance"] for o in ("exact", "none")}
    assert distance(found["exact"], found["none"].astype(np.float64)) < CLOSE

    def whole(level: str) -> set[str]:
        model = onnx.shape_inference.infer_shapes(onnxlrp.convert(proto, optimize=level).model)
        shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim][1:] for v in model.graph.value_info}
        return {
            n.op_type for n in model.graph.node if n.name.startswith("lrp/") and shapes.get(n.output[0]) == [4, 6, 6]
        }

    assert whole("exact") == set()
    assert {"Concat", "Div"} & whole("none")


def whole(pool: str, opset: int = 17) -> ModelProto:
    """A convolution of 16 channels, a pooling of all of it, and a dense layer."""
    return network(f"""
        whole (float[N, 3, 3, 3] image, float[16, 3, 1, 1] w1, float[16] b1, float[16, 4] w2, float[4] b2)
          => (float[N, 4] logits) <int64[2] axes = {{-1, -2}}> {{
          z = Conv(image, w1, b1)
          a = Relu(z)
          {pool}
          logits = Gemm(f, w2, b2)
        }}""", opset=opset)  # fmt: skip


@pytest.mark.parametrize("composite", ["epsilon_plus_flat", "gradient", "seed"])
@pytest.mark.parametrize(
    ("pool", "opset"),
    [
        ("[pool] f = ReduceMax<axes = [2, 3], keepdims = 0>(a)", 17),
        ("[pool] f = ReduceMax<keepdims = 0>(a, axes)", 18),
        ("[pool] p = ReduceMax(a, axes) f = Flatten(p)", 18),
    ],
)
def test_a_reduction_is_the_pooling_of_the_whole(pool: str, opset: int, composite: str) -> None:
    """As PyTorch's newer exporter writes AdaptiveMaxPool2d(1), with ties in the image."""
    x = np.round(images(shape=(3, 3, 3)))
    protos = whole(pool, opset), whole("[pool] p = GlobalMaxPool(a) f = Flatten(p)")
    found, expected = (explain(p, x, [0, 1, 2], composite=composite) for p in protos)
    assert distance(found["relevance"], expected["relevance"].astype(np.float64)) < CLOSE


@pytest.mark.parametrize("axes", [[1], [1, 2, 3], [0, 2, 3]])
def test_a_reduction_over_batch_or_channels_is_refused(axes: list[int]) -> None:
    pool = f"[pool] p = ReduceMax<axes = {axes}, keepdims = 1>(a) q = Add(p, a) g = GlobalMaxPool(q) f = Flatten(g)"
    with pytest.raises(onnxlrp.OnnxLrpError, match=rf"the largest over axes \{axes} of \[N, 16, 3, 3\]"):
        onnxlrp.convert(whole(pool))


def test_ties_go_to_the_first() -> None:
    """Where a whole window is equal, as in a black background, the first element of it gets all."""
    proto = network("""
        tied (float[N, 1, 4, 4] image, float[4, 2] w1, float[2] b1) => (float[N, 2] logits) {
          [pool] p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(image)
          [flatten] f = Flatten(p)
          [dense] logits = Gemm(f, w1, b1)
        }""")
    found = explain(proto, np.ones([1, 1, 4, 4], np.float32), [0], composite="epsilon")["relevance"]
    assert np.count_nonzero(found) == 4
    assert np.count_nonzero(found[0, 0, ::2, ::2]) == 4


def padded(pads: list[int], value: float, own: str = "") -> ModelProto:
    """3×3 windows of stride 2 in 16 channels behind a Pad, or with padding of their `own`; pads are those before rows
    and columns, then behind."""
    before = "" if own else "[pad] q = Pad(a, pads, value)"
    return network(f"""
        padded (float[N, 3, 8, 8] image, float[16, 3, 1, 1] w1, float[16] b1, float[16, 4] w2, float[4] b2)
          => (float[N, 4] logits)
          <int64[8] pads = {{0, 0, {pads[0]}, {pads[1]}, 0, 0, {pads[2]}, {pads[3]}}}, float value = {{{value}}}> {{
          z = Conv(image, w1, b1)
          [relu] a = Relu(z)
          {before}
          [pool] p = MaxPool<kernel_shape = [3, 3], strides = [2, 2] {own}>({"a" if own else "q"})
          g = GlobalAveragePool(p)
          f = Flatten(g)
          [dense] logits = Gemm(f, w2, b2)
        }}""")


LOWEST = [-np.inf, float(np.finfo(np.float32).min)]


@pytest.mark.parametrize("optimize", ["exact", "none"])
@pytest.mark.parametrize("value", LOWEST)
@pytest.mark.parametrize(("mode", "composite"), [("winner", "epsilon_plus"), ("average", "epsilon"), (None, "seed")])
def test_the_lowest_numbers_padded_before_it_are_its_padding(
    mode: str | None, composite: str, value: float, optimize: str
) -> None:
    """As timm writes the padding of TensorFlow; relevance does not go there."""
    options = {"max_pool": mode, "composite": composite, "optimize": optimize}
    protos = padded([0, 0, 1, 1], value), padded([0, 0, 1, 1], value, ", pads = [0, 0, 1, 1]")
    found, expected = (explain(p, images(shape=(3, 8, 8)), [0, 1, 2], **options) for p in protos)
    np.testing.assert_allclose(found["logits"], expected["logits"], rtol=1e-5)
    assert distance(found["relevance"], expected["relevance"].astype(np.float64)) < CLOSE


def test_a_pad_that_only_cuts_off_adds_nothing() -> None:
    """Whatever its value."""
    made = [padded([0, 0, -1, -1], value) for value in (-np.inf, 0.0)]
    found = [explain(p, images(shape=(3, 8, 8)), [0, 1, 2], composite="seed")["relevance"] for p in made]
    assert np.abs(found[0]).max() > 0
    assert np.array_equal(*found)


@pytest.mark.parametrize("value", LOWEST)
@pytest.mark.parametrize("pads", [[1, -1, 1, 1], [3, 3, 3, 3]], ids=["cuts off", "windows of nothing else"])
def test_the_lowest_numbers_that_cannot_be_its_padding(pads: list[int], value: float) -> None:
    """To the winner they make no difference, and an average of them is refused."""
    proto = padded(pads, value)
    if min(pads) < 0:
        found, plain = (
            explain(proto, images(shape=(3, 8, 8)), [0, 1, 2], optimize=o, composite="epsilon_plus")["relevance"]
            for o in ("exact", "none")
        )
        assert np.abs(plain).max() > 0
        assert distance(found, plain.astype(np.float64)) < CLOSE
    with pytest.raises(onnxlrp.OnnxLrpError, match=r"pool \(MaxPool\): the rule average has nothing to share out"):
        onnxlrp.convert(proto, max_pool="average")


def test_a_mode_without_a_max_pooling_is_refused() -> None:
    """An option that can do nothing is a mistake."""
    with pytest.raises(onnxlrp.OnnxLrpError, match=r"--max-pool.*no layer of kind max pooling"):
        onnxlrp.convert(network(RESIDUAL), max_pool="average")
    with pytest.raises(onnxlrp.OnnxLrpError, match="Did you mean average"):
        onnxlrp.convert(network(RESIDUAL), max_pool="avrage")

"""Where an answer could be silently wrong: it is right, or refused by name."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

import onnxlrp
from onnxlrp.contract import Preprocessing
from onnxlrp.errors import OnnxLrpError

from .networks import CLOSE, distance, explain, images, network, of_type, run

X, HEAD = "float[N, 3, 6, 6] image", "float[4, 3] w9, float[3] b9"
TAIL = """g = GlobalAveragePool(y) f = Flatten(g) logits = Gemm(f, w9, b9)"""
FROM_IMAGE = {
    "weight": f"""
net ({X}, float[4, 3, 1, 1] w1, {HEAD}) => (float[N, 3] logits) {{
  m = ReduceMax<keepdims = 1>(image) w = Mul(w1, m) [conv] y = Conv(image, w) {TAIL}
}}""",
    "bias": f"""
net ({X}, float[4, 3, 1, 1] w1, {HEAD}) => (float[N, 3] logits) {{
  y = Conv(image, w1) g = GlobalAveragePool(y) f = Flatten(g)
  m = ReduceMax<axes = [0, 2, 3], keepdims = 0>(image) [dense] logits = Gemm(f, w9, m)
}}""",
    "statistics": f"""
net ({X}, float[3] w1, float[3] b1, float[3] v1, float[4, 3, 1, 1] w2, {HEAD}) => (float[N, 3] logits) {{
  m = ReduceMax<axes = [0, 2, 3], keepdims = 0>(image) [norm] n = BatchNormalization(image, w1, b1, m, v1)
  y = Conv(n, w2) {TAIL}
}}""",
}


@pytest.mark.parametrize("case", FROM_IMAGE)
def test_what_the_image_decides_is_no_constant(case: str) -> None:
    """A weight, a bias or a statistic that is computed from the image."""
    with pytest.raises(OnnxLrpError, match=r"(conv|dense|norm) \(.*depends on the image|no relevance rule"):
        onnxlrp.convert(network(FROM_IMAGE[case]))


def test_log_probabilities_are_no_probabilities() -> None:
    """The session takes their exponential; relevance starts from the logits."""
    text = f"""
net ({X}, float[4, 3, 1, 1] w1, {HEAD}) => (float[N, 3] scores) {{
  y = Conv(image, w1) g = GlobalAveragePool(y) f = Flatten(g) logits = Gemm(f, w9, b9)
  scores = LogSoftmax<axis = 1>(logits)
}}"""
    made = onnxlrp.convert(network(text)).model
    assert {p.key: p.value for p in made.metadata_props}["onnxlrp.scores"] == "log-probabilities"
    said = onnxlrp.Explainer(made, "cpu").explain(images())
    np.testing.assert_allclose(said.probabilities.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.log(said.probabilities), said.logits, rtol=1e-4)


def normalising(pads: int) -> ModelProto:
    """A classifier that normalises its image itself, then convolves; b8 and b7 are what it subtracts and divides by."""
    return network(f"""
net ({X}, float[1, 3, 1, 1] b8, float[1, 3, 1, 1] b7, float[4, 3, 3, 3] w1, {HEAD}) => (float[N, 3] logits) {{
  c = Sub(image, b8) n = Div(c, b7) [conv] y = Conv<pads = [{pads}, {pads}, {pads}, {pads}]>(n, w1) {TAIL}
}}""")


def test_a_box_goes_with_its_image_through_a_normalisation() -> None:
    """zbox at a padded convolution behind (x - mean) / std has the ends that the pixels have there."""
    proto = normalising(1)
    weights = {t.name: np.frombuffer(t.raw_data, np.float32) for t in proto.graph.initializer}
    ends = [(e - weights["b8"]) / weights["b7"] for e in (0.0, 1.0)]
    low, high = (f([*ends], axis=0).tolist() for f in (np.min, np.max))
    stated = {"Conv": f"zbox(low={low}, high={high})"}
    x = np.abs(images()).clip(0, 1)
    expected = explain(proto, x, [0, 1, 2], rules=stated)["relevance"]
    found = explain(proto, x, [0, 1, 2], rules={"Conv": "zbox"}, preprocess=Preprocessing())["relevance"]
    assert distance(found, expected.astype(np.float64)) < CLOSE
    plain = explain(proto, x, [0, 1, 2], rules={"Conv": "zbox(low=0, high=1)"})["relevance"]
    assert distance(plain, expected.astype(np.float64)) > 0.01, "the box matters"


def test_a_box_behind_anything_else_must_be_stated() -> None:
    text = f"""
net ({X}, float[4, 3, 3, 3] w1, {HEAD}) => (float[N, 3] logits) {{
  [squash] s = Tanh(image) [conv] y = Conv<pads = [1, 1, 1, 1]>(s, w1) {TAIL}
}}"""
    with pytest.raises(OnnxLrpError, match=r"conv \(Conv\): zbox needs .*squash \(Tanh\)"):
        onnxlrp.convert(network(text), rules={"Conv": "zbox"}, preprocess=Preprocessing())
    onnxlrp.convert(network(text), rules={"Conv": "zbox(low=-1, high=1)"})


@pytest.mark.parametrize(
    ("rule", "words"),
    [("Conv=zbox(low=[0, 1], high=[1, 2])", "2 values for the 3 channels"), ("Flatten=zplus", "takes no rule")],
)
def test_a_rule_that_cannot_be_meant(rule: str, words: str) -> None:
    pattern, _, name = rule.partition("=")
    with pytest.raises(OnnxLrpError, match=words):
        onnxlrp.convert(normalising(0), rules={pattern: name})


def test_a_box_behind_a_normalisation_and_a_relu() -> None:
    """The convolution's input is then a tensor of the explainer's own."""
    text = f"""
net ({X}, float[3] w1, float[3] b1, float[3] b2, float[3] v1, float[4, 3, 3, 3] w2, {HEAD}) => (float[N, 3] logits) {{
  n = BatchNormalization(image, w1, b1, b2, v1) r = Relu(n) [conv] y = Conv(r, w2) {TAIL}
}}"""
    found = explain(network(text), images(), [0, 1, 2], rules={"Conv": "zbox(low=-3, high=3)"})
    assert np.isfinite(found["relevance"]).all() and np.abs(found["relevance"]).max() > 0


def test_conditions_find_channels_where_they_are() -> None:
    """Channels last: a mask of the six channels of [N, 5, 4, 6], not of the five rows."""
    text = """
net (float[N, 5, 4, 3] image, float[3, 6] w1, float[6, 2] w2, float[2] b2) => (float[N, 2] logits) {
  [mix] z = MatMul(image, w1) [relu] a = Relu(z) m = ReduceMean<axes = [1, 2], keepdims = 0>(a)
  logits = Gemm(m, w2, b2)
}"""
    proto, x = network(text), images(2, (5, 4, 3))
    whole = explain(proto, x, [0, 1])["relevance"]
    for layer in ("mix", "relu"):
        parts = [explain(proto, x, [0, 1], conditions={layer: [c]})["relevance"] for c in range(6)]
        assert distance(np.sum(parts, axis=0), whole.astype(np.float64)) < CLOSE
        fed = {f"condition/{layer}": np.eye(6, dtype=np.float32)[[4, 2]]}
        chosen = explain(proto, x, [0, 1], conditions={layer: "input"}, **fed)["relevance"]
        assert distance(chosen, np.stack([parts[4][0], parts[2][1]]).astype(np.float64)) < CLOSE
    with pytest.raises(OnnxLrpError, match="6 channels, and no number 6"):
        onnxlrp.convert(proto, conditions={"mix": [6]})


@pytest.mark.parametrize(
    ("batch", "node", "reason"),
    [
        ("N", "t = Slice(image, end, start, zero, end)", r"t \(Slice\): picks along axis 0 of .* size is not known"),
        ("N", "t = Gather<axis = 1>(image, fed)", r"t \(Gather\): the places it picks are not known"),
        ("N", "t = Tile(image, twice)", r"t \(Tile\): repeats .* along an axis whose size is not known"),
        ("N", "t = Gather(image, zero)", r"t \(Gather\): picks along axis 0 of .* size is not known"),
        ("1", "t = Tile(image, twice)", "has scores for 2 images, and input image for 1"),
        ("2", "t = Slice(image, zero, one)", r"t \(Slice\): picks samples out of \[2, 3, 6, 6\]"),
        ("2", "t = Slice(image, end, start, zero, end)", r"t \(Slice\): picks samples out of"),
        ("2", "t = Gather(image, turned)", r"t \(Gather\): picks samples out of"),
    ],
)
def test_places_that_are_not_known_and_batches_that_change(batch: str, node: str, reason: str) -> None:
    text = f"""
net (float[{batch}, 3, 6, 6] image, int64[3] fed, float[4, 3, 1, 1] w1, {HEAD}) => (float[M, 3] logits)
  <int64[4] twice = {{2, 1, 1, 1}}, int64[1] zero = {{0}}, int64[1] one = {{1}}, int64[2] turned = {{1, 0}},
   int64[1] end = {{-1}}, int64[1] start = {{-99}}> {{
  {node} y = Conv(t, w1) {TAIL}
}}"""
    with pytest.raises(OnnxLrpError, match=reason):
        onnxlrp.convert(network(text))


@pytest.mark.parametrize("noop", [0, 1])
def test_reductions_over_no_axes(noop: int) -> None:
    """An empty list is every axis, unless the node says that it is none."""
    channels = 4 if noop else 1

    def classifier(node: str, axes: list[int]) -> ModelProto:
        text = f"""
net (float[1, 3, 6, 6] image, float[4, 3, 1, 1] w1, float[3, {channels}, 1, 1] w2, int64[{len(axes)}] axes)
  => (float[1, 3] logits) {{
  y = Conv(image, w1) t = {node} c = Conv(t, w2) g = GlobalAveragePool(c) logits = Flatten(g)
}}"""
        proto = network(text, opset=18)
        del proto.graph.input[1:]
        proto.graph.initializer.append(numpy_helper.from_array(np.array(axes, np.int64), "axes"))
        return proto

    written_out = ("Identity(y)", []) if noop else ("ReduceMean<keepdims = 1>(y, axes)", [0, 1, 2, 3])
    found = explain(classifier(f"ReduceMean<noop_with_empty_axes = {noop}>(y, axes)", []), images(1), [1])
    expected = explain(classifier(*written_out), images(1), [1])
    assert distance(found["relevance"], expected["relevance"].astype(np.float64)) < CLOSE


@pytest.mark.parametrize(
    ("axis", "words"),
    [(0, r"axis 0 of \[2, N, 3\].* along axis 1\.$"), (1, r"the batch \(axes \[1\] of \[2, N, 3\]\)")],
)
def test_a_mean_that_is_not_over_what_was_stacked_behind_the_batch(axis: int, words: str) -> None:
    """As `torch.stack([a(x), b(x)]).mean(0)` is: not over the batch, which is no longer the first axis."""
    text = f"""
net ({X}, float[3, 3, 1, 1] w1, float[3, 3, 1, 1] w2) => (float[n, 3] logits) <int64[1] zero = {{0}}> {{
  p = Conv(image, w1) g = GlobalAveragePool(p) a = Flatten(g) a0 = Unsqueeze(a, zero)
  q = Conv(image, w2) h = GlobalAveragePool(q) b = Flatten(h) b0 = Unsqueeze(b, zero)
  s = Concat<axis = 0>(a0, b0) [mean] logits = ReduceMean<axes = [{axis}], keepdims = 0>(s)
}}"""
    with pytest.raises(OnnxLrpError, match=r"^mean \(ReduceMean\): reduces over .*" + words):
        onnxlrp.convert(network(text))


@pytest.mark.parametrize("behind", ["Identity(p)", "Reshape(p, sizes)"])
def test_windows_that_begin_in_the_padding_are_refused(behind: str) -> None:
    """onnx counts them before opset 22, runtimes do not; what follows from that has no message of its own."""
    text = f"""
net ({X}, float[4, 3, 1, 1] w1, {HEAD}) => (float[N, 3] scores) <int64[4] sizes = {{-1, 3, 9, 1}}> {{
  [pool] p = MaxPool<kernel_shape = [2, 2], strides = [2, 2], pads = [0, 0, 1, 1], ceil_mode = 1>(image)
  c = {behind} y = Conv(c, w1) {TAIL} scores = LogSoftmax(logits)
}}"""
    with pytest.raises(OnnxLrpError, match=r"^pool \(MaxPool\): .*ceil_mode=0\.$"):
        onnxlrp.convert(network(text))


@pytest.mark.parametrize("opset", [17, 22])
def test_bfloat16_is_refused_once(opset: int) -> None:
    """From opset 22 on convolutions have it, before they are not even valid."""
    text = f"""
net ({X}, float[4, 3, 3, 3] w1, {HEAD}) => (float[N, 3] scores) {{
  [first] z = Conv(image, w1) r = Relu(z) y = MaxPool<kernel_shape = [2, 2]>(r) {TAIL} scores = LogSoftmax(logits)
}}"""
    proto = of_type(network(text, opset=opset), TensorProto.BFLOAT16)
    with pytest.raises(OnnxLrpError, match=r"^first \(Conv\): image is in bfloat16.* Export the model in float32\.$"):
        onnxlrp.convert(proto)


def casting(x: str, w: str) -> ModelProto:
    """A classifier whose image and weight go through casts, 1 to float32 and 16 to bfloat16."""
    return network(f"""
net ({X}, float[4, 3, 1, 1] w1, {HEAD}) => (float[N, 3] logits) {{
  {x} {w} z = Conv(x, w) y = Cast<to = 1>(z) {TAIL}
}}""", opset=22)  # fmt: skip


def test_bfloat16_in_the_middle_is_refused_and_weights_stored_so_are_read() -> None:
    narrow = "narrow = Cast<to = 16>(w1)"
    with pytest.raises(OnnxLrpError, match=r"^into \(Cast\): x is in bfloat16[^\n]*$"):
        onnxlrp.convert(casting("[into] x = Cast<to = 16>(image)", f"{narrow} w = Identity(narrow)"))
    stored = casting("x = Identity(image)", f"{narrow} w = Cast<to = 1>(narrow)")
    assert np.abs(explain(stored, images(), [0, 1, 2])["relevance"]).max() > 0


@pytest.mark.parametrize("rule", ["flat", "zbox(low=-3, high=3)", "zplus", "epsilon", "wsquare"])
def test_zeros_padded_before_a_convolution_are_its_padding(rule: str) -> None:
    """As Keras writes it; on the convolution's own padding they come on top, and they get no relevance."""
    weights = f"float[4, 3, 3, 3] w1, float[4] b1, {HEAD}"
    apart = f"""
net ({X}, {weights}, int64[8] pads) => (float[N, 3] logits) {{
  p = Pad(image, pads) [conv] y = Conv<pads = [0, 1, 1, 0], strides = [2, 1]>(p, w1, b1) {TAIL}
}}"""
    own = f"""
net ({X}, {weights}) => (float[N, 3] logits) {{
  [conv] y = Conv<pads = [1, 3, 2, 1], strides = [2, 1]>(image, w1, b1) {TAIL}
}}"""
    proto = network(apart)
    del proto.graph.input[1:]
    amounts = np.array([0, 0, 1, 2, 0, 0, 1, 1], np.int64)
    proto.graph.initializer.append(numpy_helper.from_array(amounts, "pads"))
    found, expected = (explain(p, images(), [0, 1, 2], rules={"Conv": rule}) for p in (proto, network(own)))
    np.testing.assert_allclose(found["logits"], expected["logits"], rtol=1e-5)
    assert distance(found["relevance"], expected["relevance"].astype(np.float64)) < CLOSE


def test_layers_of_one_name_are_two() -> None:
    """An unnamed node goes by its output, which may be another node's name."""
    text = f"""
net ({X}, float[4, 3, 1, 1] w1, float[4, 4, 1, 1] w2, {HEAD}) => (float[N, 3] logits) {{
  twin = Conv(image, w1) [twin] y = Conv(twin, w2) {TAIL}
}}"""
    made = onnxlrp.convert(network(text))
    rules = [str(s.rule) for s in made.plan.steps if s.layer.kind == "convolution"]
    assert [r.partition("(")[0] for r in rules] == ["flat", "zplus"]
    assert len(made.plan.rules) == sum(s.rule is not None for s in made.plan.steps)
    assert run(made.model, {"image": images(), "target": np.array([0, 1, 2])})["relevance"].shape == (3, 3, 6, 6)


@pytest.mark.parametrize("bias", [-1, 1])
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("rule", ["gamma", "gamma(0.5,bias=zero)", "alpha_beta"])
def test_weights_of_one_sign(rule: str, sign: int, bias: int) -> None:
    """Behind a relu one side of the contributions is empty; what is left of it is the bias."""
    text = f"""
net ({X}, float[4, 3, 3, 3] w1, float[4] b1, float[4, 4, 3, 3] w2, float[4] b2, float[144, 3] w3, float[3] b3)
  => (float[N, 3] logits) {{
  z1 = Conv<pads = [1, 1, 1, 1]>(image, w1, b1) a1 = Relu(z1) [conv2] z2 = Conv<pads = [1, 1, 1, 1]>(a1, w2, b2)
  f = Flatten(z2) logits = Gemm(f, w3, b3)
}}"""
    proto = network(text)
    for tensor in proto.graph.initializer:
        if tensor.name in ("w2", "b2"):
            values = (sign if tensor.name == "w2" else bias) * np.abs(numpy_helper.to_array(tensor))
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    found, plain = (
        explain(proto, images(), [0, 1, 2], optimize=o, rules={"conv2": rule})["relevance"] for o in ("exact", "none")
    )
    assert np.abs(plain).max() > 0
    assert distance(found, plain.astype(np.float64)) < CLOSE


@pytest.mark.parametrize("pool", ["GlobalAveragePool(z2)", "ReduceMean<axes = [2, 3], keepdims = 1>(z2)"])
def test_gamma_before_an_average_over_all_positions(pool: str) -> None:
    """Its relevance is the layer's output times one factor a channel, which is divided by what has all positions."""
    text = f"""
net ({X}, float[8, 3, 3, 3] w1, float[8] b1, float[8, 8, 3, 3] w2, float[8] b2, float[8, 3] w3, float[3] b3)
  => (float[N, 3] logits) {{
  z1 = Conv<pads = [1, 1, 1, 1]>(image, w1, b1) a1 = Relu(z1) [conv2] z2 = Conv<pads = [1, 1, 1, 1]>(a1, w2, b2)
  g = {pool} f = Flatten(g) logits = Gemm(f, w3, b3)
}}"""
    proto = network(text)
    options = {"composite": "epsilon_gamma_box(low=-3, high=3)"}
    found, plain = (explain(proto, images(), [0, 1, 2], optimize=o, **options)["relevance"] for o in ("exact", "none"))
    assert distance(found, plain.astype(np.float64)) < CLOSE


@pytest.mark.parametrize(
    ("shape", "turned", "sizes"),
    [("N, H, W, 3", [0, 3, 1, 2], "N,224,224,3"), ("N, C, H, W", [0, 1, 2, 3], "N,3,224,224")],
)
def test_open_sizes_are_asked_for_in_the_image_s_layout(shape: str, turned: list[int], sizes: str) -> None:
    text = f"""
net (float[{shape}] image, float[4, 3, 1, 1] w1, {HEAD}) => (float[N, 3] logits) {{
  t = Transpose<perm = {turned}>(image) y = Conv(t, w1) {TAIL}
}}"""
    with pytest.raises(OnnxLrpError, match=f"--input-shape {sizes}"):
        onnxlrp.convert(network(text))


@pytest.mark.parametrize(("width", "offered"), [(5, False), (3, True)])
def test_only_what_is_as_long_as_the_scores_is_offered_for_them(width: int, offered: bool) -> None:
    """Not a hidden layer's units."""
    text = f"""
net ({X}, float[4, 3, 1, 1] w1, float[4, {width}] w2, float[{width}, 3] w3) => (float[N, 3] logits) {{
  y = Conv(image, w1) g = GlobalAveragePool(y) f = Flatten(g) units = MatMul(f, w2)
  bent = Erf(units) logits = MatMul(bent, w3)
}}"""
    with pytest.raises(OnnxLrpError, match="the operator Erf has no relevance rule") as caught:
        onnxlrp.convert(network(text))
    assert ("--output units" in str(caught.value)) == offered


def test_a_masked_class_has_a_gradient() -> None:
    """-inf beside its score makes every share NaN, and changes no derivative."""
    text = f"""
net ({X}, float[4, 3, 1, 1] w1, {HEAD}) => (float[N, 3] logits) <float[1, 3] mask = {{0.0, 0.0, -inf}}> {{
  y = Conv(image, w1) g = GlobalAveragePool(y) f = Flatten(g) z = Gemm(f, w9, b9) logits = Add(z, mask)
}}"""
    proto = network(text.replace("-inf", "-1e38"))
    (mask,) = (t for t in proto.graph.initializer if t.name == "mask")
    mask.CopyFrom(numpy_helper.from_array(np.array([[0, 0, -np.inf]], np.float32), "mask"))
    assert np.isfinite(explain(proto, images(), [0, 1, 0], composite="gradient")["relevance"]).all()
    with pytest.raises(OnnxLrpError, match="tensor mask: holds values that are NaN or infinite"):
        onnxlrp.convert(proto)

"""Pictures drawn by the graph, and pixels as its input: as the program draws them and prepares them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto, helper
from onnx.reference import ReferenceEvaluator

import onnxlrp
from onnxlrp import contract, heatmap
from onnxlrp.contract import Preprocessing
from onnxlrp.errors import OnnxLrpError
from onnxlrp.run.images import Picture
from onnxlrp.run.preparing import fit

from .networks import distance, network, of_type

HEIGHT, WIDTH = 40, 33
WAYS = {
    "RGB": Preprocessing(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25)),
    "BGR": Preprocessing(mean=(100.0, 110.0, 120.0), std=(1.0, 1.0, 1.0), color_order="BGR", scale=1.0),
    "L": Preprocessing(mean=(0.5,), std=(0.25,), color_order="L"),
}
LAYOUTS = ("NCHW", "NHWC")


def classifier(order: str, layout: str) -> ModelProto:
    """A convolution, a relu, a dense layer on 40 x 33 pixels; the weights are those of either layout."""
    channels = 1 if order == "L" else 3
    nchw = layout == "NCHW"
    shape = [channels, HEIGHT, WIDTH] if nchw else [HEIGHT, WIDTH, channels]
    turn = "Identity(image)" if nchw else "Transpose<perm = [0, 3, 1, 2]>(image)"
    return network(f"""
    small (float[N, {", ".join(map(str, shape))}] image, float[4, {channels}, 5, 5] w1, float[4] b1,
           float[4, 3] w2, float[3] b2) => (float[N, 3] logits) {{
      x = {turn}
      [conv] z = Conv(x, w1, b1)
      [relu] a = Relu(z)
      [pool] g = GlobalAveragePool(a)
      [flatten] f = Flatten(g)
      [dense] logits = Gemm(f, w2, b2)
    }}""")


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    """Two pictures, uint8 [2, H, W, 3]: smooth with noise, and mostly black."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH] / 40.0
    noise = np.random.default_rng(3).integers(0, 60, (2, HEIGHT, WIDTH, 3))
    smooth = np.stack([rows, columns, 1 - rows], axis=-1) * 190
    black = smooth * ((rows > 0.5) & (columns > 0.5))[..., None]
    return (np.stack([smooth, black]) + noise * (np.stack([smooth, black]) > 0)).astype(np.uint8)


def prepared(pictures: np.ndarray, order: str, layout: str) -> np.ndarray:
    """The same as the classifier's image input."""
    channels = 1 if order == "L" else 3
    shape = (None, channels, HEIGHT, WIDTH) if layout == "NCHW" else (None, HEIGHT, WIDTH, channels)
    fitted = fit(shape, contract.Preprocessing(**{**vars(WAYS[order]), "layout": layout}))
    return np.stack([fitted(Picture(None, p.astype(np.float32))).values for p in pictures])  # type: ignore[arg-type]


def said(proto: ModelProto, feeds: dict[str, Any]) -> dict[str, np.ndarray]:
    """Every output by name."""
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def drawn(style: str, picture: np.ndarray, relevance: np.ndarray, cmap: str) -> np.ndarray:
    """What the program draws."""
    if style == "heatmap":
        return np.asarray(heatmap.heatmap(relevance, cmap))
    return np.asarray(heatmap.overlay(picture, relevance, cmap))


def check_picture(found: np.ndarray, expected: np.ndarray) -> None:
    """The same picture: float32 may fall on the other side of a rounding, in few pixels and by one step of a colour."""
    assert found.shape == expected.shape and found.dtype == np.uint8
    away = np.abs(found.astype(int) - expected)
    assert np.mean(away > 0) <= 0.005, f"{np.mean(away > 0):.2%} of the values differ"
    assert away.max() <= 8


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("order", WAYS)
def test_pixels_in_relevance_of_pixels_out(pictures: np.ndarray, order: str, layout: str) -> None:
    """The same scores and relevance as with an input prepared outside, in the pixels' own layout and order."""
    proto, way = classifier(order, layout), WAYS[order]
    outside = onnxlrp.convert(proto, preprocess=way, heatmap=True).model
    inside = onnxlrp.convert(proto, preprocess=way, heatmap=True, embed_preprocessing=True).model
    target = np.array([2, 0])
    expected = said(outside, {"image": prepared(pictures, order, layout), "target": target})
    found = said(inside, {"pixels": pictures, "target": target})
    for name in ("logits", "heatmap"):
        assert distance(found[name], expected[name]) < 1e-5, name
    relevance = expected["relevance"]
    relevance = relevance.transpose(0, 2, 3, 1) if layout == "NCHW" else relevance
    if order == "L":
        relevance = relevance * np.array([0.299, 0.587, 0.114], np.float32)
    elif order == "BGR":
        relevance = relevance[..., ::-1]
    assert distance(found["relevance"], relevance) < 1e-5
    (image, _), kinds = inside.graph.input, [i.type.tensor_type.elem_type for i in inside.graph.input]
    assert (image.name, kinds) == ("pixels", [TensorProto.UINT8, TensorProto.INT64])


def test_a_host_of_pixels_has_nothing_left_to_prepare(pictures: np.ndarray) -> None:
    """The metadata describe what is fed; our own session follows them."""
    made = onnxlrp.convert(classifier("BGR", "NCHW"), preprocess=WAYS["BGR"], embed_preprocessing=True).model
    metadata = {p.key: p.value for p in made.metadata_props}
    assert metadata["onnxlrp.input"] == "pixels"
    left = json.loads(metadata["onnxlrp.preprocess"])
    assert left == {"color_order": "RGB", "layout": "NHWC", "mean": [0.0], "scale": 1.0, "size": [40, 33], "std": [1.0]}
    explainer = onnxlrp.Explainer(made, "cpu")
    assert explainer.dtype == np.uint8
    assert explainer.explain(pictures, [0, 1]).relevance.shape == pictures.shape
    with pytest.raises(OnnxLrpError, match="whole pixels"):
        onnxlrp.attributors.smoothgrad(explainer, pictures, 0)


def test_the_classifiers_nodes_follow_unchanged() -> None:
    """Only what makes the image goes before them."""
    proto = classifier("RGB", "NCHW")
    made = onnxlrp.convert(proto, preprocess=WAYS["RGB"], embed_preprocessing=True).model
    first = next(i for i, n in enumerate(made.graph.node) if n == proto.graph.node[0])
    assert list(made.graph.node[first : first + len(proto.graph.node)]) == list(proto.graph.node)
    assert all(n.name.startswith("lrp/") for n in made.graph.node[:first])


@pytest.mark.parametrize("cmap", ["bwr", "coldnhot", "hot"])
@pytest.mark.parametrize("style", ["heatmap", "overlay"])
@pytest.mark.parametrize("embed", [False, True])
def test_the_graph_draws_what_the_program_draws(pictures: np.ndarray, style: str, cmap: str, embed: bool) -> None:
    options: dict[str, Any] = {"render": style, "cmap": cmap, "heatmap": True, "embed_preprocessing": embed}
    made = onnxlrp.convert(classifier("RGB", "NCHW"), preprocess=WAYS["RGB"], **options).model
    feeds = {"pixels": pictures} if embed else {"image": prepared(pictures, "RGB", "NCHW")}
    found = said(made, {**feeds, "target": np.array([1, 2])})
    for i, picture in enumerate(pictures):
        check_picture(found["render"][i], drawn(style, picture, found["heatmap"][i], cmap))


@pytest.mark.parametrize("style", ["heatmap", "overlay"])
@pytest.mark.parametrize("embed", [False, True])
@pytest.mark.parametrize("element_type", [TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_classifiers_of_other_types_draw_too(pictures: np.ndarray, element_type: int, embed: bool, style: str) -> None:
    proto = of_type(classifier("RGB", "NCHW"), element_type)
    options: dict[str, Any] = {"render": style, "heatmap": True, "embed_preprocessing": embed}
    made = onnxlrp.convert(proto, preprocess=WAYS["RGB"], **options).model
    image = prepared(pictures, "RGB", "NCHW").astype(helper.tensor_dtype_to_np_dtype(element_type))
    feeds = {"target": np.array([1, 2]), **({"pixels": pictures} if embed else {"image": image})}
    names = [o.name for o in made.graph.output]
    found = dict(zip(names, ReferenceEvaluator(made).run(names, feeds), strict=True))
    assert found["heatmap"].dtype == image.dtype
    for i, picture in enumerate(pictures):
        check_picture(found["render"][i], drawn(style, picture, found["heatmap"][i].astype(np.float32), "bwr"))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("order", WAYS)
def test_the_picture_below_an_overlay_is_the_one_that_was_prepared(
    pictures: np.ndarray, order: str, layout: str
) -> None:
    """Pixels are found again from the classifier's input, whatever was done to them."""
    made = onnxlrp.convert(classifier(order, layout), preprocess=WAYS[order], render="overlay", heatmap=True).model
    if order == "L":
        pictures = np.repeat(pictures[..., :1], 3, axis=-1)
    found = said(made, {"image": prepared(pictures, order, layout), "target": np.array([1, 1])})
    for i, picture in enumerate(pictures):
        check_picture(found["render"][i], drawn("overlay", picture, found["heatmap"][i], "bwr"))


def test_several_targets_are_several_pictures(pictures: np.ndarray) -> None:
    options: dict[str, Any] = {
        "render": "overlay",
        "heatmap": True,
        "targets_per_input": 2,
        "embed_preprocessing": True,
    }
    made = onnxlrp.convert(classifier("RGB", "NCHW"), preprocess=WAYS["RGB"], **options).model
    found = said(made, {"pixels": pictures, "target": np.array([[0, 1], [2, 0]])})
    assert found["render"].shape == (2, 2, HEIGHT, WIDTH, 3)
    for i, k in np.ndindex(2, 2):
        check_picture(found["render"][i, k], drawn("overlay", pictures[i], found["heatmap"][i, k], "bwr"))


def test_no_relevance_is_the_colour_of_zero(pictures: np.ndarray) -> None:
    """Nothing is divided by zero where a map is empty."""
    made = onnxlrp.convert(classifier("RGB", "NCHW"), preprocess=WAYS["RGB"], render="heatmap", start="fed").model
    feeds = {"image": prepared(pictures, "RGB", "NCHW"), "start": np.zeros((2, 3), np.float32)}
    assert (said(made, feeds)["render"] == 255).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"embed_preprocessing": True}, "--embed-preprocessing: the pre-processing is not known"),
        ({"render": "overlay"}, "--render overlay: the pre-processing is not known"),
        ({"render": "overly"}, "--render overly: is none of the choices. Did you mean overlay"),
        ({"render": "heatmap", "cmap": "bw"}, "--cmap bw: is none of the choices. Did you mean bwr"),
        ({"cmap": "hot"}, "--cmap hot: colours what --render draws, and nothing is to be drawn. Add --render"),
    ],
)
def test_what_cannot_be_drawn_is_said(options: dict[str, Any], words: str) -> None:
    with pytest.raises(OnnxLrpError) as caught:
        onnxlrp.convert(classifier("RGB", "NCHW"), **options)
    assert words in str(caught.value)


def test_a_heatmap_needs_no_preprocessing() -> None:
    made = onnxlrp.convert(classifier("RGB", "NCHW"), render="heatmap").model
    assert "render" in {o.name for o in made.graph.output}

"""Explainers for a chosen runtime: the table, the forms, and what is refused or said beforehand."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

import onnxlrp
from onnxlrp import contract
from onnxlrp.errors import OnnxLrpError
from onnxlrp.explain import runtimes
from onnxlrp.explain.runtimes import PORTABLE, RUNTIMES
from onnxlrp.graph import dialect

from .networks import PLAIN as NETWORK
from .networks import RESIDUAL, distance, images, network, of_type, run

PIXELS: dict[str, Any] = {"preprocess": "unit", "embed_preprocessing": True}
# Overlapping windows, in an image with many equal values, so that windows have several winners.
TIED = """
tied (float[N, 2, 7, 7] image, float[4, 2, 3, 3] w1, float[4] b1, float[64, 3] w2, float[3] b2)
  => (float[N, 3] logits) {
  [conv] z = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(image, w1, b1)
  [relu] a = Relu(z)
  [pool] p = MaxPool<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]>(a)
  [flatten] f = Flatten(p)
  [dense] logits = Gemm(f, w2, b2)
}"""


def test_every_form_that_is_not_the_portable_one_has_its_reason() -> None:
    for name, runtime in RUNTIMES.items():
        forms = fields(dialect.PORTABLE)
        changed = [f for f in forms if getattr(runtime.dialect, f.name) != getattr(dialect.PORTABLE, f.name)]
        assert len(runtime.because) == len(changed), name
    assert RUNTIMES[PORTABLE].dialect == dialect.PORTABLE
    assert not RUNTIMES[PORTABLE].limits
    assert list(RUNTIMES) == [PORTABLE, "onnxruntime", "web", "openvino", "opencv", "tract", "tensorrt", "coreml"]


def test_the_default_is_any_runtime() -> None:
    """The same bytes, and nothing in the metadata."""
    plain = onnxlrp.convert(network(NETWORK)).model
    assert plain == onnxlrp.convert(network(NETWORK), target_runtime=PORTABLE).model
    assert contract.KEY_RUNTIME not in {p.key for p in plain.metadata_props}


def test_the_file_says_what_it_is_written_for() -> None:
    for name in RUNTIMES:
        held = {p.key: p.value for p in onnxlrp.convert(network(NETWORK), target_runtime=name).model.metadata_props}
        assert held.get(contract.KEY_RUNTIME, PORTABLE) == name


@pytest.mark.parametrize("name", [n for n in RUNTIMES if n != PORTABLE])
@pytest.mark.parametrize(
    ("text", "options"),
    [
        (NETWORK, {}),
        (NETWORK, {"composite": "gradient"}),
        (NETWORK, {"composite": "guided_backprop", "optimize": "none"}),
        (NETWORK, {"composite": "excitation_backprop"}),
        (NETWORK, {"render": "overlay", **PIXELS}),
        (RESIDUAL, {}),
        (RESIDUAL, {"composite": "lrp_0", "residual": "ratio"}),
        (TIED, {"composite": "gradient"}),
        (TIED, {"composite": "epsilon_plus"}),
    ],
)
def test_all_forms_give_the_same(name: str, text: str, options: dict[str, Any]) -> None:
    """Of the same classifier; where its tensors are as they are, to float32's rounding."""
    portable, other = (onnxlrp.convert(network(text), target_runtime=r, **options).model for r in (PORTABLE, name))
    image = np.round(images(3, (2, 7, 7) if text is TIED else (3, 6, 6)))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 6, 6, 3), np.uint8)
    feeds = {"pixels": pixels} if "render" in options else {"image": image}
    expected, found = (run(m, {**feeds, "target": np.array([0, 1, 2])}) for m in (portable, other))
    assert expected.keys() == found.keys()
    for output, values in expected.items():
        assert distance(found[output], values) < 1e-6 if values.dtype.kind == "f" else (found[output] == values).all()


def operators(name: str, **options: Any) -> list[str]:
    model = onnxlrp.convert(network(NETWORK), target_runtime=name, **options).model
    return [n.op_type for n in model.graph.node]


def test_forms_are_in_the_graph() -> None:
    """No Sign where a runtime has none, no quotient by what may be zero where it fills up channels."""
    assert operators(PORTABLE, composite="gradient").count("Where") == 1  # the target's; masks are products
    assert "Sign" in operators(PORTABLE, render="overlay", **PIXELS)
    assert "Sign" not in operators("web", render="overlay", **PIXELS)
    for name in RUNTIMES:
        model = onnxlrp.convert(network(RESIDUAL), target_runtime=name).model
        guards = [n for n in model.graph.node if n.name.endswith("/guarded")]
        assert bool(guards) == (name not in ("onnxruntime", "web")), name


# -- what is refused --------------------------------------------------------------------------------------------------


def refusals(name: str, proto: ModelProto, **options: Any) -> list[str]:
    """What `convert` says against it."""
    with pytest.raises(OnnxLrpError) as error:
        onnxlrp.convert(proto, target_runtime=name, **options)
    return [str(p) for p in error.value.problems]


@pytest.mark.parametrize("name", ["onnxruntime", "web", "opencv", "coreml"])
def test_float64(name: str) -> None:
    found = refusals(name, of_type(network(NETWORK), TensorProto.DOUBLE))
    assert [f.split(":")[0] for f in found] == ["conv1 (Conv)", "conv2 (Conv)"], "each of them"
    assert all("computes in float64, for which" in f and f.endswith("Export the model in float32.") for f in found)


@pytest.mark.parametrize("name", [PORTABLE, "openvino", "tensorrt"])
def test_float64_where_it_runs(name: str) -> None:
    onnxlrp.convert(of_type(network(NETWORK), TensorProto.DOUBLE), target_runtime=name)


def test_opencv_and_the_convolution_of_a_constant() -> None:
    grouped = network("""
    grouped (float[N, 4, 6, 6] image, float[4, 2, 3, 3] w1, float[4] b1, float[64, 3] w2, float[3] b2)
      => (float[N, 3] logits) {
      [conv] z = Conv<kernel_shape = [3, 3], group = 2>(image, w1, b1)
      [relu] a = Relu(z)
      [flatten] f = Flatten(a)
      [dense] logits = Gemm(f, w2, b2)
    }""")
    found = refusals("opencv", grouped, composite="seed")
    assert found == [
        "lrp/conv/z (Conv): convolves a constant, which OpenCV refuses. Choose another rule for the layer: zbox, and x "
        "taken as ones, need the result of a constant."
    ]
    onnxlrp.convert(grouped, target_runtime="opencv")
    onnxlrp.convert(grouped, composite="seed", target_runtime="openvino")


def test_tensorrt() -> None:
    """A long TopK, a window with gaps, a pooling along one axis; each with its numbers, all of them at once."""
    wide = network(NETWORK.replace("6, 6", "48, 48").replace("45, 16", "2880, 16"))
    found = refusals("tensorrt", wide, keep=0.9)
    assert (
        "conv1/largest (TopK): asks for the 8294 largest values, and TensorRT gives up to 3839. Leave out" in found[-1]
    )
    assert len(found) == 1
    onnxlrp.convert(wide, target_runtime="tensorrt", keep=0.3)
    text = NETWORK.replace("strides = [2, 2]", "strides = [2, 2], dilations = [2, 2]")
    gaps = network(text.replace("45, 16", "20, 16"))
    assert refusals("tensorrt", gaps)[0].startswith("pool (MaxPool): has dilations [2, 2], and TensorRT pools without")
    flat = network("""
    flat (float[N, 3, 8] image, float[4, 3, 3] w1, float[4] b1, float[12, 3] w2, float[3] b2) => (float[N, 3] logits) {
      [conv] z = Conv<kernel_shape = [3]>(image, w1, b1)
      [pool] p = MaxPool<kernel_shape = [2], strides = [2]>(z)
      [flatten] f = Flatten(p)
      [dense] logits = Gemm(f, w2, b2)
    }""")
    assert (
        "pool (MaxPool): pools along one axis, and TensorRT pools along two or three." in refusals("tensorrt", flat)[0]
    )


def test_what_is_wrong_with_the_classifier_itself_is_said_with_all_else() -> None:
    found = refusals("opencv", of_type(network(NETWORK), TensorProto.DOUBLE), keep=2.0)
    assert [f.split(":")[0] for f in found] == ["--keep 2", "conv1 (Conv)", "conv2 (Conv)"]


def test_a_model_that_is_too_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its operator set is not changed: it is refused, with both numbers."""
    old = replace(RUNTIMES["opencv"], opset=18, ir=7)
    monkeypatch.setattr(runtimes, "RUNTIMES", {**RUNTIMES, "opencv": old})
    monkeypatch.setattr("onnxlrp.explain.examine.RUNTIMES", runtimes.RUNTIMES)
    found = refusals("opencv", network(NETWORK, opset=19))
    assert found == [
        "model: uses opset 19, and OpenCV reads up to 18. Export it with opset 17 to 18.",
        "model: is of IR version 8, and OpenCV reads up to 7. Export it for IR version 7 or lower.",
    ]


# -- what runs, and should be known -----------------------------------------------------------------------------------


def known(name: str, proto: ModelProto, **options: Any) -> list[str]:
    """What `plan` says of an explainer that is not refused."""
    model = onnxlrp.convert(proto, target_runtime=name, **options).model
    return [str(p) for p in RUNTIMES[name].known(model, "model")]


def test_what_runs_but_should_be_known() -> None:
    plain, newer = network(NETWORK), network(NETWORK, opset=22)
    assert not known("onnxruntime", plain)
    assert known("onnxruntime", newer) == [
        "pool (MaxPool) and 3 others: opset 22, for which the CUDA provider has no MaxPool: it runs on the CPU "
        "there. Export the model with opset 17 to 21."
    ]
    assert not known(PORTABLE, newer)
    assert not known("openvino", newer)
    (int64,) = known("web", plain)
    assert int64.startswith("lrp/target/equal (Equal) and another one: int64, unknown to WebGPU")
    (outputs,) = known("opencv", plain, heatmap=True)
    assert outputs.startswith("outputs logits, relevance, explained, heatmap: to be named all together")
    assert [line.split(":")[0] for line in known("opencv", of_type(network(NETWORK), TensorProto.FLOAT16))] == [
        "output logits and another one",
        "outputs logits, relevance, explained",
    ]
    assert "input image and another one: an open batch" in known("tensorrt", plain)[0]
    fixed = [line for line in known("tensorrt", newer, input_shape=[2, 3, 6, 6]) if "batch" in line]
    assert not fixed
    assert "opset 22, and TensorRT 10.0 reads up to 20; TensorRT 11 up to 25" in known("tensorrt", newer)[0]
    drawn = known("tensorrt", plain, render="heatmap", targets_per_input=2, **PIXELS)
    assert any("(Reshape)" in line and "TensorRT knows bytes as inputs and outputs" in line for line in drawn)
    assert "left to the CPU by ONNX Runtime's CoreML provider" in known("coreml", plain)[0]


def test_weights_in_a_second_file() -> None:
    """A page has to hand them over itself."""
    limit = next(entry for entry in RUNTIMES["web"].limits if "page" in entry.reason)
    model = ModelProto()
    model.CopyFrom(network(NETWORK))
    seen = runtimes.Seen(model, "model.onnx")
    assert not limit.problems(seen)
    large = TensorProto(name="large", data_type=TensorProto.FLOAT, dims=[2**29], data_location=TensorProto.EXTERNAL)
    model.graph.initializer.append(large)
    assert "model.onnx: 2.1 GB of weights, in a second file" in str(
        limit.problems(runtimes.Seen(model, "model.onnx"))[0]
    )


def test_indices_of_the_classifier_s_own() -> None:
    """Its nodes are never changed: where a runtime cannot run one, nothing that is emitted helps."""
    proto = network(NETWORK)
    pool = next(n for n in proto.graph.node if n.op_type == "MaxPool")
    pool.output.append("places")
    proto.graph.output.append(helper.make_tensor_value_info("places", TensorProto.INT64, ["N", 4, 3, 3]))
    onnx.checker.check_model(proto)
    assert refusals("tensorrt", proto)[0].startswith("pool (MaxPool): indices of its largest values, which TensorRT")
    assert "on which WebGPU throws; WebAssembly does not" in known("web", proto)[0]


def test_unknown_names() -> None:
    for given, said in (("onnxrt", "Choose among: portable, onnxruntime"), ("open_vino", "Did you mean openvino?")):
        with pytest.raises(OnnxLrpError) as error:
            onnxlrp.convert(network(NETWORK), target_runtime=given)
        assert said in str(error.value)
        assert f"--target-runtime {given}: is none of the choices" in str(error.value)

"""Explainers that are asked in other ways: several targets an input, relevance that is fed, channels chosen."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from onnxlrp import contract, convert
from onnxlrp.cli.run import run
from onnxlrp.errors import OnnxLrpError
from onnxlrp.run.session import Explainer

SIDE, CHANNELS, CLASSES = 6, 4, 3


def classifier(batch: int | str = "N") -> onnx.ModelProto:
    """A convolution named `features`, a relu, a dense layer."""
    random = np.random.default_rng(4)
    weights = {
        "w": random.normal(size=(CHANNELS, 1, 3, 3)),
        "b": random.normal(size=CHANNELS),
        "v": random.normal(size=(CHANNELS * SIDE * SIDE, CLASSES)) / 5,
    }
    nodes = [
        helper.make_node("Conv", ["image", "w", "b"], ["z"], "features", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["z"], ["y"], "relu"),
        helper.make_node("Flatten", ["y"], ["flat"], "flatten"),
        helper.make_node("MatMul", ["flat", "v"], ["logits"], "dense"),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 1, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, CLASSES])],
        [numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@functools.cache
def explainer(batch: int | str = "N", **options: Any) -> Explainer:
    return Explainer(classifier(batch), "cpu", composite="epsilon", **options)


def conditioned(**channels: str | tuple[int, ...]) -> Explainer:
    return Explainer(classifier(), "cpu", composite="epsilon", conditions=channels)


def images(count: int = 5) -> np.ndarray:
    return np.random.default_rng(8).normal(size=(count, 1, SIDE, SIDE)).astype(np.float32)


@pytest.mark.parametrize("batch", ["N", 2])
def test_several_targets_give_the_maps_of_each(batch: int | str) -> None:
    several, x = explainer(batch, targets_per_input=2), images()
    targets = np.array([[0, 1], [2, -1], [1, 0], [0, 0], [2, 1]])
    said = several.explain(x, targets)
    assert (several.targets_per_input, explainer().targets_per_input) == (2, None)
    assert (said.relevance.shape, said.target.shape) == ((5, 2, 1, SIDE, SIDE), (5, 2))
    for k in range(2):
        one = explainer().explain(x, targets[:, k])
        np.testing.assert_allclose(said.relevance[:, k], one.relevance, rtol=1e-4, atol=1e-6)
        assert said.target[:, k].tolist() == one.target.tolist()
    np.testing.assert_array_equal(several.explain(x, [2, 0]).target, np.tile([2, 0], (5, 1)))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (None, "explains 2 classes of each input"),
        (1, r"shape \[\], the model takes 2 classes of each of 5 inputs"),
        ([0, 1, 2], r"shape \[3\]"),
        (np.zeros((5, 3), int), r"shape \[5, 3\]"),
        (np.zeros((4, 2), int), r"shape \[4, 2\]"),
        ([0, 3], "3 is out of range"),
        ([0.0, 1.0], "dtype float64"),
    ],
)
def test_several_targets_must_be_as_many_as_the_model_takes(target: Any, message: str) -> None:
    with pytest.raises(OnnxLrpError, match=message):
        explainer(targets_per_input=2).explain(images(), target)


@pytest.mark.parametrize("batch", ["N", 2])
def test_relevance_that_is_fed_starts_from_any_scores(batch: int | str) -> None:
    fed, x = explainer(batch, start="fed"), images()
    logits = explainer().explain(x).logits
    assert fed.fed
    assert (fed.start, fed.fixed_target, explainer().fed) == ("fed", None, False)
    for c in range(CLASSES):
        said = fed.explain(x, start=logits * np.eye(CLASSES)[c])
        np.testing.assert_allclose(said.relevance, explainer().explain(x, c).relevance, rtol=1e-4, atol=1e-5)
    difference = fed.explain(x, start=[1.0, -1.0, 0.0]).relevance
    ones = [fed.explain(x, start=np.eye(CLASSES)[c]).relevance for c in range(2)]
    np.testing.assert_allclose(difference, ones[0] - ones[1], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"start: is missing.*start=\[5, 3\]"),
        ({"target": 1}, "target: cannot be given.*start="),
        ({"start": [1.0, 2.0]}, r"shape \[2\], the model takes \[5, 3\]"),
        ({"start": np.ones((4, 3))}, r"shape \[4, 3\]"),
        ({"start": 1.0}, r"shape \[\]"),
        ({"start": ["a", "b", "c"]}, "dtype"),
    ],
)
def test_what_cannot_be_fed_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OnnxLrpError, match=message):
        explainer(start="fed").explain(images(), **options)


def test_others_take_no_start_and_no_conditions() -> None:
    with pytest.raises(OnnxLrpError, match="--start fed"):
        explainer().explain(images(), start=[1.0, 0.0, 0.0])
    with pytest.raises(OnnxLrpError, match="--condition 'features=input'"):
        explainer().explain(images(), conditions={"features": np.ones(CHANNELS)})


def test_conditions_choose_channels_at_run_time() -> None:
    open_, x = conditioned(features="input"), images()
    assert open_.conditions == {"features": CHANNELS}
    np.testing.assert_array_equal(open_.explain(x, 1).relevance, explainer().explain(x, 1).relevance)
    baked = conditioned(features=(0, 3)).explain(x, 1).relevance
    for mask in ([1, 0, 0, 1], np.array([True, False, False, True]), np.tile([1.0, 0, 0, 1], (5, 1))):
        np.testing.assert_array_equal(open_.explain(x, 1, conditions={"features": mask}).relevance, baked)
    parts = [open_.explain(x, 1, conditions={"features": row}).relevance for row in np.eye(CHANNELS)]
    np.testing.assert_allclose(sum(parts), explainer().explain(x, 1).relevance, rtol=1e-3, atol=1e-5)
    each = open_.explain(x[:4], 1, conditions={"features": np.eye(CHANNELS)}).relevance
    for n in range(4):
        np.testing.assert_allclose(each[n], parts[n][n], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ({"feature": np.ones(CHANNELS)}, "Did you mean features"),
        ({"features": np.ones(3)}, r"shape \[3\], the layer has 4 channels in each of 5 inputs"),
        ({"features": np.ones((4, CHANNELS))}, r"shape \[4, 4\]"),
        ({"features": "0,1"}, "dtype"),
    ],
)
def test_wrong_conditions_are_named(conditions: dict[str, Any], message: str) -> None:
    with pytest.raises(OnnxLrpError, match=message):
        conditioned(features="input").explain(images(), conditions=conditions)


def test_a_further_input_is_named() -> None:
    model = convert(classifier(), composite="epsilon").model
    model.graph.input.append(helper.make_tensor_value_info("temperature", TensorProto.FLOAT, [1]))
    with pytest.raises(OnnxLrpError, match=r"a further input \(temperature\)"):
        Explainer(model, "cpu")


@pytest.mark.parametrize("batch", ["N", 2])
def test_predict_runs_the_classifier_alone(batch: int | str) -> None:
    for asked in (explainer(batch), explainer(batch, start="fed"), explainer(batch, targets_per_input=2)):
        np.testing.assert_allclose(asked.predict(images()), explainer().explain(images()).logits, rtol=1e-5, atol=1e-5)
        assert {i.name for i in asked._classifier.get_inputs()} == {"image"}
        with pytest.raises(OnnxLrpError, match="2 axes"):
            asked.predict(images()[0, 0])


# On the command line.


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "scan.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (SIDE, SIDE), np.uint8)).save(path)
    return path


def saved(folder: Path, name: str = "model", **options: Any) -> Path:
    path = folder / f"{name}.onnx"
    unit = contract.Preprocessing(mean=(0.5,), std=(0.2,), color_order="L", size=(SIDE, SIDE))
    convert(classifier(), composite="epsilon", preprocess=unit, **options).save(path, force=True)
    return path


def call(*arguments: object) -> Result:
    return CliRunner().invoke(run, [*map(str, arguments), "--device", "cpu", "--force"])


def explained(out: Path) -> list[int]:
    return sorted(json.loads(p.read_text())["class"] for p in out.glob("*.json"))


def test_run_explains_as_many_targets_as_the_model_takes(tmp_path: Path, picture: Path) -> None:
    model, json_ = saved(tmp_path, targets_per_input=2, taps=["all"]), ("--format", "json,npy")
    for name, targets in {"a": [], "b": ["top2"], "c": ["0", "2"]}.items():
        result = call(model, picture, "-o", tmp_path / name, *json_, *(t for c in targets for t in ("--target", c)))
        assert result.exit_code == 0, result.output
    assert explained(tmp_path / "a") == explained(tmp_path / "b")
    assert len(explained(tmp_path / "a")) == 2
    assert explained(tmp_path / "c") == [0, 2]
    for targets in (["0"], ["top3"], ["predicted"], ["top1", "2"], ["0", "1", "2"]):
        error = call(model, picture, "-o", tmp_path / "d", *(t for c in targets for t in ("--target", c))).exception
        assert "choose top2, or --target 2 times" in str(error).replace("Choose", "choose")
    assert not (tmp_path / "d").exists()
    assert call(model, picture, "-o", tmp_path / "e", "--layers", "--channels", 2).exit_code == 0
    for method in ("smoothgrad(samples=2)", "occlusion(window=3)"):
        assert call(model, picture, "-o", tmp_path / "f", "--method", method).exit_code == 0


def test_run_of_a_fed_explainer_names_the_python_way(tmp_path: Path, picture: Path) -> None:
    model = saved(tmp_path, start="fed")
    error = call(model, picture, "-o", tmp_path / "out").exception
    assert isinstance(error, OnnxLrpError)
    assert "Explainer.explain(batch, start=" in str(error)
    assert not (tmp_path / "out").exists()
    assert call(model, picture, "-o", tmp_path / "out", "--method", "occlusion(window=3)").exit_code == 0


def test_whole_pixels_are_prepared_in_the_graph_alone(tmp_path: Path, picture: Path) -> None:
    """A preset on top of it would make 0 or 1 of every pixel."""
    model, plain = saved(tmp_path, embed_preprocessing=True), saved(tmp_path, "plain")
    said = "takes whole pixels, for its pre-processing is in the graph. Leave --preprocess out."
    for preset in contract.PREPROCESS_PRESETS:
        with pytest.raises(OnnxLrpError, match=said):
            Explainer(model, "cpu").fit(preset)
        error = call(model, picture, "-o", tmp_path / "none", "--preprocess", preset).exception
        assert str(error) == f"--preprocess {preset}: {model} {said}"
    assert not (tmp_path / "none").exists()
    records = []
    for name, asked in {"pixels": model, "values": plain}.items():
        result = call(asked, picture, "-o", tmp_path / name, "--format", "json")
        assert (result.exit_code, result.stderr) == (0, "")
        records.append(json.loads(next((tmp_path / name).glob("*.json")).read_text()))
    assert records[0]["score"] == pytest.approx(records[1]["score"], rel=1e-5)


def test_run_with_conditions(tmp_path: Path, picture: Path) -> None:
    plain = tmp_path / "plain.onnx"
    onnx.save_model(classifier(), plain)
    chosen = saved(tmp_path, "chosen", conditions={"features": "input"})
    baked = saved(tmp_path, "baked", conditions={"features": (0, 3)})
    maps = {}
    for model, condition in ((chosen, ["--condition", "feat*=0,3"]), (chosen, []), (baked, [])):
        name = f"{model.stem}-{len(condition)}"
        result = call(model, picture, "-o", tmp_path / name, "--format", "npy", "--target", 1, *condition)
        assert result.exit_code == 0, result.output
        maps[name] = np.load(next((tmp_path / name).glob("*.npy")))
    np.testing.assert_array_equal(maps["chosen-2"], maps["baked-0"])
    assert np.abs(maps["chosen-0"] - maps["chosen-2"]).max() > 1e-3
    assert call(plain, picture, "-o", tmp_path / "plain", "--condition", "features=0,3").exit_code == 0
    for message, model, condition in [
        ("no number 7", chosen, "features=7"),
        ("Choose among: features", chosen, "dense=1"),
        ("--condition 'features=input'", baked, "features=1"),
        ("no such input", plain, "features=input"),
    ]:
        error = call(model, picture, "-o", tmp_path / "none", "--condition", condition).exception
        assert isinstance(error, OnnxLrpError)
        assert message in str(error)


def test_methods_on_the_command_line(tmp_path: Path, picture: Path) -> None:
    plain, out = tmp_path / "plain.onnx", tmp_path / "out"
    onnx.save_model(classifier(), plain)
    for method, label in {
        "smoothgrad(samples=3)": "SmoothGrad, 3 samples",
        "integrated-gradients(steps=4)": "integrated gradients, 4 steps from black",
        "occlusion(window=2, stride=2, fill=255)": "occlusion, 2 px windows of white, stride 2",
        "occlusion(window=4)": "occlusion, 4 px windows of grey, stride 2",
    }.items():
        result = call(plain, picture, "-o", out, "--method", method, "--format", "png,json", "--target", "top2")
        assert result.exit_code == 0, result.output
        assert len(explained(out)) == 2
        assert json.loads(next(out.glob("*.json")).read_text())["method"].startswith(label)
    model = saved(tmp_path, taps=["all"])
    for message, arguments in {
        "did you mean smoothgrad": ("--method", "smothgrad"),
        "has no parameter 'n'": ("--method", "smoothgrad(n=3)"),
        "steps 0": ("--method", "integrated-gradients(steps=0)"),
        "window 1.5": ("--method", "occlusion(window=1.5)"),
        "window 16: is larger than the picture": ("--method", "occlusion"),
        "--composite gradient": ("--method", "integrated-gradients"),
        "leave out --layers": ("--method", "smoothgrad", "--layers"),
    }.items():
        error = call(model, picture, "-o", tmp_path / "none", *arguments).exception
        assert isinstance(error, OnnxLrpError)
        assert message.lower() in str(error).lower()
    assert not (tmp_path / "none").exists()
    assert call(model, picture, "-o", out, "--method", "smoothgrad(samples=2)", "--format", "json").exit_code == 0

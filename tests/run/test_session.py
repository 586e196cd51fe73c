"""Sessions: the contract is read from the model, batches and targets are checked with both numbers named."""

from __future__ import annotations

import builtins
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxlrp import contract
from onnxlrp.errors import OnnxLrpError, RunError
from onnxlrp.graph import save as saving
from onnxlrp.run import runtime
from onnxlrp.run.session import Explainer, Explanation

Build = Callable[..., onnx.ModelProto]


def batch(count: int = 5) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, 3, 8, 8)).astype(np.float32)


def test_properties_come_from_the_model(explainer_file: Callable[..., Path]) -> None:
    explainer = Explainer(explainer_file(), device="cpu")
    assert (explainer.provider, explainer.provider_reason) == ("CPU", "")
    assert (explainer.input_name, explainer.input_shape) == ("image", (None, 3, 8, 8))
    assert explainer.preprocessing == contract.Preprocessing(size=(8, 8), mean=(0.5,), std=(0.5,))
    assert explainer.labels == ["cat", "dog, hound", "hamster"]
    assert (explainer.scores, explainer.taps, explainer.classes) == ("logits", ["relevance/flat"], 3)
    assert not explainer.converted


def test_explaining_the_predicted_class(build: Build, weight: np.ndarray) -> None:
    said = Explainer(build(), "cpu").explain(batch())
    logits = batch().reshape(5, -1) @ weight
    np.testing.assert_allclose(said.logits, logits, rtol=1e-5, atol=1e-5)
    assert said.target.dtype == np.int64
    assert said.target.tolist() == logits.argmax(axis=1).tolist()
    np.testing.assert_allclose(said.relevance.sum(axis=(1, 2, 3)), logits.max(axis=1), rtol=1e-4)
    assert set(said.outputs) == {"logits", "relevance", "explained", "relevance/flat"}


@pytest.mark.parametrize("target", [1, [0, 1, 2, -1, 0], np.array([0, 1, 2, -1, 0], np.int32)])
def test_targets_choose_the_class(build: Build, weight: np.ndarray, target: Any) -> None:
    said = Explainer(build(), "cpu").explain(batch(), target)
    chosen = np.broadcast_to(target, (5,))
    expected = np.where(chosen < 0, said.logits.argmax(axis=1), chosen)
    assert said.target.tolist() == expected.tolist()
    np.testing.assert_allclose(said.relevance, batch() * weight.T[expected].reshape(-1, 3, 8, 8), rtol=1e-6)


@pytest.mark.parametrize("fixed", [1, 2, 5, 8])
def test_a_fixed_batch_size_gives_the_same_answer(build: Build, fixed: int) -> None:
    free = Explainer(build(), "cpu").explain(batch(), [0, 1, 2, 0, 1])
    pieces = Explainer(build(batch=fixed), "cpu").explain(batch(), [0, 1, 2, 0, 1])
    for name, output in free.outputs.items():
        assert pieces.outputs[name].shape == output.shape
        np.testing.assert_allclose(pieces.outputs[name], output, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (batch()[0], r"has 3 axes \[3, 8, 8\], the model takes 4 \[N, 3, 8, 8\]"),
        (batch()[:, :1], r"\[5, 1, 8, 8\], the model takes \[N, 3, 8, 8\]"),
        (batch().astype(np.float64), "float64, the model takes float32"),
        (batch()[:0], r"is empty"),
    ],
)
def test_wrong_batches_are_refused(build: Build, bad: np.ndarray, message: str) -> None:
    with pytest.raises(OnnxLrpError, match=message):
        Explainer(build(), "cpu").explain(bad)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (3, "3 is out of range: the model has 3 classes"),
        (-2, "-2 is out of range: the model has 3 classes"),
        ([0, 1], r"\[2\] for a batch of 5"),
        (1.0, "dtype float64"),
        (True, "dtype bool"),
    ],
)
def test_wrong_targets_are_refused(build: Build, target: Any, message: str) -> None:
    with pytest.raises(OnnxLrpError, match=message):
        Explainer(build(), "cpu").explain(batch(), target)


@pytest.mark.parametrize(("fixed", "expected"), [("2", [2] * 5), ("predicted", None)])
def test_models_with_a_fixed_target(build: Build, fixed: str, expected: list[int] | None) -> None:
    explainer = Explainer(build(target=fixed), "cpu")
    said = explainer.explain(batch())
    assert said.target.tolist() == (expected or said.logits.argmax(axis=1).tolist())
    with pytest.raises(OnnxLrpError, match="without --target"):
        explainer.explain(batch(), 1)


def test_probabilities() -> None:
    def of(logits: list[list[float]], scores: str = "logits") -> list[list[float]]:
        empty = np.zeros(0)
        return Explanation(np.array(logits), empty.astype(np.int64), empty, {}, scores).probabilities.tolist()

    assert of([[0.0, np.log(3.0)]])[0] == pytest.approx([0.25, 0.75])
    assert of([[1e4, 0.0]])[0] == pytest.approx([1.0, 0.0])
    assert of([[0.0]])[0] == pytest.approx([0.5])
    assert of([[0.2, 0.8]], "probabilities")[0] == pytest.approx([0.2, 0.8])


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({contract.KEY_CONTRACT: "2"}, "contract 2, this onnxlrp knows 1"),
        ({contract.KEY_INPUT: "picture"}, "input 'picture'.* missing"),
        ({contract.KEY_OUTPUT: ""}, "output ''.* missing"),
        ({contract.KEY_LABELS: "cat, dog"}, "no JSON list"),
    ],
)
def test_broken_contracts_are_named(build: Build, metadata: dict[str, str], message: str) -> None:
    with pytest.raises(OnnxLrpError, match=message):
        Explainer(build(metadata=metadata), "cpu")


def test_files_that_are_no_model(tmp_path: Path, build: Build) -> None:
    whole = build().SerializeToString()
    contents = {"empty.onnx": b"", "cut.onnx": whole[: len(whole) // 2], "text.onnx": b"hello, I am text"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(OnnxLrpError, match=name):
            Explainer(tmp_path / name, "cpu")
    with pytest.raises(OnnxLrpError, match="is a folder"):
        Explainer(tmp_path, "cpu")
    with pytest.raises(OnnxLrpError, match="no such file"):
        Explainer(tmp_path / "gone.onnx", "cpu")


def test_an_operator_the_runtime_lacks_is_named(build: Build) -> None:
    model = build()
    model.graph.node[1].op_type = "Flatter"
    with pytest.raises(OnnxLrpError, match=r"ONNX Runtime cannot load it .*Flatter"):
        Explainer(model, "cpu")


def test_a_failure_while_running_is_a_run_error(build: Build, capfd: pytest.CaptureFixture[str]) -> None:
    model = build()
    shape = helper.make_tensor("wrong", TensorProto.INT64, [2], [1, 7])
    model.graph.initializer.append(shape)
    model.graph.node[-1].input[1] = "wrong"
    with pytest.raises(RunError, match="gave up while running") as caught:
        Explainer(model, "cpu").explain(batch())
    assert "ONNXRuntimeError" not in str(caught.value)
    assert "onnxruntime_src" not in str(caught.value)
    assert str(caught.value).endswith("try --batch 1, or convert its classifier again.")
    assert capfd.readouterr().err == "", "nor does the runtime log it a second time"


def test_bytes_and_paths_as_text_are_models_too(build: Build, explainer_file: Callable[..., Path]) -> None:
    expected = Explainer(build(), "cpu").explain(batch()).relevance
    for model in (build().SerializeToString(), str(explainer_file())):
        np.testing.assert_array_equal(Explainer(model, "cpu").explain(batch()).relevance, expected)


def test_models_over_protobufs_limit_go_through_files(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build()
    model.graph.initializer.insert(0, helper.make_tensor("first", TensorProto.FLOAT, [700], bytes(2800), raw=True))
    before, expected = model.SerializeToString(), Explainer(model, "cpu").explain(batch()).relevance
    monkeypatch.setattr(saving, "LIMIT", 1000)
    monkeypatch.setattr(saving, "MOVED", 100)
    monkeypatch.setattr(onnx.ModelProto, "SerializeToString", _no_larger_than(2000))
    said = Explainer(model, "cpu").explain(batch()).relevance
    monkeypatch.undo()
    np.testing.assert_array_equal(said, expected)
    assert model.SerializeToString() == before


def _no_larger_than(limit: int) -> Callable[[onnx.ModelProto], bytes]:
    """A stand-in for protobuf's limit, which a test cannot afford to reach."""
    serialize = onnx.ModelProto.SerializeToString

    def limited(model: onnx.ModelProto) -> bytes:
        data = serialize(model)
        if len(data) > limit:
            raise ValueError("too large")
        return data

    return limited


def test_external_data_beside_a_file(tmp_path: Path, build: Build) -> None:
    model, expected = build(), Explainer(build(), "cpu").explain(batch()).relevance
    path = tmp_path / "external.onnx"
    onnx.save_model(model, path, save_as_external_data=True, location="external.data", size_threshold=100)
    assert (tmp_path / "external.data").exists()
    np.testing.assert_array_equal(Explainer(path, "cpu").explain(batch()).relevance, expected)


def test_an_explainers_weights_are_looked_at_before_it_is_opened(tmp_path: Path, build: Build) -> None:
    path, weights = tmp_path / "m.onnx", tmp_path / "m.data"
    onnx.save_model(build(), path, save_as_external_data=True, location=weights.name, size_threshold=100)
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(OnnxLrpError, match=r"m\.data: is cut off"):
        Explainer(path, "cpu")
    weights.unlink()
    with pytest.raises(OnnxLrpError, match=r"m\.data: the model keeps its weights in this file, which is missing"):
        Explainer(path, "cpu")


def fake_conversion(monkeypatch: pytest.MonkeyPatch, model: onnx.ModelProto) -> list[dict[str, Any]]:
    """Let the conversion answer with `model`; returns the options it is called with."""
    calls: list[dict[str, Any]] = []

    def convert(given: object, **options: Any) -> types.SimpleNamespace:
        calls.append(options)
        return types.SimpleNamespace(model=model)

    monkeypatch.setattr("onnxlrp.run.session.convert", convert)
    return calls


def test_a_plain_classifier_is_converted_with_the_options(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = build()
    del plain.metadata_props[:]
    calls = fake_conversion(monkeypatch, build())
    explainer = Explainer(plain, "cpu", composite="epsilon_plus")
    assert explainer.converted
    assert calls == [{"composite": "epsilon_plus"}]
    with pytest.raises(OnnxLrpError, match="explainer already, so composite"):
        Explainer(build(), "cpu", composite="epsilon_plus")


def test_an_explainer_with_external_data_converted_in_memory_finds_it(
    tmp_path: Path, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = build()
    del plain.metadata_props[:]
    onnx.save_model(plain, tmp_path / "plain.onnx", save_as_external_data=True, location="w.bin", size_threshold=100)
    converted = onnx.load(tmp_path / "plain.onnx", load_external_data=False)
    converted.metadata_props.extend(build().metadata_props)
    fake_conversion(monkeypatch, converted)
    said = Explainer(tmp_path / "plain.onnx", "cpu").explain(batch())
    np.testing.assert_array_equal(said.relevance, Explainer(build(), "cpu").explain(batch()).relevance)


def test_telemetry_is_off() -> None:
    import os

    runtime.import_onnxruntime()
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"


@pytest.mark.parametrize("end", [KeyboardInterrupt(), SystemExit(143)])
def test_ending_while_onnxruntime_loads_is_not_a_lack_of_it(
    end: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its library turns what is raised while it loads into an ImportError."""

    real = builtins.__import__

    def interrupted(name: str, *given: Any, **more: Any) -> Any:
        if name == "onnxruntime":
            raise ImportError("initialization failed") from end
        return real(name, *given, **more)

    monkeypatch.setattr(builtins, "__import__", interrupted)
    with pytest.raises(type(end)):
        runtime.import_onnxruntime()


def test_a_lack_of_onnxruntime_is_told_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(OnnxLrpError, match=r"ONNX Runtime: cannot be imported \(.*\). Run pip install onnxruntime-gpu"):
        runtime.import_onnxruntime()


def test_rival_packages_are_named_with_the_remedy() -> None:
    assert runtime.rivals_warning(["onnxruntime-gpu"]) == ""
    warning = runtime.rivals_warning(["onnxruntime", "onnxruntime-gpu"])
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in warning
    assert warning.endswith("pip install onnxruntime-gpu.")


def test_no_gpu_means_cpu_and_a_reason(
    build: Build, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runtime, "_gpus", lambda: 0)
    explainer = Explainer(build(), "auto")
    assert explainer.provider == "CPU"
    assert explainer.provider_reason
    with pytest.raises(OnnxLrpError, match=r"onnxruntime-gpu\[cuda,cudnn\]"):
        Explainer(build(), "cuda")
    with pytest.raises(OnnxLrpError, match="Choose one of auto, cpu, cuda"):
        Explainer(build(), "tpu")
    assert capfd.readouterr() == ("", "")


def test_a_gpu_without_cudas_libraries_is_told_quietly(
    build: Build, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    ort = runtime.import_onnxruntime()
    if runtime.CUDA not in ort.get_available_providers() or runtime._gpus() > 0:
        pytest.skip("needs an ONNX Runtime with CUDA on a machine without a GPU")
    monkeypatch.setattr(runtime, "_gpus", lambda: 1)
    explainer = Explainer(build(), "auto")
    assert explainer.provider == "CPU"
    assert "cuda" in explainer.provider_reason
    with pytest.raises(OnnxLrpError, match="cpu"):
        Explainer(build(), "cuda")
    assert capfd.readouterr() == ("", "")


def test_bound_buffers_say_the_same(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs on CUDA with a batch size, tried on the CPU: pieces of one shape through kept buffers, the last filled
    up; arrays that were given out are not written to again."""
    plain, bound = (Explainer(build(), "cpu") for _ in range(2))
    monkeypatch.setattr(bound, "_batch_size", 2)
    images, targets = np.concatenate([batch(), batch()[::-1] * 2]), None
    first = bound.explain(images, targets)
    kept = first.relevance.copy()
    bindings = {id(bound._binding)}
    again = bound.explain(images[::-1].copy(), targets)
    assert {id(bound._binding)} == bindings, "one binding serves all"
    np.testing.assert_array_equal(first.relevance, kept)
    expected = plain.explain(images, targets)
    np.testing.assert_allclose(first.relevance, expected.relevance, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(again.relevance[::-1], expected.relevance, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(first.target, expected.target)


def test_a_batch_size_is_for_cuda_only(build: Build) -> None:
    explainer = Explainer(build(), "cpu", batch_size=8)
    assert explainer.explain(batch()).relevance.shape == batch().shape
    assert explainer._binding is None

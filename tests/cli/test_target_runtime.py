"""`--target-runtime`: what plan says of a runtime, and what convert refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
from onnx import ModelProto, TensorProto

from tests.explain.networks import PLAIN, network, of_type

from .conftest import Refused, invoke


def said(*words: object) -> list[str]:
    """What plan prints behind the table."""
    done = invoke("plan", *words)
    assert done.exit_code == 0, done.output
    return done.stdout.split("Nothing stands in the way.\n")[1].strip().splitlines()


def test_plan_says_how_it_is_written_and_what_to_know(written: Callable[[ModelProto], Path]) -> None:
    model = written(network(PLAIN))
    assert said(model) == []
    assert said(model, "--target-runtime=tract") == ["For tract (tried with 0.23.9, CPU):", "- Nothing to know."]
    head, *lines = said(model, "--target-runtime=openvino")
    assert head == "For OpenVINO (tried with 2026.4.1, CPU):"
    assert [line.split(":")[0] for line in lines] == ["- No large factors"]
    head, *lines = said(model, "--target-runtime=opencv", "--heatmap", "--tap=conv1")
    assert head == "For OpenCV (tried with 5.0.0, CPU):"
    assert [line.split(":")[0] for line in lines] == [
        "- outputs logits, relevance, explained, heatmap, …",
    ]
    head, *lines = said(model, "--target-runtime=tensorrt", "--input-shape=1,3,6,6")
    assert head == "For TensorRT (read of, not tried):"
    assert [line.split(":")[0] for line in lines] == ["- No large factors"]


def test_plan_goes_with_the_cost(written: Callable[[ModelProto], Path]) -> None:
    lines = said(written(network(PLAIN)), "--target-runtime=onnxruntime", "--cost")
    assert any(line.startswith("One explanation is at best") for line in lines)
    assert lines[-1].startswith("- Quotients are plain")


def test_what_cannot_run_is_refused_before_anything_is_written(
    written: Callable[[ModelProto], Path], refused: Refused
) -> None:
    """Known from the explainer's own nodes, after those of the classifier."""
    model = written(network(PLAIN.replace("6, 6", "48, 48").replace("45, 16", "2880, 16")))
    words = "conv1/largest (TopK): asks for the 8294 largest values, and TensorRT gives up to 3839."
    for command in ("convert", "plan"):
        refused(command, model, "--target-runtime=tensorrt", "--keep=0.9", words=words)


def test_convert_is_silent_of_what_runs(written: Callable[[ModelProto], Path]) -> None:
    model = written(network(PLAIN))
    words = ("convert", model, "--preprocess=unit")
    plain, other = invoke(*words), invoke(*words, "--target-runtime=opencv", "--force")
    assert (other.exit_code, other.stderr) == (0, "")
    assert [line.split()[0] for line in other.stdout.splitlines()] == [s.split()[0] for s in plain.stdout.splitlines()]
    held = {p.key: p.value for p in onnx.load("model.lrp.onnx").metadata_props}
    assert held["onnxlrp.runtime"] == "opencv"


def test_plan_for_any_runtime_says_where_it_would_not_run(written: Callable[[ModelProto], Path]) -> None:
    """And converts all the same, in silence."""
    even = PLAIN.replace("3, 3] w1", "2, 2] w1")
    padded = even.replace("kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(image", 'auto_pad = "SAME_LOWER">(image')
    model = written(network(padded))
    head, line = said(model)
    assert head == "For any runtime (tried with all of the others that could be run):"
    assert line.startswith("- conv1 (Conv): not for OpenCV: auto_pad puts 1 before and 0 behind 6 elements")
    assert (done := invoke("convert", model, "--preprocess=unit")).exit_code == 0
    assert done.stderr == ""


def test_convert_warns_of_what_its_own_runtime_cannot_run(written: Callable[[ModelProto], Path]) -> None:
    """Where it was not said what will run the explainer."""
    model = written(of_type(network(PLAIN), TensorProto.DOUBLE))
    done = invoke("convert", model, "--preprocess=unit")
    (line,) = done.stderr.splitlines()
    assert done.exit_code == 0
    assert line.startswith("Warning: conv1 (Conv) and 4 others: not for ONNX Runtime: computes in float64, for which")
    assert line.endswith("Export the model in float32. `onnxlrp run` needs that runtime.")
    assert invoke("convert", model, "--preprocess=unit", "--target-runtime=openvino", "--force").stderr == ""

"""The conformance kit is what tools/conformance.py makes, small, complete, and well within its own tolerances."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxlrp.explain.presets import PRESETS
from tests.conformance import hosts
from tools import conformance

STALE = "the kit is out of date: run python -m tools.conformance and commit graphs/conformance"


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kit, made again."""
    folder = tmp_path_factory.mktemp("kit")
    conformance.write(folder)
    return folder


@pytest.fixture(scope="module")
def manifest() -> dict[str, Any]:
    return json.loads((hosts.KIT / "manifest.json").read_text(encoding="utf-8"))


def test_explainers_are_current_to_the_byte(fresh: Path) -> None:
    made, held = ({p.name: p.read_bytes() for p in (f / "explainers").iterdir()} for f in (fresh, hosts.KIT))
    assert made.keys() == held.keys(), STALE
    assert [n for n in made if made[n] != held[n]] == [], STALE


def test_manifest_and_tensors_are_current(fresh: Path, manifest: dict[str, Any]) -> None:
    assert json.loads((fresh / "manifest.json").read_text(encoding="utf-8")) == manifest, STALE
    for path in sorted((fresh / "tensors").glob("*.npy")):
        made, held = np.load(path), np.load(hosts.KIT / "tensors" / path.name)
        assert made.dtype == held.dtype and made.shape == held.shape, f"{path.name}: {STALE}"
        largest = np.abs(held.astype(np.float64)).max()
        assert np.abs(made.astype(np.float64) - held).max() <= 1e-6 * largest, f"{path.name}: {STALE}"


def test_all_three_forms_of_a_tensor_agree(manifest: dict[str, Any]) -> None:
    for case in manifest["cases"]:
        for entry in (*case["inputs"], *case["outputs"]):
            path = hosts.KIT / entry["file"]
            array = np.load(path.with_suffix(".npy"))
            assert (str(array.dtype), list(array.shape)) == (entry["dtype"], entry["shape"])
            assert array.astype(array.dtype.newbyteorder("<")).tobytes() == path.read_bytes()
            tensor = onnx.load_tensor(path.with_suffix(".pb"))
            assert tensor.name == entry["name"]
            np.testing.assert_array_equal(numpy_helper.to_array(tensor), array)


def test_every_file_is_used_and_the_kit_is_small(manifest: dict[str, Any]) -> None:
    files = [p for p in hosts.KIT.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) < 6.2e6
    assert max(p.stat().st_size for p in files) < 3e6
    entries = [e for c in manifest["cases"] for e in (*c["inputs"], *c["outputs"])]
    entries += [d[k] for d in manifest["drawings"] for k in ("relevance", "pixels")]
    assert {p.stem for p in files if p.parent.name == "tensors"} == {Path(e["file"]).stem for e in entries}
    assert {p.name for p in files if p.parent.name == "explainers"} == {
        Path(c["explainer"]).name for c in manifest["cases"]
    }


def test_every_composite_and_form_of_the_contract_is_there(manifest: dict[str, Any]) -> None:
    proto = [onnx.load(hosts.KIT / f) for f in {c["explainer"] for c in manifest["cases"]}]
    assert {p.value for m in proto for p in m.metadata_props if p.key == "onnxlrp.composite"} >= set(PRESETS)
    outputs = {e["name"].split("/")[0] for c in manifest["cases"] for e in c["outputs"]}
    assert outputs >= {"logits", "probabilities", "relevance", "explained", "heatmap", "render"}
    inputs = {e["name"].split("/")[0] for c in manifest["cases"] for e in c["inputs"]}
    assert inputs >= {"image", "pixels", "target", "start", "condition"}
    first = {m.graph.input[0].type.tensor_type.shape.dim[0].WhichOneof("value") for m in proto}
    assert first == {"dim_param", "dim_value"}, "open and fixed batches"


def test_onnx_runtime_is_a_tenth_of_the_tolerance_away_at_most(tmp_path: Path, manifest: dict[str, Any]) -> None:
    """So a case that misses in another runtime is no matter of float32: see the kit's README."""
    done = hosts.run("onnxruntime", "check", hosts.KIT, "--json", tmp_path / "report.json")
    assert done.returncode == 0, done.stdout
    report = json.loads((tmp_path / "report.json").read_text())["cases"]
    for case in manifest["cases"]:
        for output in case["outputs"]:
            limit = manifest["tolerances"][output["tolerance"]]["limit"]
            assert report[case["name"]]["errors"][output["name"]] <= limit / 10, (case["name"], output["name"])

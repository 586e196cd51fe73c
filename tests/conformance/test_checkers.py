"""Every checker finds what is wrong: a kit whose expected output was changed a little does not pass."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.conformance import hosts

CASE = "vgg.overlay"
CHECKERS = ("onnxruntime", "node", "cpp")  # one for each language; the hosts in Python share theirs


def _scaled(values: np.ndarray) -> np.ndarray:
    return (values * 1.002).astype(values.dtype)


def _one_score(values: np.ndarray) -> np.ndarray:
    changed = values.copy()
    changed[0, 0] += 3e-5 * np.abs(values).max()
    return changed


def _samples_swapped(values: np.ndarray) -> np.ndarray:
    return values[::-1].copy()


def _shifted(values: np.ndarray) -> np.ndarray:
    return np.roll(values, 1, axis=1)


def _one_more(values: np.ndarray) -> np.ndarray:
    return values + np.array([0] * (len(values) - 1) + [1])


def _as_bytes(values: np.ndarray) -> np.ndarray:
    return values.astype(np.uint8)


def _as_whole_numbers(values: np.ndarray) -> np.ndarray:
    return values.astype(np.int64)


def _rows_brighter(values: np.ndarray) -> np.ndarray:
    changed = values.copy()
    changed[:, 0] ^= 8
    return changed


WRONG: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "relevance 0.2 % too large": ("relevance", _scaled),
    "relevance of another sample": ("relevance", _samples_swapped),
    "relevance one pixel aside": ("relevance", _shifted),
    "one logit off by 3e-5": ("logits", _one_score),
    "another class explained": ("explained", _one_more),
    "a row of the picture in another colour": ("render", _rows_brighter),
    "the class explained in another type": ("explained", _as_bytes),
    "the picture in another type": ("render", _as_whole_numbers),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A kit of one case and one drawing."""
    manifest = json.loads((hosts.KIT / "manifest.json").read_text())
    manifest["cases"] = [c for c in manifest["cases"] if c["name"] == CASE]
    manifest["drawings"] = manifest["drawings"][:1]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    shutil.copytree(hosts.KIT / "tensors", tmp_path / "tensors")
    (tmp_path / "explainers").mkdir()
    shutil.copy(hosts.KIT / "explainers" / f"{CASE}.onnx", tmp_path / "explainers")
    return tmp_path


@pytest.mark.parametrize("checker", CHECKERS)
def test_the_kit_as_it_is_passes(folder: Path, checker: str) -> None:
    done = hosts.run(checker, "check", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 1 cases within tolerance" in done.stdout


@pytest.mark.parametrize("checker", CHECKERS)
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_output_is_caught(folder: Path, checker: str, wrong: str) -> None:
    name, change = WRONG[wrong]
    manifest = json.loads((folder / "manifest.json").read_text())
    (entry,) = (o for o in manifest["cases"][0]["outputs"] if o["name"] == name)
    path = folder / entry["file"]
    changed = change(np.fromfile(path, entry["dtype"]).reshape(entry["shape"]))
    changed.tofile(path)
    entry["dtype"] = str(changed.dtype)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    done = hosts.run(checker, "check", folder)
    assert done.returncode == 1, f"{wrong} passed: {done.stdout}"
    (line,) = (one for one in done.stdout.splitlines() if one.startswith("MISS"))
    assert f"{name} " in line and line.count("(too far)") == 1, line


@pytest.mark.parametrize("checker", CHECKERS)
def test_another_shape_an_unknown_output_and_another_drawing_are_caught(folder: Path, checker: str) -> None:
    original = json.loads((folder / "manifest.json").read_text())

    def code(change: Callable[[dict], None]) -> int:
        manifest = json.loads(json.dumps(original))
        change(manifest)
        (folder / "manifest.json").write_text(json.dumps(manifest))
        return hosts.run(checker, "check", folder).returncode

    (relevance,) = (i for i, o in enumerate(original["cases"][0]["outputs"]) if o["name"] == "relevance")
    assert code(lambda m: m["cases"][0]["outputs"][relevance]["shape"].reverse()) == 1
    assert code(lambda m: m["cases"][0]["outputs"][relevance].update(name="relevant")) == 1
    assert code(lambda m: m["cases"].clear()) == 1, "a kit without cases proves nothing"
    drawn = folder / original["drawings"][0]["pixels"]["file"]
    drawn.write_bytes(bytes([drawn.read_bytes()[0] ^ 1]) + drawn.read_bytes()[1:])
    assert code(lambda m: None) == 1

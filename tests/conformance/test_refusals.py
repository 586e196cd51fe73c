"""What a host cannot do it says in one line: the thing, the reason and the remedy; and it leaves no file behind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import onnx
import pytest
from PIL import Image

from tests.conformance import hosts

HOSTS = ("onnxruntime", "node", "cpp")  # one for each language; the hosts in Python share theirs
NAMED = "vgg.epsilon_plus.onnx"
PICTURE = "picture.png"

# What is asked (explainer, picture, class), and words of the answer.
EXPLAINED: Mapping[str, tuple[tuple[str, str, str | None], tuple[str, ...]]] = {
    "no such explainer": (("none.onnx", PICTURE, None), ("none.onnx: cannot be", "check the path")),
    "no such picture": ((NAMED, "none.png", None), ("none.png: cannot be read", "check the path")),
    "a classifier": (("classifier.onnx", PICTURE, None), ("classifier.onnx: is no explainer", "onnxlrp convert")),
    "no ONNX file": (("text.onnx", PICTURE, None), ("text.onnx: ", "convert")),
    "half an explainer": (("half.onnx", PICTURE, None), ("half.onnx: ", "convert")),
    "another contract": (("newer.onnx", PICTURE, None), ("newer.onnx: was written for contract 9", "onnxlrp")),
    "no pre-processing": (
        ("bare.onnx", PICTURE, None),
        ("bare.onnx: does not store how pixels become its input", "onnxlrp convert MODEL --preprocess"),
    ),
    "labels that are no JSON": (("labels.onnx", PICTURE, None), ("onnxlrp.labels", "is no JSON", "convert")),
    "a picture that is none": ((NAMED, "text.png", None), ("text.png: cannot be read as a ", "PNG")),
    "half a picture": ((NAMED, "half.png", None), ("half.png: cannot be read as a ", "PNG")),
    "a picture of another size": ((NAMED, "large.png", None), ("has 33 x 32 pixels", "resize")),
    "a class that is a word": ((NAMED, PICTURE, "abc"), ("class abc: is no class", "its number")),
    "a class with a tail": ((NAMED, PICTURE, "1abc"), ("class 1abc: is no class", "its number")),
    "a class of too many digits": ((NAMED, PICTURE, "9" * 20), ("is no class", "its number")),
    "a class below": ((NAMED, PICTURE, "-2"), ("class -2: is no class", "its number")),
    "a class beyond": ((NAMED, PICTURE, "5"), ("class 5: is out of range", "has 5 classes", "0 to 4")),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Explainers and pictures, most of them spoilt."""
    folder = tmp_path_factory.mktemp("refusals")
    shutil.copy(hosts.KIT / "explainers" / NAMED, folder)
    shutil.copy(hosts.KIT / "pictures" / PICTURE, folder)
    spoilt: Mapping[str, dict[str, str | None]] = {
        "classifier": dict.fromkeys(("onnxlrp.contract", "onnxlrp.input", "onnxlrp.output", "onnxlrp.preprocess")),
        "newer": {"onnxlrp.contract": "9"},
        "bare": {"onnxlrp.preprocess": None},
        "labels": {"onnxlrp.labels": "square, circle"},
    }
    for name, changes in spoilt.items():
        model = onnx.load(folder / NAMED)
        known = {p.key: p.value for p in model.metadata_props} | changes
        onnx.helper.set_model_props(model, {k: v for k, v in known.items() if v is not None})
        onnx.save(model, folder / f"{name}.onnx")
    for name, whole in (("half.onnx", NAMED), ("half.png", PICTURE)):
        data = (folder / whole).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])
    for name in ("text.onnx", "text.png"):
        (folder / name).write_text("This is neither a picture nor a network.\n" * 20)
    Image.new("RGB", (33, 32)).save(folder / "large.png")
    return folder


def refused(name: str, *, code: int, stderr: str, words: tuple[str, ...]) -> None:
    """Hold an answer to its form: one line that begins with `error: ` and has the words."""
    assert code == 2, f"{name}: {stderr}"
    (line,) = stderr.splitlines()
    assert line.startswith("error: ") and "; " in line, line
    assert [word for word in words if word not in line] == [], line


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("case", EXPLAINED)
def test_what_cannot_be_explained_is_refused(case: str, host: str, folder: Path, tmp_path: Path) -> None:
    (explainer, picture, target), words = EXPLAINED[case]
    out = tmp_path / "heatmap.png"
    done = hosts.explain(host, folder / explainer, folder / picture, out, target)
    refused(host, code=done.returncode, stderr=done.stderr, words=words)
    assert not out.exists() and done.stdout == ""


@pytest.mark.parametrize("host", HOSTS)
def test_what_cannot_be_written_is_said(host: str, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "none" / "heatmap.png"
    done = hosts.explain(host, folder / NAMED, folder / PICTURE, out)
    words = (f"{out}: cannot be written", "check the folder")
    refused(host, code=done.returncode, stderr=done.stderr, words=words)


@pytest.mark.parametrize("host", HOSTS)
def test_a_folder_that_is_no_kit_is_refused(host: str, tmp_path: Path) -> None:
    for text in (None, "no JSON"):
        if text is not None:
            (tmp_path / "manifest.json").write_text(text)
        done = hosts.run(host, "check", tmp_path)
        words = (str(tmp_path / "manifest.json"), "graphs/conformance")
        refused(host, code=done.returncode, stderr=done.stderr, words=words)


@pytest.mark.parametrize("host", HOSTS)
def test_a_report_that_cannot_be_written_is_said(host: str, tmp_path: Path) -> None:
    manifest = json.loads((hosts.KIT / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "cases": [], "drawings": []}))
    report = tmp_path / "none" / "report.json"
    done = hosts.run(host, "check", tmp_path, "--json", report)
    refused(host, code=done.returncode, stderr=done.stderr, words=(f"{report}: cannot be written", "check the folder"))

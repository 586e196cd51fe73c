"""Files that are no model, files that cannot be read, and places that cannot be written."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto
from PIL import Image

from onnxlrp import contract

from . import classifiers
from .conftest import Refused, invoke

Written = Callable[[ModelProto | bytes], Path]
COMMANDS = ("convert", "plan", "run")
WHOLE = classifiers.classifier().SerializeToString()
NOT_MODELS = {
    "text": (b"hello world\n", "is not an ONNX file"),
    "empty": (b"", "is empty (0 bytes)"),
    "zeros": (bytes(100), "is not an ONNX file"),
    "zip": (b"PK\x03\x04" + bytes(range(200)), "is not an ONNX file"),
    "tensor": (classifiers.weight("w", 3, 3).SerializeToString(), "is not an ONNX file"),
    "pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "model.onnx: is a Git LFS pointer, not the model. Fetch the model itself: git lfs pull.",
    ),
    "web page": (b"\n<!DOCTYPE html>\n<html><head></head></html>", "model.onnx: is a web page, not a model. Download"),
    "web page without a type": (b"<HTML lang='en'></HTML>", "model.onnx: is a web page, not a model. Download"),
    "graph": (classifiers.classifier().graph.SerializeToString(), "holds no ONNX graph"),
    "a message by chance": (b"\x08\x07", "holds no ONNX graph"),
    **{
        f"cut off at {at}": (WHOLE[:at], "is not an ONNX file, or is cut off")
        for at in (1, 20, len(WHOLE) // 3, len(WHOLE) // 2, len(WHOLE) - 20, len(WHOLE) - 1)
    },
}


def arguments(command: str, model: object) -> list[object]:
    """The command for a model; `run` wants a picture too."""
    if command != "run":
        return [command, model]
    Image.new("RGB", (8, 8)).save("picture.png")
    return [command, model, "picture.png", "-o", "heatmaps", "--device", "cpu"]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", list(NOT_MODELS))
def test_a_file_that_is_no_model(command: str, name: str, written: Written, refused: Refused) -> None:
    content, words = NOT_MODELS[name]
    refused(*arguments(command, written(content)), words=words)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_picture_in_place_of_the_model(command: str, folder: Path, refused: Refused) -> None:
    Image.new("RGB", (9, 9)).save(folder / "photo.jpg")
    refused(*arguments(command, "photo.jpg"), words="photo.jpg: is not an ONNX file")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_path_without_a_file(command: str, folder: Path, model: Path, refused: Refused) -> None:
    (folder / "inner").mkdir()
    refused(*arguments(command, "gone.onnx"), words="gone.onnx: there is no such file. Check the path.")
    refused(*arguments(command, "inner"), words="inner: is a folder. Name the .onnx file in it.")
    refused(*arguments(command, ""), words="MODEL '': names no file or folder. Check that the variable is set.")
    refused(*arguments(command, model / "below.onnx"), words="cannot be read (Not a directory)")
    refused(*arguments(command, "x" * 5000), words="cannot be read (File name too long)")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_device_is_no_model(command: str, folder: Path, refused: Refused) -> None:
    """It may have no end. A pipe has one, as in `onnxlrp plan <(…)`."""
    refused(*arguments(command, "/dev/zero"), words="/dev/zero: is a device, not a file. Name the .onnx file.")


def forbid(monkeypatch: pytest.MonkeyPatch, name: str, folder_too: bool) -> None:
    """Let nobody, root not even, read the files of this name, or also pass the folder on the way to them."""

    def denied(real: Callable[..., Any]) -> Callable[..., Any]:
        def method(path: Path, *given: Any, **more: Any) -> Any:
            if path.name == name and more.get("follow_symlinks", True):  # not for `lstat`, with which tests look
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return real(path, *given, **more)

        return method

    for method in ("open", "read_bytes", *["stat"] * folder_too):
        monkeypatch.setattr(Path, method, denied(getattr(Path, method)))


@pytest.mark.parametrize("folder_too", [False, True])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_model_that_may_not_be_read(
    command: str, folder_too: bool, model: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = arguments(command, model)
    forbid(monkeypatch, model.name, folder_too)
    refused(*words, words="model.onnx: cannot be read (permission denied). Check its permissions, and those of the")


# -- where to write ---------------------------------------------------------------------------------------------------


def test_the_output_is_never_the_classifier(folder: Path, model: Path, refused: Refused) -> None:
    (folder / "inner").mkdir()
    (folder / "link.onnx").symlink_to(model.name)
    os.link(folder / model, folder / "hard.onnx")
    own = "itself. Choose another name with -o."
    for name in (model, folder / model, f"inner/../{model}", "link.onnx", "hard.onnx"):
        for force in ([], ["--force"]):
            refused("convert", model, "-o", name, *force, words=own)
    refused("convert", "link.onnx", "-o", model, "--force", words=own)


def test_the_output_is_never_the_classifiers_weights(folder: Path, refused: Refused) -> None:
    proto = classifiers.classifier()
    onnx.save(proto, "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    (folder / "link").symlink_to("weights.bin")
    for name in ("weights.bin", "link"):
        refused("convert", "model.onnx", "-o", name, "--force", words=f"{name}: holds the classifier's weights")
    assert invoke("convert", "model.onnx").exit_code == 0
    assert sorted(p.name for p in folder.iterdir()) == ["link", "model.lrp.onnx", "model.onnx", "weights.bin"]


def test_places_that_cannot_be_written(folder: Path, model: Path, refused: Refused) -> None:
    (folder / "inner").mkdir()
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "pipe")
    refused("convert", model, "-o", "gone/a.onnx", words="gone: there is no such folder. Create it")
    refused("convert", model, "-o", f"{model}/a.onnx", words=f"{model}: is a file, not a folder. Write elsewhere with")
    refused("convert", model, "-o", "inner", words="inner: is a folder. Name a file to write.")
    refused("convert", model, "-o", "/dev/null", words="/dev/null: is a device or a pipe")
    refused("convert", model, "-o", "/dev/null", "--force", words="/dev/null: is a device or a pipe")
    refused("convert", model, "-o", "pipe", words="pipe: is a device or a pipe")
    refused("convert", model, "-o", "x" * 300, words="cannot be written (File name too long)")
    refused("convert", model, "-o", "loop", words="loop: is a link that leads back to itself")


def test_an_existing_explainer_is_replaced_only_by_force(folder: Path, model: Path, refused: Refused) -> None:
    assert invoke("convert", model).exit_code == 0
    explainer = folder / "model.lrp.onnx"
    explainer.chmod(0o640)
    refused("convert", model, words="model.lrp.onnx: exists already. Choose another name with -o, or replace it")
    first = explainer.read_bytes()
    assert invoke("convert", model, "--force", "--heatmap").exit_code == 0
    assert explainer.read_bytes() != first
    assert explainer.stat().st_mode & 0o777 == 0o640, "permissions are kept"
    refused("convert", explainer, words="is an explainer already")
    refused("plan", explainer, words="is an explainer already")


def test_a_link_is_written_through(folder: Path, model: Path) -> None:
    (folder / "store").mkdir()
    (folder / "link.onnx").symlink_to("store/real.onnx")
    assert invoke("convert", model, "-o", "link.onnx").exit_code == 0
    assert (folder / "link.onnx").is_symlink()
    onnx.checker.check_model(str(folder / "store" / "real.onnx"))


def test_a_full_disk(folder: Path, model: Path) -> None:
    """Files end at 2000 bytes, as they do on a disk that is full: in a process of its own, to limit no other."""

    def convert(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "onnxlrp", "convert", str(model), *options],
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)),
            capture_output=True,
            text=True,
        )

    refusal = convert()
    assert refusal.returncode == 1
    words = "model.lrp.onnx: cannot be written (File too large). Free some space, or write elsewhere with -o."
    assert words in refusal.stderr and "Traceback" not in refusal.stderr
    assert [p.name for p in folder.iterdir()] == [model.name]

    (folder / "model.lrp.onnx").write_bytes(b"older")
    assert convert("--force").returncode == 1
    assert (folder / "model.lrp.onnx").read_bytes() == b"older"


def test_no_space_left_when_the_data_is_brought_to_the_disk(
    model: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    refused("convert", model, words="cannot be written (No space left on device)", code=1)


def test_a_folder_that_may_not_be_written(model: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("tempfile.mkstemp", forbidden)
    refused("convert", model, words="cannot be written (Permission denied). Check the folder's permissions")


def test_an_interrupted_conversion_leaves_nothing(folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    for name in ("fsync", "chmod"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, interrupted)
            result = invoke("convert", model)
        assert result.exit_code != 0
        assert "Traceback" not in result.output
        assert [p.name for p in folder.iterdir()] == ["model.onnx"]


# -- weights in other files -------------------------------------------------------------------------------------------


@pytest.fixture
def divided(folder: Path) -> ModelProto:
    """A classifier with its weights in weights.bin, as a proto that can be saved again as model.onnx."""
    onnx.save(
        classifiers.classifier(), "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    return onnx.load("model.onnx", load_external_data=False)


def located(proto: ModelProto, key: str, value: str) -> None:
    """Say another thing of where the first weight lies, and save."""
    entries = proto.graph.initializer[0].external_data
    for entry in [e for e in entries if e.key == key]:
        entries.remove(entry)
    entries.add(key=key, value=value)
    Path("model.onnx").write_bytes(proto.SerializeToString())


@pytest.mark.parametrize("command", ["convert", "plan"])
def test_weights_that_are_missing_cut_off_or_spoilt(
    command: str, folder: Path, divided: ModelProto, refused: Refused
) -> None:
    weights = folder / "weights.bin"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    refused(command, "model.onnx", words=f"weights.bin: is cut off: {len(whole) - 1} bytes")
    weights.unlink()
    refused(command, "model.onnx", words="weights.bin: the model keeps its weights in this file, which is missing")
    weights.write_bytes(whole[:-4] + b"\xff" * 4)  # a NaN
    refused(command, "model.onnx", words="tensor g: holds values that are NaN or infinite, and gemm (Gemm)")


@pytest.mark.parametrize("folder_too", [False, True])
@pytest.mark.parametrize("command", COMMANDS)
def test_weights_that_may_not_be_read(
    command: str, folder_too: bool, divided: ModelProto, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = arguments(command, "model.onnx")
    forbid(monkeypatch, "weights.bin", folder_too)
    said = "weights.bin: the model keeps its weights in this file, which cannot be read (Permission denied). Check its"
    refused(*words, words=said)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("location", "../secret", "external data '../secret': lies outside the model's folder"),
        ("location", "a/../../secret", "lies outside the model's folder"),
        ("location", "..\\secret", "lies outside the model's folder"),
        ("location", "/etc/passwd", "external data '/etc/passwd': lies outside the model's folder"),
        ("location", "", "lies outside the model's folder"),
        ("offset", "-1", "its place in weights.bin cannot be read"),
        ("offset", "many", "its place in weights.bin cannot be read"),
        ("length", "7", "7 bytes in weights.bin for the shape [4, 3, 3, 3], which needs 432"),
        ("length", str(10**15), "is cut off"),
        ("offset", str(2**63), "is cut off"),
    ],
)
def test_weights_in_impossible_places(key: str, value: str, words: str, divided: ModelProto, refused: Refused) -> None:
    located(divided, key, value)
    refused("convert", "model.onnx", words=words)


def test_weights_that_do_not_fit_their_shape(written: Written, refused: Refused) -> None:
    proto = classifiers.classifier()
    proto.graph.initializer[0].raw_data = np.zeros(7, np.float32).tobytes()
    refused("convert", written(proto), words="tensor w: holds 28 bytes, and its shape [4, 3, 3, 3] needs 432")


# -- class names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "--labels names.txt: cannot be read (No such file or directory)"),
        ("Füße\n".encode("latin-1"), "cannot be read (it is not UTF-8 text). Save it as text in UTF-8."),
        ("cat\ndog\n".encode("utf-16"), "cannot be read (it is not UTF-8 text). Save it as text in UTF-8."),
        (b"", "0 class names for 5 classes"),
        (b"cat\ndog\n", "2 class names for 5 classes"),
        (b'["cat", "dog"', "is not JSON with one name for every class"),
        (b'{"0": "cat", "2": "dog"}', "is not JSON with one name for every class"),
        (b"[" * 100_000, "is not JSON with one name for every class"),
        (b'["a", 1, null, "d", "e"]', "names.txt: class 2 is null, which is no name. Write a list"),
        (b'["a", 1, NaN, "d", "e"]', "class 2 is null, which is no name"),
        (b'["a", 1, true, "d", "e"]', "class 2 is true, which is no name"),
        (b'["a", 1, "c", {"x": 1}, "e"]', 'class 3 is {"x": 1}, which is no name'),
        (b'[["n01", "cat"], ["n02", null], "c", "d", "e"]', 'class 1 is ["n02", null], which is no name'),
        (b'["a", "b", "c", "d", []]', "class 4 is [], which is no name"),
        (b'["a", "b", "c", "d", "e", "f"]', "6 class names for 5 classes"),
    ],
)
def test_bad_class_names(content: bytes | None, words: str, folder: Path, model: Path, refused: Refused) -> None:
    if content is not None:
        (folder / "names.txt").write_bytes(content)
    refused("convert", model, "--labels", "names.txt", words=words)


def test_class_names_of_several_words(folder: Path, model: Path) -> None:
    """As Keras has them, [identifier, name]; numbers are names too."""
    (folder / "names.json").write_text('[["n01", "cat"], ["n02", 3], "dog", 4, 0.5]')
    assert invoke("convert", model, "--labels", "names.json").exit_code == 0
    stored = {p.key: p.value for p in onnx.load("model.lrp.onnx").metadata_props}[contract.KEY_LABELS]
    assert json.loads(stored) == ["n01 cat", "n02 3", "dog", "4", "0.5"]


def test_class_names_that_are_a_folder(folder: Path, model: Path, refused: Refused) -> None:
    (folder / "names").mkdir()
    refused("convert", model, "--labels", "names", words="--labels names: cannot be read (Is a directory)")

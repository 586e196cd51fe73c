"""A folder with a classifier, and what every refusal has in common."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from onnx import ModelProto
from PIL import Image

from onnxlrp.cli.main import main

from . import classifiers

Refused = Callable[..., str]


def invoke(*arguments: object) -> Result:
    """Run `onnxlrp` with these words."""
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def written(folder: Path) -> Callable[[ModelProto | bytes], Path]:
    """Writes a model, or bytes that claim to be one, to model.onnx."""

    def write(content: ModelProto | bytes) -> Path:
        path = folder / "model.onnx"
        path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
        return Path(path.name)

    return write


@pytest.fixture
def model(written: Callable[[ModelProto], Path]) -> Path:
    """A classifier that can be explained."""
    return written(classifiers.classifier())


@pytest.fixture
def picture(folder: Path) -> Path:
    """A picture to explain."""
    path = folder / "picture.png"
    Image.fromarray(np.random.default_rng(3).integers(0, 256, (8, 8, 3), np.uint8)).save(path)
    return Path(path.name)


@pytest.fixture
def refused(folder: Path) -> Refused:
    """Runs a command that must be refused in sentences, writing nothing; returns them."""

    def check(*arguments: object, words: str = "", code: int = 2) -> str:
        before = {p: p.lstat().st_mtime_ns for p in folder.rglob("*")}
        result = invoke(*arguments)
        assert result.exit_code == code, result.output
        assert isinstance(result.exception, SystemExit), result.exception
        lines = result.stderr.splitlines()
        assert "Error: " in result.stderr
        assert (
            all(line.startswith("Error: ") and line.endswith((".", "?")) for line in lines) or "Usage:" in lines[0]
        ), lines
        assert "Traceback" not in result.output
        assert "unexpectedly" not in result.output
        assert words in result.stderr
        assert {p: p.lstat().st_mtime_ns for p in folder.rglob("*")} == before, "nothing is written or replaced"
        return result.stderr

    return check

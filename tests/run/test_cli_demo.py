"""`onnxlrp demo` with the real classifier, picture and conversion."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner
from PIL import Image

from onnxlrp.cli import demo as module
from onnxlrp.cli.demo import demo, find_demo_files
from onnxlrp.errors import OnnxLrpError


def test_the_demo_writes_and_says_what_it_saw(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    result = CliRunner().invoke(demo, ["-o", str(out)])
    assert result.exit_code == 0, result.output
    onnx.checker.check_model(onnx.load(out / "mri_vgg.lrp.onnx"))
    (picture,) = out.glob("*.png")
    assert Image.open(picture).width > 960
    for words in (str(picture), "Where the relevance went", "in the lesion", "<- explained", "onnxlrp run"):
        assert words in result.output
    assert "(CPU)" in result.output or "(CUDA)" in result.output
    assert CliRunner().invoke(demo, ["-o", str(out)]).exit_code == 0, "the same files are no obstacle"
    picture.write_bytes(b"mine")
    again = CliRunner().invoke(demo, ["-o", str(out)])
    assert picture.read_bytes() == b"mine"
    assert isinstance(again.exception, OnnxLrpError)
    assert "--force" in str(again.exception)
    assert CliRunner().invoke(demo, ["-o", str(out), "--force"]).exit_code == 0


def test_a_folder_where_the_demo_writes_a_file(tmp_path: Path) -> None:
    (tmp_path / "mri_vgg.lrp.onnx").mkdir()
    for force in ([], ["--force"]):
        result = CliRunner().invoke(demo, ["-o", str(tmp_path), *force])
        assert isinstance(result.exception, OnnxLrpError)
        assert "mri_vgg.lrp.onnx: is a folder. Move it away, or write elsewhere with -o." in str(result.exception)


def test_the_installed_packages_files_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = find_demo_files()
    (tmp_path / "samples").mkdir()
    (tmp_path / "mri_vgg.onnx").write_bytes(real.model.read_bytes())
    (tmp_path / "samples" / "other.png").write_bytes(real.sample.read_bytes())
    monkeypatch.setattr(module, "PACKAGED", tmp_path)
    assert find_demo_files().sample == tmp_path / "samples" / "other.png"
    assert find_demo_files().mask is None
    monkeypatch.setattr(module, "PACKAGED", tmp_path / "gone")
    monkeypatch.setattr(module, "CHECKOUT", tmp_path / "gone")
    with pytest.raises(OnnxLrpError, match="classifier is missing"):
        find_demo_files()

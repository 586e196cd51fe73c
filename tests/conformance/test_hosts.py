"""Other runtimes give the kit's answers, and a user of theirs gets the picture that `onnxlrp run` writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import onnxlrp
from onnxlrp.cli.main import main
from tests.conformance import hosts


@pytest.mark.parametrize("name", hosts.NAMES)
def test_the_kit_holds(name: str) -> None:
    done = hosts.run(name, "check", hosts.KIT)
    lines = [line.split(None, 2) for line in done.stdout.splitlines()]
    assert not [words for words in lines if words[0] in ("FAIL", "MISS")], done.stdout + done.stderr
    assert done.returncode == 0, done.stdout + done.stderr
    assert sum(words[0] == "ok" for words in lines) > 30


@pytest.fixture(scope="module")
def explainers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Explainers and a picture for each: colour in both layouts, and the grey slices of the trained network."""
    models = hosts.ROOT / "graphs" / "models"
    grey = tmp_path_factory.mktemp("explainers") / "mri_vgg.lrp.onnx"
    onnxlrp.convert(models / "mri_vgg.onnx").save(grey)
    small = hosts.KIT / "pictures" / "picture.png"
    return {
        "planes": (hosts.KIT / "explainers" / "resnet.epsilon_plus_flat.onnx", small),
        "pixels": (hosts.KIT / "explainers" / "keras.epsilon_plus_flat.onnx", small),
        "grey": (grey, models / "samples" / "bright-lesion-1.png"),
    }


@pytest.mark.parametrize("kind", ["planes", "pixels", "grey"])
@pytest.mark.parametrize("name", hosts.NAMES)
def test_the_heatmap_is_that_of_onnxlrp_run(
    name: str, kind: str, explainers: dict[str, tuple[Path, Path]], tmp_path: Path
) -> None:
    """That the drawing is the same to the bit is checked on given relevance, by each `check`. Here the relevance comes
    from another runtime, so a value on the border of two of the 257 colours may fall on its other side."""
    explainer, picture = explainers[kind]
    said = hosts.heatmap(name, explainer, picture, tmp_path / "host.png")
    words = ["run", str(explainer), str(picture), "--style", "heatmap", "-o", str(tmp_path / "own"), "--device", "cpu"]
    assert CliRunner().invoke(main, words).exit_code == 0
    (own,) = (tmp_path / "own").glob("*.png")
    a, b = (np.asarray(Image.open(p).convert("RGB")).astype(int) for p in (tmp_path / "host.png", own))
    assert a.shape == b.shape
    assert (a != b).any(axis=2).mean() <= 0.001 and np.abs(a - b).max() <= 8
    label = own.stem.removeprefix(f"{picture.stem}.").replace("-", " ")
    assert f"({label})" in said[-1]

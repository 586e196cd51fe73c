"""Other runtimes give the kit's answers, and a user of theirs gets the picture that `onnxlrp run` writes."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import onnxlrp
from tests.conformance import hosts

PICTURE = hosts.KIT / "pictures" / "picture.png"
EXPLAINERS = sorted(path.stem for path in (hosts.KIT / "explainers").glob("*.onnx"))
LANGUAGES = ("onnxruntime", "node", "cpp")  # one host for each; the others share their feeding and drawing
FORMS = ("overlay", "batch", "condition", "predicted", "targets", "start", "taps", "drawn", "keras.epsilon_plus_flat")
FED = ("vgg.start-fed",)  # what starts from relevance that a caller gives is not explained from a picture alone


@pytest.mark.parametrize("name", hosts.NAMES)
def test_the_kit_holds(name: str) -> None:
    done = hosts.run(name, "check", hosts.KIT)
    lines = [line.split(None, 2) for line in done.stdout.splitlines()]
    assert not [words for words in lines if words[0] in ("FAIL", "MISS")], done.stdout + done.stderr
    assert done.returncode == 0, done.stdout + done.stderr
    assert sum(words[0] == "ok" for words in lines) > 30


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path, Path], Path]:
    """The heatmap that `onnxlrp run` draws with an explainer of a picture, drawn once for all hosts."""
    folder = tmp_path_factory.mktemp("own")
    return functools.cache(lambda explainer, picture: hosts.own_heatmap(explainer, picture, folder / explainer.stem))


@pytest.fixture(scope="module")
def grey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An explainer of the grey slices of the trained network."""
    path = tmp_path_factory.mktemp("explainers") / "mri_vgg.lrp.onnx"
    onnxlrp.convert(hosts.ROOT / "graphs" / "models" / "mri_vgg.onnx").save(path)
    return path


def held(name: str, explainer: Path, picture: Path, own: Path, folder: Path) -> None:
    """A host draws what `onnxlrp run` does, and says the class."""
    said = hosts.heatmap(name, explainer, picture, folder / "host.png")
    hosts.assert_same(folder / "host.png", own)
    label = own.stem.removeprefix(f"{picture.stem}.").replace("-", " ")
    assert f"({label})" in said[-1]


def pairs() -> Iterator[Any]:
    """Every host with every explainer; where only another composite is explained with shared code, in the slow run."""
    for name, explainer in itertools.product(hosts.NAMES, EXPLAINERS):
        quick = name in LANGUAGES or any(form in explainer for form in FORMS)
        yield pytest.param(name, explainer, marks=() if quick else pytest.mark.slow, id=f"{name}-{explainer}")


@pytest.mark.parametrize(("name", "explainer"), list(pairs()))
def test_the_heatmap_is_that_of_onnxlrp_run(
    name: str, explainer: str, own: Callable[[Path, Path], Path], tmp_path: Path
) -> None:
    path = hosts.KIT / "explainers" / f"{explainer}.onnx"
    if explainer not in FED:
        return held(name, path, PICTURE, own(path, PICTURE), tmp_path)
    done = hosts.explain(name, path, PICTURE, tmp_path / "host.png")
    assert done.returncode == 2 and not (tmp_path / "host.png").exists()
    assert "takes start, which a picture and a class do not say" in done.stderr and "--start fed" in done.stderr
    return None


@pytest.mark.parametrize("name", hosts.NAMES)
def test_a_trained_network_is_explained_alike(
    name: str, grey: Path, own: Callable[[Path, Path], Path], tmp_path: Path
) -> None:
    picture = hosts.ROOT / "graphs" / "models" / "samples" / "bright-lesion-1.png"
    held(name, grey, picture, own(grey, picture), tmp_path)


@pytest.mark.parametrize("name", LANGUAGES)
def test_the_class_can_be_chosen_where_the_explainer_lets_it(name: str, tmp_path: Path) -> None:
    """Also where one run explains several; where the class is fixed, another one is refused."""
    for explainer in ("vgg.batch-fixed", "vgg.targets-per-input"):
        done = hosts.explain(name, hosts.KIT / "explainers" / f"{explainer}.onnx", PICTURE, tmp_path / "a.png", "3")
        assert done.stdout.startswith("class 3 (star)"), done.stderr
    done = hosts.explain(name, hosts.KIT / "explainers" / "vgg.predicted.onnx", PICTURE, tmp_path / "b.png", "3")
    assert done.returncode == 2 and not (tmp_path / "b.png").exists()
    assert "class 3: cannot be chosen" in done.stderr and "without --target" in done.stderr

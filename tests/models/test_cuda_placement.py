"""On a GPU machine, ONNX Runtime would run every node of every explainer on CUDA: read from the real CUDA provider,
loaded against stand-ins for its libraries, with no GPU in sight."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto

import onnxlrp
from onnxlrp.contract import PREPROCESS_PRESETS
from onnxlrp.explain.presets import PRESETS
from tests.explain.networks import of_type
from tools import zoo
from tools.cuda_placement import stubs

ROOT = Path(__file__).parents[2]
NETWORKS = {
    "vgg11": ["legacy"],
    "vgg11_bn": ["unfolded"],
    "resnet18": ["legacy", "dynamo", "unfolded"],
    "resnet50": ["legacy"],
}
OPTIONS = {
    "residual": {"residual": "ratio"},
    "average": {"max_pool": "average"},
    "keep": {"keep": 0.1},
    "contrastive": {"start": "contrastive"},
    "targets": {"targets_per_input": 2},
    "taps": {"taps": ["all"]},
    "pixels": {"embed_preprocessing": True, "render": "overlay"},
}
SIZE = 32


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of stand-ins for the CUDA libraries."""
    for tool in ("gcc", "nm", "readelf"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed (apt-get install gcc binutils)")
    for package in ("onnxruntime-gpu", "nvidia-cuda-runtime"):
        try:
            importlib.metadata.distribution(package)
        except importlib.metadata.PackageNotFoundError:
            pytest.skip(f"{package} is not installed (pip install {package})")
    folder = tmp_path_factory.mktemp("stubs")
    assert stubs.DRIVER in stubs.build(folder)
    return folder


def placed(models: list[Path], libraries: Path) -> list[dict[str, object]]:
    """What `tools.cuda_placement.place` says of each model, in a process that finds the stand-ins."""
    found = subprocess.run(
        [sys.executable, "-m", "tools.cuda_placement.place", *map(str, models)],
        env={**os.environ, "LD_LIBRARY_PATH": str(libraries)},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    return [json.loads(line) for line in found.stdout.splitlines()]


def check(models: list[Path], libraries: Path) -> None:
    """All nodes on CUDA, none on the CPU, nothing copied between."""
    found = placed(models, libraries)
    assert len(found) == len(models)
    for one in found:
        assert one["cuda"] and not one["cpu"] and not one["memcpy"], one


def exported(network: str, kind: str, folder: Path) -> Path:
    """The classifier's path."""
    path = folder / f"{network}.{kind}.onnx"
    zoo.EXPORTS[kind](zoo.build(network, SIZE), zoo.inputs(network, 2, SIZE), path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(("network", "kind"), [(n, k) for n, kinds in NETWORKS.items() for k in kinds])
def test_every_composite(network: str, kind: str, libraries: Path, tmp_path: Path) -> None:
    classifier, explainers = exported(network, kind, tmp_path), []
    for composite in PRESETS:
        explainers.append(tmp_path / f"{composite}.lrp.onnx")
        onnxlrp.convert(classifier, composite=composite, preprocess=PREPROCESS_PRESETS["imagenet"]).save(explainers[-1])
    check(explainers, libraries)


@pytest.mark.slow
def test_every_option(libraries: Path, tmp_path: Path) -> None:
    classifier, explainers = exported("resnet18", "legacy", tmp_path), []
    for name, options in OPTIONS.items():
        explainers.append(tmp_path / f"{name}.lrp.onnx")
        made = onnxlrp.convert(classifier, heatmap=True, preprocess=PREPROCESS_PRESETS["imagenet"], **options)
        made.save(explainers[-1])
    check(explainers, libraries)


@pytest.mark.slow
def test_float16(libraries: Path, tmp_path: Path) -> None:
    classifier, explainers = tmp_path / "half.onnx", []
    onnx.save(of_type(onnx.load(exported("resnet18", "legacy", tmp_path)), TensorProto.FLOAT16), classifier)
    for composite in PRESETS:
        explainers.append(tmp_path / f"{composite}.lrp.onnx")
        onnxlrp.convert(classifier, composite=composite, preprocess=PREPROCESS_PRESETS["imagenet"]).save(explainers[-1])
    check(explainers, libraries)


@pytest.mark.slow
def test_a_node_that_cuda_does_not_have_is_seen(libraries: Path, tmp_path: Path) -> None:
    """The check can fail: at opset 22 the CUDA provider has no MaxPool."""
    path = tmp_path / "pool.onnx"
    network, x = zoo.build("vgg11", SIZE), zoo.inputs("vgg11", 2, SIZE)
    zoo.dynamo(network, x, path, opset_version=22)
    (found,) = placed([path], libraries)
    assert "MaxPool" in found["cpu"] and found["memcpy"]  # type: ignore[operator]

"""The hosts of tools/runtimes that can run here, and how each is started; why the others cannot."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from onnxlrp.cli.main import main

ROOT = Path(__file__).parents[2]
KIT = ROOT / "graphs" / "conformance"
HOSTS = ROOT / "tools" / "runtimes"
PYTHON = os.environ.get("CONFORMANCE_PYTHON", sys.executable)  # an interpreter that has the runtimes
MODULES = {
    "onnxruntime": "onnxruntime",
    "reference": "onnx",
    "openvino": "openvino",
    "opencv": "cv2",
    "tract": "tract",
}
NAMES = (*MODULES, "node", "web", "cpp")
INSTALL = "tools/runtimes/install DIR, then set CONFORMANCE_PYTHON=DIR/bin/python"


def command(name: str) -> tuple[list[str], dict[str, str]]:
    """The words that start a host, and its environment; skips the test where it cannot be started."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    missing = _missing(name)
    if missing:
        pytest.skip(f"{missing}; install it with {INSTALL}")
    if name in MODULES:
        return [PYTHON, str(HOSTS / "python" / f"with_{name}.py")], environment
    if name == "cpp":
        return [str(HOSTS / "cpp" / "build" / "explain")], environment
    return ["node", str(HOSTS / "node" / "explain.mjs")], environment | ({"RUNTIME": "web"} if name == "web" else {})


@functools.cache
def _missing(name: str) -> str:
    """What keeps a host from running, "" where nothing does."""
    if name in MODULES:
        asked = [PYTHON, "-c", f"import {MODULES[name]}, PIL"]
        return "" if subprocess.run(asked, capture_output=True).returncode == 0 else f"{PYTHON} has no {MODULES[name]}"
    if name == "cpp":
        return "" if (HOSTS / "cpp" / "build" / "explain").exists() else "the C++ host is not built"
    if shutil.which("node") is None:
        return "there is no node"
    return "" if (HOSTS / "node" / "node_modules" / "pngjs").exists() else "the Node host's packages are not there"


def run(name: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Start a host and wait for it."""
    start, environment = command(name)
    return subprocess.run(
        [*start, *map(str, words)], env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def explain(
    name: str, explainer: Path, picture: Path, out: Path, target: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Let a host explain a picture, for a class where one is given."""
    asked = [] if target is None else [target]
    if name in MODULES:
        return run(name, explainer, picture, "-o", out, *(f"--target={word}" for word in asked))
    return run(name, explainer, picture, out, *asked)


def heatmap(name: str, explainer: Path, picture: Path, out: Path) -> Sequence[str]:
    """Let a host draw the heatmap of a picture; what it said."""
    done = explain(name, explainer, picture, out)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def own_heatmap(explainer: Path, picture: Path, folder: Path) -> Path:
    """The heatmap that `onnxlrp run` draws of a picture; of several classes that of the best."""
    words = ["run", str(explainer), str(picture), "--style", "heatmap", "-o", str(folder), "--device", "cpu"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    first = next(line for line in done.output.splitlines() if "<- explained: " in line)
    return Path(first.split("<- explained: ")[1])


def assert_same(drawn: Path, own: Path) -> None:
    """Hold two heatmaps against each other. That the drawing is the same to the bit is checked on given relevance, by
    each `check`. Here relevance comes from two runtimes, so a value on the border of two of the 257 colours may fall on
    its other side."""
    a, b = (np.asarray(Image.open(path).convert("RGB")).astype(int) for path in (drawn, own))
    assert a.shape == b.shape
    apart = f"{(a != b).any(axis=2).mean():.4f} of the pixels differ, by up to {np.abs(a - b).max()} levels"
    assert (a != b).any(axis=2).mean() <= 0.001 and np.abs(a - b).max() <= 8, apart

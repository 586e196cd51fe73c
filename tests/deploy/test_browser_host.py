"""The conformance kit, run by ONNX Runtime in a browser: the maintainers' program does what it is for."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from chromium import find_chromium

from .conftest import ROOT

HOST = ROOT / "tools" / "runtimes" / "browser" / "with_browser.py"
KIT = ROOT / "graphs" / "conformance"


# A case of each kind of network, rule and input: on a processor WebGPU takes many seconds to prepare each.
ON_WEBGPU = (
    "vgg.epsilon_plus_flat",
    "vgg.epsilon_gamma_box",
    "vgg.overlay",
    "resnet.epsilon_plus_flat",
    "resnet.condition",
    "keras.epsilon_plus_flat.1",
)


def check(kit: Path, runtime: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Let the host check a folder."""
    if find_chromium() is None:
        pytest.skip("no Chromium: apt-get install chromium, or set CHROMIUM")
    known = {**os.environ, "ONNXRUNTIME_WEB": runtime, "BACKEND": "wasm", **environment}
    command = [sys.executable, str(HOST), "check", str(kit)]
    return subprocess.run(command, env=known, capture_output=True, text=True, timeout=600)


@pytest.mark.slow
def test_webgpu_gives_the_answers_of_the_kit(runtime: str, tmp_path: Path) -> None:
    """The backend that a page prefers where there is a GPU; here Chromium computes it on the processor."""
    manifest = json.loads((KIT / "manifest.json").read_text())
    cases = [case for case in manifest["cases"] if case["name"] in ON_WEBGPU]
    for name in ("explainers", "tensors"):
        (tmp_path / name).symlink_to(KIT / name)
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "cases": cases, "drawings": []}))
    done = check(tmp_path, runtime, BACKEND="webgpu", SOFTWARE_GPU="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(ON_WEBGPU)} of {len(ON_WEBGPU)} cases within tolerance" in done.stdout
    assert "webgpu" in done.stdout.splitlines()[-1]


def test_the_kit_passes_in_a_browser(runtime: str, tmp_path: Path) -> None:
    """Every case within tolerance; and a case with a wrong expectation does not pass."""
    done = check(KIT, runtime)
    assert done.returncode == 0, done.stdout + done.stderr
    passed, count = map(int, re.search(r"(\d+) of (\d+) cases within tolerance", done.stdout).groups())  # type: ignore[union-attr]
    assert passed == count == len(json.loads((KIT / "manifest.json").read_text())["cases"]) > 0

    manifest = json.loads((KIT / "manifest.json").read_text())
    case = manifest["cases"][0]
    for name in ("explainers", "tensors"):
        (tmp_path / name).symlink_to(KIT / name)
    relevance = next(o for o in case["outputs"] if o["name"] == "relevance")
    wrong = bytearray((KIT / relevance["file"]).read_bytes())
    wrong[2:4] = b"\x80\x40"  # the first value becomes about 4
    (tmp_path / "wrong.bin").write_bytes(wrong)
    relevance["file"] = "wrong.bin"
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "cases": [case], "drawings": []}))
    done = check(tmp_path, runtime)
    assert (done.returncode, "MISS" in done.stdout) == (1, True), done.stdout + done.stderr

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


def test_the_kit_passes_in_a_browser(runtime: str, tmp_path: Path) -> None:
    """Every case within tolerance; and a case with a wrong expectation does not pass."""
    if find_chromium() is None:
        pytest.skip("no Chromium: apt-get install chromium, or set CHROMIUM")
    environment = {**os.environ, "ONNXRUNTIME_WEB": runtime, "BACKEND": "wasm"}

    def check(kit: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(HOST), "check", str(kit)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)

    done = check(KIT)
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
    done = check(tmp_path)
    assert (done.returncode, "MISS" in done.stdout) == (1, True), done.stdout + done.stderr

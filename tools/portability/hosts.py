"""The hosts of tools/runtimes: what each is called and how it is started."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

HOSTS = Path(__file__).parents[1] / "runtimes"


@dataclass(frozen=True)
class Host:
    """A runtime's name in the report and the command that checks a folder. `small` ones get the kit only, what is not
    `beside` is no runtime that a user would move to."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    small: bool = False
    beside: bool = True


def hosts(python: str) -> dict[str, Host]:
    """The hosts that can be started, by key. `python` is the interpreter that has their runtimes."""
    scripts = {k: (python, str(HOSTS / "python" / f"with_{k}.py")) for k in
               ("onnxruntime", "openvino", "opencv", "tract", "reference")}  # fmt: skip
    node = ("node", str(HOSTS / "node" / "explain.mjs"))
    browser = (python, str(HOSTS / "browser" / "with_browser.py"))
    web = HOSTS / "node" / "node_modules" / "onnxruntime-web"
    known = {
        "onnxruntime": Host("ONNX Runtime", scripts["onnxruntime"]),
        "basic": Host("ONNX Runtime, basic", scripts["onnxruntime"], {"ORT_LEVEL": "basic"}, beside=False),
        "node": Host("onnxruntime-node", node),
        "web": Host("onnxruntime-web, wasm", node, {"RUNTIME": "web"}),
        "chromium": Host("onnxruntime-web, Chromium", browser, {"ONNXRUNTIME_WEB": str(web)}),
        "cpp": Host("ONNX Runtime, C++", (str(HOSTS / "cpp" / "build" / "explain"),)),
        "openvino": Host("OpenVINO", scripts["openvino"]),
        "opencv": Host("OpenCV", scripts["opencv"]),
        "tract": Host("tract", scripts["tract"]),
        "reference": Host("onnx reference", scripts["reference"], small=True, beside=False),
    }
    sys.path.append(str(HOSTS / "browser"))
    from chromium import find_chromium

    if find_chromium() is None:
        del known["chromium"]
    return {k: h for k, h in known.items() if shutil.which(h.command[0])}

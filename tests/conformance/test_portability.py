"""The portability report: what it makes of results, and that the README says the same."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tools.portability import BESIDE, NUDGED
from tools.portability.report import render

ROOT = Path(__file__).parents[2]
REPORT = ROOT / "tools" / "reports" / "PORTABILITY.md"
CELL = "resnet18.epsilon_plus_flat"


def write(work: Path, key: str, errors: dict[str, float], missed: list[str], **more: Any) -> None:
    """One host's answer to one picture."""
    said = {"runtime": key.upper(), "cases": {"0": {"errors": errors, "missed": missed, "seconds": 1.0}}, **more}
    (work / f"{CELL}.{key}.json").write_text(json.dumps(said))


def row(report: str, heading: str, name: str) -> dict[str, str]:
    """Title -> cell of a row of the table under a heading."""
    (section,) = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", report, re.DOTALL | re.MULTILINE)
    lines = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    (cells,) = [line for line in lines if line[0].strip() == name]
    return {title.strip(): cell.strip() for title, cell in zip(lines[0], cells, strict=True)}


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Results of hosts of which one is right, one misses, one refuses."""
    beside = tmp_path / BESIDE
    beside.mkdir()
    small, large = {"logits": 2e-7, "relevance": 3e-7, "explained": 0}, {"logits": 1.3e-5, "relevance": 5e-3}
    write(tmp_path, "onnxruntime", small, [])
    write(tmp_path, NUDGED, {"logits": 1e-6, "relevance": 4e-3}, [])
    write(tmp_path, "tract", large, ["logits", "relevance"])
    write(beside, "onnxruntime", small, [], rounds=[0.1, 0.2, 0.1])
    write(beside, "tract", large, ["logits", "relevance"], rounds=[0.4, 0.4, 0.5])
    said = {"runtime": "OPENCV", "cases": {"0": {"failed": "error: no such operator"}}}
    (tmp_path / f"{CELL}.opencv.json").write_text(json.dumps(said))
    return tmp_path


def test_what_misses_is_bold_and_listed_with_its_conditioning(work: Path) -> None:
    report = render(work, "python")
    cells = row(report, "resnet18, against float64", "epsilon_plus_flat")
    assert cells["ONNXRUNTIME"] == "2.0e-7 / 3.0e-7"
    assert cells["TRACT"] == "**1.3e-5 / 5.0e-3**"
    assert cells["OPENCV"] == "**refused**"
    listed = report.split("## What misses, against float64")[1].split("## What misses, against ONNX")[0]
    assert "resnet18: OPENCV refuses epsilon_plus_flat: `no such operator`" in listed
    (line,) = [line for line in listed.splitlines() if "TRACT" in line]
    assert "**Not conditioning**: a nudge of 1e-6 moves ONNX Runtime by 1.0e-6 / 4.0e-3 only" in line


def test_times_are_ratios_within_rounds(work: Path) -> None:
    cells = row(render(work, "python"), "resnet18, against ONNX Runtime", "epsilon_plus_flat")
    assert cells["ONNXRUNTIME"] == "100 ms (100–200)"
    assert cells["TRACT"] == "**1.3e-5 / 5.0e-3**, 4.0 ×"  # of 4, 2 and 5


NAMES = {
    "ONNX Runtime": "ONNX Runtime ",
    "Node": "onnxruntime-node",
    "Chromium": "onnxruntime-web.*Chrom",
    "OpenVINO": "OpenVINO",
    "OpenCV": "OpenCV",
    "tract": "tract",
}


@pytest.mark.parametrize("model", ["ResNet-18", "ResNet-50", "VGG-16"])
def test_the_readme_says_what_the_report_says(model: str) -> None:
    table = (ROOT / "README.md").read_text("utf-8").split("\n## Anywhere else\n")[1].split("\n## ")[0]
    lines = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("|")]
    (cells,) = [line for line in lines if line[0].strip() == model]
    measured = row(
        REPORT.read_text("utf-8"), f"{model.lower().replace('-', '')}, against ONNX Runtime", "epsilon_plus_flat"
    )
    assert [c.strip() for c in lines[0][1:]] == list(NAMES)
    for name, cell in zip(NAMES, cells[1:], strict=True):
        (said,) = [v for title, v in measured.items() if re.match(NAMES[name], title) and "C++" not in title]
        assert cell.strip() == said.split(" (")[0]

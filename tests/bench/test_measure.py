"""What is measured, and what is only read from the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tools.bench import jobs
from tools.bench.cache import Cache, Job
from tools.bench.measure import Measuring, Plan
from tools.bench.results import Results


def _report(monkeypatch: pytest.MonkeyPatch, folder: Path, batches: tuple[int, ...], known: bool) -> Results:
    def run(job: Job, _: Path) -> dict[str, Any]:
        return {"digest": "d", "bytes": 4, "best": 3.0}

    def times(job: Job, _: Path) -> dict[str, Any]:
        return {"samples": {"onnxlrp": [[0, 1.0]]}, "failed": {}, "together": True}

    monkeypatch.setattr(jobs, "run", run)
    monkeypatch.setattr(jobs, "times", times)
    plan = Plan(folder, ("vgg16",), batches, ("gradient",), parts=("times",), keep=True, known=known)
    return Measuring(plan, Cache(folder / "cache.jsonl"), lambda line: None).all()


def test_of_what_is_known_nothing_is_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _report(monkeypatch, tmp_path, (1,), known=False)
    found = _report(monkeypatch, tmp_path, (1, 8), known=True)
    (there,) = found.rows
    assert there.median("onnxlrp") == 1.0
    assert found.problems == ["what else this command asks for: not measured yet"]
    assert found.cached
    assert _report(monkeypatch, tmp_path, (8,), known=False).rows[0].median("onnxlrp") == 1.0

"""Processes that do not survive."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tools.bench import jobs
from tools.bench.cache import Job
from tools.bench.jobs import DiedError

JOB = {"do": "times", "contestants": ["ort forward", "onnxlrp", "torch forward", "zennit"]}


def test_a_child_that_fails_says_at_what_and_why(tmp_path: Path) -> None:
    with pytest.raises(DiedError, match="KeyError: 'unknown'"):
        jobs.run({"do": "unknown"}, tmp_path)


@pytest.mark.parametrize(
    ("code", "errors", "why"),
    [
        (-9, "", "out of memory: the system killed the process"),
        (-11, "", "ended by SIGSEGV"),
        (1, "Traceback\nValueError: no\n\n", "ValueError: no"),
        (3, "", "exit status 3"),
    ],
)
def test_how_a_process_ended_is_told_in_a_line(code: int, errors: str, why: str) -> None:
    assert jobs._why(code, errors) == why


def test_one_process_is_enough_where_memory_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(jobs, "run", lambda job, folder: {"samples": {n: [] for n in job["contestants"]}, "failed": {}})
    found = jobs.times(JOB, tmp_path)
    assert found["together"]
    assert list(found["samples"]) == JOB["contestants"]


def test_where_memory_does_not_last_engines_run_apart_without_what_ends_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run(job: Job, folder: Path) -> dict[str, Any]:
        if "zennit" in job["contestants"]:
            raise DiedError("zennit", "out of memory: the system killed the process")
        return {"samples": {n: [[0, 1.0]] for n in job["contestants"]}, "failed": {}}

    monkeypatch.setattr(jobs, "run", run)
    found = jobs.times(JOB, tmp_path)
    assert not found["together"]
    assert list(found["samples"]) == ["ort forward", "onnxlrp", "torch forward"]
    assert found["failed"] == {"zennit": "out of memory: the system killed the process"}


def test_another_end_is_no_matter_of_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def run(job: Job, folder: Path) -> dict[str, Any]:
        raise DiedError("zennit", "ended by SIGSEGV")

    monkeypatch.setattr(jobs, "run", run)
    with pytest.raises(DiedError, match="SIGSEGV"):
        jobs.times(JOB, tmp_path)

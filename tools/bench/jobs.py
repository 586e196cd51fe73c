"""Starting jobs, each in a process of its own, and what to do when one does not survive."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tools.bench.cache import Job
from tools.bench.results import FORWARD, OURS

ROOT = Path(__file__).parents[2]


class DiedError(Exception):
    """A process that ended without a result: at which step, and why."""

    def __init__(self, at: str, why: str) -> None:
        super().__init__(f"{at}: {why}" if at else why)
        self.at, self.why = at, why


def run(job: Job, folder: Path) -> dict[str, Any]:
    """The result of a job; raises `DiedError`."""
    command = [sys.executable, "-m", "tools.bench.child", json.dumps(job), str(folder)]
    at, found = "", None
    with tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
            assert process.stdout
            for line in process.stdout:
                said = _read(line)
                at, found = said.get("at", at), said.get("found", found)
        if process.returncode or found is None:
            errors.seek(0)
            raise DiedError(at, _why(process.returncode, errors.read()))
    return dict(found)


def times(job: Job, folder: Path) -> dict[str, Any]:
    """A row: all contestants in one process, or, where memory does not last, in two, without those that end them."""
    try:
        return {**run(job, folder), "together": True}
    except DiedError as died:
        if "memory" not in died.why:
            raise
    samples: dict[str, Any] = {}
    failed: dict[str, str] = {}
    ours = [n for n in job["contestants"] if n.startswith((FORWARD, OURS)) or n == "onnx-ad"]
    for group in (ours, [n for n in job["contestants"] if n not in ours]):
        while group:
            try:
                found = run({**job, "contestants": group}, folder)
            except DiedError as died:
                if died.at not in group:
                    raise
                failed[died.at] = died.why
                group = [n for n in group if n != died.at]
                continue
            samples |= found["samples"]
            failed |= found["failed"]
            break
    return {"samples": samples, "failed": failed, "together": False}


def _read(line: str) -> dict[str, Any]:
    """A line of the protocol; what libraries print is none."""
    try:
        said = json.loads(line)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _why(code: int, errors: str) -> str:
    """Why a process ended: killed for memory, or the last thing that it said."""
    if code == -signal.SIGKILL:
        return "out of memory: the system killed the process"
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    last = [line.strip() for line in errors.splitlines() if line.strip()]
    return last[-1][:300] if last else f"exit status {code}"

"""Measurements that are kept, so that a run that was cut short goes on: a file of JSON lines."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

Job = dict[str, Any]
PATIENCE = ("rounds", "seconds", "contestants")  # what of a job says how long, and beside whom


class Cache:
    """Results by job. A job states all that a result depends on: the setting, versions, the digests of the files."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[str, Any] = {}
        self._by_what: dict[str, Any] = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path and path.exists() else ():
            try:
                stored = json.loads(line)
                self._add(stored["job"], stored["found"])
            except (ValueError, KeyError, TypeError):  # the line that was being written when the run was cut short
                continue

    def get(self, job: Job) -> Any | None:
        """The result, if this very job was done."""
        return self._known.get(_key(job))

    def alike(self, job: Job) -> Any | None:
        """The last result of this job with whatever patience: in other rounds, or beside other contestants."""
        return self._by_what.get(_key(job, but=PATIENCE))

    def put(self, job: Job, found: Any) -> None:
        """Keep a result."""
        self._add(job, found)
        if self._path is None:
            return
        whole = not self._path.exists() or self._path.read_bytes().endswith(b"\n") or not self._path.stat().st_size
        with self._path.open("a", encoding="utf-8") as file:
            file.write(("" if whole else "\n") + json.dumps({"job": job, "found": found}) + "\n")

    def _add(self, job: Job, found: Any) -> None:
        self._known[_key(job)] = self._by_what[_key(job, but=PATIENCE)] = found


def _key(job: Job, but: Collection[str] = ()) -> str:
    return json.dumps({k: v for k, v in job.items() if k not in but}, sort_keys=True)

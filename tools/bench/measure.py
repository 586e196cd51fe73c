"""What is measured, in which order: network after network, composite after composite, so that little disk is used."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

from tools.bench import jobs, machine
from tools.bench.cache import Cache, Job
from tools.bench.jobs import DiedError
from tools.bench.onnx_side import ROUNDED, explainer_path, gradient_path, model_path
from tools.bench.results import (
    COMPOSITES,
    DEFAULT,
    FIXED,
    FORWARD,
    GRAPH,
    OPEN,
    OURS,
    PEERS,
    TORCH,
    Check,
    File,
    Peak,
    Results,
    Row,
    Setting,
    peers_of,
)

PARTS = ("times", "files", "memory")
MEMORY_BATCH = 8
NOT_YET = "what else this command asks for: not measured yet"
Say = Callable[[str], None]
P = ParamSpec("P")


class NotYetError(Exception):
    """Not in the cache, of which alone there is to be a report."""


def _if_known(measure: Callable[Concatenate[Measuring, P], None]) -> Callable[Concatenate[Measuring, P], None]:
    """A step whose result is left out of such a report where it is not there."""

    @functools.wraps(measure)
    def measured(self: Measuring, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            measure(self, *args, **kwargs)
        except NotYetError:
            if NOT_YET not in self.results.problems:
                self._problem(NOT_YET)

    return measured


@dataclass(frozen=True)
class Plan:
    """What to measure, and how."""

    folder: Path
    networks: tuple[str, ...]
    batches: tuple[int, ...]
    composites: tuple[str, ...] = COMPOSITES
    precisions: tuple[str, ...] = ("float32",)
    peers: tuple[str, ...] = tuple(PEERS)
    parts: tuple[str, ...] = PARTS
    rounds: int = 9
    seconds: float = 120.0
    threads: int = 1
    spinning: str = "stop"
    device: str = "cpu"
    keep: bool = False
    known: bool = False  # take from the cache what is there, and measure nothing

    @property
    def modes(self) -> tuple[str, ...]:
        """How the batch is treated."""
        return (OPEN, FIXED) if self.device == "cpu" else (OPEN, FIXED, GRAPH)

    def contestants(self, composite: str) -> list[str]:
        """All of a row, in their order in a round."""
        ours = [name + mode for mode in self.modes for name in (FORWARD, OURS)]
        return [*ours, TORCH, *peers_of(composite, self.peers)]

    def job(self, do: str, network: str, composite: str = "", precision: str = "float32", **more: Any) -> Job:
        """What a child process is told, and what a result in the cache depends on."""
        return {
            "do": do, "network": network, "composite": composite, "precision": precision, "device": self.device,
            "threads": self.threads, "spinning": self.spinning, **more,
        }  # fmt: skip


class Measuring:
    """A plan being carried out."""

    def __init__(self, plan: Plan, cache: Cache, say: Say) -> None:
        self.plan, self._cache, self._say = plan, cache, say
        self._where = {"versions": machine.versions(), "machine": machine.processor()}
        if plan.device == "cuda":
            self._where["gpu"] = machine.gpu()
        self.results = Results()

    def all(self) -> Results:
        """Everything."""
        for network in self.plan.networks:
            try:
                self._network(network)
            except DiedError as died:
                self._problem(f"{network}: {died}")
            finally:
                for path in () if self.plan.keep else self._models(network):
                    path.unlink(missing_ok=True)
        return self.results

    def _network(self, network: str) -> None:
        made = {p: jobs.run(self.plan.job("export", network, "", p), self.plan.folder) for p in self._types()}
        sizes: dict[str, int] = {}
        for composite in self.plan.composites:
            try:
                sizes[composite] = self._composite(network, composite, made)
            except DiedError as died:
                self._problem(f"{network}, {composite}: {died}")
            finally:
                for path in self._explainers(network, composite):
                    path.unlink(missing_ok=True)
        if "files" in self.plan.parts and sizes:
            self._files(network, made["float32"], sizes)

    def _composite(self, network: str, composite: str, models: dict[str, Any]) -> int:
        """All about one composite on one network; the size of the explainer."""
        folder = self.plan.folder
        made = {p: jobs.run(self.plan.job("convert", network, composite, p), folder) for p in self._types()}
        for precision in self.plan.precisions if "times" in self.plan.parts else ():
            kind = _type(precision)
            digests = {"model": models[kind]["digest"], "explainer": made[kind]["digest"]}
            for batch in self.plan.batches:
                self._row(Setting(network, batch, composite, precision), made[kind]["best"], digests)
        digests = {"model": models["float32"]["digest"], "explainer": made["float32"]["digest"]}
        if "memory" in self.plan.parts:
            self._memory(network, composite, digests)
        if self.plan.device == "cuda":
            self._checks(network, composite, digests)
        return int(made["float32"]["bytes"])

    @_if_known
    def _row(self, setting: Setting, best: float, digests: dict[str, str]) -> None:
        plan = self.plan
        job = plan.job(
            "times", setting.network, setting.composite, setting.precision, batch=setting.batch, rounds=plan.rounds,
            seconds=plan.seconds, contestants=plan.contestants(setting.composite), **digests,
        )  # fmt: skip
        try:
            found = self._kept(job, jobs.times)
        except DiedError as died:
            found = {"samples": {}, "failed": {died.at or "row": died.why}, "together": True}
        samples = {name: [(int(r), s) for r, s in taken] for name, taken in found["samples"].items()}
        row = Row(samples, setting, best, found["failed"], found["together"])
        self.results.rows.append(row)
        self._say(summary(row))
        gradient_path(plan.folder, setting.network, setting.batch, setting.precision).unlink(missing_ok=True)

    def _memory(self, network: str, composite: str, digests: dict[str, str]) -> None:
        plan = self.plan
        batch = MEMORY_BATCH if MEMORY_BATCH in plan.batches else max(plan.batches)
        once = composite == plan.composites[0]  # plain forward passes are the same for every composite
        whats = [n for n in plan.contestants(composite) if once or (n != TORCH and not n.startswith(FORWARD))]
        whats = [n for n in whats if n != "onnx-ad"]
        for what in whats:
            self._peak(plan.job("peak", network, composite, what=what, batch=batch, **digests))
        if composite == DEFAULT and plan.device == "cpu":
            job = plan.job("peak", network, DEFAULT, what="convert", batch=batch, sources=machine.sources(), **digests)
            self._peak(job)

    @_if_known
    def _peak(self, job: Job) -> None:
        what = job["network"], job["batch"], job["composite"], job["what"]
        try:
            found = self._kept(job, jobs.run)
            self.results.peaks.append(Peak(*what, found["above"], found["imports"]))
        except DiedError as died:
            self.results.peaks.append(Peak(*what, None, failed=died.why))

    @_if_known
    def _files(self, network: str, model: dict[str, Any], sizes: dict[str, int]) -> None:
        plan = self.plan
        job = plan.job(
            "files", network, rounds=plan.rounds, seconds=plan.seconds, model=model["digest"], sources=machine.sources()
        )
        found = self._kept({**job, "device": "cpu"}, jobs.run)
        if found["failed"]:
            self._say(f"{network} files: {found['failed']}")
        samples = {name: [(int(r), s) for r, s in taken] for name, taken in found["samples"].items()}
        self.results.files.append(File(samples, network, int(model["bytes"]), sizes))

    @_if_known
    def _checks(self, network: str, composite: str, digests: dict[str, str]) -> None:
        try:
            found = self._kept(self.plan.job("check", network, composite, **digests), jobs.run)["values"]
        except DiedError as died:
            self._problem(f"{network}, {composite}, checks: {died}")
            return
        shared = {"not on CUDA", "Memcpy"}  # of these the worst of all composites counts
        self.results.checks += [Check(network, "" if w in shared else composite, w, v) for w, v in found.items()]

    def _kept(self, job: Job, do: Callable[[Job, Path], Any]) -> Any:
        """From the cache, or done now."""
        key = {**job, **self._where}
        found = self._cache.get(key)
        if found is None and self.plan.known:
            found = self._cache.alike(key)
            if found is None:
                raise NotYetError
        self.results.cached |= found is not None
        if found is None:
            found = do(job, self.plan.folder)
            if found.get("samples", True):  # where everything failed, the next run may do better
                self._cache.put(key, found)
        return found

    def _problem(self, text: str) -> None:
        self.results.problems.append(text)
        self._say(text)

    def _types(self) -> list[str]:
        """Of weights, in which models are needed; float32 always."""
        return sorted({"float32", *map(_type, self.plan.precisions)}, reverse=True)

    def _models(self, network: str) -> Iterator[Path]:
        yield from (model_path(self.plan.folder, network, p) for p in ("float32", "float16", ROUNDED))
        yield model_path(self.plan.folder, network).with_suffix(".pt")

    def _explainers(self, network: str, composite: str) -> Iterator[Path]:
        yield from (explainer_path(self.plan.folder, network, composite, p) for p in ("float32", "float16", ROUNDED))


def _type(precision: str) -> str:
    return "float16" if precision == "float16" else "float32"


def summary(row: Row) -> str:
    """A row in a line."""
    setting, parts = row.setting, []
    for mode in (OPEN, FIXED, GRAPH):
        own, over = row.own(mode), row.over_best(mode)
        if own is not None and over is not None:
            parts.append(f"{own:.2f}×{mode} (over best {over:.2f})")
    for peer in peers_of(setting.composite):
        faster = row.faster(peer)
        parts += [f"{peer} over onnxlrp {faster:.2f}"] if faster is not None else []
    parts += [f"{name} FAILED ({why})" for name, why in row.failed.items()]
    return f"{setting.network} {setting.batch} {setting.composite} {setting.precision}: {', '.join(parts)}"

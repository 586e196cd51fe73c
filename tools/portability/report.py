"""The report: what the hosts said as tables, and a line for everything beyond its tolerance."""

from __future__ import annotations

import datetime
import json
import math
import platform
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tools import conformance
from tools.portability import BASE, BESIDE, CLASSIFIER, COMPOSITES, KIT, MODELS, NUDGED
from tools.portability.hosts import HOSTS, hosts
from tools.portability.measure import ROUNDS

NOTES = HOSTS / "python" / "MISSES.md"


@dataclass(frozen=True)
class Cell:
    """One runtime on one or several cases: the worst errors (nan: there is no such output), or why it failed; seconds a
    picture, one value a round."""

    scores: float = math.nan
    relevance: float = math.nan
    wrong: bool = False
    rounds: tuple[float, ...] = ()
    failed: str = ""

    @property
    def misses(self) -> bool:
        """Whether anything is beyond its tolerance."""
        return bool(self.failed) or self.wrong


Rows = Mapping[str, Mapping[str, Cell]]


# -- what was measured ------------------------------------------------------------------------------------------------


def read(work: Path, cell: str, key: str) -> dict[str, Any] | None:
    """What a runtime answered for a cell."""
    path = work / f"{cell}.{key}.json"
    return json.loads(path.read_text()) if path.exists() else None


def gathered(cases: Sequence[Mapping[str, Any]], rounds: Sequence[float] = ()) -> Cell:
    """The worst over cases."""
    failed = [c["failed"] for c in cases if "failed" in c]
    if failed:
        return Cell(failed=failed[0])
    worst: dict[str, float] = {}
    for case in cases:
        for name, error in case["errors"].items():
            kind = conformance.kind_of(name, np.dtype("float32"))
            if name != "explained":
                worst[kind] = max(worst.get(kind, 0.0), math.inf if error is None else error)
    wrong = any(c["missed"] for c in cases)
    return Cell(worst.get("scores", math.nan), worst.get("relevance", math.nan), wrong, tuple(rounds))


def kit_rows(work: Path, keys: Sequence[str]) -> Rows:
    """The kit's cases, those of one explainer together."""
    manifest = json.loads((conformance.KIT / "manifest.json").read_text())
    rows: dict[str, dict[str, Cell]] = {}
    for key in keys:
        found = read(work, KIT, key)
        for explainer in dict.fromkeys(c["explainer"] for c in manifest["cases"]) if found else ():
            own = [found["cases"].get(c["name"], {"failed": "not run"}) for c in manifest["cases"]
                   if found and c["explainer"] == explainer]  # fmt: skip
            rows.setdefault(Path(explainer).stem, {})[key] = gathered(own)
    return rows


def large_rows(work: Path, model: str, keys: Sequence[str]) -> Rows:
    """One model's composites."""
    rows: dict[str, dict[str, Cell]] = {}
    for composite in (CLASSIFIER, *COMPOSITES):
        found = {k: read(work, f"{model}.{composite}", k) for k in keys}
        cells = {k: gathered(list(v["cases"].values()), v.get("rounds", ())) for k, v in found.items() if v}
        if cells:
            rows[composite] = cells
    return rows


# -- tables -----------------------------------------------------------------------------------------------------------


def table(rows: Mapping[str, Mapping[str, str]], keys: Sequence[str], titles: Mapping[str, str]) -> str:
    """Rows of texts as Markdown."""
    lines = [f"| | {' | '.join(titles[k] for k in keys)} |", f"|---|{'---|' * len(keys)}"]
    return "\n".join([*lines, *(f"| {n} | {' | '.join(c.get(k, '–') for k in keys)} |" for n, c in rows.items())])


def errors(rows: Rows) -> dict[str, dict[str, str]]:
    """Each cell's errors."""
    return {name: {key: text(cell) for key, cell in cells.items()} for name, cells in rows.items()}


def timed(rows: Rows) -> dict[str, dict[str, str]]:
    """Each cell's errors and its time over ONNX Runtime's, whose own cell is its time."""
    texts = errors(rows)
    for name, cells in rows.items():
        base = cells[BASE].rounds
        texts[name][BASE] = f"{statistics.median(base) * 1e3:.0f} ms ({min(base) * 1e3:.0f}–{max(base) * 1e3:.0f})"
        for key, cell in cells.items():
            if key != BASE and not cell.failed:
                ratios = [own / one for own, one in zip(cell.rounds, base, strict=True)]
                texts[name][key] += f", {statistics.median(ratios):.1f} ×"
    return texts


def text(cell: Cell) -> str:
    """Logits / relevance; what misses is bold."""
    if cell.failed:
        return "**refused**"
    said = " / ".join(_number(error) for error in (cell.scores, cell.relevance))
    return f"**{said}**" if cell.misses else said


def _number(error: float) -> str:
    if math.isnan(error):
        return "–"
    return f"{error:.1e}".replace("e-0", "e-") if error else "0"


# -- what misses ------------------------------------------------------------------------------------------------------


def misses(rows: Rows, nudged: Rows, titles: Mapping[str, str], model: str) -> Iterator[str]:
    """A line for each row in which a runtime misses, and one for each runtime that refuses. `nudged` has the cells that
    say how well conditioned a row is."""
    refused: dict[tuple[str, str], list[str]] = {}
    for name, cells in rows.items():
        for key, cell in cells.items():
            if cell.failed:
                refused.setdefault((key, cell.failed.split("error: ")[-1]), []).append(name)
        wrong = {k: c for k, c in cells.items() if c.misses and not c.failed}
        for verdict, apart in _verdicts(wrong, nudged.get(name, {}).get(NUDGED)).items():
            said = ", ".join(f"{titles[k]} {text(replace(c, wrong=False))}" for k, c in apart.items())
            yield f"- {model}, {name}: {said}. {verdict}"
    for (key, reason), names in refused.items():
        yield f"- {model}: {titles[key]} refuses {', '.join(names)}: `{reason}`"


def _verdicts(wrong: Mapping[str, Cell], nudged: Cell | None) -> dict[str, dict[str, Cell]]:
    """Whether misses are the explanation's own jumps (or the classifier's own rounding) or a runtime's fault."""
    found: dict[str, dict[str, Cell]] = {}
    for key, cell in wrong.items():
        verdict = "**Not nudged.**"
        if nudged is not None:
            moved = f"a nudge of 1e-6 moves ONNX Runtime by {text(replace(nudged, wrong=False))}"
            alike = all(
                getattr(nudged, kind) * 3 > getattr(cell, kind)
                for kind in ("scores", "relevance")
                if getattr(cell, kind) > conformance.TOLERANCES[kind]["limit"]
            )
            verdict = f"Ill-conditioned: {moved}." if alike else f"**Not conditioning**: {moved} only."
        found.setdefault(verdict, {})[key] = cell
    return found


def _listed(lines: Sequence[str]) -> str:
    return "\n".join(lines) if lines else "Nothing."


# -- all of it --------------------------------------------------------------------------------------------------------


def render(work: Path, python: str) -> str:
    """The report."""
    keys = list(dict.fromkeys(k for k in (NUDGED, *hosts(python), *_others(work)) if any(work.glob(f"*.{k}.json"))))
    keys.remove(NUDGED)
    keys.insert(1, NUDGED)
    titles = {}
    for key in keys:
        titles[key] = json.loads(next(iter(sorted(work.glob(f"*.{key}.json")))).read_text())["runtime"]
    kit = kit_rows(work, keys)
    parts = [HEAD.format(ROUNDS, datetime.date.today(), platform.machine(), platform.python_version())]
    parts += ["## The conformance kit", KIT_TEXT, table(errors(kit), keys, titles)]
    missed, apart = list(misses(kit, kit, titles, KIT)), []
    for model in MODELS:
        rows, beside = large_rows(work, model, keys), large_rows(work / BESIDE, model, keys)
        missed += misses(rows, rows, titles, model)
        apart += misses(beside, rows, titles, model)
        for said, texts in ((FLOAT64_TEXT, errors(rows)), (BESIDE_TEXT, timed(beside))):
            shown = [k for k in keys if any(k in cells for cells in texts.values())]
            parts += [f"## {model}, {said}", table(texts, shown, titles)] if texts else []
    parts += [f"## What misses, {FLOAT64_TEXT}", _listed(missed), f"## What misses, {BESIDE_TEXT}", _listed(apart)]
    if NOTES.exists():
        parts.append(NOTES.read_text().strip())
    return "\n\n".join(parts) + "\n"


def _others(work: Path) -> list[str]:
    """Hosts whose results are there and that cannot be started from here."""
    return sorted({p.suffixes[-2].lstrip(".") for p in work.glob("*.json") if len(p.suffixes) >= 2})


HEAD = """# Do other runtimes give the same relevance?

Every cell is *logits / relevance*: the largest error over the largest logit, and the relative L2 error of relevance
(the worst sample). The tolerance is 1e-5 / 1e-3; what misses it is **bold** and explained below. Rows are composites;
`classifier` is the model alone: what misses there is the runtime's rounding of the classifier, whatever explains it.

Tables “against float64” compare with what onnx's reference evaluator computes from the explainer with every float
widened (the large models with torch's convolutions in it). The columns of ONNX Runtime with all optimisations and with
the basic ones only show what float32 costs by itself, the column “nudged” how well conditioned the explanation is: ONNX
Runtime again, the worst of eight runs in which every pixel is changed by up to a millionth of itself. Where that moves
relevance by far more than a millionth, a maximum or a zero crossing inside the network is nearly tied, relevance jumps
there, and every runtime that rounds in another order lands on a side of its own.

Tables “against ONNX Runtime” compare with its answer on this CPU, and give the time of a picture over its time: batch
1, one thread each, the hosts in turns, the median of the ratios within {0} rounds. Its own column has its
milliseconds, with the range over the rounds.

Written by `python -m tools.portability` on {1} ({2}, Python {3})."""

KIT_TEXT = """Small networks at 32 × 32 pixels, every composite and every form of the contract
([graphs/conformance](../../graphs/conformance/README.md)), against float64."""

FLOAT64_TEXT, BESIDE_TEXT = "against float64", "against ONNX Runtime"

"""Run explainers in every runtime at hand and write tools/reports/PORTABILITY.md: `python -m tools.portability`.

Each model and composite becomes a folder in the form of the conformance kit, whose expected outputs are float64; each
host of tools/runtimes checks it as it checks the kit. So a runtime's error is measured against the truth, and ONNX
Runtime's own error stands beside it: where that is large too, the explanation is ill-conditioned and no runtime is to
blame. Results are kept in --work as one JSON file each and not measured again. A host that cannot be started from here
(a telephone) writes the same JSON (`--json` of any host shows the form); put it there as CELL.RUNTIME.json.
"""

from __future__ import annotations

import datetime
import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np

import onnxlrp
from onnxlrp.contract import PREPROCESS_PRESETS
from onnxlrp.run.runtime import import_onnxruntime
from tools import conformance

ROOT = Path(__file__).parents[1]
HOSTS = ROOT / "tools" / "runtimes"
REPORT = ROOT / "tools" / "reports" / "PORTABILITY.md"
NOTES = ROOT / "tools" / "runtimes" / "python" / "MISSES.md"
KIT = "kit"
BASE = "onnxruntime"
MODELS: Mapping[str, int] = {"resnet18": 2, "resnet50": 1, "vgg16": 1}  # how many pictures; float64 takes its time
COMPOSITES = ("epsilon_plus_flat", "epsilon_plus", "epsilon_gamma_box", "epsilon_alpha2_beta1_flat", "gradient")
TIMED, ROUNDS = 5, 5
TIMED_CELL = ("resnet18", "epsilon_plus_flat")
TIMES = "times"  # no .json: it is no cell
NUDGES, NUDGE = 8, 1e-6
NUDGED = "nudged"


@dataclass(frozen=True)
class Host:
    """A runtime's name in the report and the command that checks a folder; `small` ones get the kit only."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    small: bool = False


def hosts(python: str) -> dict[str, Host]:
    """The hosts that can be started, by key. `python` is the interpreter that has their runtimes."""
    scripts = {k: (python, str(HOSTS / "python" / f"with_{k}.py")) for k in
               ("onnxruntime", "openvino", "opencv", "tract", "reference")}  # fmt: skip
    node = ("node", str(HOSTS / "node" / "explain.mjs"))
    browser = (python, str(HOSTS / "browser" / "with_browser.py"))
    web = HOSTS / "node" / "node_modules" / "onnxruntime-web"
    known = {
        "onnxruntime": Host("ONNX Runtime", scripts["onnxruntime"]),
        "basic": Host("ONNX Runtime, basic", scripts["onnxruntime"], {"ORT_LEVEL": "basic"}),
        "node": Host("onnxruntime-node", node),
        "web": Host("onnxruntime-web, wasm", node, {"RUNTIME": "web"}),
        "chromium": Host("onnxruntime-web, Chromium", browser, {"ONNXRUNTIME_WEB": str(web)}),
        "cpp": Host("ONNX Runtime, C++", (str(HOSTS / "cpp" / "build" / "explain"),)),
        "openvino": Host("OpenVINO", scripts["openvino"]),
        "opencv": Host("OpenCV", scripts["opencv"]),
        "tract": Host("tract", scripts["tract"]),
        "reference": Host("onnx reference", scripts["reference"], small=True),
    }
    sys.path.append(str(HOSTS / "browser"))
    from chromium import find_chromium

    if find_chromium() is None:
        del known["chromium"]
    return {k: h for k, h in known.items() if shutil.which(h.command[0])}


# -- measuring --------------------------------------------------------------------------------------------------------


def measure(key: str, host: Host, folder: Path, result: Path) -> None:
    """Let a host check a folder and write its JSON to `result`; a host that dies is a result too."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1", **host.environment}
    command = [*host.command, "check", str(folder), "--json", str(result), "--repeat", str(TIMED)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800)
    if not result.exists():
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:] or [f"exit code {done.returncode}"]
        names = [c["name"] for c in json.loads((folder / "manifest.json").read_text())["cases"]]
        result.write_text(json.dumps({"runtime": host.name, "cases": {n: {"failed": last[0][:300]} for n in names}}))
    click.echo(f"  {key}: {(done.stdout.strip().splitlines() or ['died'])[-1]}")


def nudged(folder: Path, result: Path) -> None:
    """How far ONNX Runtime is from the float64 answers where every pixel changes by a millionth: the worst of a few.

    It is what rounding in another order does to the inner layers. Where relevance changes by far more than that, the
    explanation itself jumps there (a maximum or a zero crossing is nearly tied), and no runtime is to blame.
    """
    runtime = import_onnxruntime()
    sys.path.insert(0, str(HOSTS / "python"))
    import kit

    manifest = json.loads((folder / "manifest.json").read_text())
    cases: dict[str, Any] = {}
    for case in manifest["cases"]:
        session = runtime.InferenceSession(str(folder / case["explainer"]), providers=["CPUExecutionProvider"])
        feeds = {e["name"]: kit.read(folder, e) for e in case["inputs"]}
        expected = {e["name"]: kit.read(folder, e) for e in case["outputs"]}
        errors = dict.fromkeys(expected, 0.0)
        for seed in range(NUDGES):
            state = np.random.RandomState(seed)
            fed = {k: _nudge(v, state) for k, v in feeds.items()}
            for entry, found in zip(case["outputs"], session.run(list(expected), fed), strict=True):
                name, measure = entry["name"], manifest["tolerances"][entry["tolerance"]]["measure"]
                errors[name] = max(errors[name], kit.difference(measure, found, expected[name]))
        cases[case["name"]] = {"errors": errors, "missed": [], "seconds": None}
    title = f"ONNX Runtime {runtime.__version__}, every pixel nudged by 1e-6"
    result.write_text(json.dumps({"runtime": title, "cases": cases}))


def _nudge(values: np.ndarray, state: np.random.RandomState) -> np.ndarray:
    """An image input, every value changed by up to a millionth of itself; other inputs as they are."""
    image = values.ndim == 4 and values.dtype == np.float32
    return (values * (1 + NUDGE * state.uniform(-1, 1, values.shape))).astype(np.float32) if image else values


def prepare(model: str, composite: str, folder: Path, work: Path) -> None:
    """Write one large explainer, its pictures and its float64 answers, in the form of the kit."""
    import torch

    from tests.reference.onnx_side import Conv, ConvTranspose
    from tools import zoo

    folder.mkdir(parents=True)
    torch.set_num_threads(1)
    path, way = work / f"{model}.onnx", PREPROCESS_PRESETS["imagenet"]
    if not path.exists():
        zoo.legacy(zoo.build(model), zoo.images(2), path)
    onnxlrp.convert(path, composite=composite, preprocess=way).save(folder / "explainer.onnx")
    proto = onnxlrp.convert(path, composite=composite, preprocess=way).model
    listed = []
    for number in range(MODELS[model]):
        feeds = {zoo.INPUT: zoo.inputs(model, 1, seed=7 + number).numpy(), "target": np.array([-1])}
        name = f"{model}.{composite}.{number}"
        outputs = conformance.answers(proto, feeds, (Conv, ConvTranspose))
        listed.append(
            {
                "name": name,
                "explainer": "explainer.onnx",
                "inputs": [conformance.entry(folder, name, k, v) for k, v in feeds.items()],
                "outputs": [
                    {**conformance.entry(folder, name, k, v), "tolerance": conformance.kind_of(k, v.dtype)}
                    for k, v in outputs.items()
                ],
            }
        )
    manifest = {"kit": 1, "tolerances": conformance.TOLERANCES, "cases": listed}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def measure_times(python: str, work: Path) -> None:
    """Time the hosts on one large explainer, in turns, so that what else the machine does meets all of them."""
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        folder, turn = Path(scratch) / "folder", Path(scratch) / "turn.json"
        prepare(*TIMED_CELL, folder, work)
        for _ in range(ROUNDS):
            for key, host in hosts(python).items():
                if not host.small:
                    turn.unlink(missing_ok=True)
                    measure(key, host, folder, turn)
                    cases = json.loads(turn.read_text())["cases"]
                    seconds.setdefault(key, []).append(sum(c["seconds"] for c in cases.values()) / len(cases))
    (work / TIMES).write_text(json.dumps(seconds))


def measure_all(models: Sequence[str], composites: Sequence[str], python: str, work: Path) -> None:
    """Measure what has not been measured."""
    for model in models:
        for composite in composites if model != KIT else ("",):
            cell = f"{model}.{composite}".rstrip(".")
            missing = {k: h for k, h in hosts(python).items()
                       if not (work / f"{cell}.{k}.json").exists() and (model == KIT or not h.small)}  # fmt: skip
            if not missing and (work / f"{cell}.{NUDGED}.json").exists():
                continue
            click.echo(cell)
            with tempfile.TemporaryDirectory(dir=work) as scratch:
                folder = conformance.KIT if model == KIT else Path(scratch) / "folder"
                if model != KIT:
                    prepare(model, composite, folder, work)
                nudged(folder, work / f"{cell}.{NUDGED}.json")
                for key, host in missing.items():
                    measure(key, host, folder, work / f"{cell}.{key}.json")


# -- the report -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """One runtime on one or several cases: the worst errors, seconds a run (all cases together), or why it failed."""

    scores: float = 0.0
    relevance: float = 0.0
    wrong: bool = False
    seconds: float = math.nan
    failed: str = ""

    @property
    def misses(self) -> bool:
        """Whether anything is beyond its tolerance."""
        return bool(self.failed) or self.wrong


def gathered(cases: Sequence[Mapping[str, Any]]) -> Cell:
    """The worst over cases."""
    failed = [c["failed"] for c in cases if "failed" in c]
    if failed:
        return Cell(failed=failed[0])
    worst = {"scores": 0.0, "relevance": 0.0}
    for case in cases:
        for name, error in case["errors"].items():
            kind = conformance.kind_of(name, np.dtype("float32"))
            if name != "explained":
                worst[kind] = max(worst[kind], math.inf if error is None else error)
    seconds = sum(c["seconds"] if c.get("seconds") is not None else math.nan for c in cases)
    wrong = any(c["missed"] for c in cases)
    return Cell(worst["scores"], worst["relevance"], wrong, seconds)


def text(cell: Cell | None) -> str:
    """A cell of the report; what misses is bold."""
    if cell is None:
        return "–"
    if cell.failed:
        return "**refused**"
    said = f"{cell.scores:.0e} / {cell.relevance:.0e}".replace("e-0", "e-")
    return f"**{said}**" if cell.misses else said


def read(work: Path, cell: str, key: str) -> dict[str, Any] | None:
    """What a runtime answered for a cell."""
    path = work / f"{cell}.{key}.json"
    return json.loads(path.read_text()) if path.exists() else None


def table(rows: Mapping[str, Mapping[str, Cell]], keys: Sequence[str], titles: Mapping[str, str]) -> str:
    """Rows of cells as Markdown."""
    lines = [f"| | {' | '.join(titles[k] for k in keys)} |", f"|---|{'---|' * len(keys)}"]
    return "\n".join([*lines, *(f"| {n} | {' | '.join(text(c.get(k)) for k in keys)} |" for n, c in rows.items())])


def times(work: Path, titles: Mapping[str, str]) -> str:
    """The time of a run over ONNX Runtime's, the medians of the rounds and their range."""
    seconds = json.loads((work / TIMES).read_text())
    base = statistics.median(seconds[BASE])
    lines = ["| runtime | ms | × |", "|---|---|---|"]
    for key, own in seconds.items():
        middle = statistics.median(own)
        spread = f"{min(own) * 1e3:.0f}–{max(own) * 1e3:.0f}"
        lines.append(f"| {titles.get(key, key)} | {middle * 1e3:.0f} ({spread}) | {middle / base:.1f} |")
    return "\n".join(lines)


def kit_rows(work: Path, keys: Sequence[str]) -> dict[str, dict[str, Cell]]:
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


def large_rows(work: Path, model: str, keys: Sequence[str]) -> dict[str, dict[str, Cell]]:
    """One model's composites."""
    rows: dict[str, dict[str, Cell]] = {}
    for composite in COMPOSITES:
        found = {k: read(work, f"{model}.{composite}", k) for k in keys}
        cells = {k: gathered(list(v["cases"].values())) for k, v in found.items() if v}
        if cells:
            rows[composite] = cells
    return rows


def misses(rows: Mapping[str, Mapping[str, Cell]], titles: Mapping[str, str], model: str) -> Iterator[str]:
    """A line for each row in which a runtime misses, and one for each runtime that refuses."""
    refused: dict[tuple[str, str], list[str]] = {}
    for name, cells in rows.items():
        for key, cell in cells.items():
            if cell.failed:
                refused.setdefault((key, cell.failed.split("error: ")[-1]), []).append(name)
        wrong = {k: c for k, c in cells.items() if c.misses and not c.failed}
        for verdict, apart in _verdicts(wrong, cells.get(NUDGED)).items():
            said = ", ".join(f"{titles[k]} {c.scores:.1e} / {c.relevance:.1e}" for k, c in apart.items())
            yield f"- {model}, {name}: {said}. {verdict}"
    for (key, reason), names in refused.items():
        yield f"- {model}: {titles[key]} refuses {', '.join(names)}: `{reason}`"


def _verdicts(wrong: Mapping[str, Cell], nudged: Cell | None) -> dict[str, dict[str, Cell]]:
    """Whether misses are the explanation's own jumps (or the classifier's own rounding) or a runtime's fault."""
    found: dict[str, dict[str, Cell]] = {}
    for key, cell in wrong.items():
        verdict = "**Not nudged.**"
        if nudged is not None:
            moved = f"a nudge of 1e-6 moves ONNX Runtime by {nudged.scores:.1e} / {nudged.relevance:.1e}"
            alike = all(
                getattr(nudged, kind) * 3 > getattr(cell, kind)
                for kind in ("scores", "relevance")
                if getattr(cell, kind) > conformance.TOLERANCES[kind]["limit"]
            )
            verdict = f"Ill-conditioned: {moved}." if alike else f"**Not conditioning**: {moved} only."
        found.setdefault(verdict, {})[key] = cell
    return found


def render(work: Path, python: str) -> str:
    """The report."""
    keys = list(dict.fromkeys(k for k in (NUDGED, *hosts(python), *_others(work)) if any(work.glob(f"*.{k}.json"))))
    keys.remove(NUDGED)
    keys.insert(1, NUDGED)
    titles = {}
    for key in keys:
        titles[key] = json.loads(next(iter(sorted(work.glob(f"*.{key}.json")))).read_text())["runtime"]
    kit = kit_rows(work, keys)
    large = {m: large_rows(work, m, [k for k in keys if k != "reference"]) for m in MODELS}
    parts = [HEAD.format(date=datetime.date.today(), machine=platform.machine(), python=platform.python_version())]
    parts += ["## The conformance kit", KIT_TEXT, table(kit, keys, titles)]
    for model, rows in large.items():
        if rows:
            parts += [f"## {model}", table(rows, [k for k in keys if k != "reference"], titles)]
    if (work / TIMES).exists():
        parts += ["## Time", TIME_TEXT.format(*TIMED_CELL), times(work, titles)]
    missed = [*misses(kit, titles, KIT), *(line for m, rows in large.items() for line in misses(rows, titles, m))]
    parts += ["## What misses", "\n".join(missed) if missed else "Nothing."]
    if NOTES.exists():
        parts.append(NOTES.read_text().strip())
    return "\n\n".join(parts) + "\n"


def _others(work: Path) -> list[str]:
    """Hosts whose results are there and that cannot be started from here."""
    return sorted({p.suffixes[-2].lstrip(".") for p in work.glob("*.json") if len(p.suffixes) >= 2})


HEAD = """# Do other runtimes give the same relevance?

Every cell is *logits / relevance*: the largest error over the largest logit, and the relative L2 error of relevance
(the worst sample), both against float64, computed by onnx's reference evaluator from the explainer with every float
widened (the large models with torch's convolutions in it). The tolerance is 1e-5 / 1e-3; what misses it is **bold** and
explained below. The columns of ONNX Runtime with all optimisations and with the basic ones only show what float32 costs
by itself, the column "nudged" how well conditioned the explanation is: ONNX Runtime again, the worst of eight runs in
which every pixel is changed by up to a millionth of itself. Where that moves relevance by far more than a millionth, a
maximum or a zero crossing inside the network is nearly tied, relevance jumps there, and every runtime that rounds in
another order lands on a side of its own.

Written by `python -m tools.portability` on {date} ({machine}, Python {python})."""

KIT_TEXT = """Small networks at 32 × 32 pixels, every composite and every form of the contract
([graphs/conformance](../../graphs/conformance/README.md))."""


TIME_TEXT = """A run of {0} with {1}, batch 1, one thread each, in turns: the median of five rounds and their range, and
that median over ONNX Runtime's from Python. The machine had other work to do: a hint, no benchmark."""


@click.command(help=__doc__)
@click.option("--model", "models", multiple=True, type=click.Choice((KIT, *MODELS)), default=(KIT, *MODELS))
@click.option("--composite", "composites", multiple=True, type=click.Choice(COMPOSITES), default=COMPOSITES)
@click.option("--python", default=sys.executable, help="The interpreter that has the hosts' runtimes.")
@click.option("--work", required=True, type=click.Path(path_type=Path), help="Where results are kept between runs.")
@click.option("--times", "timed", is_flag=True, help="Time the hosts again.")
@click.option("-o", "--out", default=REPORT, show_default=True, type=click.Path(path_type=Path, dir_okay=False))
def main(models: Sequence[str], composites: Sequence[str], python: str, work: Path, timed: bool, out: Path) -> None:
    """Measure and report; see the module."""
    work.mkdir(parents=True, exist_ok=True)
    measure_all(models, composites, python, work.resolve())
    if timed:
        measure_times(python, work.resolve())
    out.write_text(render(work, python))
    click.echo(f"Wrote {out}")


if __name__ == "__main__":
    main()

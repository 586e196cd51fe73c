"""`python -m tools.bench`: measure, and write the report."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tools.bench import limits
from tools.bench.cache import Cache
from tools.bench.measure import PARTS, Measuring, Plan
from tools.bench.results import BATCHES, COMPOSITES, NETWORKS, PACKAGES, PEERS, PRECISIONS, Results, peers_of
from tools.command import typed

REPORTS = Path(__file__).parents[1] / "reports"
NEEDED = ("torch", "torchvision", "onnxscript")
HOW_TO_INSTALL = "README, “Development”, says how to install what the reference needs"


def _several(choices: tuple[str, ...]) -> Callable[[click.Context, click.Parameter, str | None], tuple[str, ...]]:
    """Reads words between commas, each one of the choices."""

    def read(ctx: click.Context, parameter: click.Parameter, text: str | None) -> tuple[str, ...]:
        words = tuple(dict.fromkeys(w.strip() for w in (text or "").split(",") if w.strip()))
        wrong = [w for w in words if w not in choices]
        if wrong or (not words and text is not None):
            raise click.BadParameter(f"{', '.join(wrong) or 'nothing'} is none of {', '.join(choices)}")
        return words

    return read


def _numbers(ctx: click.Context, parameter: click.Parameter, text: str) -> tuple[int, ...]:
    words = [w.strip() for w in text.split(",")]
    if not all(w.isdigit() and int(w) for w in words):
        raise click.BadParameter(f"{text!r} is no list of positive whole numbers, as 1,8,32 is")
    return tuple(dict.fromkeys(map(int, words)))


@click.command(context_settings={"show_default": True})
@click.option("--models", "networks", default=",".join(NETWORKS), callback=_several(NETWORKS))
@click.option("--batches", default=",".join(map(str, BATCHES)), callback=_numbers)
@click.option("--composites", default=",".join(COMPOSITES), callback=_several(COMPOSITES))
@click.option("--peers", default=",".join(PEERS), callback=_several((*PEERS, "none")), help="Or: none.")
@click.option("--parts", default=",".join(PARTS), callback=_several(PARTS), help="What to measure.")
@click.option("--rounds", default=9, type=click.IntRange(1), help="In which the contestants of a row take turns.")
@click.option("--row-seconds", "seconds", default=120.0, type=click.FloatRange(0),
              help="About how long a row may take: slow contestants run in fewer rounds, at least 3.")  # fmt: skip
@click.option("--threads", default=os.cpu_count() or 1, type=click.IntRange(1), help="Of ONNX Runtime and of torch.")
@click.option("--spinning", default="stop", type=click.Choice(["stop", "off", "default"]),
              help="What ONNX Runtime's threads do when idle: spin within a run only, never, or always.")  # fmt: skip
@click.option("--device", default="cpu", type=click.Choice(["cpu", "cuda"]))
@click.option("--precisions", callback=_several(PRECISIONS), default=None,
              help="[default: float32 on the CPU, all of float32,tf32,float16 on CUDA]")  # fmt: skip
@click.option("--cache", type=click.Path(dir_okay=False, path_type=Path),
              help="JSON lines: what was measured already is read from here, all else added.")  # fmt: skip
@click.option(
    "--known", is_flag=True, help="Report what the cache holds, of however many rounds and peers, and measure nothing."
)
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path),
              help="Where the classifiers are kept for the next time.  [default: a temporary folder]")  # fmt: skip
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path),
              help="Markdown; pictures go beside it.  [default: tools/reports/BENCHMARKS.md or …-CUDA.md]")  # fmt: skip
def main(cache: Path | None, folder: Path | None, report: Path | None, **given: Any) -> None:
    """Time onnxlrp beside plain forward passes, zennit, Captum, torch's autograd and onnx-ad; write a report."""
    given["precisions"] = given["precisions"] or (PRECISIONS if given["device"] == "cuda" else PRECISIONS[:1])
    given["peers"] = () if "none" in given["peers"] else given["peers"]
    if given["device"] == "cpu" and "tf32" in given["precisions"]:
        raise click.BadParameter("tf32 is there on CUDA only", param_hint="--precisions")
    if given["known"] and cache is None:
        raise click.UsageError("--known reports what --cache holds: give both")
    _check_installed(given["composites"], given["peers"])
    if given["device"] == "cuda":
        _check_cuda()
    with tempfile.TemporaryDirectory(prefix="onnxlrp-bench-") as temporary:
        place = folder or Path(temporary)
        place.mkdir(parents=True, exist_ok=True)
        measuring = Measuring(Plan(folder=place, keep=folder is not None, **given), Cache(cache), click.echo)
        try:
            results = measuring.all()
        except KeyboardInterrupt:
            where = f"; what was measured is in {cache}" if cache else ""
            raise click.ClickException(f"interrupted{where}") from None
    _write(results, report or REPORTS / f"BENCHMARKS{'-CUDA' if given['device'] == 'cuda' else ''}.md", given)


def _check_installed(composites: tuple[str, ...], peers: tuple[str, ...]) -> None:
    """Say what is missing before anything is measured."""
    wanted = {p for c in composites for p in peers_of(c, peers)}
    modules = {PACKAGES[p]: PACKAGES[p].replace("-", "_") for p in sorted(wanted)}
    missing = [p for p, m in ({n: n for n in NEEDED} | modules).items() if importlib.util.find_spec(m) is None]
    if missing:
        raise click.ClickException(f"not installed: {', '.join(missing)}. {HOW_TO_INSTALL}; or leave out --peers")


def _check_cuda() -> None:
    """Say that there is no GPU before anything is measured."""
    import torch

    if not torch.cuda.is_available():
        raise click.ClickException(f"torch {torch.__version__} finds no CUDA device: choose --device cpu")


def _write(results: Results, path: Path, given: dict[str, Any]) -> None:
    """The report and its pictures."""
    from tools.bench import plot, report

    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = plot.draw(results, path)
    command = typed("tools.bench", sys.argv[1:])
    text = report.page(results, given["device"], given["spinning"], given["threads"], command, pictures)
    path.write_text(text, encoding="utf-8")
    within, beyond, unmeasured = limits.missed(results, given["device"])
    click.echo("\n".join(report.headline(results)))
    click.echo(f"\nLimits: {within} kept, {beyond} missed, {unmeasured} not measured. Wrote {path}")


if __name__ == "__main__":
    main()

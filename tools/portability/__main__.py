"""`python -m tools.portability`: measure what has not been measured, and write the report."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from tools.portability import CLASSIFIER, COMPOSITES, KIT, MODELS
from tools.portability import __doc__ as about
from tools.portability.measure import measure_all, measure_beside
from tools.portability.report import render

ROWS = (CLASSIFIER, *COMPOSITES)
WORK = Path(tempfile.gettempdir()) / "onnxlrp-portability"
REPORT = Path(__file__).parents[1] / "reports" / "PORTABILITY.md"


@click.command(help=about)
@click.option("--model", "models", multiple=True, type=click.Choice((KIT, *MODELS)), default=(KIT, *MODELS))
@click.option("--composite", "composites", multiple=True, type=click.Choice(ROWS), default=ROWS)
@click.option("--python", default=sys.executable, help="The interpreter that has the hosts' runtimes.")
@click.option(
    "--work", default=WORK, show_default=True, type=click.Path(path_type=Path), help="Where results are kept."
)
@click.option("-o", "--out", default=REPORT, show_default=True, type=click.Path(path_type=Path, dir_okay=False))
def main(models: Sequence[str], composites: Sequence[str], python: str, work: Path, out: Path) -> None:
    """Measure and report; see the package."""
    work.mkdir(parents=True, exist_ok=True)
    measure_all(models, composites, python, work.resolve())
    measure_beside(models, composites, python, work.resolve())
    out.write_text(render(work, python))
    click.echo(f"Wrote {out}")


if __name__ == "__main__":
    main()

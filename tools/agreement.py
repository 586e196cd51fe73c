"""Measure every rule and composite against zennit, and write tools/reports/AGREEMENT.md: `python -m tools.agreement`.

A row is one rule or composite on one network: the relative L2 distance to zennit in float64 of zennit in float32, of
the explainer in float32, and of the explainer interpreted in float64. The last says whether the formula is the same;
the others, what rounding makes of it. Run it from the root of the repository; needs torch, torchvision and zennit, and
takes half an hour on two cores. With --cache, rows that the file holds are not measured again.
"""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import json
import math
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch

from tests.reference import onnx_side
from tests.reference.networks import Subject, subject
from tests.reference.onnx_side import LEVELS, distances
from tests.reference.rows import Row, composites, single_rules
from tools import zoo
from tools.command import typed

REPORT = Path(__file__).parent / "reports" / "AGREEMENT.md"
NETWORKS = ("vgg16", "vgg16_bn", "resnet18", "resnet50", *zoo.TRAINED)
WHOLE_SIZE = ("epsilon_plus_flat", "epsilon_gamma_box", "epsilon_alpha2_beta1_flat")
WHOLE_COUNT = 6
MOST = 2.0  # how many times zennit's own rounding is agreement
UNEXPLAINED = "NOT EXPLAINED"
SAME_FORMULA = 1e-9  # the distance in float64 up to which a formula is the same
FLOOR = 1e-6  # a few roundings of float32: below, a ratio compares the luck of two summation orders


@dataclass(frozen=True)
class Result:
    """Medians over the images, but for `formula`: the worst of the first images, nan where it was not measured."""

    row: str
    zennit: float
    ours: float
    plain: float  # ours without ONNX Runtime's layout optimiser, which groups sums differently
    formula: float
    other: float = math.nan  # zennit with the other of torch's convolutions, where the ratio asks for a reason
    shape: float = math.nan  # ours, once the factor that all values of an image share is taken out, likewise

    @property
    def ratio(self) -> float:
        """Ours beside zennit's own."""
        return self.ours / self.zennit

    @property
    def agrees(self) -> bool:
        """Whether ours is no more than twice zennit's own."""
        return self.ratio <= MOST


# -- measuring --------------------------------------------------------------------------------------------------------


def result(chosen: Subject, row: Row, in_float64: int) -> Result:
    """Measure one row on one network, the formula on so many images."""
    exact = row.measure(chosen.network, chosen.x, chosen.targets, torch.float64)
    zennit = row.measure(chosen.network, chosen.x, chosen.targets, torch.float32)
    made = row.explainer(chosen.proto, chosen.preprocess)
    ours, plain = (
        onnx_side.run(made, chosen.image, chosen.targets, level)["relevance"]
        for level in (LEVELS.ORT_ENABLE_ALL, LEVELS.ORT_ENABLE_EXTENDED)
    )
    formula = math.nan
    if in_float64:
        made = row.explainer(chosen.proto64, chosen.preprocess)
        precise = onnx_side.run64(made, chosen.x[:in_float64].double().numpy(), chosen.targets[:in_float64])
        formula = float(distances(precise, exact[:in_float64]).max())
    found = Result(row.name, *(_median(r, exact) for r in (zennit, ours, plain)), formula)
    if found.agrees:
        return found
    with torch.backends.mkldnn.flags(enabled=False):
        other = row.measure(chosen.network, chosen.x, chosen.targets, torch.float32)
    return dataclasses.replace(found, other=_median(other, exact), shape=_median(_unscaled(ours, exact), exact))


def _median(found: np.ndarray, exact: np.ndarray) -> float:
    return float(np.median(distances(found, exact)))


def _unscaled(found: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """`found` with each image divided by its common factor against `exact`."""
    flat, truth = found.reshape(len(found), -1).astype(np.float64), exact.reshape(len(exact), -1)
    factor = (flat * truth).sum(1) / (truth**2).sum(1)
    return (flat / factor[:, None]).reshape(exact.shape)


# -- writing ----------------------------------------------------------------------------------------------------------


def header(count: int, size: int) -> str:
    """What the numbers are, and with what they were made."""
    packages = ("onnxlrp", "zennit", "torch", "torchvision", "onnxruntime-gpu", "onnx", "numpy")
    versions = ", ".join(f"{p} {importlib.metadata.version(p)}" for p in packages)
    return f"""# Agreement with zennit

Written by `{typed("tools.agreement", sys.argv[1:])}` on {datetime.date.today()}, on a
{os.cpu_count()}-core {platform.machine()} CPU, one thread, Python {platform.python_version()}: {versions}.

A row is one rule or composite on one network: how far relevance is from zennit's in float64. Random networks: weights
from a seed, batch norms calibrated, {count} images of {size} px; trained ones: their sample slices at 128 px.
Explained: the predicted class, for every second image the next one. Each distance is the **median over the images** of
‖R − R₆₄‖ / ‖R₆₄‖, where R₆₄ is zennit in float64 (for `beta_smooth`, `gradient` and `input_x_gradient` torch's
autograd). One image alone says little: where a unit's denominator is close to ε, rounding is amplified, for one
implementation as for the other.

- **zennit**: zennit in float32.
- **ours**: the explainer on ONNX Runtime's CPU provider as `onnxlrp run` opens it, at ORT_ENABLE_ALL; **ours ′**: at
  ORT_ENABLE_EXTENDED, without the layout optimiser, which groups sums differently.
- **ratio**: ours / zennit.
- **formula**: the explainer's graph interpreted in float64 (of the random networks for one image, of the trained ones
  for two; not at 224 px). At 1e-13 there is no difference but the order of summation: the proof that both compute the
  same thing.

The eps of batch norms that zennit merged is set to 0 for the comparison; zennit 0.5.1 leaves it as it was. Two things
zennit is no reference for. `beta_smooth` on networks that use a relu module several times or in place, as torchvision's
do: zennit keeps one input for a module, the last. And ties in max pooling: on a flat background float32 and the
explainer take the first of equal values, but torch's float64 convolutions break some ties by their rounding (63
windows of mri_vgg), which puts every float32 implementation 4e-4 away. The slices carry a little noise here.
"""


def table(chosen: Subject, results: Sequence[Result]) -> list[str]:
    """One network's section."""
    lines = [f"## {chosen.name}, {chosen.x.shape[-1]} px, {len(chosen.x)} images", ""]
    lines += ["| | zennit | ours | ours ′ | ratio | formula |", "|---|---|---|---|---|---|"]
    for r in results:
        numbers = " | ".join(f"{v:.1e}" for v in (r.zennit, r.ours, r.plain))
        formula = "" if math.isnan(r.formula) else f"{r.formula:.0e}"
        ratio = f"{r.ratio:.1f}" if r.agrees else f"**{r.ratio:.1f}**"
        lines.append(f"| {r.row} | {numbers} | {ratio} | {formula} |")
    above = [f"- {r.row}: {why(r)}" for r in results if not r.agrees]
    return [*lines, "", *(["Above 2:", "", *above, ""] if above else [])]


def why(r: Result) -> str:
    """The reason for a ratio above two, as far as the numbers prove it."""
    same = f"the formula is the same (float64: {r.formula:.0e})"
    if math.isnan(r.formula):
        same = "the formula is the same (float64: see the smaller images)"
    elif not r.formula <= SAME_FORMULA:
        return f"{UNEXPLAINED}: in float64 the distance is {r.formula:.1e}."
    if math.isnan(r.zennit) and math.isnan(r.ours):
        return f"{same}; in float32 both overflow."
    if r.shape <= MOST * r.zennit:
        return (
            f"{same}; all but {r.shape:.1e} is one factor that all pixels of an image share, the rounding of a few "
            f"numbers near the output or of a stabiliser; zennit with torch's other convolutions is {r.other:.1e} off."
        )
    if r.ours <= MOST * r.other:
        return f"{same}; zennit with torch's other convolutions is {r.other:.1e} off, and ours is within twice that."
    if max(r.ours, r.zennit) < FLOOR:
        return f"{same}, and both are a few roundings of float32 (2⁻²⁴ = 6e-8)."
    return f"{same}; what remains is rounding, amplified where denominators are close to ε."


def summary(sections: Sequence[tuple[Subject, Sequence[Result]]]) -> list[str]:
    """The whole in a few lines."""
    every = [r for _, results in sections for r in results]
    ratios, formulas = np.array([r.ratio for r in every]), np.array([r.formula for r in every])
    above = [r for r in every if not r.agrees]
    return [
        "## Summary",
        "",
        f"{len(every)} rows. Formula: the worst distance in float64 is {np.nanmax(formulas, initial=0):.0e}.",
        f"Ratio: median {np.nanmedian(ratios):.2f}, largest {np.nanmax(ratios):.2f}. Above {MOST:g}: {len(above)}, "
        f"each with its reason below its table; {sum(UNEXPLAINED in why(r) for r in above)} without one.",
        "",
    ]


def measured(chosen: Subject, rows: Sequence[Row], in_float64: int, cache: Path | None) -> list[Result]:
    """Every row on one network; those in the cache are read from there, the others added to it."""
    key = f"{chosen.name} {chosen.x.shape[-1]} {len(chosen.x)}"
    stored = [json.loads(line) for line in cache.read_text().splitlines()] if cache and cache.exists() else []
    known = {s["result"]["row"]: Result(**s["result"]) for s in stored if s["key"] == key}
    results = []
    for row in rows:
        found = known.get(row.name) or result(chosen, row, in_float64)
        results.append(found)
        line = json.dumps({"key": key, "result": dataclasses.asdict(found)})
        click.echo(line, err=True)
        if cache and row.name not in known:
            with cache.open("a") as file:
                file.write(line + "\n")
    return results


@click.command(help=__doc__)
@click.option("--network", "networks", multiple=True, type=click.Choice(NETWORKS), default=NETWORKS)
@click.option("--only", help="Rows whose name contains this.", default="")
@click.option("--count", default=5, show_default=True, help="Images a network (the trained ones have 6).")
@click.option("--size", default=32, show_default=True, help="Their side, for the random networks.")
@click.option("--whole/--no-whole", default=True, show_default=True, help="Also some composites at 224 px.")
@click.option("--cache", type=click.Path(path_type=Path, dir_okay=False), help="JSON lines; resumes what it holds.")
@click.option("-o", "--out", default=REPORT, type=click.Path(path_type=Path, dir_okay=False))
def main(
    networks: tuple[str, ...], only: str, count: int, size: int, whole: bool, cache: Path | None, out: Path
) -> None:
    """Do it; see the module."""
    plans = [(name, size, count) for name in networks]
    plans += [(name, zoo.SIZE, WHOLE_COUNT) for name in ("vgg16", "resnet50") if whole and name in networks]
    sections = []
    for name, side, images in plans:
        chosen, full = subject(name, side, images), side == zoo.SIZE
        rows = [*composites(chosen.preprocess), *single_rules(chosen.preprocess)]
        rows = [r for r in rows if only in r.name and (not full or r.name in WHOLE_SIZE)]
        in_float64 = 0 if full else 2 if name in zoo.TRAINED else 1
        sections.append((chosen, measured(chosen, rows, in_float64, cache)))
    tables = [line for section in sections for line in table(*section)]
    out.write_text("\n".join([header(count, size), *summary(sections), *tables]).rstrip() + "\n")
    click.echo(out)


if __name__ == "__main__":
    main()

"""Measure every rule and composite against zennit, and write tools/reports/AGREEMENT.md: `python -m tools.agreement`.

A row is one rule or composite on one network: the relative L2 distance to zennit in float64 of zennit in float32, of the
explainer in float32, and of the explainer interpreted in float64. The last says whether the formula is the same; the
others, what rounding makes of it. Run it from the root of the repository; needs torch, torchvision and zennit.
"""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnxlrp
import torch
from onnx import ModelProto
from onnxlrp.contract import PREPROCESS_PRESETS, Preprocessing
from tests.reference import onnx_side, zennit_side
from tests.reference.onnx_side import LEVELS, distances
from torch import Tensor, nn
from zennit import rules
from zennit.core import Stabilizer

from tools import zoo

REPORT = Path(__file__).parent / "reports" / "AGREEMENT.md"
NETWORKS = ("vgg16", "vgg16_bn", "resnet18", "resnet50", *zoo.TRAINED)
WHOLE_SIZE = ("epsilon_plus_flat", "epsilon_gamma_box", "epsilon_alpha2_beta1_flat")
MOST = 2.0  # how many times zennit's own rounding is agreement
SAME_FORMULA = 1e-9  # the distance in float64 up to which a formula is the same
FLOOR = 1e-6  # a few roundings of float32: below, a ratio compares the luck of two summation orders

Measure = Callable[[nn.Module, Tensor, Sequence[int], torch.dtype], np.ndarray]


@dataclass(frozen=True)
class Row:
    """A rule or composite: the options of `onnxlrp.convert`, and who says what it should be. The pattern "first" in
    `rules` stands for the first convolution."""

    name: str
    options: dict[str, Any]
    measure: Measure


@dataclass(frozen=True)
class Case:
    """A network with images, the classes to explain, and its two ONNX files."""

    name: str
    size: int
    network: nn.Module
    x: Tensor
    targets: np.ndarray
    proto: ModelProto
    proto64: ModelProto
    preprocess: Preprocessing


@dataclass(frozen=True)
class Result:
    """Medians over the images, but for `formula`: the worst of two images, nan where it was not measured."""

    row: str
    zennit: float
    zennit_other: float  # with the other of torch's convolutions
    ours: float
    ours_regrouped: float  # at ONNX Runtime's highest level, which groups sums differently
    shape: float  # ours, once the factor that all values of an image share is taken out
    formula: float

    @property
    def ratio(self) -> float:
        """Ours beside zennit's own."""
        return self.ours / self.zennit


# -- rows -------------------------------------------------------------------------------------------------------------


def hooked(made: zennit_side.Made, start: str = "logit") -> Measure:
    """zennit's relevance under a composite."""
    return lambda network, x, targets, dtype: zennit_side.relevance(network, x, targets, made, dtype, start)


def times_input(network: nn.Module, x: Tensor, targets: Sequence[int], dtype: torch.dtype) -> np.ndarray:
    """Input times gradient, by torch."""
    return np.asarray(zennit_side.gradient(network, x, targets, dtype) * x.double().numpy())


def composites(preprocess: Preprocessing) -> Iterator[Row]:
    """All composites that zennit has, and those that torch can tell."""
    low, high = (torch.tensor(v).reshape(1, -1, 1, 1) for v in preprocess.bounds())
    plain = ("epsilon_plus", "epsilon_plus_flat", "epsilon_alpha2_beta1", "epsilon_alpha2_beta1_flat")
    for name in (*plain, "excitation_backprop"):
        yield Row(name, {"composite": name}, hooked(zennit_side.preset(name)))
    box = zennit_side.preset("epsilon_gamma_box", low=low, high=high)
    yield Row("epsilon_gamma_box", {"composite": "epsilon_gamma_box"}, hooked(box))
    for name in ("guided_backprop", "deconvnet"):
        yield Row(name, {"composite": name}, hooked(zennit_side.preset(name), "one-hot"))
    yield Row("beta_smooth", {"composite": "beta_smooth"}, zennit_side.smooth_gradient)
    yield Row("gradient", {"composite": "gradient"}, zennit_side.gradient)
    yield Row("input_x_gradient", {"composite": "input_x_gradient"}, times_input)
    zero = zennit_side.convolutions(lambda: rules.Epsilon(0.0), lambda: rules.Epsilon(0.0))
    yield Row("lrp_0", {"composite": "lrp_0"}, hooked(zero))


def single_rules(preprocess: Preprocessing) -> Iterator[Row]:
    """One rule for all convolutions, for the first, or for the dense layers; epsilon for the others."""
    low, high = (torch.tensor(v).reshape(1, -1, 1, 1) for v in preprocess.bounds())
    bare = {"zero_params": ["bias"]}
    clip, norm = Stabilizer(0.01, clip=True), Stabilizer(0.25, norm_scale=True)
    everywhere: dict[str, Callable[[], Any]] = {
        "epsilon": rules.Epsilon,
        "epsilon(0.25)": lambda: rules.Epsilon(0.25),
        "epsilon(0.01, stabilizer='clip')": lambda: rules.Epsilon(clip),
        "epsilon(0.25, stabilizer='norm')": lambda: rules.Epsilon(norm),
        "epsilon(bias='zero')": lambda: rules.Epsilon(**bare),
        "zplus(bias='zero')": lambda: rules.ZPlus(**bare),
        "zplus(epsilon=0.25, stabilizer='norm')": lambda: rules.ZPlus(norm),
        "alpha_beta(3.0, 2.0)": lambda: rules.AlphaBeta(3.0, 2.0),
        "alpha_beta(2.0, 1.0, bias='zero')": lambda: rules.AlphaBeta(2.0, 1.0, **bare),
        "gamma(0.1)": lambda: rules.Gamma(0.1),
        "gamma(0.25)": lambda: rules.Gamma(0.25),
        "gamma(0.25, bias='zero')": lambda: rules.Gamma(0.25, **bare),
        "wsquare": rules.WSquare,
        "flat": rules.Flat,
    }
    for name, rule in everywhere.items():
        options = {"composite": "epsilon", "rules": {"Conv": name}}
        yield Row(f"convolutions {name}", options, hooked(zennit_side.convolutions(rule)))
    first = {"zbox": lambda: rules.ZBox(low, high), "wsquare": rules.WSquare, "gamma(0.25)": lambda: rules.Gamma(0.25)}
    for name, rule in first.items():
        made = zennit_side.convolutions(rules.ZPlus, first=rule)
        yield Row(f"first {name}", {"composite": "epsilon_plus", "rules": {"first": name}}, hooked(made))
    dense = {"gamma(0.25)": rules.Gamma, "alpha_beta(2.0, 1.0)": rules.AlphaBeta, "wsquare": rules.WSquare}
    for name, rule in dense.items():
        made = zennit_side.convolutions(rules.ZPlus, rule)
        yield Row(f"dense {name}", {"composite": "epsilon_plus", "rules": {"Gemm": name}}, hooked(made))


# -- measuring --------------------------------------------------------------------------------------------------------


def case(name: str, size: int, count: int) -> Case:
    """A network at a size with `count` images; explained is the predicted class, for every other one the next."""
    network = zoo.build(name, size)
    x = zoo.inputs(name, count, size)
    scores = zennit_side.logits(network, x)
    targets = (scores.argmax(1) + np.arange(len(x)) % 2) % scores.shape[1]
    proto = zoo.load(name) if name in zoo.TRAINED else onnx_side.exported(network, x)
    grey = Preprocessing(mean=(0.5,), std=(0.25,), color_order="L")
    preprocess = grey if name in zoo.TRAINED else PREPROCESS_PRESETS["imagenet"]
    return Case(name, x.shape[-1], network, x, targets, proto, onnx_side.exported64(network, x), preprocess)


def explainer(proto: ModelProto, row: Row, chosen: Preprocessing) -> ModelProto:
    """The explainer that a row asks for."""
    options = dict(row.options)
    first = next(n.output[0] for n in proto.graph.node if n.op_type == "Conv")
    options["rules"] = {first if k == "first" else k: v for k, v in options.get("rules", {}).items()}
    return onnxlrp.convert(proto, preprocess=chosen, **options).model


def result(chosen: Case, row: Row, in_float64: bool = True) -> Result:
    """Measure one row on one network."""
    exact = row.measure(chosen.network, chosen.x, chosen.targets, torch.float64)
    zennit = row.measure(chosen.network, chosen.x, chosen.targets, torch.float32)
    with torch.backends.mkldnn.flags(enabled=False):
        other = row.measure(chosen.network, chosen.x, chosen.targets, torch.float32)
    made = explainer(chosen.proto, row, chosen.preprocess)
    ours, regrouped = (
        onnx_side.run(made, chosen.x.numpy(), chosen.targets, level)["relevance"]
        for level in (LEVELS.ORT_ENABLE_EXTENDED, LEVELS.ORT_ENABLE_ALL)
    )
    formula = np.nan
    if in_float64:
        made = explainer(chosen.proto64, row, chosen.preprocess)
        precise = onnx_side.run64(made, chosen.x[:2].double().numpy(), chosen.targets[:2])
        formula = float(distances(precise, exact[:2]).max())
    found = [float(np.median(distances(r, exact))) for r in (zennit, other, ours, regrouped)]
    return Result(row.name, *found, float(np.median(distances(_unscaled(ours, exact), exact))), formula)


def _unscaled(found: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """`found` with each image divided by its common factor against `exact`."""
    flat, truth = found.reshape(len(found), -1).astype(np.float64), exact.reshape(len(exact), -1)
    factor = (flat * truth).sum(1) / (truth**2).sum(1)
    return (flat / factor[:, None]).reshape(exact.shape)


# -- writing ----------------------------------------------------------------------------------------------------------


def header(count: int, size: int) -> list[str]:
    """What the numbers are, and with what they were made."""
    packages = ("onnxlrp", "zennit", "torch", "torchvision", "onnxruntime-gpu", "onnx", "numpy")
    versions = ", ".join(f"{p} {importlib.metadata.version(p)}" for p in packages)
    return [
        "# Agreement with zennit",
        "",
        f"Written by `python -m tools.agreement {' '.join(sys.argv[1:])}`".rstrip() + f" on {datetime.date.today()}, on a "
        f"{os.cpu_count()}-core {platform.machine()} CPU, one thread, Python {platform.python_version()}: {versions}.",
        "",
        *(__doc__ or "").split("\n\n")[1].splitlines()[:-1],
        "",
        f"Random networks: weights from a seed, batch norms calibrated, {count} images of {size} px; trained ones: their "
        "sample slices at 128 px. Explained: the predicted class, for every second image the next one. Each distance is "
        "the **median over the images** of ‖R − R₆₄‖ / ‖R₆₄‖, where R₆₄ is zennit in float64 (for `beta_smooth`, "
        "`gradient` and `input_x_gradient` torch's autograd). One image alone says little: where a unit's denominator is "
        "close to ε, rounding is amplified, for one implementation as for the other.",
        "",
        "- **zennit**: zennit in float32; **zennit ′**: the same with torch's own convolutions instead of oneDNN's, which "
        "shows how much of it is luck.",
        "- **ours**: the explainer on ONNX Runtime's CPU provider at ORT_ENABLE_EXTENDED; **ours ′**: at ORT_ENABLE_ALL, "
        "where its layout optimiser groups sums differently.",
        "- **ratio**: ours / zennit.",
        "- **formula**: the explainer's graph interpreted in float64 (worst of two images). At 1e-13 there is no "
        "difference but the order of summation: this is the proof that both compute the same thing.",
        "",
        "Where they are compared, the merged batch norms in zennit have their eps set to 0; zennit 0.5.1 leaves it.",
    ]


def table(chosen: Case, results: Sequence[Result]) -> list[str]:
    """One network's section."""
    lines = [f"## {chosen.name}, {chosen.size} px, {len(chosen.x)} images", ""]
    lines += ["| | zennit | zennit ′ | ours | ours ′ | ratio | formula |", "|---|---|---|---|---|---|---|"]
    for r in results:
        numbers = " | ".join(f"{v:.1e}" for v in (r.zennit, r.zennit_other, r.ours, r.ours_regrouped))
        formula = "" if np.isnan(r.formula) else f"{r.formula:.0e}"
        ratio = f"**{r.ratio:.1f}**" if r.ratio > MOST else f"{r.ratio:.1f}"
        lines.append(f"| {r.row} | {numbers} | {ratio} | {formula} |")
    above = [f"- {r.row}: {why(r)}" for r in results if not r.ratio <= MOST]
    return [*lines, "", *(["Above 2:", "", *above, ""] if above else [])]


def why(r: Result) -> str:
    """The reason for a ratio above two, as far as the numbers prove it."""
    if not r.formula <= SAME_FORMULA:
        return f"NOT EXPLAINED: in float64 the distance is {r.formula:.1e}."
    same = f"the formula is the same (float64: {r.formula:.0e})"
    if max(r.ours, r.zennit) < FLOOR:
        shape = f"; without the factor that all pixels of an image share, ours is {r.shape:.1e}"
        return f"{same}, and both are a few roundings of float32 (2⁻²⁴ = 6e-8){shape}."
    if r.ours <= MOST * r.zennit_other:
        return f"{same}; zennit with torch's own convolutions is {r.zennit_other:.1e} off, and ours is within twice that."
    return f"{same}; what remains is rounding, amplified where denominators are close to ε."


def summary(sections: Sequence[tuple[Case, Sequence[Result]]]) -> list[str]:
    """The whole in a few lines."""
    every = [r for _, results in sections for r in results]
    formulas = [r.formula for r in every if not np.isnan(r.formula)]
    ratios = np.array([r.ratio for r in every])
    return [
        "## Summary",
        "",
        f"{len(every)} rows. Formula: the worst distance in float64 is {max(formulas):.0e}. Ratio: median "
        f"{np.median(ratios):.2f}, above {MOST:g} in {(~(ratios <= MOST)).sum()} rows, each with its reason below its table; "
        f"{sum('NOT' in why(r) for r in every if not r.ratio <= MOST)} without one.",
        "",
        "What zennit itself gets wrong and is therefore not the reference for: `beta_smooth` on networks that use a relu "
        "module several times or in place (zennit keeps one input for a module, the last).",
        "",
    ]


@click.command(help=__doc__)
@click.option("--network", "networks", multiple=True, type=click.Choice(NETWORKS), default=NETWORKS)
@click.option("--only", help="Rows whose name contains this.", default="")
@click.option("--count", default=6, show_default=True, help="Images a network (the trained ones have 6).")
@click.option("--size", default=64, show_default=True, help="Their side, for the random networks.")
@click.option("--whole/--no-whole", default=True, show_default=True, help="Also some composites at 224 px, 3 images.")
@click.option("-o", "--out", default=REPORT, type=click.Path(path_type=Path, dir_okay=False))
def main(networks: tuple[str, ...], only: str, count: int, size: int, whole: bool, out: Path) -> None:
    """Do it; see the module."""
    torch.set_num_threads(1)
    plans = [(name, size, count, "") for name in networks]
    plans += [(name, zoo.SIZE, 3, "whole") for name in ("vgg16", "resnet50") if whole]
    sections = []
    for name, side, images, kind in plans:
        chosen = case(name, side, images)
        rows = [*composites(chosen.preprocess), *single_rules(chosen.preprocess)]
        rows = [r for r in rows if (r.name in WHOLE_SIZE if kind else only in r.name)]
        results = []
        for row in rows:
            results.append(result(chosen, row, not kind))
            click.echo(f"{name} {side} {dataclasses.asdict(results[-1])}", err=True)
        sections.append((dataclasses.replace(chosen, network=nn.Identity()), results))
    lines = [*header(count, size), "", *summary(sections)]
    out.write_text("\n".join([*lines, *(line for s in sections for line in table(*s))]).rstrip() + "\n")
    click.echo(out)


if __name__ == "__main__":
    main()

"""Is relevance where the lesion is? `python -m tools.localisation [-o tools/reports/LOCALISATION.md]`

Both trained classifiers of graphs/models, over held-back MRI slices with a lesion whose mask is known, explained for
their true class under several composites, all by the same graph machinery. Needs nilearn, nibabel and scipy, which the
slices are cut with.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

from onnxlrp import Explainer
from onnxlrp.files import write_whole
from onnxlrp.measure.localisation import hits, share_inside
from onnxlrp.run.heatmap import as_map
from onnxlrp.run.images import Picture
from tools.mri.slices import CLASSES, SIZE, LesionSlices, load_template

MODELS = Path(__file__).parents[1] / "graphs" / "models"
NETWORKS = {"VGG": "mri_vgg.onnx", "ResNet": "mri_resnet.onnx"}
KINDS = (1, 2)  # the classes that are lesions
NEAR = 5  # pixels
BATCH = 50
REMARK = """\
For bright lesions the LRP rules put two to five times as much of their relevance into the mask as the gradient does.
For dark lesions it is the other way round, epsilon_plus on the ResNet excepted: less of it lies inside, and the largest
value is mostly just outside (at most 5 pixels away, which the tolerance shows). One reading: a lesion is dark only
against the brighter tissue around it, and rules that follow positive contributions mark that tissue, the rim, as the
evidence. The gradient points inside both kinds, but most of what it marks lies elsewhere.
"""

Maps = NDArray[np.float64]


@dataclass(frozen=True)
class Way:
    """A row of the table: a composite, and what is made of its relevance before it is measured."""

    name: str
    composite: str
    change: Callable[[Maps], Maps] = np.asarray


WAYS = (
    Way("epsilon_plus_flat", "epsilon_plus_flat"),
    Way("epsilon_plus", "epsilon_plus"),
    Way("epsilon_gamma_box", "epsilon_gamma_box"),
    Way("epsilon_alpha2_beta1_flat", "epsilon_alpha2_beta1_flat"),
    Way("|input × gradient|", "input_x_gradient", np.abs),
)


@dataclass(frozen=True)
class Lesions:
    """Slices with a lesion: pixels 0..255 [count, H, W], their classes [count] and masks [count, H, W]."""

    pixels: NDArray[np.float32]
    labels: NDArray[np.int64]
    masks: NDArray[np.bool_]

    def kind(self, label: int) -> Lesions:
        """Those of one class."""
        chosen = self.labels == label
        return Lesions(self.pixels[chosen], self.labels[chosen], self.masks[chosen])


@dataclass(frozen=True)
class Score:
    """Means over slices: the share of positive relevance in the mask, of hits, and of hits on the mask or close by."""

    share: float
    hit: float
    near: float


@dataclass(frozen=True)
class Result:
    """A row of the table: a score for each kind of lesion, by class number."""

    network: str
    name: str
    scores: dict[int, Score]


def lesions(count: int, seed: int) -> Lesions:
    """Those of `count` held-back slices that have a lesion."""
    dataset = LesionSlices(load_template(), "held-back", count, seed)
    chosen = [sample for index in range(count) if index % len(CLASSES) and (sample := dataset[index])[1]]
    images, labels, masks = zip(*chosen, strict=True)
    return Lesions(np.stack(images) * np.float32(255), np.array(labels, np.int64), np.stack(masks))


def measure(network: str, way: Way, data: Lesions) -> Result:
    """One row: every slice explained for its true class."""
    explainer = Explainer(MODELS / NETWORKS[network], composite=way.composite)
    return Result(network, way.name, {kind: _score(explainer, way, data.kind(kind)) for kind in KINDS})


def _score(explainer: Explainer, way: Way, data: Lesions) -> Score:
    found = []
    for rows in np.array_split(np.arange(len(data.labels)), -(-len(data.labels) // BATCH)):
        said = explainer.explain(_prepared(explainer, data.pixels[rows]), data.labels[rows])
        for relevance, mask in zip(said.relevance, data.masks[rows], strict=True):
            values = way.change(as_map(relevance, explainer.layout))
            found.append((share_inside(values, mask), hits(values, mask), hits(values, mask, NEAR)))
    return Score(*np.mean(found, axis=0).tolist())


def chance(data: Lesions) -> Result:
    """What relevance scattered at random would score: the area of the masks, and of the masks made larger."""
    scores = {}
    for kind in KINDS:
        masks = data.kind(kind).masks
        larger = maximum_filter(masks, (1, 2 * NEAR + 1, 2 * NEAR + 1))
        scores[kind] = Score(float(masks.mean()), float(masks.mean()), float(larger.mean()))
    return Result("", "chance", scores)


def _prepared(explainer: Explainer, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Slices as the model's input, prepared as `onnxlrp run` does."""
    fitted = explainer.fit()
    return np.stack([fitted(Picture(Path("slice"), one)).values for one in pixels])


def report(results: Sequence[Result], data: Lesions, command: str) -> str:
    """The results as Markdown."""
    counts = " and ".join(f"{len(data.kind(kind).labels)} with a {CLASSES[kind]}" for kind in KINDS)
    table = "\n".join(_markdown(results))
    return f"""# Is relevance where the lesion is?

Over {len(data.labels)} held-back MRI slices, {counts}, each explained for its true class.

- share: the part of the positive relevance that lies inside the lesion's mask, the mean over the slices
- pointing: the pointing game, the part of the slices whose largest relevance lies inside the mask
- near: the same with a tolerance of {NEAR} pixels (of {SIZE})

The row |input × gradient| is the plain gradient's, the one to beat: its absolute value is taken, as its signs cancel.
All rows are made by the same graph machinery and differ in nothing but the composite.

{table}

{REMARK}
Written by `{command}`.
"""


def _markdown(results: Sequence[Result]) -> Iterator[str]:
    width = max(len(r.name.replace("|", "\\|")) for r in results)
    measures = [f"{CLASSES[kind].split()[0]}: {m}" for kind in KINDS for m in ("share", "pointing", "near")]
    yield f"| network | {'composite':<{width}} | {' | '.join(measures)} |"
    yield f"|---|{'-' * (width + 2)}|{'|'.join('-' * (len(m) + 1) + ':' for m in measures)}|"
    for r in results:
        cells = [f"{cell:>{len(m)}}" for cell, m in zip(_cells(r), measures, strict=True)]
        name = r.name.replace("|", "\\|")
        yield f"| {r.network:<7} | {name:<{width}} | {' | '.join(cells)} |"


def _cells(result: Result) -> list[str]:
    scores = [result.scores[kind] for kind in KINDS]
    return [cell for s in scores for cell in (f"{s.share:.3f}", f"{s.hit:.1%}", f"{s.near:.1%}")]


def _line(network: str, name: str, cells: Sequence[str]) -> str:
    return f"{network:<8} {name:<26}" + "".join(f"{cell:>{10 + 4 * (i == 3)}}" for i, cell in enumerate(cells))


@click.command(help=__doc__)
@click.option("--count", default=3000, show_default=True, help="Held-back slices; two thirds of them have a lesion.")
@click.option("--seed", default=0, show_default=True, help="Of the slices; 0 is what the networks were measured on.")
@click.option("-o", "path", metavar="FILE", help="Also write the table, as Markdown.")
def main(count: int, seed: int, path: str | None) -> None:
    """Measure and print; see the module."""
    data = lesions(count, seed)
    kinds = [f"{CLASSES[kind]} ({len(data.kind(kind).labels)})" for kind in KINDS]
    click.echo(f"{'':<35}{kinds[0]:>30}{kinds[1]:>34}")
    click.echo(_line("network", "composite", ["share", "pointing", "near"] * 2))
    results = []
    for result in itertools.chain([chance(data)], (measure(n, w, data) for n in NETWORKS for w in WAYS)):
        results.append(result)
        click.echo(_line(result.network, result.name, _cells(result)))
    if path:
        write_whole(
            path, report(results, data, f"python -m tools.localisation --count {count} --seed {seed} -o FILE").encode()
        )
        click.echo(f"\nWrote {path}")


if __name__ == "__main__":
    main()

"""`onnxlrp run`: explain pictures, write heatmaps."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from onnxlrp.contract import KEY_CONTRACT, PREPROCESS_PRESETS
from onnxlrp.errors import OnnxLrpError, Problem
from onnxlrp.run.colormaps import DEFAULT, NAMES
from onnxlrp.run.explaining import Case, explain_pictures
from onnxlrp.run.images import find_images, read_picture
from onnxlrp.run.names import class_slugs, refuse_existing, unique_stems
from onnxlrp.run.preparing import GUESS_WARNING, Fitted, Prepared, fit
from onnxlrp.run.reading import metadata_of, read_model
from onnxlrp.run.report import STYLES, Wishes, parse_formats, summary_table, top_table, write_case
from onnxlrp.run.runtime import DEVICES
from onnxlrp.run.session import Explainer
from onnxlrp.run.targets import Choice, parse_targets, refuse_choice
from onnxlrp.run.writing import output_folder

MOST_TABLES = 8  # pictures; above it, one line each


@dataclass(frozen=True)
class Done:
    """A case that is written, with the first of its files; the case has let go of its arrays of relevance."""

    case: Case
    file: Path


@click.command()
@click.argument("model", type=click.Path())
@click.argument("images", nargs=-1, required=True, type=click.Path())
@click.option("-o", "--output", default="heatmaps", show_default=True, type=click.Path(), help="Where to write.")
@click.option(
    "--target", "targets", multiple=True, metavar="N|NAME|top1..topK|predicted",
    help="Class to explain; may be given several times.  [default: predicted]",
)  # fmt: skip
@click.option("--device", type=click.Choice(DEVICES), default="auto", show_default=True, help="Where to run.")
@click.option("--batch", type=click.IntRange(1), default=8, show_default=True, help="Pictures in one run of the model.")
@click.option("--format", "formats", default="png", show_default=True, help="png, npy, json, separated by commas.")
@click.option("--cmap", type=click.Choice(NAMES), default=DEFAULT, show_default=True, help="Colours of relevance.")
@click.option("--style", type=click.Choice(STYLES), default="panel", show_default=True, help="What a picture shows.")
@click.option("--layers", is_flag=True, help="Also draw relevance at every tapped layer.")
@click.option("--composite", help="Rules to convert a plain classifier with.")
@click.option("--preprocess", type=click.Choice(list(PREPROCESS_PRESETS)), help="How pixels become the model's input.")
@click.option("--force", is_flag=True, help="Replace results that exist.")
def run(
    model: str,
    images: tuple[str, ...],
    output: str,
    targets: tuple[str, ...],
    device: str,
    batch: int,
    formats: str,
    cmap: str,
    style: str,
    layers: bool,
    composite: str | None,
    preprocess: str | None,
    force: bool,
) -> None:
    """Show where in each of IMAGES the evidence lies: one picture per image and class.

    MODEL is an explainer from `onnxlrp convert`, or a plain classifier, which is converted in memory. IMAGES are files,
    folders or patterns.
    """
    wishes = Wishes(parse_formats(formats), style, cmap, layers)
    paths = find_images(images)
    explainer = _open(model, device, composite, layers)
    choices = parse_targets(targets, explainer.labels, explainer.classes)
    if targets:
        refuse_choice(choices, explainer.fixed_target)
    fitted = fit(explainer.input_shape, explainer.preprocessing, preprocess)
    if preprocess is None and explainer.preprocessing is None:
        click.echo(f"Warning: {GUESS_WARNING}", err=True)
    stems = unique_stems(paths)
    if not force:
        refuse_existing(Path(output), stems.values(), _possible_slugs(explainer, choices), wishes.endings)
    for path in paths:
        read_picture(path)  # a bad one stops the run before it has begun
    folder = output_folder(output)
    done: list[Done] = []
    with _progress(len(paths)) as bar:
        for some, prepared in _batches(paths, fitted, batch):
            for case in explain_pictures(explainer, some, prepared, choices):
                files = write_case(folder, stems[case.path], case, explainer, fitted.preprocessing.layout, wishes)
                done.append(Done(case.light(), files[0]))
            bar(len(some))
    _print_results(done, paths, explainer)


@contextlib.contextmanager
def _progress(count: int) -> Iterator[Callable[[int], None]]:
    """A function to be told of pictures that are done; it draws a bar where there are several and somebody looks."""
    if count == 1 or not sys.stderr.isatty():
        yield lambda done: None
        return
    with click.progressbar(length=count, label="Explaining", file=sys.stderr) as bar:
        yield bar.update


def _open(model: str, device: str, composite: str | None, layers: bool) -> Explainer:
    """The explainer for `model`; a plain classifier is converted with what the user asked for."""
    proto, name = read_model(model)
    plain = KEY_CONTRACT not in metadata_of(proto)
    options: dict[str, object] = {"composite": composite} if composite else {}
    if plain and layers:
        options["taps"] = ["all"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        explainer = Explainer(model, device, **options)
    for warning in caught:
        click.echo(f"Warning: {warning.message}", err=True)
    if layers and not explainer.taps:
        reason = "returns no relevance of inner layers, so there is nothing for --layers to draw"
        raise OnnxLrpError(Problem(name, reason, "convert the classifier again with --tap all"))
    return explainer


def _possible_slugs(explainer: Explainer, choices: list[Choice]) -> list[str] | None:
    """The classes that the results may be named after; None where they are numbers without an end."""
    labels = explainer.labels
    classes = explainer.classes or (len(labels) if labels else None)
    if classes is None:
        return None
    slugs = class_slugs(labels, classes)
    fixed = [c.index for c in choices]
    return slugs if None in fixed else [slugs[i] for i in fixed if i is not None]


def _batches(paths: list[Path], fitted: Fitted, size: int) -> Iterator[tuple[list[Path], list[Prepared]]]:
    """Pictures in groups of at most `size` that have the same size in pixels."""
    some: list[Path] = []
    prepared: list[Prepared] = []
    for path in paths:
        one = fitted(read_picture(path))
        if some and (len(some) == size or one.values.shape != prepared[0].values.shape):
            yield some, prepared
            some, prepared = [], []
        some.append(path)
        prepared.append(one)
    yield some, prepared


def _print_results(done: list[Done], paths: list[Path], explainer: Explainer) -> None:
    labels = explainer.labels
    if len(paths) > MOST_TABLES:
        click.echo(summary_table([d.case for d in done], [d.file for d in done], labels))
    else:
        for path in paths:
            here = [d for d in done if d.case.path == path]
            click.echo(top_table([d.case for d in here], [d.file for d in here], labels) + "\n")
    why = f" ({explainer.provider_reason})" if explainer.provider_reason else ""
    click.echo(f"Ran on {explainer.provider}{why}")

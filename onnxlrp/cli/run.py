"""`onnxlrp run`: explain pictures, write heatmaps."""

from __future__ import annotations

import contextlib
import functools
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import click
import numpy as np
from click.core import ParameterSource

from onnxlrp.cli.convert import convert
from onnxlrp.cli.options import ONE_SIDED_SAID, PRESETS_SAID, Place, Word, read_conditions
from onnxlrp.contract import KEY_CONTRACT, PREPROCESS_PRESETS
from onnxlrp.errors import OnnxLrpError, Problem, raise_if_any
from onnxlrp.files import output_folder
from onnxlrp.look import DEFAULT, NAMES
from onnxlrp.run.explaining import Case, explain_pictures
from onnxlrp.run.feeding import Conditions
from onnxlrp.run.flow import WORKERS, Behind, ahead, behind, drawers
from onnxlrp.run.images import find_images, read_picture
from onnxlrp.run.methods import DEFAULT as LRP
from onnxlrp.run.methods import NAMES as METHODS
from onnxlrp.run.methods import Method, parse_method
from onnxlrp.run.names import class_slugs, refuse_existing, refuse_long, unique_stems
from onnxlrp.run.preparing import Fitted, Prepared
from onnxlrp.run.reading import metadata_of, read_model
from onnxlrp.run.report import (
    STYLES,
    Done,
    Origin,
    Wishes,
    parse_formats,
    summary_table,
    top_table,
    unlettered,
    write_case,
)
from onnxlrp.run.runtime import DEVICES
from onnxlrp.run.session import Explainer
from onnxlrp.run.targets import Choice, mistakable, parse_targets, refuse_choice, refuse_count
from onnxlrp.run.terminal import printable

PASSED_ON = {"--composite", "--condition", "--preprocess"}  # to the conversion in memory
MOST_TABLES = 8  # pictures; above it, one line each
SHOWN = 6  # names in a warning
UNITS = 1000  # of the progress bar, a picture


@dataclass(frozen=True)
class Model:
    """What explains: the open explainer, and how it is to be asked."""

    explainer: Explainer
    method: Method
    conditions: Conditions


@click.command()
@click.argument("model", type=Place())
@click.argument("images", nargs=-1, required=True, type=Place())
@click.option("-o", "--output", default="heatmaps", show_default=True, type=Place(), help="Where to write.")
@click.option(
    "--target", "targets", multiple=True, metavar="N|NAME|top1..topK|predicted",
    help="Class to explain; may be given several times.  [default: predicted]",
)  # fmt: skip
@click.option(
    "--method", "method_text", default=LRP, show_default=True, metavar="NAME",
    help=f"What makes relevance: {', '.join(METHODS)}; with options as in 'smoothgrad(samples=50, noise=0.2)', "
    "'integrated-gradients(steps=64)', 'occlusion(window=32, stride=16)'.",
)  # fmt: skip
@click.option("--device", type=Word(DEVICES), default="auto", show_default=True, help="Where to run.")
@click.option("--batch", type=click.IntRange(1), default=8, show_default=True, help="Pictures in one run of the model.")
@click.option("--format", "formats", default="png", show_default=True, help="png, npy, json, separated by commas.")
@click.option(
    "--cmap", type=Word(NAMES), default=DEFAULT, show_default=True, help=f"Colours of relevance; {ONE_SIDED_SAID}."
)
@click.option("--style", type=Word(STYLES), default="panel", show_default=True, help="What a picture shows.")
@click.option("--layers", is_flag=True, help="Also draw relevance at every tapped layer.")
@click.option(
    "--channels", type=click.IntRange(0), default=0, metavar="K",
    help="Also draw the K most relevant channels of every tapped layer.",
)  # fmt: skip
@click.option("--composite", metavar="NAME|FILE", help="Rules to convert a plain classifier with.")
@click.option(
    "--condition", "conditions", multiple=True, metavar="LAYER=CHANNELS",
    help="Relevance passes only these channels of a layer (3,17,42).",
)  # fmt: skip
@click.option(
    "--preprocess", type=Word(list(PREPROCESS_PRESETS)),
    help=f"How pixels become the model's input, instead of as the explainer says. {PRESETS_SAID}",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Replace results that exist.")
def run(
    model: str,
    images: tuple[str, ...],
    output: str,
    targets: tuple[str, ...],
    method_text: str,
    device: str,
    batch: int,
    preprocess: str | None,
    force: bool,
    composite: str | None,
    conditions: tuple[str, ...],
    formats: str,
    **drawing: Any,
) -> None:
    """Show where in each of IMAGES the evidence lies: one picture per image and class.

    MODEL is an explainer from `onnxlrp convert`, or a plain classifier, which is converted in memory. IMAGES are files,
    folders or patterns.
    """
    method = parse_method(method_text)
    wishes = Wishes(parse_formats(formats), method=method.described, **drawing)
    _refuse_idle(wishes)
    paths = find_images(images)
    asked = {"composite": composite, "preprocess": preprocess, "conditions": read_conditions(conditions)}
    opened = _open(model, (device, batch), method, asked, wishes.layers or wishes.channels > 0)
    explainer = opened.explainer
    choices = _choices(targets, explainer)
    fitted = explainer.fit(preprocess)
    if fitted.doubt:
        click.echo(f"Warning: {fitted.doubt}", err=True)
    stems, slugs = unique_stems(paths), _possible_slugs(explainer, choices)
    refuse_long(stems, slugs, wishes.endings)
    if not force:
        refuse_existing(Path(output), stems.values(), slugs, wishes.endings)
    _check_pictures(paths)
    folder = output_folder(output)

    origin, layout = Origin.of(explainer), fitted.preprocessing.layout
    with (
        _progress(len(paths), always=method.name != LRP) as bar,
        behind(Behind[Done], drawers(len(paths) * wishes.pictures)) as drawing_behind,
    ):
        for case in _cases(opened, paths, fitted, choices, batch, bar):
            drawing_behind.put(functools.partial(write_case, folder, stems[case.path], case, origin, layout, wishes))
    _print_results(drawing_behind.results, paths, explainer, wishes.endings)
    if wishes.pages:
        _warn_of_letters([done.case for done in drawing_behind.results], explainer)


def _check_pictures(paths: list[Path]) -> None:
    """Stop the run before it has begun where pictures are bad, and say where there is more than will be explained."""
    looked = list(ahead(_frames, paths, WORKERS))
    raise_if_any([problem for found in looked if not isinstance(found, int) for problem in found])
    more = [(path, found) for path, found in zip(paths, looked, strict=True) if isinstance(found, int) and found > 1]
    if more:
        (path, frames), others = more[0], len(more) - 1
        so = f" (likewise of {others} other file{'s' * (others > 1)})" if others else ""
        text = f"Warning: {path} holds {frames} frames, and only the first is explained{so}. Save each as a file."
        click.echo(printable(text), err=True)


def _frames(path: Path) -> int | Sequence[Problem]:
    """How many frames a picture's file holds, or what is wrong with it."""
    try:
        return read_picture(path).frames
    except OnnxLrpError as error:
        return error.problems


def _refuse_idle(wishes: Wishes) -> None:
    """Raise `OnnxLrpError` where it was said how pictures are to look, and there are none that would."""
    said = click.get_current_context().get_parameter_source
    idle = [("style", wishes.style)] * ("png" not in wishes.formats) + [("cmap", wishes.cmap)] * (not wishes.pictures)
    reason = f"says how pictures look, and --format {','.join(wishes.formats)} draws none"
    raise_if_any(
        [
            Problem(f"--{name} {value}", reason, f"add png to --format, or leave out --{name}")
            for name, value in idle
            if said(name) is not ParameterSource.DEFAULT
        ]
    )


@contextlib.contextmanager
def _progress(count: int, always: bool) -> Iterator[Callable[[int], None]]:
    """A function to be told of progress in UNITS of a picture; it draws a bar where there is a wait and somebody looks.

    `always`: also for a single picture.
    """
    if (count == 1 and not always) or not sys.stderr.isatty():
        yield lambda done: None
        return
    with click.progressbar(length=count * UNITS, label="Explaining", file=sys.stderr) as bar:
        yield bar.update


def _cases(
    opened: Model, paths: list[Path], fitted: Fitted, choices: list[Choice], size: int, bar: Callable[[int], None]
) -> Iterator[Case]:
    """All cases of all pictures, batch by batch."""
    explainer = opened.explainer
    runs = 1 if explainer.targets_per_input else sum(c.best if c.index is None else 1 for c in choices)
    for some, prepared in _batches(paths, fitted, size):
        told = [0, 0]  # of this batch, by the runs before this one; by this one

        def tell(done: int, total: int, told: list[int] = told, room: int = len(some) * UNITS // runs) -> None:
            now = room * done // total
            bar(now - told[1])
            told[:] = (told[0] + room, 0) if done == total else (told[0], now)

        attribute = opened.method.attribute(fitted, opened.conditions, max(size, 16), tell)
        yield from explain_pictures(explainer, some, prepared, choices, attribute)
        bar(len(some) * UNITS - told[0])


def _open(model: str, place: tuple[str, int], method: Method, asked: dict[str, Any], taps: bool) -> Model:
    """The explainer for `model`, on a device with a batch size; a plain classifier is converted as the user asked."""
    proto, _ = read_model(model)
    conditions = asked["conditions"]
    options = asked | {"composite": asked["composite"] or method.composite}
    options["taps"] = ["all"] if taps and method.name == LRP else []
    if KEY_CONTRACT in metadata_of(proto):
        options = {"composite": asked["composite"]}
    elif "input" in conditions.values():
        remedy = "name its channels: --condition LAYER=3,17,42"
        raise OnnxLrpError(Problem("condition", "a classifier converted in memory has no such input", remedy))
    with warnings.catch_warnings(record=True) as caught, _remedied(model):
        warnings.simplefilter("always", RuntimeWarning)
        explainer = Explainer(model, *place, **{k: v for k, v in options.items() if v})
    for warning in caught:
        click.echo(printable(f"Warning: {warning.message}"), err=True)
    method.check(explainer)
    _check_form(explainer, method, taps)
    return Model(explainer, method, {} if explainer.converted else _masks(explainer, conditions))


@contextlib.contextmanager
def _remedied(model: str) -> Iterator[None]:
    """Problems within it that an option of `convert` would solve, which there is not here, get a remedy that works."""
    elsewhere = {option for parameter in convert.params for option in parameter.opts} - PASSED_ON

    def remedied(problem: Problem) -> Problem:
        if elsewhere.isdisjoint(re.findall("--[a-z-]+", f"{problem.node} {problem.remedy}")):
            return problem
        return replace(problem, remedy=f"convert it first with onnxlrp convert {shlex.quote(model)}: {problem.remedy}")

    try:
        yield
    except OnnxLrpError as error:
        raise type(error)(*map(remedied, error.problems)) from error


def _check_form(explainer: Explainer, method: Method, taps: bool) -> None:
    """Raise `OnnxLrpError` where the explainer lacks what was asked for, or needs what a picture does not say."""
    name = explainer.name
    if taps and method.name != LRP:
        reason = f"gives relevance of the picture only, so there is nothing to draw for {method.name}"
        raise OnnxLrpError(Problem("layers", reason, "leave out --layers and --channels, or --method"))
    if taps and not explainer.taps:
        reason = "returns no relevance of inner layers, so there is nothing for --layers and --channels to draw"
        raise OnnxLrpError(Problem(name, reason, "convert the classifier again with --tap all"))
    if explainer.fed and method.name != "occlusion":
        reason = "starts from relevance that is fed (--start fed), which a picture and a class do not say"
        remedy = "use the Python API: Explainer.explain(batch, start=…), or convert without --start fed"
        raise OnnxLrpError(Problem(name, reason, remedy))


def _masks(explainer: Explainer, conditions: dict[str, Any]) -> Conditions:
    """The masks of an explainer's condition inputs, from the channels that were asked for."""
    masks: dict[str, Any] = {}
    for pattern, channels in conditions.items():
        meant = [layer for layer in explainer.conditions if fnmatchcase(layer, pattern)]
        node = f"--condition {pattern}"
        if not meant:
            known = ", ".join(explainer.conditions)
            remedy = f"choose among: {known}" if known else f"convert the classifier with --condition '{pattern}=input'"
            raise OnnxLrpError(Problem(node, "matches no layer whose channels the explainer lets choose", remedy))
        for layer in meant:
            count = explainer.conditions[layer]
            wrong = [c for c in channels if c == "input" or c >= count] if channels != "input" else ["input"]
            if wrong:
                remedy = f"choose 0 to {count - 1}"
                raise OnnxLrpError(Problem(node, f"{layer} has {count} channels, and no number {wrong[0]}", remedy))
            masks[layer] = np.isin(np.arange(count), channels)
    return masks


def _choices(targets: Sequence[str], explainer: Explainer) -> list[Choice]:
    """The classes asked for, refused where the explainer cannot explain them; warns of numbers that are names."""
    many = explainer.targets_per_input
    if many is not None and not targets:
        targets = (f"top{many}",)
    choices = parse_targets(targets, explainer.labels, explainer.classes)
    for sentence in mistakable(targets, explainer.labels):
        click.echo(printable(f"Warning: {sentence}"), err=True)
    if many is not None:
        refuse_count(choices, many)
    elif targets:
        refuse_choice(choices, explainer.fixed_target)
    return choices


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
    for path, one in zip(paths, ahead(lambda p: fitted(read_picture(p)), paths, max(size, WORKERS)), strict=True):
        if some and (len(some) == size or one.values.shape != prepared[0].values.shape):
            yield some, prepared
            some, prepared = [], []
        some.append(path)
        prepared.append(one)
    yield some, prepared


def _warn_of_letters(cases: Sequence[Case], explainer: Explainer) -> None:
    """Say on stderr which names the pictures do not show in full."""
    names = unlettered(cases, explainer.labels)
    if names:
        more = [f"and {len(names) - SHOWN} more"] if len(names) > SHOWN else []
        said = f"Warning: the pictures' font lacks letters of {', '.join(names[:SHOWN] + more)}."
        instead = "There it shows the class's number, a letter without its accents, or ?."
        click.echo(printable(f"{said} {instead}"), err=True)


def _print_results(done: list[Done], paths: list[Path], explainer: Explainer, endings: Sequence[str]) -> None:
    labels = explainer.labels
    if len(paths) > MOST_TABLES:
        click.echo(summary_table([d.case for d in done], [d.file for d in done], labels))
    else:
        for path in paths:
            here = [d for d in done if d.case.path == path]
            click.echo(top_table([d.case for d in here], [d.file for d in here], labels) + "\n")
    if len(endings) > 1:
        click.echo(f"Beside each .{endings[0]}: {', '.join(f'.{ending}' for ending in endings[1:])}")
    why = f" ({explainer.provider_reason})" if explainer.provider_reason else ""
    click.echo(f"Ran on {explainer.provider}{why}")

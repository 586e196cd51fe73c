"""`onnxlrp convert`: write an explainer."""

from __future__ import annotations

import contextlib
import os
import shlex
from pathlib import Path
from typing import Any

import click
from onnx import ModelProto

from onnxlrp.cli.options import (
    Place,
    how_pictures_enter,
    read_labels,
    read_options,
    what_to_explain,
    what_to_return,
)
from onnxlrp.cli.table import file_size
from onnxlrp.contract import KEY_INPUT, KEY_PREPROCESS, PREPROCESS_PRESETS, Preprocessing
from onnxlrp.errors import OnnxLrpError, Problem
from onnxlrp.explain import convert as pipeline
from onnxlrp.explain.assemble import signature
from onnxlrp.explain.runtimes import PORTABLE, RUNTIMES, elsewhere
from onnxlrp.files import refuse_existing
from onnxlrp.run.preparing import fit
from onnxlrp.run.reading import metadata_of
from onnxlrp.run.runtime import OWN
from onnxlrp.run.signature import declared_signature
from onnxlrp.run.terminal import printable

SHOWN = 6  # outputs named on the terminal
NOT_STORED = (
    "how pictures become the input is not stored, and programs that draw them have to guess or refuse. Say it with "
    f"--preprocess {'|'.join(PREPROCESS_PRESETS)}, or with --mean, --std and --size."
)


@click.command()
@click.argument("model", type=Place())
@click.option("-o", "path", type=Place(), metavar="FILE", help="The explainer to write.  [default: MODEL.lrp.onnx]")
@what_to_explain
@what_to_return
@click.option("--labels", metavar="FILE", help="Class names, one a line or JSON; stored in the explainer.")
@how_pictures_enter
@click.option("--force", is_flag=True, help="Replace a file that exists.")
def convert(model: str, path: str | None, labels: str | None, force: bool, **given: Any) -> None:
    """Turn the classifier MODEL into one ONNX file that also returns the relevance of every pixel.

    \b
    onnxlrp convert model.onnx --preprocess imagenet --labels names.txt
    onnxlrp convert model.onnx --composite epsilon_plus --rule 'Gemm=epsilon(1e-3)'
    onnxlrp convert model.onnx --target predicted --heatmap --tap 'layer4*' -o small.onnx
    """
    destination = Path(path) if path else default_path(model)
    if os.path.isfile(model):  # where it is not, that is what there is to say
        refuse_overwriting(model, destination)
        refuse_existing(destination, force)
    options = read_options(given)
    made = pipeline.convert(model, labels=read_labels(labels), **options)
    inputs, outputs = signature(made.model.graph.input), signature(made.model.graph.output)
    files = made.save(destination, force)
    counts = f"{len(made.plan.rules)} layers explained by {made.plan.composite}"
    click.echo(f"Wrote    {', '.join(f'{f} ({file_size(f)})' for f in files)}: {counts}")
    click.echo(f"Inputs   {printable(', '.join(inputs))}")
    more = [f"and {len(outputs) - SHOWN} more"] if len(outputs) > SHOWN else []
    click.echo(f"Outputs  {printable(', '.join(outputs[:SHOWN] + more))}")
    if _leaves_pictures_open(made.model):
        click.echo(f"Note:    {NOT_STORED}", err=True)
    stops = elsewhere(made.model, model, RUNTIMES[OWN])
    for problem in stops if options["target_runtime"] == PORTABLE else ():  # another is not meant for here
        click.echo(printable(f"Warning: {problem} `onnxlrp run` needs that runtime."), err=True)
    if not stops and _takes_pictures(made.model):
        click.echo(f"See it:  onnxlrp run {shlex.quote(str(destination))} IMAGE")


def _takes_pictures(explainer: ModelProto) -> bool:
    """Whether a picture and a class are all that it asks for, as `onnxlrp run` can say no more."""
    try:
        signature = declared_signature("model", explainer)
        stored = metadata_of(explainer).get(KEY_PREPROCESS)
        fit(signature.shape, Preprocessing.from_json(stored) if stored else None)
    except OnnxLrpError:
        return False
    return not signature.fed


def _leaves_pictures_open(explainer: ModelProto) -> bool:
    """Whether its input looks like pictures, and nothing says how they become it."""
    stored = metadata_of(explainer)
    image = next(i for i in explainer.graph.input if i.name == stored[KEY_INPUT])
    return KEY_PREPROCESS not in stored and len(image.type.tensor_type.shape.dim) == 4


def default_path(model: str) -> Path:
    """MODEL.lrp.onnx, beside the model."""
    path = Path(model)
    return path.parent / f"{path.stem if path.suffix in ('.onnx', '.pb') else path.name}.lrp.onnx"


def refuse_overwriting(model: str, destination: Path) -> None:
    """Raise `OnnxLrpError` where the explainer would replace the classifier, under whatever name or link.

    That its weights' file is not replaced either is looked after by `save`, which knows where they lie.
    """
    with contextlib.suppress(OSError):  # one of the two is not there
        if Path(model).samefile(destination):
            reason = f"is the classifier {model} itself" if str(destination) != model else "is the classifier itself"
            raise OnnxLrpError(Problem(str(destination), reason, "choose another name with -o"))

"""`onnxlrp convert`: write an explainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxlrp.cli.options import how_pictures_enter, read_labels, read_options, what_to_explain
from onnxlrp.errors import OnnxLrpError, Problem
from onnxlrp.explain import convert as pipeline
from onnxlrp.explain.assemble import signature
from onnxlrp.explain.target import Target
from onnxlrp.graph.save import refuse_existing

SHOWN = 6  # outputs named on the terminal


@click.command()
@click.argument("model", type=click.Path())
@click.option("-o", "path", metavar="FILE", help="The explainer to write.  [default: MODEL.lrp.onnx]")
@what_to_explain
@click.option(
    "--tap",
    "taps",
    multiple=True,
    metavar="PATTERN",
    help="Also return relevance at matching layers; `all` for every one.",
)
@click.option("--activations", multiple=True, metavar="PATTERN", help="Also return matching intermediate tensors.")
@click.option(
    "--target",
    default="input",
    metavar="input|predicted|N",
    show_default=True,
    help="Where the class to explain comes from: an input of the explainer, the prediction, or always class N.",
)
@click.option("--targets-per-input", type=int, metavar="K", help="Explain K classes of each input in one run.")
@click.option("--heatmap", is_flag=True, help="Also return relevance summed over channels.")
@click.option("--labels", metavar="FILE", help="Class names, one a line or JSON; stored in the explainer.")
@how_pictures_enter
@click.option("--force", is_flag=True, help="Replace a file that exists.")
def convert(
    model: str, path: str | None, target: str, labels: str | None, force: bool, **given: Any
) -> None:  # fmt: skip
    """Turn the classifier MODEL into one ONNX file that also returns the relevance of every pixel."""
    destination = Path(path) if path else default_path(model)
    refuse_overwriting(model, destination)
    if Path(model).exists():
        refuse_existing(destination, force)
    options = read_options(given)
    made = pipeline.convert(model, target=read_target(target), labels=read_labels(labels), **options)
    files = made.save(destination, force)
    counts = f"{len(made.plan.rules)} layers explained by {made.plan.composite}"
    click.echo(f"Wrote {', '.join(f'{f} ({f.stat().st_size / 1e6:.1f} MB)' for f in files)}: {counts}.")
    click.echo(f"Inputs:  {', '.join(signature(made.model.graph.input))}")
    outputs = signature(made.model.graph.output)
    more = [f"and {len(outputs) - SHOWN} more"] if len(outputs) > SHOWN else []
    click.echo(f"Outputs: {', '.join(outputs[:SHOWN] + more)}")
    click.echo(f"See it:  onnxlrp run {destination} IMAGE")


def default_path(model: str) -> Path:
    """MODEL.lrp.onnx, beside the model."""
    path = Path(model)
    return path.with_name(f"{path.stem if path.suffix in ('.onnx', '.pb') else path.name}.lrp.onnx")


def refuse_overwriting(model: str, destination: Path) -> None:
    """Raise `OnnxLrpError` where the explainer would replace the classifier or its weights' file."""
    source = Path(model)
    beside = destination.with_name(destination.name + ".data")
    for own in (source, *(p for p in source.parent.glob(f"{source.name}*") if p.is_file())):
        for new in (destination, beside):
            if (
                own.exists()
                and new.exists()
                and own.samefile(new)
                and not own.name.endswith((".lrp.onnx", ".lrp.onnx.data"))
            ):
                reason = f"is part of the classifier {model} itself"
                raise OnnxLrpError(Problem(str(new), reason, "choose another name with -o"))


def read_target(text: str) -> Target:
    """input, predicted or a class number; other words are left for `convert` to refuse."""
    return int(text) if text.lstrip("-").isdigit() else text  # type: ignore[return-value]

"""`onnxlrp triton`: an explainer in a model repository of Triton Inference Server."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from onnxlrp.cli.options import Place
from onnxlrp.cli.table import file_size
from onnxlrp.deploy.triton import MOST_BATCH, export_triton


@click.command()
@click.argument("model", metavar="EXPLAINER", type=Place())
@click.option(
    "-o", "--output", required=True, metavar="REPOSITORY", type=Place(), help="The model repository to write into."
)
@click.option("--name", metavar="NAME", help="The model's name on the server.  [default: from the file's name]")
@click.option(
    "--max-batch",
    type=click.IntRange(0, MOST_BATCH),
    metavar="N",
    help="Most samples in one run; 0 for whole shapes, unbatched.  [default: 8 where the batch is open]",
)
@click.option("--force", is_flag=True, help="Replace a model of that name.")
def triton(model: str, output: str, name: str | None, max_batch: int | None, force: bool) -> None:
    """Put EXPLAINER into a model repository of NVIDIA's Triton Inference Server.

    \b
    onnxlrp triton model.lrp.onnx -o models --name mri
    tritonserver --model-repository models
    """
    folder = Path(output)
    for path in export_triton(model, folder, name=name, max_batch=max_batch, force=force):
        click.echo(f"Wrote    {path} ({file_size(path)})")
    click.echo(f"Run it:  tritonserver --model-repository {shlex.quote(str(folder.resolve()))}")

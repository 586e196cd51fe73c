"""`onnxlrp page`: a web page with the explainer in it."""

from __future__ import annotations

from pathlib import Path

import click

from onnxlrp.cli.options import PRESETS_SAID, Place
from onnxlrp.contract import PREPROCESS_PRESETS
from onnxlrp.deploy.page_export import export_page
from onnxlrp.deploy.web_runtime import PACKAGE, VERSION
from onnxlrp.run.terminal import printable


@click.command()
@click.argument("model", metavar="EXPLAINER", type=Place())
@click.option("-o", "--output", required=True, metavar="DIR", type=Place(), help="The folder to write.")
@click.option(
    "--sample", "samples", multiple=True, metavar="IMAGE", type=Place(), help="A picture to offer; may be repeated."
)
@click.option("--title", metavar="TEXT", help="The page's heading.  [default: the explainer's name]")
@click.option(
    "--preprocess", type=click.Choice(list(PREPROCESS_PRESETS)),
    help=f"How pixels become the input, instead of as the explainer says. {PRESETS_SAID}",
)  # fmt: skip
@click.option("--webgpu/--no-webgpu", default=True, show_default=True, help="Bring the runtime for the GPU too (9 MB).")
@click.option(
    "--runtime",
    metavar="DIR",
    help=f"A folder with {PACKAGE}.  [default: ./node_modules, else a copy got once with npm, version {VERSION}]",
)
@click.option("--force", is_flag=True, help="Replace a folder that is not empty.")
def page(
    model: str, output: str, samples: tuple[str, ...], title: str | None, preprocess: str | None, webgpu: bool,
    runtime: str | None, force: bool,
) -> None:  # fmt: skip
    """Write a web page that explains pictures with EXPLAINER, in the browser of whoever opens it.

    The folder works on any web server and when index.html is opened from the disk. No picture leaves the browser.

    \b
    onnxlrp page model.lrp.onnx -o page --sample cat.png --title 'Cats and dogs'
    """
    folder = Path(output)

    def tell(text: str) -> None:
        click.echo(printable(text), err=True)

    files = export_page(
        model, folder, samples=samples, title=title, preprocess=preprocess, webgpu=webgpu, runtime=runtime,
        force=force, tell=tell,
    )  # fmt: skip
    size = sum(path.stat().st_size for path in files) / 1e6
    click.echo(f"Wrote    {folder} ({len(files)} files, {size:.1f} MB)")
    click.echo(f"See it:  open {folder / 'index.html'} in a browser, or put the folder on any web server")

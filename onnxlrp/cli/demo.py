"""`onnxlrp demo`: a real picture, a real classifier, and where the evidence lay, without a download."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from onnxlrp.cli.options import Place
from onnxlrp.errors import OnnxLrpError, Problem
from onnxlrp.explain.convert import convert
from onnxlrp.files import output_folder, write_whole
from onnxlrp.measure.localisation import share_inside
from onnxlrp.run.encoding import png
from onnxlrp.run.explaining import Case, explain_pictures
from onnxlrp.run.heatmap import as_map
from onnxlrp.run.images import read_picture, resized
from onnxlrp.run.names import class_slugs
from onnxlrp.run.region import strongest_region
from onnxlrp.run.report import Origin, Wishes, draw, top_table
from onnxlrp.run.session import Explainer
from onnxlrp.run.targets import PREDICTED, class_name

MODEL = "mri_vgg.onnx"
SAMPLE = "bright-lesion-1.png"
PACKAGED = Path(__file__).parents[1] / "demo_data"
CHECKOUT = Path(__file__).parents[2] / "graphs" / "models"


@dataclass(frozen=True)
class DemoFiles:
    """What the demo reads: the classifier, a picture, and the outline of its lesion (None where it is not shipped)."""

    model: Path
    sample: Path
    mask: Path | None


@click.command()
@click.option("-o", "--output", default="onnxlrp-demo", show_default=True, type=Place(), help="Where to write.")
@click.option("--force", is_flag=True, help="Replace what an earlier demo wrote.")
def demo(output: str, force: bool) -> None:
    """Explain a brain MRI with a classifier that comes along: writes the explainer and a heatmap, says what it saw."""
    files = find_demo_files()
    folder = Path(output)
    explainer_path = folder / f"{files.model.stem}.lrp.onnx"
    click.echo(f"1  Convert {files.model.name}, a classifier of brain MRI slices trained for this demo.")
    converted = convert(files.model)
    output_folder(folder)
    keep_or_write(explainer_path, converted.model.SerializeToString(), force)

    explainer = Explainer(explainer_path)
    fitted = explainer.fit()
    click.echo(f"2  Run the explainer on {files.sample.name} with ONNX Runtime ({explainer.provider}).\n")
    prepared = fitted(read_picture(files.sample))
    (case,) = explain_pictures(explainer, [files.sample], [prepared], [PREDICTED])
    layout = fitted.preprocessing.layout
    slug = class_slugs(explainer.labels, len(case.scores))[case.target]
    picture_path = folder / f"{files.sample.stem}.{slug}.png"
    keep_or_write(picture_path, png(draw(case, Origin.of(explainer), layout, Wishes())), force)
    click.echo(top_table([case], [picture_path], explainer.labels) + "\n")
    click.echo("\n".join(where_it_went(case, explainer, layout, files.mask)) + "\n")
    click.echo(f"Explainer  {explainer_path}  ({explainer_path.stat().st_size / 1e6:.1f} MB, standard ONNX)")
    click.echo(f"Picture    {picture_path}\n")
    click.echo("Next, your own:  onnxlrp convert classifier.onnx --preprocess imagenet")
    click.echo("                 onnxlrp run classifier.lrp.onnx picture.png")


def find_demo_files() -> DemoFiles:
    """The demo's files, in the installed package or in a checkout; raises `OnnxLrpError` where there are none."""
    for place in (PACKAGED, CHECKOUT):
        samples = place / "samples"
        found = [samples / SAMPLE, *sorted(samples.glob("*.png"))]
        sample = next((path for path in found if path.is_file()), None)
        if (place / MODEL).is_file() and sample is not None:
            mask = samples / "masks" / sample.name
            return DemoFiles(place / MODEL, sample, mask if mask.is_file() else None)
    raise OnnxLrpError(Problem(str(PACKAGED / MODEL), "the demo's classifier is missing", "install onnxlrp again"))


def keep_or_write(path: Path, data: bytes, force: bool) -> None:
    """Write a file, unless an earlier demo wrote just that; raises `OnnxLrpError` where it says something else."""
    try:
        other = path.is_file() and path.read_bytes() != data
    except OSError as error:
        raise OnnxLrpError(Problem(str(path), f"cannot be read ({error.strerror})", "choose another -o")) from None
    if other and not force:
        raise OnnxLrpError(Problem(str(path), "exists already, and is another", "use --force, or choose another -o"))
    write_whole(path, data)


def where_it_went(case: Case, explainer: Explainer, layout: str, mask: Path | None) -> list[str]:
    """Sentences about the case: the sum against the score, the strongest region, the share inside the lesion."""
    relevance = as_map(case.relevance, layout)
    name = class_name(case.target, explainer.labels)
    kind = "logit" if explainer.scores == "logits" else "probability"
    lines = [
        "Where the relevance went",
        f"  sum            {relevance.sum():+.3f} of the {kind} {case.scores[case.target]:+.3f} for {name!r}",
        f"  strongest at   {strongest_region(relevance) or 'no pixel: there is no positive relevance'}",
    ]
    if mask is not None:
        inside = resized(read_picture(mask).pixels, relevance.shape) > 127
        if inside.any():
            share, area = share_inside(relevance, inside), float(np.mean(inside))
            lines.append(
                f"  in the lesion  {share:.0%} of the positive relevance, on {area:.1%} of the pixels"
                f" ({share / area:.0f} times chance)"
            )
    return lines

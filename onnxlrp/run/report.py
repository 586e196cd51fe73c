"""What a run leaves behind: pictures, arrays and records of each case, and the tables for the terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from onnxlrp.contract import package_version
from onnxlrp.errors import OnnxLrpError, Problem
from onnxlrp.run import colormaps
from onnxlrp.run.explaining import Case
from onnxlrp.run.heatmap import as_map, heatmap, overlay
from onnxlrp.run.names import class_slugs
from onnxlrp.run.page import Heading, contact_sheet, panel, percent
from onnxlrp.run.session import Explainer
from onnxlrp.run.targets import class_name, ranking
from onnxlrp.run.writing import npy, png, write_atomic

FORMATS = ("png", "npy", "json")
STYLES = ("panel", "overlay", "heatmap")
LAYERS_ENDING = "layers.png"


@dataclass(frozen=True)
class Wishes:
    """What to write of each case: file formats, the picture's style and colour map, and whether a sheet of layers."""

    formats: tuple[str, ...] = ("png",)
    style: str = "panel"
    cmap: str = colormaps.DEFAULT
    layers: bool = False

    @property
    def endings(self) -> tuple[str, ...]:
        """The endings of the files that a case becomes."""
        return (*self.formats, LAYERS_ENDING) if self.layers else self.formats


def parse_formats(text: str) -> tuple[str, ...]:
    """ "png,json" as a tuple without repeats; raises `OnnxLrpError` for an unknown or missing format."""
    formats = tuple(dict.fromkeys(part.strip().lower() for part in text.split(",") if part.strip()))
    unknown = [part for part in formats if part not in FORMATS]
    if unknown or not formats:
        reason = f"unknown: {', '.join(unknown)}" if unknown else "names no format"
        raise OnnxLrpError(Problem(f"format {text!r}", reason, f"choose from {','.join(FORMATS)}"))
    return formats


def draw(case: Case, explainer: Explainer, layout: str, wishes: Wishes) -> Image.Image:
    """The picture of a case in the style wished for."""
    relevance = as_map(case.relevance, layout)
    if wishes.style == "heatmap":
        return heatmap(relevance, wishes.cmap)
    if wishes.style == "overlay":
        return overlay(case.shown, relevance, wishes.cmap)
    return panel(case.shown, relevance, heading(case, explainer), wishes.cmap)


def draw_layers(case: Case, explainer: Explainer, layout: str, wishes: Wishes) -> Image.Image:
    """The contact sheet of a case: relevance at the input and at every tapped tensor, in the model's order."""
    maps = [(explainer.input_name, as_map(case.relevance, layout))]
    for name, values in case.taps.items():
        title = name.removesuffix("_output_0").removesuffix(":0")  # what torch and TensorFlow hang on
        maps.append((title, as_map(values, _tap_layout(values.shape))))
    head = heading(case, explainer, "relevance at each layer, each on its own scale")
    return contact_sheet(maps, head, wishes.cmap)


def _tap_layout(shape: tuple[int, ...]) -> str:
    """ONNX puts channels first; a graph exported from TensorFlow keeps some tensors with channels last."""
    return "NHWC" if len(shape) == 3 and shape[0] == shape[1] != shape[2] else "NCHW"


def heading(case: Case, explainer: Explainer, note: str = "") -> Heading:
    """A panel's words: the class, its probability, and what it was made from."""
    rank = ranking(case.scores).index(case.target) + 1
    parts = [case.path.name, f"class {case.target}, rank {rank} of {len(case.scores)}", explainer.composite, note]
    name = class_name(case.target, explainer.labels)
    subtitle = "  ·  ".join(part for part in parts if part)
    return Heading(name[:1].upper() + name[1:], float(case.probabilities[case.target]), subtitle)


def record(case: Case, explainer: Explainer) -> dict[str, Any]:
    """What is known of a case, ready for JSON; probabilities are 0..1, `score` is in the unit that `scores` names."""
    labels = explainer.labels
    top = [
        {"class": index, "name": class_name(index, labels), "probability": float(case.probabilities[index])}
        for index in case.top
    ]
    return {
        "image": str(case.path),
        "class": case.target,
        "name": class_name(case.target, labels),
        "probability": float(case.probabilities[case.target]),
        "score": float(case.scores[case.target]),
        "scores": explainer.scores,
        "relevance_sum": float(case.relevance.sum(dtype=np.float64)),
        "top": top,
        "model": explainer.name,
        "composite": explainer.composite,
        "provider": explainer.provider,
        "onnxlrp": package_version(),
    }


def write_case(folder: Path, stem: str, case: Case, explainer: Explainer, layout: str, wishes: Wishes) -> list[Path]:
    """Write a case's files to `folder`, each atomically; returns their paths. Raises `RunError` where one cannot be."""
    base = f"{stem}.{class_slugs(explainer.labels, len(case.scores))[case.target]}"
    contents = {
        "png": lambda: png(draw(case, explainer, layout, wishes)),
        "npy": lambda: npy(case.relevance),
        "json": lambda: (json.dumps(record(case, explainer), indent=2, ensure_ascii=False) + "\n").encode(),
        LAYERS_ENDING: lambda: png(draw_layers(case, explainer, layout, wishes)),
    }
    return [write_atomic(folder / f"{base}.{ending}", contents[ending]()) for ending in wishes.endings]


def top_table(cases: Sequence[Case], files: Sequence[Path], labels: Sequence[str] | None) -> str:
    """The five best classes of one picture with their probabilities; the explained ones show their file."""
    first, shown = cases[0], dict(zip((c.target for c in cases), files, strict=True))
    order = ranking(first.scores)
    rows = first.top + [c.target for c in cases if c.target not in first.top]
    width = max([len("class"), *(len(class_name(i, labels)) for i in rows)])
    lines = [str(first.path), f"  {'rank':>4}  {'class':<{width}}  probability"]
    for index in rows:
        mark = f"  <- explained: {shown[index]}" if index in shown else ""
        rank, chance = order.index(index) + 1, percent(float(first.probabilities[index]))
        lines.append(f"  {rank:>4}  {class_name(index, labels):<{width}}  {chance:>11}{mark}")
    return "\n".join(lines)


def summary_table(cases: Sequence[Case], files: Sequence[Path], labels: Sequence[str] | None) -> str:
    """One line a case, for runs with many pictures: picture, class, probability, file."""
    names = [class_name(c.target, labels) for c in cases]
    left = max(len("image"), *(len(c.path.name) for c in cases))
    middle = max(len("class"), *(len(name) for name in names))
    lines = [f"{'image':<{left}}  {'class':<{middle}}  probability  file"]
    for case, name, file in zip(cases, names, files, strict=True):
        chance = percent(float(case.probabilities[case.target]))
        lines.append(f"{case.path.name:<{left}}  {name:<{middle}}  {chance:>11}  {file}")
    return "\n".join(lines)

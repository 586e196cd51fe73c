"""What a run leaves behind: pictures, arrays and records of each case, and the tables for the terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from onnxlrp import look
from onnxlrp.contract import package_version
from onnxlrp.errors import OnnxLrpError, Problem
from onnxlrp.files import write_whole
from onnxlrp.run.drawing import BETWEEN, LACKING, UNSHOWN, Heading, has_letters, lettered, percent
from onnxlrp.run.encoding import npy, png
from onnxlrp.run.explaining import Case
from onnxlrp.run.heatmap import as_map, heatmap, overlay
from onnxlrp.run.layers import draw_channels, draw_layers, most_relevant_channels
from onnxlrp.run.names import class_slugs
from onnxlrp.run.page import panel
from onnxlrp.run.session import Explainer
from onnxlrp.run.targets import class_name, ranking
from onnxlrp.run.terminal import columns, padded, printable

FORMATS = ("png", "npy", "json")
STYLES = ("panel", "overlay", "heatmap")
LAYERS_ENDING, CHANNELS_ENDING = "layers.png", "channels.png"
LAYERS_NOTE = "relevance at each layer, each on its own scale"
CHANNELS_NOTE = "the most relevant channels of each layer, with their share of its relevance"


@dataclass(frozen=True)
class Wishes:
    """What to write of each case: file formats, the picture's style and colour map, whether a sheet of layers, and how
    many channels of each layer (0: no sheet of them). `method` is what made relevance where the rules alone did not."""

    formats: tuple[str, ...] = ("png",)
    style: str = "panel"
    cmap: str = look.DEFAULT
    layers: bool = False
    channels: int = 0
    method: str = ""

    @property
    def endings(self) -> tuple[str, ...]:
        """The endings of the files that a case becomes."""
        sheets = [LAYERS_ENDING] * self.layers + [CHANNELS_ENDING] * (self.channels > 0)
        return (*self.formats, *sheets)

    @property
    def pictures(self) -> int:
        """How many of them are drawn."""
        return sum(ending.endswith("png") for ending in self.endings)

    @property
    def pages(self) -> bool:
        """Whether any of them has words on it."""
        return self.layers or self.channels > 0 or ("png" in self.formats and self.style == "panel")


@dataclass(frozen=True)
class Origin:
    """What made a case, as far as its files say so: an explainer without its session, so that it can travel to another
    process."""

    name: str
    composite: str
    scores: str
    provider: str
    labels: Sequence[str] | None

    @classmethod
    def of(cls, explainer: Explainer) -> Origin:
        """That of an explainer's cases."""
        return cls(explainer.name, explainer.composite, explainer.scores, explainer.provider, explainer.labels)


@dataclass(frozen=True)
class Done:
    """A case that is written, with the first of its files; the case has let go of its arrays of relevance."""

    case: Case
    file: Path


def parse_formats(text: str) -> tuple[str, ...]:
    """ "png,json" as a tuple without repeats; raises `OnnxLrpError` for an unknown or missing format."""
    formats = tuple(dict.fromkeys(part.strip().lower() for part in text.split(",") if part.strip()))
    unknown = [part for part in formats if part not in FORMATS]
    if unknown or not formats:
        reason = f"unknown: {', '.join(unknown)}" if unknown else "names no format"
        raise OnnxLrpError(Problem(f"format {text!r}", reason, f"choose from {','.join(FORMATS)}"))
    return formats


def draw(case: Case, origin: Origin, layout: str, wishes: Wishes) -> Image.Image:
    """The picture of a case in the style wished for."""
    relevance = as_map(case.relevance, layout)
    if wishes.style == "heatmap":
        return heatmap(relevance, wishes.cmap)
    if wishes.style == "overlay":
        return overlay(case.shown, relevance, wishes.cmap)
    return panel(case.shown, relevance, heading(case, origin, wishes), wishes.cmap)


def heading(case: Case, origin: Origin, wishes: Wishes, note: str = "") -> Heading:
    """A page's words: the class, its probability, and what it was made from."""
    rank = ranking(case.scores).index(case.target) + 1
    name, number = class_name(case.target, origin.labels), class_name(case.target, None)
    if LACKING in lettered(name) and LACKING not in name:  # a name in another script: its number says more than boxes
        name = number
    place = f"rank {rank} of {len(case.scores)}" if name == number else f"{number}, rank {rank} of {len(case.scores)}"
    parts = [case.path.name, place, how(origin, wishes.method), note]
    subtitle = BETWEEN.join(part for part in parts if part)
    return Heading(name[:1].upper() + name[1:], float(case.probabilities[case.target]), subtitle)


def how(origin: Origin, method: str) -> str:
    """What relevance was made by: the composite, the method, or the method over the composite."""
    over = bool(method) and origin.composite not in ("", "gradient") and not method.startswith("occlusion")
    return f"{method} over {origin.composite}" if over else method or origin.composite


def record(case: Case, origin: Origin, wishes: Wishes) -> dict[str, Any]:
    """What is known of a case, ready for JSON; probabilities are 0..1, `score` is in the unit that `scores` names."""
    labels = origin.labels
    top = [
        {"class": index, "name": class_name(index, labels), "probability": float(case.probabilities[index])}
        for index in case.top
    ]
    known = {
        "image": str(case.path),
        "class": case.target,
        "name": class_name(case.target, labels),
        "probability": float(case.probabilities[case.target]),
        "score": float(case.scores[case.target]),
        "scores": origin.scores,
        "relevance_sum": float(case.relevance.sum(dtype=np.float64)),
        "top": top,
        "model": origin.name,
        "composite": origin.composite,
        "method": wishes.method or "lrp",
        "provider": origin.provider,
        "onnxlrp": package_version(),
    }
    return known | ({"channels": most_relevant_channels(case, wishes.channels)} if wishes.channels else {})


def write_case(folder: Path, stem: str, case: Case, origin: Origin, layout: str, wishes: Wishes) -> Done:
    """Write a case's files to `folder`, each atomically. Raises `RunError` where one cannot be."""
    base = f"{stem}.{class_slugs(origin.labels, len(case.scores))[case.target]}"

    def on(note: str) -> Heading:
        return heading(case, origin, wishes, note if look.is_diverging(wishes.cmap) else f"{note}, {UNSHOWN}")

    contents = {
        "png": lambda: png(draw(case, origin, layout, wishes)),
        "npy": lambda: npy(case.relevance),
        "json": lambda: (json.dumps(record(case, origin, wishes), indent=2, ensure_ascii=False) + "\n").encode(),
        LAYERS_ENDING: lambda: png(draw_layers(case, layout, on(LAYERS_NOTE), wishes.cmap)),
        CHANNELS_ENDING: lambda: png(draw_channels(case, on(CHANNELS_NOTE), wishes.channels, wishes.cmap)),
    }
    files = [write_whole(folder / f"{base}.{ending}", contents[ending]()) for ending in wishes.endings]
    return Done(case.light(), files[0])


def unlettered(cases: Sequence[Case], labels: Sequence[str] | None) -> list[str]:
    """The classes and files that pages cannot name letter for letter."""
    classes = {case.target: class_name(case.target, labels) for case in cases}
    files = dict.fromkeys(case.path.name for case in cases)
    said = [f"class {number} ({name})" for number, name in sorted(classes.items()) if not has_letters(name)]
    return said + [name for name in files if not has_letters(name)]


def top_table(cases: Sequence[Case], files: Sequence[Path], labels: Sequence[str] | None) -> str:
    """The five best classes of one picture with their probabilities; the explained ones show their file."""
    first, shown = cases[0], dict(zip((c.target for c in cases), files, strict=True))
    order = ranking(first.scores)
    rows = first.top + [c.target for c in cases if c.target not in first.top]
    names = [printable(class_name(index, labels)) for index in rows]
    width = max(columns(name) for name in ("class", *names))
    lines = [printable(str(first.path)), f"  {'rank':>4}  {padded('class', width)}  probability"]
    for index, name in zip(rows, names, strict=True):
        mark = printable(f"  <- explained: {shown[index]}") if index in shown else ""
        rank, chance = order.index(index) + 1, percent(float(first.probabilities[index]))
        lines.append(f"  {rank:>4}  {padded(name, width)}  {chance:>11}{mark}")
    return "\n".join(lines)


def summary_table(cases: Sequence[Case], files: Sequence[Path], labels: Sequence[str] | None) -> str:
    """One line a case, for runs with many pictures: picture, class, probability, file."""
    images = ["image", *(printable(c.path.name) for c in cases)]
    names = ["class", *(printable(class_name(c.target, labels)) for c in cases)]
    chances = ["probability", *(f"{percent(float(c.probabilities[c.target])):>11}" for c in cases)]
    left, middle = max(map(columns, images)), max(map(columns, names))
    rows = zip(images, names, chances, ["file", *(printable(str(file)) for file in files)], strict=True)
    return "\n".join(f"{padded(i, left)}  {padded(n, middle)}  {chance}  {file}" for i, n, chance, file in rows)

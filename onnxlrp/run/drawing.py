"""What pages are drawn with: sizes, inks, type, headings and frames; see `page` and `sheet`.

White, quiet, aligned on one grid; every distance is a multiple of the unit below.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from onnxlrp.run.heatmap import Map

UNIT = 8
MARGIN = 6 * UNIT
GAP = 3 * UNIT

INK, MUTED, LINE = (24, 28, 36), (112, 119, 132), (222, 225, 230)
TITLE, SUBTITLE, CAPTION, SMALL, TINY = 30, 16, 16, 14, 12

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Heading:
    """The words of a page: the class explained, its probability in 0..1 (None: not shown), and a line below."""

    title: str
    probability: float | None = None
    subtitle: str = ""


def heading_height(heading: Heading) -> int:
    """The height in pixels of a heading and the space below it."""
    return TITLE + (UNIT + SUBTITLE if heading.subtitle else 0) + 4 * UNIT


def draw_heading(draw: ImageDraw.ImageDraw, heading: Heading, width: int) -> None:
    """The title with its probability in a lighter ink, and the line below."""
    chance = "" if heading.probability is None else percent(heading.probability)
    room = width - (text_width(chance, font(TITLE)) + 2 * UNIT if chance else 0)
    title = shortened(heading.title, font(TITLE), room)
    base = MARGIN + TITLE - UNIT
    draw.text((MARGIN, base), title, INK, font(TITLE), anchor="ls")
    if chance:
        left = MARGIN + text_width(title, font(TITLE)) + 2 * UNIT
        draw.text((left, base), chance, MUTED, font(TITLE), anchor="ls")
    subtitle = shortened(heading.subtitle, font(SUBTITLE), width)
    draw.text((MARGIN, base + 2 * UNIT + SUBTITLE), subtitle, MUTED, font(SUBTITLE), anchor="ls")


def percent(probability: float) -> str:
    """A probability in 0..1 in words that never round to certainty: "99.8 %", "> 99.9 %", "< 0.1 %"."""
    if 0.999 < probability < 1.0:
        return "> 99.9 %"
    if 0.0 < probability < 0.001:
        return "< 0.1 %"
    return f"{100.0 * probability:.1f} %"


def paste_framed(page: Image.Image, tile: Image.Image, corner: tuple[int, int]) -> None:
    """Paste with a hairline around it, so that white maps keep their edge."""
    left, top = corner
    ImageDraw.Draw(page).rectangle((left - 1, top - 1, left + tile.width, top + tile.height), outline=LINE)
    page.paste(tile, corner)


@functools.cache
def font(size: int) -> Font:
    """Pillow's own font at a height in pixels. It has no minus, times, dash or sum sign."""
    return ImageFont.load_default(size=size)


def text_width(text: str, font: Font) -> int:
    """The width of a text in pixels."""
    return math.ceil(font.getlength(text))


def shortened(text: str, font: Font, width: int, tail: bool = False) -> str:
    """`text`, its end left out where it is wider than `width` pixels; with `tail` its beginning."""
    if text_width(text, font) <= width:
        return text
    for keep in range(len(text) - 1, 0, -1):
        dots = "\N{HORIZONTAL ELLIPSIS}"
        short = dots + text[-keep:] if tail else text[:keep].rstrip() + dots
        if text_width(short, font) <= width:
            return short
    return text[:1]


def enlarged_map(values: Map, size: tuple[int, int], method: Image.Resampling = Image.Resampling.NEAREST) -> Map:
    """`values` [H, W] in -1..1 at `size` (width, height)."""
    if size[0] < values.shape[1]:
        method = Image.Resampling.BOX  # made smaller, every value must count
    image = Image.fromarray(values.astype(np.float32)).resize(size, method)
    return np.clip(np.asarray(image).astype(np.float64), -1.0, 1.0)

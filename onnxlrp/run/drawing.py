"""What pages are drawn with: sizes, inks, type, headings and frames; see `page` and `sheet`.

White, quiet, aligned on one grid; every distance is a multiple of the unit below.
"""

from __future__ import annotations

import functools
import math
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from onnxlrp.run.heatmap import Map

UNIT = 8
MARGIN = 6 * UNIT
GAP = 3 * UNIT

BETWEEN = "  ·  "  # the parts of a subtitle
LACKING = "?"
UNSHOWN = "negative not shown"  # of colours that begin at zero

INK, MUTED, LINE = (24, 28, 36), (112, 119, 132), (222, 225, 230)
TITLE, SUBTITLE, CAPTION, SMALL, TINY = 30, 16, 16, 14, 12
LEADING = SUBTITLE + UNIT  # from line to line

FONT = Path(__file__).with_name("Aileron-Regular.ttf")  # whole; Pillow's own is the ASCII part of it


@dataclass(frozen=True)
class Heading:
    """The words of a page: the class explained, its probability in 0..1 (None: not shown), and a line below.

    They are drawn in Latin letters; see `lettered` for others.
    """

    title: str
    probability: float | None = None
    subtitle: str = ""


def heading_height(heading: Heading, width: int) -> int:
    """The height in pixels of a heading on `width` pixels, and of the space below it."""
    return TITLE + len(_lines(heading.subtitle, width)) * LEADING + 4 * UNIT


def draw_heading(draw: ImageDraw.ImageDraw, heading: Heading, width: int) -> None:
    """The title with its probability in a lighter ink, and the lines below."""
    chance = "" if heading.probability is None else percent(heading.probability)
    room = width - (text_width(chance, font(TITLE)) + 2 * UNIT if chance else 0)
    title = shortened(heading.title, font(TITLE), room)
    base = MARGIN + TITLE - UNIT
    draw.text((MARGIN, base), title, INK, font(TITLE), anchor="ls")
    if chance:
        left = MARGIN + text_width(title, font(TITLE)) + 2 * UNIT
        draw.text((left, base), chance, MUTED, font(TITLE), anchor="ls")
    for number, line in enumerate(_lines(heading.subtitle, width)):
        draw.text((MARGIN, base + 2 * UNIT + SUBTITLE + number * LEADING), line, MUTED, font(SUBTITLE), anchor="ls")


def _lines(subtitle: str, width: int) -> list[str]:
    """The line below a title, broken between its parts, and within a part between words, where it is too long."""
    lines: list[str] = []
    for part in subtitle.split(BETWEEN) if subtitle else ():
        if lines and text_width(lettered(lines[-1] + BETWEEN + part), font(SUBTITLE)) <= width:
            lines[-1] += BETWEEN + part
            continue
        lines.append("")
        for word in part.split():
            longer = f"{lines[-1]} {word}".lstrip()
            if lines[-1] and text_width(lettered(longer), font(SUBTITLE)) > width:
                lines.append(word)
            else:
                lines[-1] = longer
    return [shortened(line, font(SUBTITLE), width) for line in lines]


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
def font(size: int) -> ImageFont.FreeTypeFont:
    """The font at a height in pixels. It has the Latin letters of Europe and the signs − × ≤; see `lettered`.

    Set without Raqm, which Pillow does not have everywhere: the same words give the same picture.
    """
    return ImageFont.truetype(FONT, size, layout_engine=ImageFont.Layout.BASIC)


@functools.cache
def has_letter(character: str) -> bool:
    """Whether the font can draw a character: it draws all that it lacks alike."""
    lacking, drawn = (font(SMALL).getmask(c) for c in ("\uffff", character))
    return drawn.size != lacking.size or bytes(drawn) != bytes(lacking)


def lettered(text: str) -> str:
    """The text in the letters that the font has: one that it lacks goes without its accents, or is a question mark."""
    if text.isascii() and text.isprintable():
        return text
    composed = unicodedata.normalize("NFC", text)
    known = (c if has_letter(c) else unicodedata.normalize("NFKD", c) for c in composed)
    plain = "".join(c for c in "".join(known) if not unicodedata.combining(c))
    return "".join(c if has_letter(c) else LACKING for c in plain)


def has_letters(text: str) -> bool:
    """Whether the text is drawn letter for letter."""
    drawn, meant = (unicodedata.normalize("NFKC", t) for t in (lettered(text), text))
    return drawn == meant


def printed(number: str) -> str:
    """A number as Python writes it, in the signs of print: "-1.7e-04" is "−1.7e−4"."""
    return re.sub(r"e\+?(-?)0*(\d)", r"e\1\2", number).replace("-", "−")


def text_width(text: str, font: ImageFont.FreeTypeFont) -> int:
    """The width of a text in pixels."""
    return math.ceil(font.getlength(text))


def shortened(text: str, font: ImageFont.FreeTypeFont, width: int, tail: bool = False) -> str:
    """`text` as `lettered`, its end left out where it is wider than `width` pixels; with `tail` its beginning."""
    text = lettered(text)
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

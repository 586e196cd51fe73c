"""Pages to show somebody: the panel (image, relevance, overlay, scale) and the contact sheet of many maps.

White, quiet, aligned on one grid; every size is a multiple of the unit below. Small inputs are enlarged by a whole
factor, so that one relevance value stays one square.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from onnxlrp.errors import OnnxLrpError, Problem
from onnxlrp.run.colormaps import DEFAULT, is_diverging, table
from onnxlrp.run.heatmap import PERCENTILE, Map, blended, colour, normalise, softened

UNIT = 8
MARGIN = 6 * UNIT
GAP = 3 * UNIT
BAR = 2 * UNIT
SMALLEST_TILE, LARGEST_TILE = 320, 640  # pixels of a tile's longer side
SHEET_TILE = 176

INK, MUTED, LINE = (24, 28, 36), (112, 119, 132), (222, 225, 230)
TITLE, SUBTITLE, CAPTION, SMALL = 30, 16, 16, 14

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Heading:
    """The words of a panel: the class explained, its probability in 0..1 (None: not shown), and a line below."""

    title: str
    probability: float | None = None
    subtitle: str = ""


def panel(
    shown: npt.NDArray[np.uint8],
    relevance: npt.ArrayLike,
    heading: Heading,
    cmap: str = DEFAULT,
    percentile: float = PERCENTILE,
) -> Image.Image:
    """The picture `shown` uint8 [H, W, 3], its relevance [H, W] and the overlay side by side with a colour bar.

    An RGB image. Raises `OnnxLrpError` where the sizes differ, values are not finite or `cmap` is unknown.
    """
    scaled = normalise(relevance, percentile)
    if shown.shape[:2] != scaled.values.shape:
        reason = f"has the size {list(shown.shape[:2])}, the relevance {list(scaled.values.shape)}"
        raise OnnxLrpError(Problem("the picture", reason, "resize it to the model's input"))
    width, height = _tile_size(shown.shape[1], shown.shape[0])
    soft = _enlarged_map(softened(scaled.values), (width, height), Image.Resampling.BICUBIC)
    picture = Image.fromarray(shown).resize((width, height), Image.Resampling.BICUBIC)
    tiles = [
        ("Image", picture),
        ("Relevance", Image.fromarray(colour(_enlarged_map(scaled.values, (width, height)), cmap))),
        ("Overlay", Image.fromarray(blended(np.asarray(picture), soft, cmap))),
    ]
    ticks = _ticks(scaled.limit, cmap)
    bar_width = BAR + UNIT + max(_text_width(text, _font(SMALL)) for _, text in ticks)
    top = MARGIN + _heading_height(heading)
    page_width = 2 * MARGIN + 3 * width + 3 * GAP + bar_width
    page = Image.new("RGB", (page_width, top + CAPTION + 2 * UNIT + height + MARGIN), "white")
    draw = ImageDraw.Draw(page)
    _draw_heading(draw, heading, page_width - 2 * MARGIN)
    for index, (caption, tile) in enumerate(tiles):
        left = MARGIN + index * (width + GAP)
        draw.text((left, top), caption, MUTED, _font(CAPTION))
        _paste_framed(page, tile, (left, top + CAPTION + 2 * UNIT))
    _draw_bar(page, (MARGIN + 3 * (width + GAP), top + CAPTION + 2 * UNIT), height, cmap, ticks)
    return page


def contact_sheet(
    maps: Sequence[tuple[str, npt.ArrayLike]],
    heading: Heading | None = None,
    cmap: str = DEFAULT,
    percentile: float = PERCENTILE,
) -> Image.Image:
    """Every map (title, [H, W]) as a small tile under its title, each scaled on its own; an RGB image.

    Raises `OnnxLrpError` where there is no map, values are not finite or `cmap` is unknown.
    """
    if not maps:
        raise OnnxLrpError(Problem("contact sheet", "there are no maps to show", "convert with --tap all"))
    columns = min(len(maps), 6 if len(maps) > 12 else 4)
    rows = math.ceil(len(maps) / columns)
    label = SMALL + UNIT + UNIT // 2
    top = MARGIN + (_heading_height(heading) if heading else 0)
    width = 2 * MARGIN + columns * SHEET_TILE + (columns - 1) * GAP
    page = Image.new("RGB", (width, top + rows * (label + SHEET_TILE) + (rows - 1) * GAP + MARGIN), "white")
    draw = ImageDraw.Draw(page)
    if heading:
        _draw_heading(draw, heading, width - 2 * MARGIN)
    for index, (title, relevance) in enumerate(maps):
        row, column = divmod(index, columns)
        left, upper = MARGIN + column * (SHEET_TILE + GAP), top + row * (label + SHEET_TILE + GAP)
        name = _shortened(title, _font(SMALL), SHEET_TILE, tail=True)  # the end of a layer's name says most
        draw.text((left, upper), name, INK, _font(SMALL))
        values = normalise(relevance, percentile).values
        scale = SHEET_TILE / max(values.shape)
        size = (max(1, round(values.shape[1] * scale)), max(1, round(values.shape[0] * scale)))
        method = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX
        tile = Image.fromarray(colour(_enlarged_map(values, size, method), cmap))
        _paste_framed(page, tile, (left, upper + label))
    return page


def _tile_size(width: int, height: int) -> tuple[int, int]:
    """The size of a tile: the input's, enlarged by a whole factor or made smaller, its longer side in 320..640."""
    side = max(width, height)
    factor = math.ceil(SMALLEST_TILE / side) if side < SMALLEST_TILE else min(1.0, LARGEST_TILE / side)
    return max(1, round(width * factor)), max(1, round(height * factor))


def _enlarged_map(values: Map, size: tuple[int, int], method: Image.Resampling = Image.Resampling.NEAREST) -> Map:
    """`values` [H, W] in -1..1 at `size` (width, height)."""
    if size[0] < values.shape[1]:
        method = Image.Resampling.BOX  # made smaller, every value must count
    image = Image.fromarray(values.astype(np.float32)).resize(size, method)
    return np.clip(np.asarray(image).astype(np.float64), -1.0, 1.0)


def _ticks(limit: float, cmap: str) -> list[tuple[float, str]]:
    """Where (0 at the bottom, 1 at the top) and what the colour bar says. Pillow's own font has no true minus."""
    if is_diverging(cmap):
        return [(1.0, f"+{_number(limit)}"), (0.5, "0"), (0.0, f"-{_number(limit)}")]
    return [(1.0, f"+{_number(limit)}"), (0.0, "0")]


def _number(value: float) -> str:
    """Two significant digits, without an exponent where it is short enough."""
    if 0.001 <= value < 10000:
        digits = max(0, 1 - math.floor(math.log10(value)))
        return f"{value:.{digits}f}"
    return f"{value:.1e}"


def _draw_bar(
    page: Image.Image, corner: tuple[int, int], height: int, cmap: str, ticks: Sequence[tuple[float, str]]
) -> None:
    left, top = corner
    entries = table(cmap) if is_diverging(cmap) else table(cmap)[len(table(cmap)) // 2 :]
    column = Image.fromarray(np.ascontiguousarray(entries[::-1, None, :]))
    _paste_framed(page, column.resize((BAR, height), Image.Resampling.BILINEAR), corner)
    draw = ImageDraw.Draw(page)
    for place, text in ticks:
        y = top + round((1.0 - place) * (height - 1))
        anchor = {1.0: "lt", 0.0: "lb"}.get(place, "lm")
        draw.text((left + BAR + UNIT, y), text, INK if place != 0.5 else MUTED, _font(SMALL), anchor=anchor)


def _heading_height(heading: Heading) -> int:
    return TITLE + (UNIT + SUBTITLE if heading.subtitle else 0) + 4 * UNIT


def _draw_heading(draw: ImageDraw.ImageDraw, heading: Heading, width: int) -> None:
    """The title with its probability in a lighter ink, and the line below."""
    chance = "" if heading.probability is None else percent(heading.probability)
    room = width - (_text_width(chance, _font(TITLE)) + 2 * UNIT if chance else 0)
    title = _shortened(heading.title, _font(TITLE), room)
    base = MARGIN + TITLE - UNIT
    draw.text((MARGIN, base), title, INK, _font(TITLE), anchor="ls")
    if chance:
        left = MARGIN + _text_width(title, _font(TITLE)) + 2 * UNIT
        draw.text((left, base), chance, MUTED, _font(TITLE), anchor="ls")
    subtitle = _shortened(heading.subtitle, _font(SUBTITLE), width)
    draw.text((MARGIN, base + 2 * UNIT + SUBTITLE), subtitle, MUTED, _font(SUBTITLE), anchor="ls")


def percent(probability: float) -> str:
    """A probability in 0..1 in words that never round to certainty: "99.8 %", "> 99.9 %", "< 0.1 %"."""
    if 0.999 < probability < 1.0:
        return "> 99.9 %"
    if 0.0 < probability < 0.001:
        return "< 0.1 %"
    return f"{100.0 * probability:.1f} %"


def _paste_framed(page: Image.Image, tile: Image.Image, corner: tuple[int, int]) -> None:
    """Paste with a hairline around it, so that white maps keep their edge."""
    left, top = corner
    ImageDraw.Draw(page).rectangle((left - 1, top - 1, left + tile.width, top + tile.height), outline=LINE)
    page.paste(tile, corner)


@functools.cache
def _font(size: int) -> Font:
    return ImageFont.load_default(size=size)


def _text_width(text: str, font: Font) -> int:
    return math.ceil(font.getlength(text))


def _shortened(text: str, font: Font, width: int, tail: bool = False) -> str:
    """`text`, its end left out where it is wider than `width` pixels; with `tail` its beginning."""
    if _text_width(text, font) <= width:
        return text
    for keep in range(len(text) - 1, 0, -1):
        dots = "\N{HORIZONTAL ELLIPSIS}"
        short = dots + text[-keep:] if tail else text[:keep].rstrip() + dots
        if _text_width(short, font) <= width:
            return short
    return text[:1]

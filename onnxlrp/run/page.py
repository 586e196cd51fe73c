"""The page to show somebody: a panel of image, relevance and overlay with the scale of the colours.

Small inputs are enlarged by a whole factor, so that one relevance value stays one square.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from onnxlrp.errors import OnnxLrpError, Problem
from onnxlrp.look import DEFAULT, is_diverging, table
from onnxlrp.run.drawing import (
    CAPTION,
    GAP,
    INK,
    MARGIN,
    MUTED,
    SMALL,
    UNIT,
    UNSHOWN,
    Heading,
    draw_heading,
    enlarged_map,
    font,
    heading_height,
    paste_framed,
    printed,
    text_width,
)
from onnxlrp.run.heatmap import PERCENTILE, blended, colour, normalise, softened

BAR = 2 * UNIT
SMALLEST_TILE, LARGEST_TILE = 320, 640  # pixels of a tile's longer side


def panel(
    shown: npt.NDArray[np.uint8],
    relevance: npt.ArrayLike,
    heading: Heading,
    cmap: str = DEFAULT,
    percentile: float = PERCENTILE,
) -> Image.Image:
    """The picture `shown` uint8 [H, W, 3], its relevance [H, W] and the overlay side by side with a colour bar.

    An RGB image, which says so where `cmap` begins at zero and there is negative relevance. Raises `OnnxLrpError` where
    the sizes differ, values are not finite or `cmap` is unknown.
    """
    scaled = normalise(relevance, percentile)
    if shown.shape[:2] != scaled.values.shape:
        reason = f"has the size {list(shown.shape[:2])}, the relevance {list(scaled.values.shape)}"
        raise OnnxLrpError(Problem("the picture", reason, "resize it to the model's input"))
    unshown = not is_diverging(cmap) and bool(np.any(scaled.values < 0))
    width, height = _tile_size(shown.shape[1], shown.shape[0])
    soft = enlarged_map(softened(scaled.values), (width, height), Image.Resampling.BICUBIC)
    picture = Image.fromarray(shown).resize((width, height), Image.Resampling.BICUBIC)
    tiles = [
        ("Image", picture),
        (
            f"Relevance, {UNSHOWN}" if unshown else "Relevance",
            Image.fromarray(colour(enlarged_map(scaled.values, (width, height)), cmap)),
        ),
        ("Overlay", Image.fromarray(blended(np.asarray(picture), soft, cmap))),
    ]
    ticks = _ticks(scaled.limit, cmap, unshown)
    bar_width = BAR + UNIT + max(text_width(text, font(SMALL)) for _, text in ticks)
    pitch = GAP + max(width, *(text_width(caption, font(CAPTION)) for caption, _ in tiles))
    page_width = 2 * MARGIN + len(tiles) * pitch + bar_width
    top = MARGIN + heading_height(heading, page_width - 2 * MARGIN)
    page = Image.new("RGB", (page_width, top + CAPTION + 2 * UNIT + height + MARGIN), "white")
    draw = ImageDraw.Draw(page)
    draw_heading(draw, heading, page_width - 2 * MARGIN)
    for index, (caption, tile) in enumerate(tiles):
        left = MARGIN + index * pitch
        draw.text((left, top), caption, MUTED, font(CAPTION))
        paste_framed(page, tile, (left, top + CAPTION + 2 * UNIT))
    _draw_bar(page, (MARGIN + len(tiles) * pitch, top + CAPTION + 2 * UNIT), height, cmap, ticks)
    return page


def _tile_size(width: int, height: int) -> tuple[int, int]:
    """The size of a tile: the input's, enlarged by a whole factor or made smaller, its longer side in 320..640."""
    side = max(width, height)
    factor = math.ceil(SMALLEST_TILE / side) if side < SMALLEST_TILE else min(1.0, LARGEST_TILE / side)
    return max(1, round(width * factor)), max(1, round(height * factor))


def _ticks(limit: float, cmap: str, unshown: bool) -> list[tuple[float, str]]:
    """Where (0 at the bottom, 1 at the top) and what the colour bar says; `unshown`: some relevance is below it."""
    if is_diverging(cmap):
        return [(1.0, f"+{_number(limit)}"), (0.5, "0"), (0.0, f"−{_number(limit)}")]
    return [(1.0, f"+{_number(limit)}"), (0.0, "≤ 0" if unshown else "0")]


def _number(value: float) -> str:
    """Two significant digits, without an exponent where it is short enough."""
    if 0.001 <= value < 10000:
        digits = max(0, 1 - math.floor(math.log10(value)))
        return f"{value:.{digits}f}"
    return printed(f"{value:.1e}")


def _draw_bar(
    page: Image.Image, corner: tuple[int, int], height: int, cmap: str, ticks: Sequence[tuple[float, str]]
) -> None:
    left, top = corner
    entries = table(cmap) if is_diverging(cmap) else table(cmap)[len(table(cmap)) // 2 :]
    column = Image.fromarray(np.ascontiguousarray(entries[::-1, None, :]))
    paste_framed(page, column.resize((BAR, height), Image.Resampling.BILINEAR), corner)
    draw = ImageDraw.Draw(page)
    for place, text in ticks:
        y = top + round((1.0 - place) * (height - 1))
        anchor = {1.0: "lt", 0.0: "lb"}.get(place, "lm")
        draw.text((left + BAR + UNIT, y), text, INK if place != 0.5 else MUTED, font(SMALL), anchor=anchor)

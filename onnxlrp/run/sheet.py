"""Contact sheets: the maps of many layers, and the channels of each that matter most.

What has no pixels has a form of its own: a short vector is drawn as bars, a long one as a grid of squares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from onnxlrp.errors import OnnxLrpError, Problem
from onnxlrp.look import DEFAULT
from onnxlrp.run.drawing import (
    GAP,
    INK,
    LINE,
    MARGIN,
    MUTED,
    SMALL,
    TINY,
    UNIT,
    Heading,
    draw_heading,
    enlarged_map,
    font,
    heading_height,
    paste_framed,
    shortened,
    text_width,
)
from onnxlrp.run.heatmap import PERCENTILE, as_map, colour, normalise

TALLEST = 1.5  # times its width, a sheet of channels
TILE = 176  # pixels of a layer's longer side
CHANNEL_TILE = 128
NARROWEST = 52 * UNIT  # a layer of a channel sheet: its name and note want room
BETWEEN_ROWS = GAP + UNIT
MOST_BARS = 64
UNUSED = (244, 245, 247)  # squares of a grid that stand for nothing
BAR_STRENGTH = 0.6  # a bar's height says how much, its colour only the sign


@dataclass(frozen=True)
class Tile:
    """One picture of a sheet: a map [H, W], a vector, or a picture uint8 [H, W, 3]; its title and a quieter line."""

    title: str
    values: npt.ArrayLike
    note: str = ""


@dataclass(frozen=True)
class Row:
    """A layer of a channel sheet: its name, a quieter line, the map of the whole, and chosen channels on one scale."""

    title: str
    note: str
    whole: Tile
    channels: Sequence[Tile]


def contact_sheet(
    maps: Sequence[Tile | tuple[str, npt.ArrayLike]],
    heading: Heading | None = None,
    cmap: str = DEFAULT,
    percentile: float = PERCENTILE,
) -> Image.Image:
    """Every map (a `Tile`, or title and [H, W]) small under its title, each scaled on its own; an RGB image.

    Raises `OnnxLrpError` where there is no map, values are not finite or `cmap` is unknown.
    """
    tiles = [m if isinstance(m, Tile) else Tile(*m) for m in maps]
    if not tiles:
        raise OnnxLrpError(Problem("contact sheet", "there are no maps to show", "convert with --tap all"))
    drawn = [_drawn(tile.values, TILE, cmap, percentile) for tile in tiles]
    columns = min(len(tiles), 6 if len(tiles) > 12 else 4)
    label = _label_height(tiles)
    heights = [max(d.height for d in drawn[i : i + columns]) + label for i in range(0, len(drawn), columns)]
    page = _page((columns * (TILE + GAP) - GAP, sum(heights) + (len(heights) - 1) * GAP), heading)
    top = page.height - MARGIN - sum(heights) - (len(heights) - 1) * GAP
    for row, height in enumerate(heights):
        for column, index in enumerate(range(row * columns, min((row + 1) * columns, len(tiles)))):
            _place(page, tiles[index], drawn[index], (MARGIN + column * (TILE + GAP), top), TILE, label)
        top += height + GAP
    return page


def channel_sheet(
    rows: Sequence[Row], heading: Heading | None = None, cmap: str = DEFAULT, percentile: float = PERCENTILE
) -> Image.Image:
    """Layers in order, down and then right, each with the map of all its channels and then chosen ones; an RGB image.

    The chosen channels of a layer share one scale, so that they can be compared. Raises as `contact_sheet`.
    """
    if not rows:
        reason = "no tapped layer has channels with pixels"
        raise OnnxLrpError(Problem("channel sheet", reason, "convert with --tap all"))
    most = 1 + max(len(row.channels) for row in rows)
    width = max(most * (CHANNEL_TILE + 2 * UNIT) - 2 * UNIT + GAP, NARROWEST)
    drawn = [_strip(row, width, cmap, percentile) for row in rows]
    columns = _in_columns(drawn, width)
    tallest = max(_height(column) for column in columns)
    page = _page((len(columns) * (width + MARGIN) - MARGIN, tallest), heading)
    for number, column in enumerate(columns):
        top = page.height - MARGIN - tallest
        for strip in column:
            page.paste(strip, (MARGIN + number * (width + MARGIN) - 1, top))
            top += strip.height + BETWEEN_ROWS
    return page


def _strip(row: Row, width: int, cmap: str, percentile: float) -> Image.Image:
    """One layer of a channel sheet, with a pixel around it for its frames."""
    tiles = (row.whole, *row.channels)
    drawn = [_drawn(row.whole.values, CHANNEL_TILE, cmap, percentile), *_alike(row.channels, cmap, percentile)]
    label, name = TINY + UNIT, SMALL + UNIT
    strip = Image.new("RGB", (width + 2, name + label + max(d.height for d in drawn) + 1), "white")
    draw = ImageDraw.Draw(strip)
    title = shortened(row.title, font(SMALL), width - text_width(row.note, font(TINY)) - 2 * UNIT, tail=True)
    draw.text((1, 0), title, INK, font(SMALL))
    draw.text((1 + text_width(title, font(SMALL)) + 2 * UNIT, SMALL - TINY), row.note, MUTED, font(TINY))
    for place, (tile, image) in enumerate(zip(tiles, drawn, strict=True)):
        left = 1 + place * (CHANNEL_TILE + 2 * UNIT) + (GAP if place else 0)
        _caption(draw, tile, (left, name), image.width)
        paste_framed(strip, image, (left, name + label))
    return strip


def _in_columns(strips: Sequence[Image.Image], width: int) -> list[Sequence[Image.Image]]:
    """The strips in as few columns as make a sheet of no more than TALLEST times its width."""
    for count in range(1, len(strips) + 1):
        each = -(-len(strips) // count)
        columns = [strips[first : first + each] for first in range(0, len(strips), each)]
        if max(map(_height, columns)) <= TALLEST * len(columns) * (width + MARGIN):
            break
    return columns


def _height(column: Sequence[Image.Image]) -> int:
    return sum(strip.height + BETWEEN_ROWS for strip in column) - BETWEEN_ROWS


def _page(size: tuple[int, int], heading: Heading | None) -> Image.Image:
    """A white page with room for `size` below its heading and within its margins."""
    height = heading_height(heading, size[0]) if heading else 0
    page = Image.new("RGB", (size[0] + 2 * MARGIN, size[1] + height + 2 * MARGIN), "white")
    if heading:
        draw_heading(ImageDraw.Draw(page), heading, size[0])
    return page


def _label_height(tiles: Sequence[Tile]) -> int:
    noted = any(tile.note for tile in tiles)
    return SMALL + UNIT + (TINY + UNIT // 2 if noted else UNIT // 2)


def _place(page: Image.Image, tile: Tile, image: Image.Image, corner: tuple[int, int], width: int, label: int) -> None:
    """A tile under its title and note. The end of a layer's name says most, so it is kept."""
    left, top = corner
    draw = ImageDraw.Draw(page)
    draw.text((left, top), shortened(tile.title, font(SMALL), width, tail=True), INK, font(SMALL))
    if tile.note:
        draw.text((left, top + SMALL + UNIT // 2), shortened(tile.note, font(TINY), width), MUTED, font(TINY))
    paste_framed(page, image, (left, top + label))


def _caption(draw: ImageDraw.ImageDraw, tile: Tile, corner: tuple[int, int], width: int) -> None:
    """A channel's number at the left and its share at the right, or behind it where the tile is narrow."""
    left, top = corner
    right = left + max(width, text_width(tile.title, font(TINY)) + UNIT + text_width(tile.note, font(TINY)))
    draw.text((left, top), tile.title, INK if tile.note else MUTED, font(TINY))
    draw.text((right, top), tile.note, MUTED, font(TINY), anchor="ra")


def _alike(tiles: Sequence[Tile], cmap: str, percentile: float) -> list[Image.Image]:
    """Maps on the scale that all of them together have."""
    if not tiles:
        return []
    maps = [np.asarray(tile.values, np.float64) for tile in tiles]
    limit = normalise(np.concatenate([m.reshape(1, -1) for m in maps], axis=1), percentile).limit
    return [_squares(np.clip(m / limit, -1.0, 1.0), CHANNEL_TILE, cmap) for m in maps]


def _drawn(values: npt.ArrayLike, side: int, cmap: str, percentile: float) -> Image.Image:
    """Values in the form that suits them, the longer side `side` pixels."""
    array = np.asarray(values)
    if array.dtype == np.uint8 and array.ndim == 3:
        return Image.fromarray(array).resize(_size(array, side), Image.Resampling.BICUBIC)
    if array.ndim != 1:
        return _squares(normalise(as_map(array), percentile).values, side, cmap)
    if len(array) <= MOST_BARS:
        return _bars(normalise(array[None], 100.0).values[0], side, cmap)
    grid = _squares(normalise(as_map(array), percentile).values, side, cmap)
    return _without_unused(grid, as_map(array).shape, len(array))


def _size(array: npt.NDArray[Any], side: int) -> tuple[int, int]:
    """(width, height) with the longer one `side`."""
    scale = side / max(array.shape[:2])
    return max(1, round(array.shape[1] * scale)), max(1, round(array.shape[0] * scale))


def _squares(values: npt.NDArray[np.float64], side: int, cmap: str) -> Image.Image:
    """A map in -1..1 in colour, enlarged to squares or made smaller."""
    return Image.fromarray(colour(enlarged_map(values, _size(values, side)), cmap))


def _bars(values: npt.NDArray[np.float64], side: int, cmap: str) -> Image.Image:
    """A vector in -1..1 as bars up and down from a line that leaves both their room."""
    image = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(image)
    room = side - 2 * UNIT
    highest, lowest = max(float(values.max()), 0.0), min(float(values.min()), 0.0)
    reach = room / ((highest - lowest) or 1.0)
    zero = UNIT + round(highest * reach) if highest > lowest else UNIT + room
    draw.line((UNIT, zero, side - UNIT, zero), LINE)
    pitch = room / len(values)
    for index, value in enumerate(values):
        end = zero - round(float(value) * reach)
        if end == zero:
            continue
        left, right = UNIT + index * pitch, UNIT + (index + 1) * pitch - max(1.0, 0.25 * pitch)
        ink = tuple(int(c) for c in colour(float(np.sign(value)) * BAR_STRENGTH, cmap))
        draw.rectangle((round(left), min(end, zero), max(round(left), round(right)), max(end, zero)), ink)
    return image


def _without_unused(image: Image.Image, shape: tuple[int, ...], used: int) -> Image.Image:
    """A grid whose squares beyond the first `used` are grey, not the colour of zero."""
    draw = ImageDraw.Draw(image)
    rows, columns = shape
    for index in range(used, rows * columns):
        row, column = divmod(index, columns)
        box = (column / columns, row / rows, (column + 1) / columns, (row + 1) / rows)
        left, top, right, bottom = (round(e * s) for e, s in zip(box, (image.width, image.height) * 2, strict=True))
        draw.rectangle((left, top, right - 1, bottom - 1), UNUSED)
    return image

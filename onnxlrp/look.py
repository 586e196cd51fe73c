"""How relevance looks, whoever draws it: a program of ours, or the graph itself.

Colour maps are tables of 257 colours: entry 128 is zero, so no relevance has exactly the neutral colour. Both signs
share one scale. It ends at a percentile of |R| over the pixels that have any, rather than at the maximum: relevance is
spiky, and a few pixels at an edge would make everything else pale.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from onnxlrp.errors import OnnxLrpError, Problem

ENTRIES = 257
DEFAULT = "bwr"
PERCENTILE = 99.8  # of |R|, where the scale ends

# Over a picture the colour covers more the stronger the relevance: COVER · strength ** COVER_POWER. The middle of a map
# is white or black: coloured by it, weak relevance would veil the picture. So a strength takes its hue from further
# out, HUE_FROM + HUE_SPAN · strength, and is only more transparent.
COVER, COVER_POWER = 0.9, 0.75
HUE_FROM, HUE_SPAN = 0.5, 0.17

# Anchors evenly spaced from -1 to 1.
_DIVERGING = {
    "bwr": ("#0b2a78", "#3f7be0", "#a9cdfb", "#ffffff", "#ffb8a6", "#e8413a", "#7d0716"),
    "coldnhot": ("#d8fbff", "#19b5ff", "#0a35c8", "#000000", "#c41a0a", "#ff9a12", "#fffbd0"),
    "seismic": ("#00004d", "#0000ff", "#ffffff", "#ff0000", "#800000"),
}
# Anchors evenly spaced from 0 to 1; what is negative has the colour of zero, so that it is not shown.
_SEQUENTIAL = {
    "hot": ("#000000", "#7a0c00", "#e63c00", "#ffa800", "#fff3a0", "#ffffff"),
    "gray": ("#000000", "#ffffff"),
}
NAMES: tuple[str, ...] = (*_DIVERGING, *_SEQUENTIAL)
ONE_SIDED: tuple[str, ...] = tuple(_SEQUENTIAL)


def is_diverging(name: str) -> bool:
    """Whether the map shows negative values; raises `OnnxLrpError` for an unknown name."""
    table(name)
    return name in _DIVERGING


@functools.cache
def table(name: str) -> npt.NDArray[np.uint8]:
    """The colours from -1 to 1, uint8 [257, 3], read-only; raises `OnnxLrpError` for an unknown name."""
    if name in _DIVERGING:
        colours = _between(_DIVERGING[name], ENTRIES)
    elif name in _SEQUENTIAL:
        positive = _between(_SEQUENTIAL[name], ENTRIES // 2 + 1)
        colours = np.concatenate([np.repeat(positive[:1], ENTRIES // 2, axis=0), positive])
    else:
        raise OnnxLrpError(Problem(f"colour map {name!r}", "unknown", f"choose one of {', '.join(NAMES)}"))
    colours.flags.writeable = False
    return colours


def colour(values: npt.ArrayLike, name: str = DEFAULT) -> npt.NDArray[np.uint8]:
    """The colours, uint8 [..., 3], of `values` in -1..1 (clipped to it); raises `OnnxLrpError` for an unknown name."""
    half = ENTRIES // 2
    places = np.rint(np.clip(np.asarray(values, np.float64), -1.0, 1.0) * half).astype(np.intp) + half
    return table(name)[places]


def gaussian(height: int, width: int) -> npt.NDArray[np.float64]:
    """The weights [2r + 1] that soften a map of this size over a picture, where single pixels cannot be seen: sigma is
    1 % of the longer side, and they sum to 1."""
    sigma = max(height, width) / 100.0
    reach = int(np.ceil(3 * sigma))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return np.asarray(weights / weights.sum())


def _between(anchors: tuple[str, ...], count: int) -> npt.NDArray[np.uint8]:
    """`count` colours, uint8 [count, 3], linear between evenly spaced anchors."""
    points = np.array([[int(a[i : i + 2], 16) for i in (1, 3, 5)] for a in anchors], np.float64)
    places = np.linspace(0.0, len(anchors) - 1.0, count)
    channels = [np.interp(places, np.arange(len(anchors)), points[:, c]) for c in range(3)]
    return np.rint(np.stack(channels, axis=1)).astype(np.uint8)

"""Pictures from relevance: a map [H, W] becomes colours, alone or laid over the picture it explains, as `look` has it.

Zero is always the neutral colour and both signs share one scale, so that red and blue can be compared. `percentile=100`
ends that scale at the maximum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from onnxlrp.errors import OnnxLrpError, Problem
from onnxlrp.look import (
    COVER,
    COVER_POWER,
    DEFAULT,
    HUE_FROM,
    HUE_SPAN,
    NAMES,
    PERCENTILE,
    colour,
    gaussian,
    is_diverging,
    table,
)

__all__ = ["DEFAULT", "NAMES", "PERCENTILE", "Scaled", "as_map", "colour", "heatmap", "normalise", "overlay", "table"]

Map = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scaled:
    """`values` float64 [H, W] in -1..1 and the `limit` > 0 of relevance that -1 and 1 stand for."""

    values: Map
    limit: float


def as_map(relevance: npt.ArrayLike, layout: str = "NCHW") -> Map:
    """One sample's relevance as a map float64 [H, W]: channels are summed, what has no pixels is laid out as a grid.

    Takes [C, H, W] (with `layout="NHWC"`: [H, W, C]) and [H, W]; anything else becomes rows of a nearly square grid,
    filled up with zeros.
    """
    values = np.asarray(relevance, np.float64)
    if values.ndim == 3:
        return np.asarray(values.sum(axis=2 if layout == "NHWC" else 0))
    if values.ndim == 2:
        return values
    flat = values.reshape(-1)
    width = max(1, int(np.ceil(np.sqrt(flat.size))))
    height = max(1, -(-flat.size // width))
    return np.pad(flat, (0, height * width - flat.size)).reshape(height, width)


def normalise(relevance: npt.ArrayLike, percentile: float = PERCENTILE) -> Scaled:
    """Scale a map [H, W] to -1..1, zero kept at zero, both signs by the same factor.

    The factor is the `percentile` (0..100) of |R| over the pixels that have relevance. Raises `OnnxLrpError` where the
    map is not [H, W] or holds NaN or infinity.
    """
    values = np.asarray(relevance, np.float64)
    if values.ndim != 2 or values.size == 0:
        reason = f"has the shape {list(values.shape)}, not [H, W]"
        raise OnnxLrpError(Problem("relevance", reason, "sum over the channels with as_map"))
    broken = int(np.count_nonzero(~np.isfinite(values)))
    if broken:
        reason = f"{broken} of {values.size} values are NaN or infinite"
        raise OnnxLrpError(Problem("relevance", reason, "convert with a composite that stabilises more"))
    strength = np.abs(values[values != 0])
    limit = float(np.percentile(strength, percentile)) if strength.size else 1.0
    return Scaled(np.clip(values / limit, -1.0, 1.0), limit)


def heatmap(relevance: npt.ArrayLike, cmap: str = DEFAULT, percentile: float = PERCENTILE) -> Image.Image:
    """The map [H, W] in colour, an RGB image of W x H; raises `OnnxLrpError` as `normalise` and `colour` do."""
    return Image.fromarray(colour(normalise(relevance, percentile).values, cmap))


def overlay(
    shown: npt.NDArray[np.uint8], relevance: npt.ArrayLike, cmap: str = DEFAULT, percentile: float = PERCENTILE
) -> Image.Image:
    """The map [H, W] over the picture `shown` uint8 [H, W, 3] turned grey, an RGB image of W x H.

    The colour covers more the stronger the relevance: none at zero. The map is softened a little (see `softened`), as
    single pixels cannot be seen on a picture. Raises `OnnxLrpError` where the sizes differ.
    """
    scaled = normalise(relevance, percentile)
    if shown.shape[:2] != scaled.values.shape:
        reason = f"has the size {list(shown.shape[:2])}, the relevance {list(scaled.values.shape)}"
        raise OnnxLrpError(Problem("the picture", reason, "resize it to the model's input"))
    return Image.fromarray(blended(shown, softened(scaled.values), cmap))


def blended(shown: npt.NDArray[np.uint8], values: Map, cmap: str) -> npt.NDArray[np.uint8]:
    """uint8 [H, W, 3]: the colours of `values` [H, W] in -1..1 over `shown` [H, W, 3] in grey."""
    strength = np.abs(values) if is_diverging(cmap) else np.clip(values, 0.0, 1.0)
    vivid = np.sign(values) * (HUE_FROM + HUE_SPAN * strength)
    alpha = (COVER * strength**COVER_POWER)[..., None]
    grey = np.asarray(Image.fromarray(shown).convert("L").convert("RGB")).astype(np.float64)
    mixed = grey * (1.0 - alpha) + colour(vivid, cmap).astype(np.float64) * alpha
    return np.asarray(np.rint(mixed).astype(np.uint8))


def softened(values: Map) -> Map:
    """`values` [H, W] under a Gaussian (see `smoothed`), brought to -1..1 as `normalise` does."""
    return normalise(smoothed(values)).values


def smoothed(values: Map) -> Map:
    """`values` [H, W] under the Gaussian of `look`; outside the map there is zero."""
    weights = gaussian(*values.shape)
    padded = np.pad(values, len(weights) // 2)
    rows = sliding_window_view(padded, len(weights), axis=0) @ weights
    return np.asarray(sliding_window_view(rows, len(weights), axis=1) @ weights)

"""Localisation: is relevance where the evidence is known to be? Maps [H, W] against masks [H, W].

Chance, for both measures, is the mask's share of the pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from onnxlrp.errors import OnnxLrpError, Problem


def share_inside(relevance: npt.ArrayLike, mask: npt.ArrayLike) -> float:
    """The share (0..1) of a map's positive relevance [H, W] inside `mask` [H, W]; 0 where none is positive.

    Raises `OnnxLrpError` where the sizes differ.
    """
    values, inside = _pair(relevance, mask)
    positive = np.maximum(values, 0.0)
    total = float(positive.sum())
    return float(positive[inside].sum()) / total if total > 0 else 0.0


def hits(relevance: npt.ArrayLike, mask: npt.ArrayLike, tolerance: int = 0) -> bool:
    """The pointing game (Zhang et al. 2016): whether the largest value of a map lies inside the mask, or no more than
    `tolerance` pixels from it, in any direction. A map without positive relevance misses.

    Raises `OnnxLrpError` where the sizes differ.
    """
    values, inside = _pair(relevance, mask)
    row, column = np.unravel_index(int(values.argmax()), values.shape)
    if not values[row, column] > 0:
        return False
    near = inside[
        max(0, row - tolerance) : row + tolerance + 1,
        max(0, column - tolerance) : column + tolerance + 1,
    ]
    return bool(near.any())


def _pair(relevance: npt.ArrayLike, mask: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[Any]]:
    values, inside = np.asarray(relevance, np.float64), np.asarray(mask, bool)
    if inside.shape != values.shape:
        reason = f"has the size {list(inside.shape)}, the relevance {list(values.shape)}"
        raise OnnxLrpError(Problem("mask", reason, "resize it to the model's input"))
    return values, inside

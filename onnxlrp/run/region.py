"""Where in the picture relevance is strongest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxlrp.run.heatmap import smoothed


@dataclass(frozen=True)
class Box:
    """A box of pixels: columns `left`..`right`, rows `top`..`bottom`, both ends included, counted from the top left."""

    left: int
    top: int
    right: int
    bottom: int

    def __str__(self) -> str:
        return f"columns {self.left}-{self.right}, rows {self.top}-{self.bottom}"


def strongest_region(relevance: npt.ArrayLike, threshold: float = 0.5) -> Box | None:
    """The box around the peak of positive relevance in a map [H, W]; None where there is none.

    It holds the pixels connected to the peak of the smoothed map that reach `threshold` (0..1) of it.
    """
    values = np.maximum(smoothed(np.asarray(relevance, np.float64)), 0.0)
    if not values.any():
        return None
    strong = values >= threshold * values.max()
    region = np.zeros_like(strong)
    region.flat[int(values.argmax())] = True
    while True:
        padded = np.pad(region, 1)
        grown = padded[1:-1, 1:-1] | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
        grown &= strong
        if np.array_equal(grown, region):
            break
        region = grown
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    return Box(int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1]))

"""Relevance against masks."""

from __future__ import annotations

import numpy as np
import pytest

from onnxlrp.errors import OnnxLrpError
from onnxlrp.measure.localisation import hits, share_inside


def test_share_inside_counts_positive_relevance_only() -> None:
    values = np.array([[3.0, 1.0], [-8.0, 0.0]])
    assert share_inside(values, [[True, False], [True, False]]) == 0.75
    assert share_inside(-np.abs(values), np.ones((2, 2))) == 0.0
    with pytest.raises(OnnxLrpError, match=r"\[1, 2\].*\[2, 2\]"):
        share_inside(values, [[True, False]])


def test_the_pointing_game() -> None:
    values, mask = np.zeros((6, 6)), np.zeros((6, 6), bool)
    values[1, 4], values[5, 5], mask[3, 2] = 2.0, 1.0, True
    assert not hits(values, mask)
    assert not hits(values, mask, 1)
    assert hits(values, mask, 2)
    assert hits(values, values > 1.5)
    assert not hits(-np.ones((6, 6)), np.ones((6, 6)))
    with pytest.raises(OnnxLrpError, match="size"):
        hits(values, mask[:3])

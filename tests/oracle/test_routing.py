"""Operators that move values: relevance goes back by the transpose of their 0/1 matrix, exactly."""

from __future__ import annotations

import numpy as np
import pytest

from . import cases
from .emitting import PASS, relevance


@pytest.mark.parametrize("batch", [None, 3])
@pytest.mark.parametrize("name", cases.names("routing"))
def test_relevance_goes_where_the_value_came_from(name: str, batch: int | None) -> None:
    """R_x = Wᵀ R with W from unit vectors over the whole batch, which a case may fold into other axes."""
    proto = cases.case(name, batch=batch)
    size = 3
    generator = np.random.default_rng(3)
    image = generator.normal(size=cases.image_shape(proto, size)).astype(np.float32)
    x, y = (cases.tensors(proto, image)[t] for t in "xy")
    fed = 1 + generator.permutation(y.size).reshape(y.shape).astype(np.float32)  # sums of integers are exact
    runner = cases.session(cases.between(proto, x), plain=True)
    zero = runner.run(None, {"x": np.zeros_like(x)})[0]
    expected = np.zeros(x.shape, np.float32)
    for at in np.ndindex(*x.shape):
        unit = np.zeros_like(x)
        unit[at] = 1
        column = runner.run(None, {"x": unit})[0] - zero
        assert set(np.unique(column)) <= {0.0, 1.0}
        expected[at] = fed[column == 1].sum()
    np.testing.assert_array_equal(relevance(proto, PASS, image, fed), expected)

"""Channels that part and meet again: every output of a Split is a layer of its own."""

from __future__ import annotations

import numpy as np
import pytest

import onnxlrp
from onnxlrp.errors import OnnxLrpError

from .networks import CLOSE, distance, explain, images, network

# What a Split does, and slices doing the same.
PARTED = {
    "split": "[parts] p, q, unread = Split<axis = 1>(a, sizes)",
    "slices": "p = Slice(a, from0, from2, one)\nq = Slice(a, from2, from5, one)",
}
ENDS = "int64[1] one = {1}, int64[1] from0 = {0}, int64[1] from2 = {2}, int64[1] from5 = {5}"


def parted(how: str) -> str:
    """A network whose channels part; q goes through a convolution."""
    weights = "float[6, 3, 3, 3] w1, float[6] b1, float[2, 3, 1, 1] w2, float[64, 3] w3, float[3] b3"
    return f"""net (float[N, 3, 6, 6] image, {weights}) => (float[N, 3] y) <{ENDS}, int64[3] sizes = {{2, 3, 1}}> {{
      [conv1] z = Conv(image, w1, b1)
      [relu1] a = Relu(z)
      {PARTED[how]}
      [conv2] r = Conv(q, w2)
      [sum] s = Add(p, r)
      [join] t = Concat<axis = 1>(s, p)
      [flatten] f = Flatten(t)
      [dense] y = Gemm(f, w3, b3)
    }}"""


@pytest.mark.parametrize("composite", ["epsilon_plus_flat", "gradient", "epsilon_gamma_box(low=-3, high=3)"])
@pytest.mark.parametrize("level", ["exact", "none"])
def test_as_slices(composite: str, level: str) -> None:
    one, other = (
        explain(network(parted(how)), images(), [0, 1, 2], composite=composite, optimize=level)["relevance"]
        for how in PARTED
    )
    assert np.abs(other).max() > 0
    assert distance(one, other) < CLOSE


def test_each_output_has_its_own_conditions_and_taps() -> None:
    options = {"conditions": {"p": "input", "q": [1]}, "taps": ["p", "q"]}
    model = onnxlrp.convert(network(parted("split")), **options).model
    assert {"condition/p", "relevance/p", "relevance/q"} <= {v.name for v in [*model.graph.input, *model.graph.output]}
    proto, x = network(parted("split")), images()
    fed = {"condition/p": np.array([[1, 0]] * 3, np.float32)}
    found = explain(proto, x, [0, 1, 2], **options, **fed)["relevance"]
    assert distance(found, explain(proto, x, [0, 1, 2], conditions={"p": [0], "q": [1]})["relevance"]) < CLOSE


@pytest.mark.parametrize(
    ("axis", "reason"), [(1, r"splits axis 1 .* in parts of \('\?', 3\)"), (0, "Incompatible|split")]
)
def test_parts_whose_size_is_not_known(axis: int, reason: str) -> None:
    """An empty one, and parts of the batch."""
    proto = network(f"""net (float[N, 3, 2, 2] image, float[12, 3] w) => (float[N, 3] y) <int64[2] sizes = {{0, 3}}> {{
      empty, p = Split<axis = {axis}>(image, sizes)
      f = Flatten(p)
      y = Gemm(f, w)
    }}""")
    with pytest.raises(OnnxLrpError, match=reason):
        onnxlrp.convert(proto)

"""How residual sums share relevance: every mode, at an identity skip and at a convolutional one."""

from __future__ import annotations

import numpy as np
import pytest

import onnxlrp
from onnxlrp.explain.options import RESIDUAL as OFFERED

from .conftest import Subject
from .networks import CLOSE, PLAIN, distance, explain, network
from .restated import MODES, Rule

Rules = dict[str, Rule]


def test_every_mode_is_restated() -> None:
    """A mode without a restatement is a mode without a test."""
    assert set(OFFERED) == set(MODES)


@pytest.mark.parametrize("mode", sorted(MODES))
def test_mode(residual: Subject, residual_rules: Rules, mode: str) -> None:
    """The map of the image, and what each branch gets."""
    found = explain(residual.proto, residual.x, residual.targets, residual=mode, taps=["all"])
    expected = residual.restated.relevance(residual.x, residual.start, {**residual_rules, "Add": MODES[mode]})
    assert distance(found["relevance"], expected["image"]) < CLOSE
    for tensor in ("z2", "z4", "z5", "a0"):
        assert distance(found[f"relevance/{tensor}"], expected[tensor]) < CLOSE, tensor


def test_the_modes_differ(residual: Subject) -> None:
    """No two modes that mean different things give the same map."""
    names = ["epsilon", "ratio", "equal", "main", "latest", "simple"]
    maps = {m: explain(residual.proto, residual.x, residual.targets, residual=m)["relevance"] for m in names}
    for i, one in enumerate(names):
        for other in names[:i]:
            assert distance(maps[one], maps[other].astype(np.float64)) > 0.01, f"{one} and {other}"


def test_identity_skips_get_nothing_under_main(residual: Subject) -> None:
    """All that reaches the sum goes to the convolution's branch."""
    found = explain(residual.proto, residual.x, residual.targets, residual="main", taps=["identity_skip", "conv2"])
    assert np.allclose(found["relevance/z2"], found["relevance/s2"], rtol=1e-6)


@pytest.mark.parametrize("mode", ["ratio", "equal", "latest", "simple"])
def test_sums_conserve(residual: Subject, mode: str) -> None:
    """What a sum's branches get is what the sum had."""
    found = explain(residual.proto, residual.x, residual.targets, residual=mode, taps=["all"])
    branches = found["relevance/z4"].sum((1, 2, 3)) + found["relevance/z5"].sum((1, 2, 3))
    assert np.allclose(branches, found["relevance/s4"].sum((1, 2, 3)), rtol=1e-4)


def test_a_sum_of_two_zeros_gives_no_nan() -> None:
    """0/0 cannot happen: a block whose branches are both silent."""
    proto = network("""
        silent (float[N, 3, 6, 6] image, float[4, 3, 3, 3] w1, float[4, 3, 3, 3] w2, float[2, 4] w3)
          => (float[N, 2] logits) {
          [conv1] z1 = Conv<kernel_shape = [3, 3]>(image, w1)
          [relu1] a1 = Relu(z1)
          [conv2] z2 = Conv<kernel_shape = [3, 3]>(image, w2)
          [relu2] a2 = Relu(z2)
          [sum] s = Add(a1, a2)
          [mean] g = GlobalAveragePool(s)
          [flatten] f = Flatten(g)
          [dense] logits = Gemm<transB = 1>(f, w3)
        }""")
    for mode in MODES:
        found = explain(proto, np.zeros([2, 3, 6, 6], np.float32), [0, 1], residual=mode, start="one-hot")
        assert not np.isnan(found["relevance"]).any(), mode


def test_a_mode_without_a_sum_is_refused() -> None:
    """An option that can do nothing is a mistake; an unknown word is answered with the closest one."""
    with pytest.raises(onnxlrp.OnnxLrpError, match=r"--residual.*no layer of kind sum"):
        onnxlrp.convert(network(PLAIN), residual="ratio")
    with pytest.raises(onnxlrp.OnnxLrpError, match="Did you mean ratio"):
        onnxlrp.convert(network(PLAIN), residual="rato")

"""Ratios from given samples."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.bench.made import constant, results, row
from tools.bench.limits import GPU_LIMITS, LIMITS, limits_table, missed
from tools.bench.results import DEFAULT, FIXED, OURS, PEERS, Results, Timed, peers_of


def test_a_ratio_is_the_median_of_those_within_a_round() -> None:
    timed = Timed({"a": [(0, 2.0), (1, 30.0), (2, 8.0)], "b": [(0, 1.0), (1, 10.0), (2, 2.0)]})
    assert timed.ratio("a", "b") == 3.0  # of 2, 3 and 4


def test_only_rounds_that_both_ran_in_count() -> None:
    timed = Timed({"slow": [(0, 4.0), (8, 8.0)], "quick": [(r, 1.0 if r < 8 else 2.0) for r in range(9)]})
    assert timed.ratio("slow", "quick") == 4.0
    assert timed.rounds("slow") == 2


def test_what_was_not_measured_has_no_numbers() -> None:
    timed = Timed({"a": []})
    assert timed.median("a") is timed.quartiles("b") is timed.ratio("a", "b") is None


def test_quartiles_of_one_round_are_its_time() -> None:
    assert Timed({"a": [(0, 2.0)]}).quartiles("a") == (2.0, 2.0)


def test_a_row_compares_like_with_like() -> None:
    made = row(best=2.5)
    assert made.own() == made.own(FIXED) == 3.0
    assert made.over_best() == pytest.approx(1.2)
    assert made.faster("zennit") == 4.0
    assert made.forwards("zennit") == 12.0
    assert made.faster("captum") is None


def test_in_two_processes_medians_are_compared() -> None:
    samples = {OURS: [(0, 1.0), (1, 3.0), (2, 3.0)], "zennit": [(0, 12.0), (1, 6.0), (2, 12.0)]}
    made = replace(row(), samples=samples, together=False)
    assert made.faster("zennit") == 4.0


def test_peers_are_those_that_have_the_composite() -> None:
    assert peers_of("gradient") == ["autograd", "onnx-ad"]
    assert peers_of("epsilon_plus") == ["zennit", "captum"]
    assert peers_of(DEFAULT, ("captum",)) == []
    assert set(PEERS) == {"zennit", "captum", "autograd", "onnx-ad"}


def test_limits_stand_beside_what_was_measured() -> None:
    lines = limits_table(results())
    assert f"| VGG-16 | {DEFAULT} over own forward, batch 8 | ≤ 3.15 | 3.00 ✓ | 3.00 ✓ |" in lines
    assert f"| ResNet-50 | zennit over onnxlrp, {DEFAULT}, batch 1 | ≥ 4.5 | 4.00 **✗** | 4.00 **✗** |" in lines
    assert "| VGG-16 | explainer file over model file, the largest | ≤ 1.02 | 1.01 ✓ |  |" in lines
    assert "| VGG-16 | convert, over loading and saving the model with onnx | ≤ 3 | 2.00 ✓ |  |" in lines
    assert "| VGG-16 | peak memory of convert over the model file | ≤ 3 | 2.50 ✓ |  |" in lines
    assert "| VGG-16 | peak memory of running over zennit's, batch 8 | ≤ 0.6 | 0.50 ✓ | 0.70 **✗** |" in lines
    assert f"| VGG-16 | zennit over onnxlrp, {DEFAULT}, batch 1 | ≥ 2.3 | – | – |" in lines


def test_rounding_does_not_hide_a_miss() -> None:
    made = Results([row(onnxlrp=3.151)])
    assert f"| VGG-16 | {DEFAULT} over own forward, batch 8 | ≤ 3.15 | 3.1510 **✗** | 3.00 ✓ |" in limits_table(made)


def test_every_limit_is_counted_once() -> None:
    for device, limits in (("cpu", LIMITS), ("cuda", GPU_LIMITS)):
        assert sum(missed(results(), device)) == sum(2 * len(limit.modes) for limit in limits)
    assert missed(Results())[:2] == (0, 0)


def test_constant_samples_read_as_written() -> None:
    assert set(constant(load_and_save=1.0)) == {"load and save"}

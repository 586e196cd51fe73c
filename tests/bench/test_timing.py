"""Rounds: who runs when, and what is kept of it."""

from __future__ import annotations

import pytest

from tools.bench.timing import LEAST, interleaved, schedule


def test_all_run_in_all_rounds_where_there_is_time() -> None:
    assert schedule({"a": 1.0, "b": 2.0}, 5, 100.0) == {"a": [0, 1, 2, 3, 4], "b": [0, 1, 2, 3, 4]}


def test_slow_ones_run_in_fewer_rounds_from_the_first_to_the_last() -> None:
    plan = schedule({"slow": 50.0, "quick": 0.1}, 9, 100.0)
    assert plan["quick"] == list(range(9))
    assert plan["slow"] == [0, 4, 8]


def test_what_quick_ones_leave_over_goes_to_slow_ones() -> None:
    assert len(schedule({"slow": 10.0, "quick": 0.0}, 9, 60.0)["slow"]) == 6


@pytest.mark.parametrize("rounds", [1, 2, 3, 9])
def test_no_fewer_than_the_least_rounds_nor_more_than_asked_for(rounds: int) -> None:
    assert len(schedule({"slow": 1e6}, rounds, 1.0)["slow"]) == min(LEAST, rounds)


def test_calls_take_turns_after_warming_up() -> None:
    order: list[str] = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    samples, failed = interleaved(calls, 2, 60.0)
    assert order == ["a", "a", "b", "b", "a", "b", "a", "b"]
    assert {name: [r for r, _ in taken] for name, taken in samples.items()} == {"a": [0, 1], "b": [0, 1]}
    assert not failed


def test_what_raises_is_told_and_left_out() -> None:
    def broken() -> None:
        raise TypeError("no rule\nfor this layer")

    samples, failed = interleaved({"good": lambda: None, "broken": broken}, 2, 60.0)
    assert list(samples) == ["good"]
    assert failed == {"broken": "TypeError: no rule for this layer"}

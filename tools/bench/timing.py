"""Timing calls against one another: round after round, each in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

Call = Callable[[], object]
Samples = dict[str, list[tuple[int, float]]]  # by name: the round, and the seconds in it

LEAST = 3  # rounds, however slow
QUICK = 0.05  # of the time for a row: what takes less warms up twice, as ONNX Runtime plans its memory in the first run


def schedule(costs: Mapping[str, float], rounds: int, seconds: float) -> dict[str, list[int]]:
    """In which rounds each call runs: in all, or spread evenly over fewer (at least LEAST) where the row would take
    longer than `seconds`. The time is shared out equally; what a cheap call leaves over goes to the dearer ones."""
    plan: dict[str, list[int]] = {}
    for position, name in enumerate(sorted(costs, key=lambda n: costs[n])):
        share = seconds / (len(costs) - position)
        count = min(rounds, max(min(LEAST, rounds), int(share / max(costs[name], 1e-9))))
        plan[name] = [round(i * (rounds - 1) / max(count - 1, 1)) for i in range(count)]
        seconds = max(seconds - count * costs[name], 0.0)
    return plan


def interleaved(
    calls: Mapping[str, Call], rounds: int, seconds: float, at: Callable[[str], None] = lambda name: None
) -> tuple[Samples, dict[str, str]]:
    """The time of every call in every round that it ran in, and why others failed. `at` is told what runs next."""
    costs: dict[str, float] = {}
    failed: dict[str, str] = {}
    for name, call in calls.items():  # warming up
        at(name)
        try:
            costs[name] = _seconds(call)
            if costs[name] < QUICK * seconds:
                costs[name] = min(costs[name], _seconds(call))
        except Exception as error:  # whatever a peer raises is what the report says of it
            failed[name] = reason(error)
    plan = schedule(costs, rounds, seconds)
    samples: Samples = {name: [] for name in calls if name in costs}
    for round_ in range(rounds):
        for name in samples:
            if round_ in plan[name]:
                at(name)
                samples[name].append((round_, _seconds(calls[name])))
    return samples, failed


def reason(error: BaseException) -> str:
    """An error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _seconds(call: Call) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started

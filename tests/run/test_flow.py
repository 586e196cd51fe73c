"""Work ahead and behind keeps its order, its bounds and its errors."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from functools import partial

import pytest

from onnxlrp.run.flow import Behind, ahead, behind


def late(n: int) -> int:
    """n squared; the early ones take longest."""
    time.sleep(0.02 if n < 3 else 0)
    return n * n


def test_order_is_kept() -> None:
    assert list(ahead(late, range(12), 4)) == [n * n for n in range(12)]
    with behind(Behind[int]) as jobs:
        for n in range(12):
            jobs.put(partial(late, n))
    assert jobs.results == [n * n for n in range(12)]


def test_no_more_is_read_than_was_agreed() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for n in range(100):
            taken.append(n)
            yield n

    found = ahead(late, items(), 5)
    assert next(found) == 0
    assert len(taken) <= 6
    found.close()  # type: ignore[attr-defined]
    assert len(taken) <= 6


def test_jobs_wait_for_room() -> None:
    gate, running = threading.Event(), threading.Semaphore(0)

    def job() -> None:
        running.release()
        gate.wait(10)

    with behind(Behind[None], depth=3) as jobs:
        for _ in range(3):
            jobs.put(job)
        blocked = threading.Thread(target=jobs.put, args=(job,))
        blocked.start()
        blocked.join(0.1)
        assert blocked.is_alive(), "the fourth waits for one of the three"
        gate.set()
        blocked.join(10)
    assert len(jobs.results) == 4


def test_an_error_comes_where_its_item_is_due() -> None:
    def reciprocal(n: int) -> float:
        return 1 / n

    found = ahead(reciprocal, [2, 1, 0, 4], 3)
    assert [next(found), next(found)] == [0.5, 1.0]
    with pytest.raises(ZeroDivisionError):
        next(found)
    with pytest.raises(ZeroDivisionError), behind(Behind[float]) as jobs:
        for n in (2, 0, 1):
            jobs.put(partial(reciprocal, n))
    assert jobs.results == [0.5]

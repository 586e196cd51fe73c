"""Work ahead and behind keeps its order, its bounds and its errors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from onnxlrp.errors import OnnxLrpError, Problem, RunError
from onnxlrp.run import flow
from onnxlrp.run.flow import Behind, ahead, behind, drawers


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


# -- processes --------------------------------------------------------------------------------------------------------


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cores and few pictures are enough for processes."""
    for name, value in (("WORKERS", 2), ("FEW_CORES", 1), ("FEW_PICTURES", 1)):
        monkeypatch.setattr(flow, name, value)


def square_elsewhere(n: int) -> tuple[int, int]:
    """n squared and the process that found it."""
    return late(n), os.getpid()


def refuse(words: str) -> None:
    """What bad input raises."""
    raise OnnxLrpError(Problem("picture", words, "choose another"), Problem("model", words))


@pytest.mark.usefixtures("many")
def test_processes_keep_the_order() -> None:
    with behind(Behind[tuple[int, int]], drawers(12)) as jobs:
        for n in range(12):
            jobs.put(partial(square_elsewhere, n))
    assert [n for n, _ in jobs.results] == [n * n for n in range(12)]
    assert os.getpid() not in {process for _, process in jobs.results}


@pytest.mark.usefixtures("many")
def test_problems_arrive_from_a_process() -> None:
    with (
        pytest.raises(OnnxLrpError, match="choose another".capitalize()) as caught,
        behind(Behind, drawers(12)) as jobs,
    ):
        jobs.put(partial(refuse, "is grey"))
    assert [p.node for p in caught.value.problems] == ["picture", "model"]


@pytest.mark.usefixtures("many")
def test_a_process_that_is_gone_is_no_traceback() -> None:
    with pytest.raises(RunError, match="ended before its work"), behind(Behind, drawers(12)) as jobs:
        jobs.put(partial(signal.raise_signal, signal.SIGKILL))


@pytest.mark.parametrize(("cores", "pictures"), [(2, 5000), (16, 20)])
def test_a_few_are_drawn_by_threads(cores: int, pictures: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "WORKERS", cores)
    with drawers(pictures) as pool:
        assert pool.submit(os.getpid).result() == os.getpid()


def test_processes_go_with_their_parent() -> None:
    """However it ends: nobody else would end them."""
    code = """
import os, time
from onnxlrp.run import flow
flow.WORKERS, flow.FEW_CORES, flow.FEW_PICTURES = 2, 1, 1
if __name__ == "__main__":
    pool = flow.drawers(2)
    print(pool.submit(os.getpid).result(), flush=True)
    time.sleep(60)
"""
    with tempfile.NamedTemporaryFile("w", suffix=".py") as script:
        script.write(code)
        script.flush()
        with subprocess.Popen([sys.executable, script.name], stdout=subprocess.PIPE, text=True) as parent:
            assert parent.stdout
            worker = int(parent.stdout.readline())
            parent.kill()
    for _ in range(100):
        if not running(worker):
            return
        time.sleep(0.1)
    os.kill(worker, signal.SIGKILL)
    raise AssertionError("the process ran on")


def running(process: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

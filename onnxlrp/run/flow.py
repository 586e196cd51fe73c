"""Work that overlaps: pictures are read ahead of the model, results are drawn and written behind it.

Threads suffice for a few cores: decoding, compression and the model itself let go of Python's lock. Drawing does not
wholly, so that many pictures are drawn by processes where there are cores for them. Order is kept everywhere, and an
error surfaces where its item is due.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import connection
from typing import Generic, TypeVar

from onnxlrp.errors import Problem, RunError

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
WORKERS = min(CORES, 16)
FEW_CORES, FEW_PICTURES = 4, 100  # up to which threads draw as fast, or processes take longer to start than they save
A = TypeVar("A")
B = TypeVar("B")


def ahead(function: Callable[[A], B], items: Iterable[A], depth: int) -> Iterator[B]:
    """Yield function(item) for each item, in order, with up to `depth` of them computed ahead of what is asked for."""
    with ThreadPoolExecutor(WORKERS) as pool:
        waiting: deque[Future[B]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > depth:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def drawers(pictures: int) -> Executor:
    """Who draws so many pictures: processes where they are many, and there are cores for them."""
    if WORKERS <= FEW_CORES or pictures <= FEW_PICTURES:
        return ThreadPoolExecutor(WORKERS)
    # Not forked: ONNX Runtime's threads and CUDA do not survive it.
    return ProcessPoolExecutor(WORKERS, multiprocessing.get_context("spawn"), initializer=_settle)


def _settle() -> None:
    """In a new process: leave the keyboard to the parent, and go when it goes, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent

    def wait() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


class Behind(Generic[B]):
    """Jobs done behind the caller's back; `results` in the order of the jobs. At most `depth` jobs wait at a time."""

    def __init__(self, pool: Executor, depth: int) -> None:
        self._pool, self._depth = pool, depth
        self._waiting: deque[Future[B]] = deque()
        self.results: list[B] = []

    def put(self, job: Callable[[], B]) -> None:
        """Start a job, once there is room; raises what an earlier job raised. For processes it is pickled."""
        with _whole():
            self._waiting.append(self._pool.submit(job))
        self.finish(self._depth)

    def finish(self, left: int = 0) -> None:
        """Wait until no more than `left` jobs are open; raises what one of them raised."""
        while len(self._waiting) > left:
            with _whole():
                self.results.append(self._waiting.popleft().result())

    def cancel(self) -> None:
        """Drop the jobs that have not begun."""
        for future in self._waiting:
            future.cancel()


@contextlib.contextmanager
def _whole() -> Iterator[None]:
    """A process that is gone becomes a `RunError`."""
    try:
        yield
    except BrokenExecutor as error:
        reason = "one of them ended before its work was done"
        raise RunError(Problem("worker processes", reason, "see whether memory ran out, and try again")) from error


@contextlib.contextmanager
def behind(jobs: type[Behind[B]], workers: Executor | None = None, depth: int = 4 * WORKERS) -> Iterator[Behind[B]]:
    """A place for jobs, all of which are done when the block ends, unless it ends in an error. `workers` do them, by
    default threads."""
    with workers or ThreadPoolExecutor(WORKERS) as pool:
        place = jobs(pool, depth)
        try:
            yield place
            place.finish()
        except BaseException:
            place.cancel()
            raise

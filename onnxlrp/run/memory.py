"""Sessions on the CPU with little memory, at no cost in time.

While ONNX Runtime opens a model it rewrites the weights, and frees each of them as it goes. glibc keeps what was freed
in blocks below a size that it raises as it goes, up to 32 MiB, so that a VGG-16 takes 300 MB more than is ever in use
at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import threading
from collections.abc import Iterator
from typing import Any

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of mallopt
_SMALL, _LARGE = 1 << 20, 32 << 20  # bytes; the second is the most that glibc itself sets


def save_memory(options: Any) -> None:
    """Set a session's options for as little memory as a run on the CPU needs, which is as fast. Memory that is planned
    as one block lies beside what the first run of each shape, which it is planned from, has taken."""
    options.enable_mem_pattern = False


@contextlib.contextmanager
def returning_memory() -> Iterator[None]:
    """Within it, memory that is freed goes back to the system at once, and after it what is free by then, where the C
    library is glibc and nobody has tuned it. Afterwards, for as long as the process lives, blocks are kept as they are
    in one that has run for a while."""
    libc = _glibc()
    if libc is None:
        yield
        return
    with _LOCK:
        _open.append(1)
        libc.mallopt(_MMAP_THRESHOLD, _SMALL)
    try:
        yield
    finally:
        with _LOCK:
            _open.pop()
            if not _open:
                libc.mallopt(_MMAP_THRESHOLD, _LARGE)
                libc.mallopt(_TRIM_THRESHOLD, 2 * _LARGE)
        libc.malloc_trim(0)


_LOCK = threading.Lock()
_open: list[int] = []  # an entry for each session that is being opened


@functools.cache
def _glibc() -> Any | None:
    """The C library, if it is glibc and the environment does not tune its allocator."""
    if any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ):
        return None
    with contextlib.suppress(OSError):
        library = ctypes.CDLL("libc.so.6")
        if hasattr(library, "mallopt") and hasattr(library, "malloc_trim"):
            return library
    return None

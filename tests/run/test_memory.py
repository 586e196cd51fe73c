"""The allocator is set only while a session is opened, and where nobody else has set it."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from onnxlrp.run import memory


class Allocator:
    """Stands in for glibc: remembers what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, ...]] = []

    def mallopt(self, parameter: int, value: int) -> int:
        self.told.append((parameter, value))
        return 1

    def malloc_trim(self, pad: int) -> int:
        self.told.append((pad,))
        return 1


@pytest.fixture
def libc(monkeypatch: pytest.MonkeyPatch) -> Allocator:
    made = Allocator()
    monkeypatch.setattr(memory, "_glibc", lambda: made)
    return made


def test_small_blocks_within_and_large_ones_after(libc: Allocator) -> None:
    with pytest.raises(ValueError, match="raised through"), memory.returning_memory():
        assert libc.told == [(-3, 1 << 20)]
        raise ValueError("raised through")
    assert libc.told[1:] == [(-3, 32 << 20), (-1, 64 << 20), (0,)]


def test_the_last_to_open_sets_it_back(libc: Allocator) -> None:
    with memory.returning_memory():
        with memory.returning_memory():
            pass
        assert (-3, 32 << 20) not in libc.told
    assert libc.told.count((-3, 32 << 20)) == 1


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_who_tunes_it_is_left_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    assert memory._glibc.__wrapped__() is None


def test_another_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    monkeypatch.setattr(memory, "_glibc", memory._glibc.__wrapped__)
    with memory.returning_memory():
        pass

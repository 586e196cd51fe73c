"""How a report says what it was made with."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

PLACES = frozenset({"--cache", "--folder", "--report", "-o", "--out"})


def typed(module: str, words: Iterable[str]) -> str:
    """The command line of a tool, without the options that say where files are: they change no number."""
    left = [part for w in words for part in (w.split("=", 1) if w.startswith("--") else [w])]
    kept = ["python", "-m", module]
    while left:
        word = left.pop(0)
        if word in PLACES:
            left = left[1:]
        else:
            kept.append(word)
    return shlex.join(kept)

"""Texts of others on a terminal: names in models and of files can be anything, and a terminal obeys some of it."""

from __future__ import annotations

import unicodedata


def printable(text: str) -> str:
    """The text with control characters escaped."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def columns(text: str) -> int:
    """How many columns the text takes: two for each wide character, none for one that goes onto the one before."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def padded(text: str, width: int) -> str:
    """The text, filled up with spaces to `width` columns."""
    return text + " " * (width - columns(text))


def cut(text: str, width: int, keep_end: bool = False) -> str:
    """The text, or as much of its start (or end) as fits into `width` columns with an ellipsis for the rest."""
    if columns(text) <= width:
        return text
    kept = ""
    for character in reversed(text) if keep_end else text:
        if columns(kept) + _columns(character) >= width:
            break
        kept = character + kept if keep_end else kept + character
    return f"…{kept}" if keep_end else f"{kept}…"


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1

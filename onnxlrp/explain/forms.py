"""Values as callers of Python write them, each brought to the one form that the pipeline reads.

Every function here returns its value in that form, and raises `TypeError` or `ValueError` where it can have none. A
single text is never taken for a list of its letters, nor a truth value for a number; numbers may be numpy's.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from onnxlrp.contract import PREPROCESS_PRESETS, Preprocessing
from onnxlrp.explain.composite import Composite
from onnxlrp.explain.edits import INPUT
from onnxlrp.rules.rule import Rule


def text(given: object) -> str:
    """A text."""
    if not isinstance(given, str):
        raise TypeError
    return given


def flag(given: object) -> bool:
    """True or False."""
    if not isinstance(given, bool):
        raise TypeError
    return given


def whole(given: object) -> int:
    """A whole number."""
    if isinstance(given, bool) or not isinstance(given, Integral):
        raise TypeError
    return int(given)


def number(given: object) -> float:
    """A number."""
    if isinstance(given, bool) or not isinstance(given, Real):
        raise TypeError
    return float(given)


def texts(given: object) -> tuple[str, ...]:
    """Texts, in a list or the like."""
    return tuple(text(each) for each in _each(given))


def patterns(given: object) -> tuple[str, ...]:
    """One pattern, or several."""
    return (given,) if isinstance(given, str) else texts(given)


def shape(given: object) -> tuple[int | None, ...]:
    """Sizes, None where one is left open."""
    return tuple(None if size is None else whole(size) for size in _each(given))


def target(given: object) -> int | str:
    """A class number or a word."""
    return given if isinstance(given, str) else whole(given)


def composite(given: object) -> str | Path | Composite:
    """A name, a file, or the composite itself."""
    if isinstance(given, os.PathLike):
        return Path(os.fspath(given))
    return given if isinstance(given, Composite) else text(given)


def preprocess(given: object) -> Preprocessing:
    """A pre-processing, or the name of a preset."""
    return given if isinstance(given, Preprocessing) else PREPROCESS_PRESETS[text(given)]


def rules(given: object) -> dict[str, str | Rule]:
    """{pattern: rule}."""
    return {pattern: rule if isinstance(rule, Rule) else text(rule) for pattern, rule in _items(given)}


def conditions(given: object) -> dict[str, tuple[int, ...] | str]:
    """{pattern: channels}."""
    return {pattern: _channels(channels) for pattern, channels in _items(given)}


def _channels(given: object) -> tuple[int, ...] | str:
    """At least one channel, or the word for an input."""
    if isinstance(given, str) and given == INPUT:
        return INPUT
    chosen = tuple(map(whole, _each(given)))
    if not chosen:
        raise ValueError
    return chosen


def _each(given: object) -> Iterable[Any]:
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise TypeError
    return given


def _items(given: object) -> Iterator[tuple[str, Any]]:
    if not isinstance(given, Mapping):
        raise TypeError
    return ((text(key), value) for key, value in given.items())

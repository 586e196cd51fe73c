"""What output files are called: `<picture's stem>.<class>.<ending>`, without two of them meeting in one name."""

from __future__ import annotations

import collections
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from onnxlrp.errors import OnnxLrpError, Problem, raise_if_any

LONGEST = 255  # bytes of a file's name, on nearly every file system
UNKNOWN = "99999"  # the longest class, where their number is not known


def unique_stems(paths: Sequence[Path]) -> dict[Path, str]:
    """A stem for every picture, different even where letter case does not count.

    Where pictures share a stem, their folders' names go before it (`left-01`, `right-01`) or, if that is not enough,
    numbers behind it.
    """
    groups = collections.defaultdict(list)
    for path in paths:
        groups[path.stem.casefold()].append(path)
    taken = {key for key, group in groups.items() if len(group) == 1}
    stems: dict[Path, str] = {}
    for group in groups.values():
        with_folder = [f"{p.resolve().parent.name}-{p.stem}" for p in group]
        keys = {name.casefold() for name in with_folder}
        usable = len(keys) == len(group) and not keys & taken
        for path, name in zip(group, with_folder, strict=True):
            if len(group) == 1:
                stems[path] = path.stem
                continue
            stems[path] = name if usable else _numbered(path.stem, taken)
            taken.add(stems[path].casefold())
    return stems


def class_slugs(labels: Sequence[str] | None, classes: int) -> list[str]:
    """A word for each of K classes that can be part of a file's name: its label where it has one, else its number."""
    words = [_slug(labels[i]) if labels and i < len(labels) else "" for i in range(classes)]
    counts = collections.Counter(words)
    return [
        str(i) if not word else word if counts[word] == 1 and not word.isdecimal() else f"{word}-{i}"
        for i, word in enumerate(words)
    ]


def refuse_long(stems: Mapping[Path, str], slugs: Sequence[str] | None, endings: Sequence[str]) -> None:
    """Raise `OnnxLrpError` with every picture whose results could not be named: file systems limit a name's length."""
    rest = max(len(os.fsencode(slug)) for slug in slugs or [UNKNOWN]) + max(map(len, endings)) + len("..")
    lengths = {path: len(os.fsencode(stem)) + rest for path, stem in stems.items()}
    reason = f"the names of its results would have {{}} bytes, and {LONGEST} is the most there can be"
    raise_if_any(
        [
            Problem(str(path), reason.format(length), "give the picture a shorter name")
            for path, length in lengths.items()
            if length > LONGEST
        ]
    )


def refuse_existing(folder: Path, stems: Iterable[str], slugs: Sequence[str] | None, endings: Sequence[str]) -> None:
    """Raise `OnnxLrpError` where `folder` holds a file that a run could replace, or does not say what it holds.

    `slugs` are the classes that may be explained; None, where even their number is not known, means every number.
    """
    if not os.path.isdir(folder):  # no error where its name is too long: that is said when it is made
        return
    known_stems, known_slugs = set(stems), None if slugs is None else set(slugs)
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise OnnxLrpError(Problem(str(folder), f"cannot be read ({error.strerror})", "choose another -o")) from None
    for name in names:
        ending = next((e for e in sorted(endings, key=len, reverse=True) if name.endswith(f".{e}")), None)
        if ending is None:
            continue
        stem, _, slug = name[: -len(ending) - 1].rpartition(".")
        if stem in known_stems and (slug in known_slugs if known_slugs is not None else slug.isdecimal()):
            raise OnnxLrpError(Problem(str(folder / name), "exists already", "use --force, or choose another -o"))


def _slug(label: str) -> str:
    """Letters and digits of any script, joined by hyphens; never a dot, which separates the parts of a name."""
    first = label.split(",")[0]  # ImageNet's labels list synonyms
    return re.sub(r"[^\w]+", "-", first).strip("-_").lower()[:60]


def _numbered(stem: str, taken: set[str]) -> str:
    number = 1
    while f"{stem}-{number}".casefold() in taken:
        number += 1
    return f"{stem}-{number}"

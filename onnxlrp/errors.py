"""Errors are values until the boundary: a `Problem` says what stands in the way, `OnnxLrpError` carries them out."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

SHORTEST = 2  # letters of a word that can be taken for the beginning of another


@dataclass(frozen=True)
class Problem:
    """One thing that stands in the way, as a value.

    `node` names the thing (a node with its operator, a file, an option), `reason` says what is wrong with both numbers
    where there are two, `remedy` what the user can do about it.
    """

    node: str
    reason: str
    remedy: str = ""

    def __str__(self) -> str:
        remedy = f" {self.remedy[0].upper()}{_ended(self.remedy[1:])}" if self.remedy else ""
        return f"{self.node}: {_ended(self.reason)}{remedy}"


def _ended(sentence: str) -> str:
    return sentence if sentence.endswith("?") else f"{sentence.rstrip('.')}."


class OnnxLrpError(Exception):
    """What onnxlrp raises for bad input: every problem found, not only the first."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("\n".join(str(p) for p in problems))
        self.problems: tuple[Problem, ...] = problems

    def __reduce__(self) -> tuple[type[OnnxLrpError], tuple[Problem, ...]]:
        return type(self), self.problems  # from another process too


class RunError(OnnxLrpError):
    """A failure at run time (the disk is full, the runtime gives up) of input that was in order."""


def told(problems: Iterable[Problem]) -> list[str]:
    """A line for each problem; what is said of several nodes of one operator is said once, of the first."""
    alike: dict[tuple[str, str, str], list[Problem]] = {}
    for problem in problems:
        node = re.search(r" \(([A-Za-z]\w*)\)$", problem.node)  # not a file, which may end in " (1).png"
        subject = node[1] if node else problem.node
        alike.setdefault((subject, problem.reason, problem.remedy), []).append(problem)
    others = {1: "", 2: " The same goes for one other."}
    return [
        f"{first}{others.get(1 + len(more), f' The same goes for {len(more)} others.')}"
        for first, *more in alike.values()
    ]


def suggest(word: str, valid: Iterable[str]) -> str:
    """A remedy that names the closest valid word and all of them."""
    words = list(valid)
    return closest(word, words, f"choose among: {', '.join(words)}")


def closest(word: str, valid: Iterable[str], then: str = "") -> str:
    """A remedy that names the closest valid word, where one is close; then `then`.

    That is one that `word` begins (the shortest), else the one spelt most alike, else one that holds `word` or is held
    in it. Case does not count, nor do the wildcards and slashes at the ends of a pattern.
    """
    plain = {_plain(v): v for v in valid}
    given = _plain(word)
    close = sorted((v for v in plain if v.startswith(given)), key=len) if len(given) >= SHORTEST else []
    close = close or difflib.get_close_matches(given, plain, 1)
    close = close or [v for v in plain if min(len(v), len(given)) > SHORTEST and (given in v or v in given)]
    if not close:
        return then
    then = f" {then[0].upper()}{then[1:]}" if then else ""
    return f"did you mean {plain[close[0]]}?{then}"


def _plain(word: str) -> str:
    return word.strip("*?/").lower()


def raise_if_any(problems: Sequence[Problem]) -> None:
    """Raise one `OnnxLrpError` that carries all `problems`; return when there are none."""
    if problems:
        raise OnnxLrpError(*problems)

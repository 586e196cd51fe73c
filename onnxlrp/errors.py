"""Errors are values until the boundary: a `Problem` says what stands in the way, `OnnxLrpError` carries them out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


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


class RunError(OnnxLrpError):
    """A failure at run time (the disk is full, the runtime gives up) of input that was in order."""


def raise_if_any(problems: Sequence[Problem]) -> None:
    """Raise one `OnnxLrpError` that carries all `problems`; return when there are none."""
    if problems:
        raise OnnxLrpError(*problems)

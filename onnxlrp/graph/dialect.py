"""What can be written in several ways that give equal results, and which of them a `Builder` writes.

A runtime may be slow at one of them, or get it wrong; `explain.runtimes` says which it wants.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Dialect:
    """The first form of each is the portable one.

    quotient  "guarded" a ÷ (b + 1e-30) where the channels are no multiple of `BLOCK`, which is the same wherever b is
              not about as small as that; or a "plain" a ÷ b.
    sign      the sign of a tensor: the "operator", or two "comparisons".
    steps     1 where a number is above zero or above another, else 0: "steep" functions of what ONNX Runtime keeps in
              the memory layout of its convolutions, which it computes there, with factors beyond float16; or "plain"
              ones, by comparing and rounding.
    """

    quotient: Literal["guarded", "plain"] = "guarded"
    sign: Literal["operator", "comparisons"] = "operator"
    steps: Literal["steep", "plain"] = "steep"


PORTABLE = Dialect()
BLOCK = 8  # channels that OpenCV keeps together
GUARD = 1e-30  # or the least number of a type that has none so small

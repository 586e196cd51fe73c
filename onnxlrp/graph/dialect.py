"""What can be written in several ways that give equal results, and which of them a `Builder` writes.

A runtime may be slow at one of them, or get it wrong; `explain.runtimes` says which it wants.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Dialect:
    """The first form of each is the portable one.

    mask      v where a condition holds, else 0: "where", or a "product" with the condition as 0 and 1. A v that
              is masked and not finite becomes 0 in the one and NaN in the other.
    sign      the sign of a tensor: the "operator", or two "comparisons".
    quotient  "plain" a ÷ b, or "guarded" a ÷ (b + 1e-30), which is the same wherever b is not about as small as that.
    """

    mask: Literal["where", "product"] = "where"
    sign: Literal["operator", "comparisons"] = "operator"
    quotient: Literal["plain", "guarded"] = "plain"


PLAIN = Dialect()
GUARD = 1e-30  # or the least number of a type that has none so small

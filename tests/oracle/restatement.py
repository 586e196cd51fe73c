"""The rules once more, slowly: float64, on the dense matrix of a layer.

A layer is z = x Wᵀ + b with x [N, inputs], W [outputs, inputs], b [outputs]; what it makes of relevance R [N, outputs]
follows each rule's paper in a line or two. An element of W counts as absent where it is zero, so cases must have no
weight that happens to be zero.

Beside the relevance stand a bound on what float32 may do to it, and the sum that the law of conservation predicts:
Σ_shares weight · Σ_j s_j (z_j - b_j).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Array = np.ndarray
UNIT = 2.0**-24  # the largest relative error of one float32 rounding


@dataclass(frozen=True)
class Restated:
    """Relevance of the inputs [N, inputs], the bound on its float32 error, the sum that conservation predicts (one per
    sample), and whether some denominator is so close to zero that rounding may change its sign."""

    relevance: Array
    error: Array
    conserved: Array
    doubtful: bool

    def __add__(self, other: Restated) -> Restated:
        """Two shares of a rule."""
        return Restated(
            self.relevance + other.relevance,
            self.error + other.error,
            self.conserved + other.conserved,
            self.doubtful or other.doubtful,
        )


@dataclass(frozen=True)
class Stabilizer:
    """stab(z), with sign(0) = +1."""

    epsilon: float = 1e-6
    kind: str = "sign"

    def __call__(self, z: Array) -> Array:
        """z kept away from zero; [N, outputs]."""
        sign = np.where(z >= 0, 1.0, -1.0)
        if self.kind == "clip":
            return sign * np.maximum(np.abs(z), self.epsilon)
        return z + sign * self.epsilon * (np.sqrt(np.mean(z**2, axis=1, keepdims=True)) if self.kind == "norm" else 1.0)


Term = tuple[Array, Array, Array | float]  # x′, W′, b′


def rounding(w: Array) -> float:
    """The relative error of a sum of products with W, forwards and backwards, in any order of summation."""
    terms = max(np.count_nonzero(w, axis=0).max(), np.count_nonzero(w, axis=1).max())
    return float(terms + 8) * UNIT


def share(r: Array, stab: Stabilizer, *terms: Term, weight: float = 1.0) -> Restated:
    """weight · Σ x′ ⊙ W′ᵀ[R ⊘ stab(Σ W′x′ + b′)]; where R or the denominator is zero, so is the quotient."""
    z, bias, size = (np.zeros_like(r) for _ in range(3))
    for x, w, b in terms:
        z, bias, size = z + x @ w.T + b, bias + b, size + np.abs(x) @ np.abs(w).T + np.abs(b)
    unit = sum(rounding(w) for _, w, _ in terms)
    below = stab(z)
    live = (r != 0) & (below != 0)
    s = np.divide(r, below, out=np.zeros_like(r), where=live)
    relative = np.divide(unit * size, np.abs(below), out=np.zeros_like(r), where=live)
    relevance, error = np.zeros_like(terms[0][0] * r[:, :1]), np.zeros_like(terms[0][0] * r[:, :1])
    for x, w, _ in terms:
        relevance = relevance + x * (s @ w)
        error = error + np.abs(x) * ((np.abs(s) * (2 * relative + unit)) @ np.abs(w))
    doubtful = bool(np.any((r != 0) & (np.abs(z) < 2 * unit * size) & (size > 0)))
    return Restated(weight * relevance, abs(weight) * error, weight * (s * (z - bias)).sum(1), doubtful)


def plus(v: Array) -> Array:
    """max(v, 0)."""
    return np.maximum(v, 0.0)


def minus(v: Array) -> Array:
    """min(v, 0)."""
    return np.minimum(v, 0.0)


def epsilon(x: Array, w: Array, b: Array, r: Array, stab: Stabilizer) -> Restated:
    """Bach et al. 2015, eq. 58."""
    return share(r, stab, (x, w, b))


def alpha_beta(
    x: Array, w: Array, b: Array, r: Array, stab: Stabilizer, alpha: float = 2.0, beta: float = 1.0
) -> Restated:
    """Bach et al. 2015, eq. 60, for inputs of either sign."""
    up = share(r, stab, (plus(x), plus(w), plus(b)), (minus(x), minus(w), 0.0), weight=alpha)
    return up + share(r, stab, (plus(x), minus(w), minus(b)), (minus(x), plus(w), 0.0), weight=-beta)


def zplus(x: Array, w: Array, b: Array, r: Array, stab: Stabilizer) -> Restated:
    """Montavon et al. 2017, eq. 13."""
    return alpha_beta(x, w, b, r, stab, alpha=1.0, beta=0.0)


def gamma(
    x: Array, w: Array, b: Array, r: Array, stab: Stabilizer, gamma: float = 0.25, forward_bias: Array | None = None
) -> Restated:
    """Montavon et al. 2019; signed form, Andéol 2021. Outputs of zero give nothing. The output's own sign decides, its
    bias included (`forward_bias`) also where the rule leaves biases out, as in zennit."""
    own = b if forward_bias is None else forward_bias
    z, size = x @ w.T + own, np.abs(x) @ np.abs(w).T + np.abs(own)
    up, down = w + gamma * plus(w), w + gamma * minus(w)
    above = share(r * (z > 0), stab, (plus(x), up, b + gamma * plus(b)), (minus(x), down, 0.0))
    below = share(r * (z < 0), stab, (plus(x), down, b + gamma * minus(b)), (minus(x), up, 0.0))
    unsure = bool(np.any((np.abs(z) < 2 * rounding(w) * size) & (r != 0) & (size > 0)))
    both = above + below
    return Restated(both.relevance, both.error, both.conserved, both.doubtful or unsure)


def zbox(x: Array, w: Array, b: Array, r: Array, stab: Stabilizer, low: Array | float, high: Array | float) -> Restated:
    """Montavon et al. 2017, eq. 15; the bias cancels."""
    low, high = np.broadcast_to(low, x.shape), np.broadcast_to(high, x.shape)
    return share(r, stab, (x, w, 0.0), (-low, plus(w), 0.0), (-high, minus(w), 0.0))


def wsquare(x: Array, w: Array, b: Array, r: Array, stab: Stabilizer) -> Restated:
    """Montavon et al. 2017, eq. 7."""
    return share(r, stab, (np.ones_like(x), w**2, b**2))


def flat(x: Array, w: Array, b: Array, r: Array, stab: Stabilizer) -> Restated:
    """Lapuschkin et al. 2019; an input that is not there (padding) gets no share."""
    return share(r, stab, (np.ones_like(x), (w != 0).astype(w.dtype), 0.0))


def zplus_ones(x: Array, w: Array, b: Array, r: Array, stab: Stabilizer) -> Restated:
    """zplus for an input of ones."""
    return share(r, stab, (np.ones_like(x), plus(w), plus(b)))


def ratio(x: Array, w: Array, b: Array, r: Array, stab: Stabilizer) -> Restated:
    """Otsuki et al. 2024: by magnitude."""
    return share(r, stab, (np.abs(x), np.abs(w), 0.0))


def equal(x: Array, w: Array, b: Array, r: Array, stab: Stabilizer) -> Restated:
    """By the magnitude of the weight alone."""
    return share(r, stab, (np.ones_like(x), np.abs(w), 0.0))


def gradient(x: Array, w: Array, b: Array, r: Array, stab: Stabilizer) -> Restated:
    """The chain rule, which conserves nothing."""
    return Restated(r @ w, rounding(w) * (np.abs(r) @ np.abs(w)), np.full(len(r), np.nan), False)


Restatement = Callable[..., Restated]
RESTATEMENTS: dict[str, Restatement] = {
    f.__name__: f for f in (epsilon, alpha_beta, zplus, gamma, zbox, wsquare, flat, zplus_ones, ratio, equal, gradient)
} | {"norm": epsilon, "main": equal}  # main differs from equal where an input of a sum is known to be a skip

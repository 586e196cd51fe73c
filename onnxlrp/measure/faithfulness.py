"""Faithfulness: does the model lose its answer where the explanation says it comes from?

Patches of the input are replaced one after the other, the most relevant first, and the target's score is followed: the
faster it falls, the better the explanation knew what the model needs ("pixel flipping", Bach et al. 2015; the area over
the perturbation curve, Samek et al. 2017). Compare an explanation with another, or with `order="random"`, on the same
model and inputs; the numbers mean nothing across models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from onnxlrp.errors import OnnxLrpError, Problem
from onnxlrp.run.session import Explainer, Explanation

Array = npt.NDArray[Any]
Order = Literal["most", "least", "random"]
Progress = Callable[[int, int], None]  # steps of the curve: done, in all


@dataclass(frozen=True)
class Curve:
    """`scores` [N, S + 1], the target's score after each step, and `replaced` [S + 1], the share (0..1) of the patches
    that are replaced by then; the first step is the input as it is."""

    replaced: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float64]

    @property
    def area(self) -> npt.NDArray[np.float64]:
        """[N]: the area over the curve, the mean fall of the score over all steps (AOPC)."""
        return np.asarray((self.scores[:, :1] - self.scores).mean(axis=1))


def deletion(
    explainer: Explainer,
    batch: Array,
    said: Explanation,
    *,
    patch: int = 8,
    steps: int | None = None,
    fill: npt.ArrayLike = 0.0,
    order: Order = "most",
    seed: int = 0,
    progress: Progress | None = None,
) -> Curve:
    """The curve of `batch` [N, …] under the explanation `said` of it: any one with a relevance like the batch.

    Squares of `patch` pixels are replaced by `fill` (in the space of the model's input; it spreads to one input), as
    many as make `steps` equal steps, all in the end. `order` is by the sum of relevance in a patch, falling ("most") or
    rising ("least"), or "random" by `seed`. Raises `OnnxLrpError` where the relevance is not like the batch.
    """
    if said.relevance.shape != batch.shape:
        reason = f"has the shape {list(said.relevance.shape)}, the batch {list(batch.shape)}"
        raise OnnxLrpError(Problem("relevance", reason, "explain this batch, one class an input"))
    places = patches(batch.shape[1:], explainer.layout, patch)
    ranks = _ranks(said.relevance, places, order, seed)
    ends = np.linspace(0, len(places), (steps or len(places)) + 1).round().astype(int)
    hiding = np.broadcast_to(np.asarray(fill, batch.dtype), batch.shape)
    inputs, scores = batch.copy(), []
    for step, (first, last) in enumerate(zip((0, *ends[:-1]), ends, strict=True)):
        for n, rank in enumerate(ranks[:, first:last]):
            for index in rank:
                inputs[n][places[index]] = hiding[n][places[index]]
        scores.append(np.take_along_axis(explainer.predict(inputs), said.target[:, None], 1)[:, 0])
        if progress is not None:
            progress(step, len(ends) - 1)
    return Curve(ends / len(places), np.stack(scores, axis=1).astype(np.float64))


def patches(shape: tuple[int, ...], layout: str, side: int) -> list[tuple[slice, ...]]:
    """Squares of `side` pixels that cover an input [C, H, W] (or [H, W, C]), as indices; at the edges they are cut."""
    if side < 1 or len(shape) != 3:
        reason = f"{side} pixels of an input {list(shape)}"
        raise OnnxLrpError(Problem("patch", reason, "it needs a picture, and squares of at least 1 pixel"))
    height, width = shape[1:] if layout == "NCHW" else shape[:2]
    squares = [
        (slice(top, top + side), slice(left, left + side))
        for top in range(0, height, side)
        for left in range(0, width, side)
    ]
    whole = slice(None)
    return [(whole, *s) if layout == "NCHW" else (*s, whole) for s in squares]


def _ranks(relevance: Array, places: list[tuple[slice, ...]], order: str, seed: int) -> npt.NDArray[np.intp]:
    """[N, patches]: the patches in the order in which they are replaced."""
    if order == "random":
        generator = np.random.default_rng(seed)
        return np.stack([generator.permutation(len(places)) for _ in relevance])
    if order not in ("most", "least"):
        raise OnnxLrpError(Problem(f"order {order!r}", "unknown", "choose most, least or random"))
    sums = np.stack([relevance[(slice(None), *p)].reshape(len(relevance), -1).sum(1, np.float64) for p in places], 1)
    return np.argsort(-sums if order == "most" else sums, axis=1, kind="stable")

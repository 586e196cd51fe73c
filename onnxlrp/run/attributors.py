"""Attributions made from many runs of an explainer: SmoothGrad, integrated gradients and occlusion.

They take an open `Explainer` and a batch and give an `Explanation`, as `Explainer.explain` does; only its `relevance`
is another. SmoothGrad works over any explainer (over `gradient` it is the paper's, over LRP rules it is LRP smoothed),
integrated gradients need one converted with the composite `gradient`, occlusion needs none of the relevance at all.

    explainer = onnxlrp.Explainer("model.onnx", composite="gradient")
    explanation = onnxlrp.attributors.integrated_gradients(explainer, batch, baseline=black)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxlrp import contract
from onnxlrp.errors import OnnxLrpError, Problem
from onnxlrp.explain.presets import gradient
from onnxlrp.run.feeding import Conditions, check_range, class_numbers
from onnxlrp.run.session import Explainer, Explanation

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.intp]
Progress = Callable[[int, int], None]  # runs of a single input: how many are done, and how many there are
BATCH = 16  # inputs in one run of the model


@dataclass(frozen=True)
class _Question:
    """What is asked about each of N inputs, once for all the variants of an input."""

    explainer: Explainer
    target: Array | None
    start: Array | None
    conditions: dict[str, Array]

    def relevance(self, inputs: Array, rows: Indices) -> Array:
        """The relevance of variants, the k-th being one of input `rows[k]`."""
        target = None if self.target is None else self.target[rows]
        start = None if self.start is None else self.start[rows]
        conditions = {layer: mask[rows] for layer, mask in self.conditions.items()}
        return self.explainer.explain(inputs, target, start=start, conditions=conditions).relevance


def smoothgrad(
    explainer: Explainer,
    batch: Array,
    target: int | npt.ArrayLike | None = None,
    *,
    noise: float = 0.1,
    samples: int = 20,
    seed: int = 0,
    start: npt.ArrayLike | None = None,
    conditions: Conditions | None = None,
    batch_size: int = BATCH,
    progress: Progress | None = None,
) -> Explanation:
    """The mean relevance of `samples` inputs: `samples` - 1 under Gaussian noise, and the input itself (as zennit has
    it). Smilkov et al. 2017, "SmoothGrad: removing noise by adding noise".

    `noise` is its standard deviation as a fraction of each input's range (maximum - minimum). The same `seed` gives the
    same noise to every input of a batch, whatever its place. `target`, `start` and `conditions` are those of
    `Explainer.explain`; the predicted class is that of the input without noise. Raises `OnnxLrpError` as that does, and
    for an explainer that always explains the predicted class.
    """
    check_noise(samples, noise, seed)
    exact, question = _exact(explainer, batch, target, start, conditions)
    axes = tuple(range(1, batch.ndim))
    deviation = noise * (batch.max(axes, keepdims=True) - batch.min(axes, keepdims=True)).astype(np.float64)

    def noisy(rows: Indices, variants: Indices) -> Array:
        drawn = [np.random.default_rng((seed, int(v))).standard_normal(batch.shape[1:]) for v in variants]
        return (batch[rows] + deviation[rows] * np.stack(drawn)).astype(batch.dtype)

    total = exact.relevance.astype(np.float64)
    for rows, inputs in _variants(explainer, len(batch), samples - 1, noisy, batch_size, progress):
        np.add.at(total, rows, question.relevance(inputs, rows).astype(np.float64))
    return _answered(explainer, exact, total / samples)


def integrated_gradients(
    explainer: Explainer,
    batch: Array,
    target: int | npt.ArrayLike | None = None,
    *,
    baseline: npt.ArrayLike = 0.0,
    steps: int = 32,
    start: npt.ArrayLike | None = None,
    conditions: Conditions | None = None,
    batch_size: int = BATCH,
    progress: Progress | None = None,
) -> Explanation:
    """(x - baseline) times the mean gradient on the straight way from the baseline to the input. Sundararajan et al.
    2017, "Axiomatic attribution for deep networks".

    The integral is a sum over the middles of `steps` equal parts. It is complete: relevance adds up to the target's
    score at the input minus that at the baseline, but for the error of the sum. (Of a model that returns probabilities
    the score is the logit before them.) `baseline` is in the space of the model's input and spreads to one input's
    shape or the batch's. Needs an explainer converted with the composite `gradient`; raises `OnnxLrpError` otherwise.
    """
    require_whole("steps", steps, 1)
    refuse_rules(explainer)
    exact, question = _exact(explainer, batch, target, start, conditions)
    base = _spread("baseline", baseline, batch)
    way = batch.astype(np.float64) - base

    def between(rows: Indices, variants: Indices) -> Array:
        part = ((variants + 0.5) / steps).reshape(-1, *[1] * (batch.ndim - 1))
        return (base[rows] + part * way[rows]).astype(batch.dtype)

    total = np.zeros(exact.relevance.shape, np.float64)
    for rows, inputs in _variants(explainer, len(batch), steps, between, batch_size, progress):
        np.add.at(total, rows, question.relevance(inputs, rows).astype(np.float64))
    return _answered(explainer, exact, total / steps * (way if total.ndim == way.ndim else way[:, None]))


def occlusion(
    explainer: Explainer,
    batch: Array,
    target: int | npt.ArrayLike | None = None,
    *,
    window: int | Sequence[int] = 16,
    stride: int | Sequence[int] | None = None,
    fill: npt.ArrayLike = 0.0,
    batch_size: int = BATCH,
    progress: Progress | None = None,
) -> Explanation:
    """How much the target's score falls where a window hides the input, averaged over the windows that hide a pixel.
    Zeiler & Fergus 2014, "Visualizing and understanding convolutional networks".

    `window` and `stride` are in pixels, one number or one for each side of the picture; the stride is half a window
    unless given; the last window of a row ends at the edge. `fill` is what hides (in the space of the model's input; it
    spreads to one input's shape). The channels of a pixel share its value equally, so that their sum is the fall of the
    score, which is in the unit of the explained output. Only the classifier runs, not the relevance part. Raises
    `OnnxLrpError` where a window is larger than the picture, or the stride than the window: pixels between would not be
    tested.
    """
    refuse_pixels(explainer)
    axes = _spatial_axes(explainer)
    windows = _windows([batch.shape[axis] for axis in axes], _sides("window", window, axes), stride)
    hiding = _spread("fill", fill, batch)
    logits = explainer.predict(batch)
    chosen = _chosen(target, logits)
    columns = chosen.reshape(len(batch), -1)
    places = [_place(batch.ndim, axes, w) for w in windows]

    def hidden(rows: Indices, variants: Indices) -> Array:
        inputs = batch[rows]
        for k, (row, variant) in enumerate(zip(rows, variants, strict=True)):
            inputs[k][places[variant]] = hiding[row][places[variant]]
        return inputs

    falls = np.zeros((len(batch), len(windows), columns.shape[1]))
    whole = np.take_along_axis(logits, columns, 1).astype(np.float64)
    done = 0
    for rows, inputs in _variants(explainer, len(batch), len(windows), hidden, batch_size, progress):
        scores = np.take_along_axis(explainer.predict(inputs), columns[rows], 1)
        falls.reshape(-1, columns.shape[1])[done : done + len(rows)] = whole[rows] - scores
        done += len(rows)
    relevance = _painted(falls, places, batch.shape, axes).reshape(*chosen.shape, *batch.shape[1:]).astype(batch.dtype)
    outputs = {explainer.output_name: logits, contract.RELEVANCE: relevance, contract.EXPLAINED: chosen}
    return Explanation(logits, chosen, relevance, outputs, explainer.scores)


def check_noise(samples: int, noise: float, seed: int) -> None:
    """Raise `OnnxLrpError` for options that SmoothGrad cannot have."""
    require_whole("samples", samples, 1)
    require_whole("seed", seed, 0)
    if not 0 <= noise < math.inf:
        reason = "is below zero" if noise < 0 else "is not a finite number"
        raise OnnxLrpError(Problem(f"noise {noise}", reason, "0.1 is a tenth of the input's range"))


def check_stride(window: int, stride: int) -> None:
    """Raise `OnnxLrpError` where windows of that many pixels, `stride` apart, leave pixels between them."""
    if stride > window:
        reason = f"is more than the window's {window} pixels, and those between two windows would not be tested"
        raise OnnxLrpError(Problem(f"stride {stride}", reason, f"choose 1 to {window}"))


def refuse_small_pictures(explainer: Explainer, window: int) -> None:
    """Raise `OnnxLrpError` where an explainer's pictures are smaller than a window that is to hide part of them."""
    for axis in _spatial_axes(explainer):
        _check_side(window, explainer.input_shape[axis] or window)


def _check_side(window: int, size: int) -> None:
    if window > size:
        reason = f"is larger than the picture, whose side is {size} pixels"
        raise OnnxLrpError(Problem(f"window {window}", reason, f"choose 1 to {size}"))


def refuse_rules(explainer: Explainer) -> None:
    """Raise `OnnxLrpError` where an explainer's relevance is not the gradient of the target's score."""
    plain = {str(case.rule) for case in gradient().cases}
    others = sorted(set(explainer.rules.values()) - plain)
    if explainer.composite != "gradient" or explainer.start not in ("one-hot", "fed") or others:
        what = f"the rule {others[0]}" if explainer.composite == "gradient" and others else explainer.composite
        what = f"start {explainer.start}" if what == "gradient" else what
        reason = f"integrates gradients, and {explainer.name} was converted with {what or 'other rules'}"
        raise OnnxLrpError(Problem("integrated-gradients", reason, "convert the classifier with --composite gradient"))


def refuse_pixels(explainer: Explainer) -> None:
    """Raise `OnnxLrpError` where an explainer takes whole pixels, which cannot be varied a little."""
    if explainer.takes_pixels:
        reason = f"{explainer.name} takes whole pixels ({explainer.dtype}), and attributors feed what lies between"
        raise OnnxLrpError(Problem("method", reason, "convert the classifier without --embed-preprocessing"))


def _exact(
    explainer: Explainer,
    batch: Array,
    target: int | npt.ArrayLike | None,
    start: npt.ArrayLike | None,
    conditions: Conditions | None,
) -> tuple[Explanation, _Question]:
    """The explanation of the inputs themselves, and the question put to their variants: the same class for all."""
    refuse_pixels(explainer)
    if explainer.fixed_target == contract.PREDICTED:
        reason = f"{explainer.name} always explains the predicted class, which may be another for a changed input"
        raise OnnxLrpError(Problem("target", reason, "convert the classifier without --target"))
    exact = explainer.explain(batch, target, start=start, conditions=conditions)

    def each(given: npt.ArrayLike) -> Array:
        array = np.asarray(given)
        return np.broadcast_to(array, (len(batch), array.shape[-1]))

    masks = {layer: each(mask) for layer, mask in (conditions or {}).items()}
    return exact, _Question(
        explainer, None if explainer.fed else exact.target, None if start is None else each(start), masks
    )


def _variants(
    explainer: Explainer,
    count: int,
    each: int,
    make: Callable[[Indices, Indices], Array],
    batch_size: int,
    progress: Progress | None,
) -> Any:
    """Yield the inputs' numbers and the variants that `make`(inputs, variants) gives, `each` of every input, in
    batches; a model whose batch size is fixed gets whole ones."""
    require_whole("batch_size", batch_size, 1)
    fixed = explainer.input_shape[0] or 1
    size = max(batch_size // fixed, 1) * fixed
    numbers = np.arange(count * each)
    for first in range(0, len(numbers), size):
        rows, variants = np.divmod(numbers[first : first + size], each)
        yield rows, make(rows, variants)
        if progress is not None:
            progress(min(first + size, len(numbers)), len(numbers))


def _answered(explainer: Explainer, exact: Explanation, relevance: Array) -> Explanation:
    """The explanation with another relevance; outputs that belong to the old one are left out."""
    relevance = relevance.astype(exact.relevance.dtype)
    kept = (explainer.output_name, contract.EXPLAINED)
    outputs = {name: exact.outputs[name] for name in kept} | {contract.RELEVANCE: relevance}
    return replace(exact, relevance=relevance, outputs=outputs)


def _spread(what: str, given: npt.ArrayLike, batch: Array) -> Array:
    """float64, in the batch's shape."""
    array = np.asarray(given, np.float64)
    try:
        return np.broadcast_to(array, batch.shape)
    except ValueError:
        reason = f"has the shape {list(array.shape)}, an input {list(batch.shape[1:])}"
        raise OnnxLrpError(Problem(what, reason, "pass a number, or an array that spreads to an input")) from None


def _chosen(target: int | npt.ArrayLike | None, logits: Array) -> npt.NDArray[np.int64]:
    """int64 [N] or [N, T], the predicted class in the place of -1."""
    given = np.asarray(contract.PREDICTED if target is None else target)
    several = given.ndim == 2 and len(given) == len(logits) and given.dtype.kind in "iu"
    chosen = given.astype(np.int64) if several else class_numbers(given, len(logits))
    check_range(chosen, logits.shape[1])
    predicted = logits.argmax(axis=1).reshape(-1, *[1] * (chosen.ndim - 1))
    return np.where(chosen == contract.PREDICTED, predicted, chosen)


def _spatial_axes(explainer: Explainer) -> tuple[int, ...]:
    """The input's axes but the batch's and the channels'."""
    count = len(explainer.input_shape)
    if count < 3:
        reason = f"hides pixels, and the input has {count} axes"
        raise OnnxLrpError(Problem("occlusion", reason, "it needs an input [N, C, …]"))
    return tuple(range(2, count)) if explainer.layout == "NCHW" else tuple(range(1, count - 1))


def _sides(what: str, given: int | Sequence[int], axes: Sequence[int]) -> list[int]:
    sides = list(given) if isinstance(given, Sequence) else [given] * len(axes)
    if len(sides) != len(axes):
        raise OnnxLrpError(Problem(what, f"has {len(sides)} sides, the picture {len(axes)}", "give one for each"))
    for side in sides:
        require_whole(what, side, 1)
    return sides


def _windows(
    sizes: Sequence[int], window: Sequence[int], stride: int | Sequence[int] | None
) -> list[tuple[slice, ...]]:
    """All places of the window, as slices of the spatial axes."""
    steps = [max(side // 2, 1) for side in window] if stride is None else _sides("stride", stride, sizes)
    along = []
    for size, side, step in zip(sizes, window, steps, strict=True):
        check_stride(side, step)
        _check_side(side, size)
        last = size - side
        firsts = sorted({*range(0, last + 1, step), last})
        along.append([slice(first, first + side) for first in firsts])
    return list(itertools.product(*along))


def _place(ndim: int, axes: Sequence[int], window: Sequence[slice]) -> tuple[slice, ...]:
    """A window as an index into one input, without its batch axis."""
    where = dict(zip(axes, window, strict=True))
    return tuple(where.get(axis, slice(None)) for axis in range(1, ndim))


def _painted(falls: Array, places: Sequence[tuple[slice, ...]], shape: Sequence[int], axes: Sequence[int]) -> Array:
    """[N, T, …]: the mean fall of the windows [N, windows, T] over each pixel, shared by its channels."""
    total, covered = np.zeros((shape[0], falls.shape[2], *shape[1:])), np.zeros(shape[1:])
    (channel_axis,) = set(range(1, len(shape))) - set(axes)
    for index, place in enumerate(places):
        total[(slice(None), slice(None), *place)] += falls[:, index].reshape(*falls.shape[::2], *[1] * len(place))
        covered[place] += shape[channel_axis]
    return total / covered


def require_whole(what: str, value: object, least: int) -> None:
    """Raise `OnnxLrpError` where an option is not a whole number of `least` or more."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise OnnxLrpError(
            Problem(f"{what} {value}", f"is not a whole number of {least} or more", f"for example {16 if least else 0}")
        )

"""From what a caller asks to what an explainer is fed: every array checked, and one row an input.

A question that is ill put is answered with both numbers and the form that is wanted, before the model runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxlrp import contract
from onnxlrp.errors import OnnxLrpError, Problem, suggest
from onnxlrp.run.signature import Signature

Array = npt.NDArray[Any]
Feeds = dict[str, Array]
Conditions = Mapping[str, npt.ArrayLike]


def feeds_for(
    signature: Signature,
    batch: npt.ArrayLike,
    target: npt.ArrayLike | None = None,
    start: npt.ArrayLike | None = None,
    conditions: Conditions | None = None,
) -> Feeds:
    """What to feed, by name, each [N, …]; see `Explainer.explain`. Raises `OnnxLrpError` for what does not fit."""
    images = checked_batch(signature, np.asarray(batch))
    feeds = {signature.image: images}
    if signature.fed:
        feeds[contract.START] = _start(signature, target, start, len(images))
    else:
        if start is not None:
            reason = f"cannot be given: {signature.name} starts relevance from a class"
            raise OnnxLrpError(Problem("start", reason, "convert the classifier with --start fed"))
        chosen = _targets(signature, target, len(images))
        if signature.takes_target:
            feeds[contract.TARGET] = chosen
    return feeds | _masks(signature, conditions or {}, len(images))


def checked_batch(signature: Signature, batch: Array) -> Array:
    """`batch`, contiguous, if it is what the model's input takes."""
    expected = tuple("N" if i == 0 else s for i, s in enumerate(signature.shape))
    wanted = f"[{', '.join('any' if s is None else str(s) for s in expected)}]"
    got = f"[{', '.join(map(str, batch.shape))}]"
    if batch.ndim != len(expected):
        reason = f"has {batch.ndim} axes {got}, the model takes {len(expected)} {wanted}"
        raise OnnxLrpError(Problem("batch", reason, "a single input needs a batch axis: batch[None]"))
    if any(isinstance(e, int) and e != s for e, s in zip(expected, batch.shape, strict=True)):
        raise OnnxLrpError(Problem("batch", f"has the shape {got}, the model takes {wanted}", ""))
    if len(batch) == 0:
        raise OnnxLrpError(Problem("batch", f"is empty: it has the shape {got}", "pass at least one input"))
    if batch.dtype != signature.dtype:
        reason = f"has the dtype {batch.dtype}, the model takes {signature.dtype}"
        raise OnnxLrpError(Problem("batch", reason, f"batch.astype(np.{signature.dtype}), after pre-processing"))
    return np.ascontiguousarray(batch)


def class_numbers(target: npt.ArrayLike | None, count: int) -> npt.NDArray[np.int64]:
    """int64 [N] from None (-1, the predicted class), one class, or [N]."""
    given = _integers(contract.PREDICTED if target is None else target)
    if given.ndim > 0 and given.shape != (count,):
        reason = f"has the shape {list(given.shape)} for a batch of {count}"
        raise OnnxLrpError(Problem("target", reason, f"pass one class, or {count}"))
    return np.broadcast_to(given, (count,))


def check_range(targets: npt.NDArray[np.int64], classes: int) -> None:
    """Raise `OnnxLrpError` where a target is neither a class nor -1."""
    wrong = targets[(targets < contract.PREDICTED) | (targets >= classes)]
    if wrong.size:
        reason = f"{wrong.flat[0]} is out of range: the model has {classes} classes"
        remedy = f"choose 0..{classes - 1}, or {contract.PREDICTED} for the predicted class"
        raise OnnxLrpError(Problem("target", reason, remedy))


def _targets(signature: Signature, target: npt.ArrayLike | None, count: int) -> npt.NDArray[np.int64]:
    """int64 [N], or [N, K] where each input has K; checked as far as it can be before the model has run."""
    fixed = signature.fixed_target
    if fixed is not None:
        if target is not None and not np.all(np.asarray(target) == fixed):
            choice = "the predicted class" if fixed < 0 else f"class {fixed}"
            reason = f"{signature.name} always explains {choice}"
            raise OnnxLrpError(Problem("target", reason, "convert it without --target to choose at run time"))
        return np.full(count, fixed, np.int64)
    many = signature.targets_per_input
    targets = class_numbers(target, count) if many is None else _several(target, count, many)
    if signature.classes is not None:
        check_range(targets, signature.classes)
    return targets


def _several(target: npt.ArrayLike | None, count: int, many: int) -> npt.NDArray[np.int64]:
    """int64 [N, K] from [N, K], or [K] for every input alike."""
    remedy = f"pass an array [{count}, {many}], or [{many}] for every input alike"
    if target is None:
        reason = f"is missing: the model explains {many} classes of each input in one run"
        raise OnnxLrpError(Problem("target", reason, remedy))
    given = _integers(target)
    if given.shape not in ((many,), (count, many)):
        reason = f"has the shape {list(given.shape)}, the model takes {many} classes of each of {count} inputs"
        raise OnnxLrpError(Problem("target", reason, remedy))
    return np.broadcast_to(given, (count, many))


def _integers(target: npt.ArrayLike) -> npt.NDArray[np.int64]:
    given = np.asarray(target)
    if given.dtype.kind not in "iu":
        raise OnnxLrpError(Problem("target", f"has the dtype {given.dtype}", "pass an int or int64 [N]"))
    return given.astype(np.int64)


def _start(signature: Signature, target: npt.ArrayLike | None, start: npt.ArrayLike | None, count: int) -> Array:
    """[N, K] from [N, K], or [K] for every input alike."""
    classes = signature.classes
    form = f"[{count}, {classes or 'classes'}]"
    remedy = f"pass start={form}, for one class its one-hot or the class's score times that"
    if target is not None:
        reason = f"cannot be given: {signature.name} starts from relevance that is fed (--start fed)"
        raise OnnxLrpError(Problem("target", reason, remedy))
    if start is None:
        reason = f"is missing: {signature.name} starts from relevance that is fed (--start fed)"
        raise OnnxLrpError(Problem("start", reason, remedy))
    given = _numbers("start", start, signature.start_dtype)
    if given.ndim not in (1, 2) or given.shape[:-1] not in ((), (count,)) or given.shape[-1] != (
        classes or given.shape[-1]
    ):  # fmt: skip
        raise OnnxLrpError(Problem("start", f"has the shape {list(given.shape)}, the model takes {form}", remedy))
    return np.ascontiguousarray(np.broadcast_to(given, (count, given.shape[-1])))


def _masks(signature: Signature, conditions: Conditions, count: int) -> Feeds:
    """The masks [N, C] by the name of their input; ones, which let everything pass, where a layer is not mentioned."""
    for layer in conditions:
        if layer not in signature.conditions:
            reason = "is no layer whose channels can be chosen at run time"
            remedy = (
                suggest(layer, signature.conditions)
                if signature.conditions
                else f"convert the classifier with --condition '{layer}=input'"
            )
            raise OnnxLrpError(Problem(f"condition {layer}", reason, remedy))
    feeds = {}
    for layer, channels in signature.conditions.items():
        dtype = signature.condition_dtypes[layer]
        mask = _numbers(f"condition {layer}", conditions.get(layer, np.ones(channels)), dtype)
        if mask.shape not in ((channels,), (count, channels)):
            reason = f"has the shape {list(mask.shape)}, the layer has {channels} channels in each of {count} inputs"
            remedy = f"pass a mask [{count}, {channels}], or [{channels}] for every input alike"
            raise OnnxLrpError(Problem(f"condition {layer}", reason, remedy))
        feeds[contract.condition_name(layer)] = np.ascontiguousarray(np.broadcast_to(mask, (count, channels)))
    return feeds


def _numbers(what: str, given: npt.ArrayLike, dtype: np.dtype[Any] | None) -> Array:
    array = np.asarray(given)
    if array.dtype.kind not in "biuf":
        raise OnnxLrpError(Problem(what, f"has the dtype {array.dtype}", "pass real numbers"))
    return array.astype(dtype)

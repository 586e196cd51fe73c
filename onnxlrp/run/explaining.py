"""From prepared pictures to cases, one a picture and class: as few runs of the model as the targets allow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxlrp.contract import PREDICTED, RELEVANCE, tap_name
from onnxlrp.errors import OnnxLrpError, Problem, RunError
from onnxlrp.run.methods import Attribute
from onnxlrp.run.preparing import Prepared
from onnxlrp.run.session import Explainer, Explanation
from onnxlrp.run.targets import Choice, ranking, wanted

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Case:
    """One picture explained for one class.

    `relevance` is one sample of the model's output ([C, H, W] or [H, W, C]); `scores` and `probabilities` are [K];
    `taps` holds the relevance of inner tensors by tensor name, a sample each.
    """

    path: Path
    shown: npt.NDArray[np.uint8]
    target: int
    scores: Array
    probabilities: npt.NDArray[np.float64]
    relevance: Array
    taps: dict[str, Array]

    def light(self) -> Case:
        """The case without its maps, to be kept for the table."""
        return replace(self, shown=np.empty((0, 0, 3), np.uint8), relevance=np.empty(0, np.float32), taps={})

    @property
    def top(self) -> list[int]:
        """The five best classes (fewer where K is), best first."""
        return ranking(self.scores)[:5]


def explain_pictures(
    explainer: Explainer,
    paths: Sequence[Path],
    prepared: Sequence[Prepared],
    choices: Sequence[Choice],
    attribute: Attribute = Explainer.explain,
) -> Iterator[Case]:
    """Yield the cases of a batch of pictures of one size, a picture's cases in the order its classes were asked for.

    The first run explains one class of each picture and gives the scores that "the best" needs; each further run takes
    the next class of those pictures that have one. An explainer of several targets an input answers in one run.
    `attribute` gives the relevance. Raises as it does, and `RunError` where relevance holds NaN or infinity.
    """
    batch = _typed(np.stack([p.values for p in prepared]), explainer.dtype)
    if explainer.targets_per_input is not None:
        yield from _all_at_once(explainer, paths, prepared, choices, attribute, batch)
        return
    only = choices[0].index if all(choice.index is not None for choice in choices) else None
    first = attribute(explainer, batch, _first_target(explainer, only))
    _check_best(choices, first.logits.shape[1])
    if explainer.fixed_target is None:
        asked = [wanted(choices, scores) for scores in first.logits]
    else:
        asked = [[int(target)] for target in first.target]
    cases = [{int(first.target[i]): _case(first, i, paths[i], prepared[i])} for i in range(len(paths))]
    while missing := [(i, t) for i in range(len(paths)) if (t := _next(asked[i], cases[i])) is not None]:
        rows = [i for i, _ in missing]
        targets = np.array([t for _, t in missing], np.int64)
        more = attribute(explainer, batch[rows], targets)
        for place, (i, target) in enumerate(missing):
            cases[i][target] = _case(more, place, paths[i], prepared[i])
    for i in range(len(paths)):
        for target in asked[i]:
            yield cases[i][target]


def _typed(values: Array, dtype: np.dtype[Any]) -> Array:
    """The values as the model's input has them; pixels are whole numbers."""
    return values.astype(dtype) if dtype.kind == "f" else np.clip(np.rint(values), 0, 255).astype(dtype)


def _all_at_once(
    explainer: Explainer,
    paths: Sequence[Path],
    prepared: Sequence[Prepared],
    choices: Sequence[Choice],
    attribute: Attribute,
    batch: Array,
) -> Iterator[Case]:
    """The cases of an explainer of several targets an input."""
    if any(choice.index is None for choice in choices):
        logits = explainer.predict(batch)
        _check_best(choices, logits.shape[1])
        targets = np.array([wanted(choices, scores) for scores in logits], np.int64)
    else:
        targets = np.tile(np.array([choice.index for choice in choices], np.int64), (len(batch), 1))
    said = attribute(explainer, batch, targets)
    for i, path in enumerate(paths):
        for k in range(targets.shape[1]):
            yield _case(_one_target(said, k), i, path, prepared[i])


def _one_target(said: Explanation, k: int) -> Explanation:
    """The k-th of several targets, in the form of an explanation of one."""
    taps = {name: output[:, k] for name, output in said.outputs.items() if name.startswith(tap_name(""))}
    return replace(said, target=said.target[:, k], relevance=said.relevance[:, k], outputs={**said.outputs, **taps})


def _check_best(choices: Sequence[Choice], classes: int) -> None:
    for choice in choices:
        if choice.index is None and choice.best > classes:
            reason = f"is out of range: the model has {classes} classes"
            raise OnnxLrpError(Problem(f"target 'top{choice.best}'", reason, f"choose top1..top{classes}"))


def _first_target(explainer: Explainer, only: int | None) -> int | None:
    if explainer.fixed_target is not None:
        return only
    return PREDICTED if only is None else only


def _next(asked: list[int], done: dict[int, Case]) -> int | None:
    return next((target for target in asked if target not in done), None)


def _case(explanation: Explanation, row: int, path: Path, prepared: Prepared) -> Case:
    relevance = explanation.relevance[row]
    broken = int(np.count_nonzero(~np.isfinite(relevance)))
    if broken:
        reason = f"{broken} of {relevance.size} relevance values are NaN or infinite"
        raise RunError(Problem(str(path), reason, "convert with another --composite or a larger epsilon"))
    prefix = tap_name("")
    return Case(
        path=path,
        shown=prepared.shown,
        target=int(explanation.target[row]),
        scores=explanation.logits[row],
        probabilities=explanation.probabilities[row],
        relevance=relevance,
        taps={
            name.removeprefix(prefix): _rows(output, row, len(explanation.target))
            for name, output in explanation.outputs.items()
            if name.startswith(prefix) and name != RELEVANCE
        },
    )


def _rows(output: Array, row: int, count: int) -> Array:
    """One sample's part of an output, whose first axis may hold several rows a sample."""
    each = max(1, len(output) // count)
    return output[row] if each == 1 else output[row * each : (row + 1) * each]

"""Which classes to explain: a number, a name, or the best ones, which are known only when the model has spoken."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxlrp.errors import OnnxLrpError, Problem, raise_if_any

_TOP = re.compile(r"top([1-9]\d*)", re.IGNORECASE)


@dataclass(frozen=True)
class Choice:
    """Either one class (`index` 0..K-1) or, where `index` is None, the `best` classes with the highest scores."""

    index: int | None = None
    best: int = 1


PREDICTED = Choice()


def parse_targets(texts: Sequence[str], labels: Sequence[str] | None, classes: int | None) -> list[Choice]:
    """What the user wrote ("predicted", "top3", "7", "tabby") as choices; none written means the predicted class.

    `labels` are the model's class names and `classes` their number K, where known. A name may be written in any case.
    Raises `OnnxLrpError` with every text that is no class.
    """
    choices: list[Choice] = []
    problems: list[Problem] = []
    for text in texts or ["predicted"]:
        choice = _parse(text.strip(), labels, classes if classes is not None else (len(labels) if labels else None))
        if isinstance(choice, Problem):
            problems.append(choice)
        elif choice not in choices:
            choices.append(choice)
    raise_if_any(problems)
    return choices


def mistakable(texts: Sequence[str], labels: Sequence[str] | None) -> list[str]:
    """A sentence for each text that is the name of one class and the number of another: the name is what counts."""
    names = list(labels or ())
    digits = [text.strip() for text in texts if text.strip().isdecimal()]
    return [
        f"target {text!r} is taken for class {names.index(text)}, whose name that is, and not for class {int(text)}, "
        f"which is named {names[int(text)]!r}."
        for text in digits
        if text in names and int(text) < len(names) and names[int(text)] != text
    ]


def refuse_choice(choices: Sequence[Choice], fixed: int | None) -> None:
    """Raise `OnnxLrpError` where a model that always explains `fixed` (-1: the predicted class) is asked for another.

    Not to be called where the user asked for nothing. `fixed` is None for a model that lets its caller choose.
    """
    if fixed is None or list(choices) == [PREDICTED if fixed < 0 else Choice(fixed)]:
        return
    always = "the predicted class" if fixed < 0 else f"class {fixed}"
    reason = f"cannot be chosen: the model always explains {always}"
    raise OnnxLrpError(Problem("target", reason, "convert the classifier without --target"))


def refuse_count(choices: Sequence[Choice], many: int) -> None:
    """Raise `OnnxLrpError` where the choices are not exactly the `many` classes that a model explains in one run."""
    best = [choice.best for choice in choices if choice.index is None]
    if (len(best) == len(choices) == 1 and best[0] == many) or (not best and len(choices) == many):
        return
    reason = f"is not what the model takes: it explains {many} classes of each input in one run"
    raise OnnxLrpError(Problem("target", reason, f"choose top{many}, or --target {many} times with a class each"))


def wanted(choices: Sequence[Choice], scores: npt.NDArray[np.floating]) -> list[int]:
    """The classes that `choices` mean for one sample's `scores` [K], without repeats, in the order asked for."""
    order = ranking(scores)
    asked = [index for c in choices for index in (order[: c.best] if c.index is None else [c.index])]
    return list(dict.fromkeys(int(index) for index in asked))


def ranking(scores: npt.NDArray[np.floating]) -> list[int]:
    """The classes of one sample's `scores` [K], best first; of equal ones the lower number, as argmax has it."""
    return [int(i) for i in np.argsort(-scores, kind="stable")]


def class_name(index: int, labels: Sequence[str] | None) -> str:
    """What to call a class: its label, or "class 7"."""
    return labels[index] if labels and index < len(labels) else f"class {index}"


def _parse(text: str, labels: Sequence[str] | None, classes: int | None) -> Choice | Problem:
    node = f"target {text!r}"
    names = [label.casefold() for label in labels or ()]
    if text.casefold() in names:
        if names.count(text.casefold()) == 1:
            return Choice(names.index(text.casefold()))
        numbers = [str(i) for i, name in enumerate(names) if name == text.casefold()]
        return Problem(node, f"is the name of {len(numbers)} classes", f"choose by number: {', '.join(numbers[:10])}")
    if text.casefold() == "predicted":
        return PREDICTED
    top = _TOP.fullmatch(text)
    number = int(top[1]) - 1 if top else int(text) if text.isdecimal() else None
    if number is None:
        return Problem(node, "is no class of the model", _remedy(text, labels))
    if classes is not None and number >= classes:
        most = f"top1..top{classes}" if top else f"0..{classes - 1}"
        return Problem(node, f"is out of range: the model has {classes} classes", f"choose {most}")
    return Choice(best=number + 1) if top else Choice(number)


def _remedy(text: str, labels: Sequence[str] | None) -> str:
    forms = "predicted, top1..topK or a class number"
    if not labels:
        return f"choose {forms} (the model carries no class names: convert with --labels)"
    by_key = {label.casefold(): label for label in labels}
    within = [label for key, label in by_key.items() if text.casefold() in key]
    close = within[:3] or [by_key[key] for key in difflib.get_close_matches(text.casefold(), list(by_key), 3)]
    return f"perhaps you mean {' or '.join(repr(c) for c in close)}" if close else f"choose {forms}, or a class's name"

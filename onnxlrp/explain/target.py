"""Where relevance starts: the class to explain, and what its score is worth.

The explained output holds class scores [N, K]. A final Softmax (or Sigmoid) is left out of the explanation: relevance
starts from what enters it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from onnx import TensorProto

from onnxlrp import contract
from onnxlrp.errors import OnnxLrpError, Problem
from onnxlrp.graph.build import Builder, Value
from onnxlrp.graph.facts import Facts, shown
from onnxlrp.layers.registry import Relevance

Target = Literal["input", "predicted"] | int
SQUASHING = {"Softmax": "probabilities", "Sigmoid": "probabilities", "LogSoftmax": "log-probabilities"}
SAME = frozenset({"Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Dropout"})


@dataclass(frozen=True)
class Scores:
    """The tensor that relevance starts from, and what the output shows of it: `logits`, as it is, `probabilities` or
    `log-probabilities`."""

    tensor: str
    classes: int
    shown: str


def unsquashed(facts: Facts, output: str) -> tuple[str, str]:
    """The tensor that relevance starts from, and what the output shows of it."""
    node = facts.model.producer.get(output)
    while node is not None and node.op_type in {*SAME, *SQUASHING} and facts.carries(node.input[0]):
        if node.op_type in SQUASHING:
            return node.input[0], SQUASHING[node.op_type]
        node = facts.model.producer.get(node.input[0])
    return output, "logits"


def scores(facts: Facts, output: str) -> Scores:
    """Find the class scores behind an output; raises `OnnxLrpError` where it holds none."""
    tensor, shown_as = unsquashed(facts, output)
    if not facts.known(tensor):
        raise OnnxLrpError(Problem(f"output {output}", *facts.why_unknown(tensor)))
    shape = facts.shape(tensor)
    if not _is_scores(shape):
        reason = f"has the shape {shown(shape)}, and class scores are [N, classes]"
        behind = _scores_behind(facts, tensor) or "NAME"
        remedy = f"choose the tensor with the class scores: --output {behind}"
        raise OnnxLrpError(Problem(f"output {output}", reason, remedy))
    return Scores(tensor, int(shape[1]), shown_as)


def other_batches(facts: Facts, found: Scores, output: str) -> list[Problem]:
    """The problem with scores that are not those of one image a row, if they are not."""
    rows, images = facts.shape(found.tensor)[0], facts.shape(facts.image)[0]
    if rows == images:
        return []
    reason = f"has scores for {rows} images, and input {facts.image} for {images}"
    return [Problem(f"output {output}", reason, "export the model with one row of scores an image")]


def _is_scores(shape: tuple[int | str, ...]) -> bool:
    """[N, K], or [N, K, 1, 1]."""
    return len(shape) >= 2 and isinstance(shape[1], int) and all(d == 1 for d in shape[2:])


def _scores_behind(facts: Facts, tensor: str) -> str | None:
    """The class scores that a tensor only shows in another shape, or one of: a single logit squeezed to [N]."""
    node = facts.model.producer.get(tensor)
    while node is not None and node.op_type in {*SAME, "Gather"} and facts.carries(node.input[0]):
        if facts.known(node.input[0]) and _is_scores(facts.shape(node.input[0])):
            return node.input[0]
        node = facts.model.producer.get(node.input[0])
    return None


STARTS: Mapping[str, str] = {
    "logit": "the target's logit times its one-hot",
    "one-hot": "the target's one-hot",
    "contrastive": "max(0, R - R_dual), the dual spreading the logit over all other classes (CLRP, Gu et al. 2018)",
    "softmax-gradient": "y_t (1 - y_t) at the target, -y_t y_n elsewhere (SGLRP, Iwana et al. 2019)",
    "fed": f"an input `{contract.START}` of the scores' shape",
}


def start(build: Builder, found: Scores, explained: Value | None, kind: str) -> list[Relevance]:
    """The relevance that starts each walk, by a kind of `STARTS`; for `contrastive` the second is the dual's.

    `explained` is the class, int64 [N] (None for `fed`).
    """
    logits = build.tensor(found.tensor)
    with build.scope("start", f"start: {kind}"):
        if kind == "fed" or explained is None:
            fed = Value(contract.START, logits.element_type)
            return [Relevance(_as_scores(build, found, fed))]
        matrix = score_matrix(build, found)
        column = build.op("Unsqueeze", explained, build.integers([1]))
        classes = build.constant(np.arange(found.classes)[None], TensorProto.INT64)
        hot = build.op("Cast", build.op("Equal", column, classes), to=logits.element_type, step="one_hot")
        seeds = _SEEDS[kind](build, matrix, hot, found.classes)
        gate = logits if kind == "logit" else None
        return [Relevance(_as_scores(build, found, seed), gate) for seed in seeds]


def _logit(build: Builder, scores: Value, hot: Value, classes: int) -> list[Value]:
    return [build.op("Mul", scores, hot, step="relevance")]


def _one_hot(build: Builder, scores: Value, hot: Value, classes: int) -> list[Value]:
    return [hot]


def _contrastive(build: Builder, scores: Value, hot: Value, classes: int) -> list[Value]:
    """The target's logit at the target; and evenly over all other classes."""
    own = build.op("Mul", scores, hot, step="relevance")
    total = build.op("ReduceSum", own, build.integers([1]), keepdims=1)
    others = build.op("Sub", build.constant(1.0, hot), hot)
    share = build.op("Mul", others, build.constant(1.0 / max(classes - 1, 1), hot))
    return [own, build.op("Mul", total, share, step="dual")]


def _softmax_gradient(build: Builder, scores: Value, hot: Value, classes: int) -> list[Value]:
    """y_t (δ_tn - y_n): the gradient of the target's probability by the logits."""
    y = build.op("Softmax", scores, axis=1)
    own = build.op("ReduceSum", build.op("Mul", y, hot), build.integers([1]), keepdims=1)
    return [build.op("Mul", own, build.op("Sub", hot, y), step="relevance")]


_SEEDS = {
    "logit": _logit,
    "one-hot": _one_hot,
    "contrastive": _contrastive,
    "softmax-gradient": _softmax_gradient,
}


def score_matrix(build: Builder, found: Scores) -> Value:
    """The scores as [N, K]."""
    shape, scores = build.facts.shape(found.tensor), build.tensor(found.tensor)
    return scores if len(shape) == 2 else build.reshape(scores, (shape[0], found.classes), of=shape)


def _as_scores(build: Builder, found: Scores, matrix: Value) -> Value:
    """[N, K] in the scores' own shape."""
    shape = build.facts.shape(found.tensor)
    return matrix if len(shape) == 2 else build.reshape(matrix, shape, of=(shape[0], found.classes))


def explained_class(build: Builder, found: Scores, target: Target, kind: str, per_input: int = 0) -> Value:
    """The class to explain, int64 [N], or [N, `per_input`] where several are asked for."""
    with build.scope("target", f"target: {target}"):
        if kind == "fed":
            fed = Value(contract.START, build.tensor(found.tensor).element_type)
            return build.op("ArgMax", fed, axis=1, keepdims=0, step="explained")
        predicted = build.op(
            "ArgMax", score_matrix(build, found), axis=1, keepdims=int(per_input > 0), step="predicted"
        )
        return _chosen(build, predicted, target)


def _chosen(build: Builder, predicted: Value, target: Target) -> Value:
    if target == "predicted":
        return predicted
    if target == "input":
        fed = Value(contract.TARGET, TensorProto.INT64)
        asks = build.op("Equal", fed, build.integers([contract.PREDICTED]))
        return build.op("Where", asks, predicted, fed, step="explained")
    zero = build.op("Sub", predicted, predicted)
    return build.op("Add", zero, build.integers([int(target)]), step="explained")

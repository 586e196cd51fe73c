"""Where relevance starts: the class to explain, and what its score is worth.

The explained output holds class scores [N, K]. A final Softmax (or Sigmoid) is left out of the explanation: relevance
starts from what enters it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from onnx import TensorProto

from onnxlrp import contract
from onnxlrp.errors import OnnxLrpError, Problem
from onnxlrp.graph.build import Builder, Value
from onnxlrp.graph.facts import Facts
from onnxlrp.layers.registry import Relevance

Target = Literal["input", "predicted"] | int
SQUASHING = frozenset({"Softmax", "LogSoftmax", "Sigmoid"})
SAME = frozenset({"Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Dropout"})


@dataclass(frozen=True)
class Scores:
    """The tensor that relevance starts from, and whether the output shows it squashed to probabilities."""

    tensor: str
    classes: int
    squashed: bool


def scores(facts: Facts, output: str) -> Scores:
    """Find the class scores behind an output; raises `OnnxLrpError` where it holds none."""
    tensor, squashed = output, False
    node = facts.model.producer.get(output)
    while node is not None and node.op_type in SAME | SQUASHING and facts.carries(node.input[0]):
        squashed = node.op_type in SQUASHING
        if squashed:
            tensor = node.input[0]
            break
        node = facts.model.producer.get(node.input[0])
    if not facts.known(tensor):
        raise OnnxLrpError(Problem(f"output {output}", facts.why_unknown(tensor), "fix the shapes with --input-shape"))
    shape = facts.shape(tensor)
    if not _is_scores(shape):
        reason = f"has the shape {shape}, and class scores are [N, classes]"
        raise OnnxLrpError(
            Problem(f"output {output}", reason, "choose the output with the class scores: --output NAME")
        )
    return Scores(tensor, int(shape[1]), squashed)


def _is_scores(shape: tuple[int | str, ...]) -> bool:
    """[N, K], or [N, K, 1, 1]."""
    return len(shape) >= 2 and isinstance(shape[1], int) and all(d == 1 for d in shape[2:])


def start(build: Builder, found: Scores, target: Target, kind: str = "logit") -> tuple[Relevance, Value]:
    """The relevance that starts the walk and the class explained, int64 [N].

    `kind` is "logit" (the target's logit times its one-hot) or "one-hot".
    """
    logits = build.tensor(found.tensor)
    rank = len(build.facts.shape(found.tensor))
    with build.scope("target", f"target: {target}"):
        matrix = logits if rank == 2 else build.reshape(logits, (build.facts.shape(found.tensor)[0], found.classes))
        explained = _explained(build, matrix, target, found.classes)
        column = build.op("Unsqueeze", explained, build.integers([1]))
        hot = build.op(
            "Equal", column, build.constant(np.arange(found.classes)[None], TensorProto.INT64), step="is_target"
        )
        relevance = build.op("Cast", hot, to=logits.element_type, step="one_hot")
        if kind == "logit":
            relevance = build.op("Mul", matrix, relevance, step="relevance")
        if rank > 2:
            relevance = build.reshape(relevance, build.facts.shape(found.tensor))
    return Relevance(relevance, logits if kind == "logit" else None), explained


def _explained(build: Builder, logits: Value, target: Target, classes: int) -> Value:
    """int64 [N]."""
    predicted = build.op("ArgMax", logits, axis=1, keepdims=0, step="predicted")
    if target == "predicted":
        return predicted
    if target == "input":
        fed = Value(contract.TARGET, TensorProto.INT64)
        asks = build.op("Equal", fed, build.integers([contract.PREDICTED]))
        return build.op("Where", asks, predicted, fed, step="explained")
    zero = build.op("Sub", predicted, predicted)
    return build.op("Add", zero, build.integers([int(target)]), step="explained")

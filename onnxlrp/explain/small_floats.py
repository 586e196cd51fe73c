"""Relevance in float16, whose smallest steps are 6e-8 wide.

A score that is spread over the millions of units of a first layer leaves less than that for each of them. Every rule is
homogeneous: k times the relevance that arrives, k > 0, leaves as k times as much. So a walk in float16 that starts at a
score starts enlarged, such that the score counts 256, or 256 times as much where it is below 1, and what it finds is
made as much smaller. The first quotient, the score over itself, is then 256 at most. Other starts are divided by other
scores, however small, and stay as they are.
"""

from __future__ import annotations

from dataclasses import replace

from onnx import TensorProto

from onnxlrp.explain.plan import Plan
from onnxlrp.graph.build import Builder, Value
from onnxlrp.layers.registry import Relevance
from onnxlrp.rules.rule import LinearRule

LARGEST = 256.0


def spreads_in_float16(build: Builder, plan: Plan, start: str) -> bool:
    """Whether a score is shared out on tensors of float16, by rules whose quotients stay in proportion to what they
    divide: alpha_beta, which divides by contributions of one sign although the other may have decided, has quotients
    that are as near to infinity as float16 can bear already."""
    rules = [s.rule for s in plan.steps if isinstance(s.rule, LinearRule)]
    quotients = [sum(share.divide and share.where == "everywhere" for share in rule.shares) for rule in rules]
    divides = any(share.divide for rule in rules for share in rule.shares)
    types = {build.facts.element_type(s.layer.output) for s in plan.steps}
    return build.exact and start == "logit" and TensorProto.FLOAT16 in types and divides and max(quotients) < 2


def enlarged(build: Builder, first: Relevance, rank: int, together: bool) -> tuple[Relevance, Value]:
    """Relevance [N, …] of `rank` axes, enlarged, and what to multiply results by: [N, 1, …] of as many axes, or with
    `together` one number for all samples, [1, 1, …]."""
    with build.scope("start", "enlarged: float16"):
        size = build.largest(build.op("Abs", first.value), list(range(0 if together else 1, rank)), keepdims=True)
        back = build.op(
            "Mul", build.op("Max", size, build.constant(1.0, size)), build.constant(1 / LARGEST, size), step="scale"
        )
        return replace(first, value=build.op("Div", first.value, back, step="enlarged")), back


def reduced(build: Builder, value: Value, rank: int, back: Value) -> Value:
    """What a walk that started enlarged has found, of `rank` axes, in its own size."""
    factor = build.op("Reshape", back, build.integers([-1, *[1] * (rank - 1)]))
    if factor.element_type != value.element_type:
        factor = build.op("Cast", factor, to=value.element_type)
    return build.op("Mul", value, factor, step="reduced")

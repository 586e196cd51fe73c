"""Relevance in float16, whose smallest steps are 6e-8 wide.

A score that is spread over the millions of units of a first layer leaves less than that for each of them. Every rule is
homogeneous: k times the relevance that arrives, k > 0, leaves as k times as much. So a walk in float16 starts enlarged,
such that the largest score counts 1024, or 1024 times as much where it is below 1, and what it finds is made as much
smaller. A quotient R ÷ z at the scores is then still 1024 at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from onnx import TensorProto

from onnxlrp.explain.plan import Plan
from onnxlrp.graph.build import Builder, Value
from onnxlrp.layers.registry import Relevance
from onnxlrp.rules.rule import LinearRule

LARGEST = 1024.0


def spreads_in_float16(build: Builder, plan: Plan) -> bool:
    """Whether relevance is shared out, by any rule that divides, on tensors of float16."""
    divides = (isinstance(s.rule, LinearRule) and any(share.divide for share in s.rule.shares) for s in plan.steps)
    types = {build.facts.element_type(s.layer.output) for s in plan.steps}
    return build.exact and TensorProto.FLOAT16 in types and any(divides)


def enlarged(build: Builder, first: Sequence[Relevance], rank: int) -> tuple[list[Relevance], Value]:
    """Relevance [N, …] of `rank` axes, enlarged, and what to multiply results by: [N, 1, …], of as many axes. Several
    are enlarged alike, by what suits the first."""
    with build.scope("start", "enlarged: float16"):
        size = build.largest(build.op("Abs", first[0].value), list(range(1, rank)), keepdims=True)
        back = build.op(
            "Mul", build.op("Max", size, build.constant(1.0, size)), build.constant(1 / LARGEST, size), step="scale"
        )
        return [replace(r, value=build.op("Div", r.value, back, step="enlarged")) for r in first], back


def reduced(build: Builder, value: Value, rank: int, back: Value) -> Value:
    """What a walk that started enlarged has found, of `rank` axes, in its own size."""
    factor = build.op("Reshape", back, build.integers([-1, *[1] * (rank - 1)]))
    if factor.element_type != value.element_type:
        factor = build.op("Cast", factor, to=value.element_type)
    return build.op("Mul", value, factor, step="reduced")

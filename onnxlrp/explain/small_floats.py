"""Relevance in float16, whose smallest steps are 6e-8 wide.

A score that is spread over the millions of units of a first layer leaves less than that for each of them. Every rule is
homogeneous: k times the relevance that arrives, k > 0, leaves as k times as much. So a walk in float16 that starts at a
score starts enlarged, such that the score counts 256, or 256 times as much where it is below 1, and what it finds is
made as much smaller. The first quotient, the score over itself, is then 256 at most. Other starts are divided by other
scores, however small, and stay as they are.

Quotients stay in proportion to what they divide, where that is the unit's value. What divides by contributions of one
sign, where the other may have decided, finds R ⊘ ε, which is infinite, just where nothing contributes: infinite times
0. Kept finite, that is 0 again.
"""

from __future__ import annotations

from dataclasses import replace

from onnx import TensorProto

from onnxlrp.explain.complements import UP
from onnxlrp.explain.plan import Plan
from onnxlrp.explain.quotient import is_rectified
from onnxlrp.graph.build import Builder, Symbol, Value
from onnxlrp.layers.registry import Inputs, Linear, Relevance
from onnxlrp.rules.rule import LinearRule, Modifier, Part, Share

LARGEST, FINITE = 256.0, 65504.0
ONE_SIGN = frozenset({Part.POSITIVE, Part.NEGATIVE})


def spreads_in_float16(build: Builder, plan: Plan, start: str) -> bool:
    """Whether a score is shared out on tensors of float16, but not by alpha_beta: half of its quotients are as near to
    infinity as float16 can bear already."""
    rules = [s.rule for s in plan.steps if isinstance(s.rule, LinearRule)]
    quotients = [sum(share.divide and share.where == "everywhere" for share in rule.shares) for rule in rules]
    divides = any(share.divide for rule in rules for share in rule.shares)
    types = {build.facts.element_type(s.layer.output) for s in plan.steps}
    return build.exact and start == "logit" and TensorProto.FLOAT16 in types and divides and max(quotients) < 2


def in_range(rule: LinearRule, layer: Linear, r: Relevance, build: Builder) -> Linear:
    """The layer; where a rule's quotients may leave float16, with an adjoint that reads and gives finite numbers."""
    if not build.exact or layer.z.element_type != TensorProto.FLOAT16 or not _may_overflow(rule, r):
        return layer

    def finite(a: Value, step: str) -> Value:
        return build.op("Clip", a, build.constant(-FINITE, a), build.constant(FINITE, a), step=step)

    def transpose(s: Value, w: Symbol) -> Inputs:
        return tuple(finite(c, "c") if isinstance(c, Value) else c for c in layer.transpose(finite(s, "s"), w))

    return replace(layer, transpose=transpose, transposes=None, transpose_sum=None)


def _may_overflow(rule: LinearRule, r: Relevance) -> bool:
    """Whether a rule divides by less than what decides R: by contributions of one sign, unless they are all of z⁺ and R
    vanishes with relu(z) ≤ z⁺."""
    divided = [s for s in rule.shares if s.divide and s.where == "everywhere" and _of_one_sign(s)]
    return any(share.terms != UP or not is_rectified(r) for share in divided)


def _of_one_sign(share: Share) -> bool:
    """Whether a share leaves out weights of one of the signs, term by term."""
    return all(isinstance(t.w, Modifier) and t.w.keep == 0 and t.w.part in ONE_SIGN for t in share.terms)


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

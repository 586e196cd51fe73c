"""A summand that only its sum reads need not be kept for relevance: x = z - (the others).

Where a convolution makes it, runtimes add the others within the convolution, and a relu behind, unless something else
reads what the convolution alone gives. Relevance that vanishes with relu(z) needs x only where z = relu(z), and gets it
with the rounding of the sum, half an ulp of z. That is lost of R as a whole where every share divides by at least |z|;
not where one divides by what is negative, which may be of x alone, and where z of other elements matters, as its rms.

The sum then takes the memory of the others, if nothing reads them after it; else ONNX Runtime copies them, on one
thread. So the denominator of a convolution that reads them is computed before the sum.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from onnx import TensorProto

from onnxlrp.explain.complements import are_complements
from onnxlrp.explain.plan import Plan, Step
from onnxlrp.graph.blocks import fills_blocks
from onnxlrp.graph.build import Builder, One, Value
from onnxlrp.graph.facts import Facts
from onnxlrp.layers.registry import Layer, Linear, Relevance
from onnxlrp.rules.rule import ALL, LinearRule, Modifier, Part

FINE = (TensorProto.FLOAT, TensorProto.DOUBLE)  # an ulp of others is large
AS_LARGE_AS_THE_SUM = frozenset({Part.ALL, Part.ABSOLUTE, Part.POSITIVE, Part.ONES, Part.MAIN})


class Summands:
    """The sums of a plan of which one summand is taken from the others, and the layers that read those others."""

    def __init__(self, build: Builder, plan: Plan) -> None:
        self.build = build
        self.spared = _spared(plan, build.facts) if build.exact else {}
        self.overwritten: set[str] = set()  # by the sums that the walk has met

    def taken(self, step: Step, r: Relevance) -> Layer:
        """The step's layer; where it is one of these sums, and R vanishes with what is at hand of it, with that summand
        as a difference; where it reads what one of them overwrites, early."""
        layer = step.layer
        if not isinstance(layer, Linear):
            return layer
        if layer.output in self.spared and r.gate is not None:
            return self._without_one(layer, r.gate)
        return replace(layer, early=True) if self._comes_before_the_sum(step, r) else layer

    def _without_one(self, layer: Linear, rest: Value) -> Linear:
        spared, facts = self.spared[layer.output], self.build.facts
        for k, (x, name) in enumerate(zip(layer.x, layer.inputs, strict=True)):
            if k != spared:
                rest = self.build.op("Sub", rest, x, step="summand")
                if len(layer.x) == 2 and fills_blocks(facts.element_type(name), facts.shape(name)):
                    self.overwritten.add(name)
        return replace(layer, x=tuple(rest if k == spared else x for k, x in enumerate(layer.x)))

    def _comes_before_the_sum(self, step: Step, r: Relevance) -> bool:
        """Whether a convolution alone reads what a sum overwrites, and its denominator, kept instead, is no larger. Not
        one of several denominators: the walk to the scores, and with it the sum, comes between the first and the
        others."""
        layer, facts = step.layer, self.build.facts
        x = layer.inputs[0]
        if layer.kind != "convolution" or x not in self.overwritten or not _has_one_denominator(step, r):
            return False
        if len(facts.model.consumers[x]) > 2 or x in {o.name for o in facts.model.outputs}:
            return False
        shapes = (facts.shape(name)[1:] for name in (layer.output, x))
        kept, freed = (math.prod(d for d in shape if isinstance(d, int)) for shape in shapes)
        return kept <= freed


def _spared(plan: Plan, facts: Facts) -> dict[str, int]:
    """For the output of a sum, which of its inputs is not kept."""
    fused = _fused(plan, facts)
    found: dict[str, int] = {}
    for step in plan.steps:
        chosen = [k for k, name in enumerate(step.layer.inputs) if name in fused]
        if chosen and _is_plain_sum(step.layer, facts) and _divides_by_the_sum(step):
            found[step.layer.output] = chosen[0]
    return found


def _has_one_denominator(step: Step, r: Relevance) -> bool:
    """Whether a step's denominators take one convolution: it divides R once, one side of it and the other as one, or
    by two that add up to its output."""
    rule, layer = step.rule, step.layer
    if not isinstance(rule, LinearRule) or not isinstance(layer, Linear):
        return True
    return sum(s.divide and s.where == "everywhere" for s in rule.shares) <= 1 or are_complements(rule, layer, r)


def _is_plain_sum(layer: Layer, facts: Facts) -> bool:
    """Whether a layer adds tensors of one shape and a type with small ulps."""
    shapes = {facts.shape(name) for name in layer.inputs}
    plain = layer.kind == "sum" and isinstance(layer, Linear) and isinstance(layer.w, One)
    return plain and len(shapes) == 1 and facts.element_type(layer.output) in FINE


def _divides_by_the_sum(step: Step) -> bool:
    """Whether every share of a sum's rule divides by at least |z|, element by element."""
    rule = step.rule
    if not isinstance(rule, LinearRule) or rule.stabilizer.kind == "norm":
        return False
    terms = [t for s in rule.shares for t in s.terms]
    everywhere = all(s.where == "everywhere" and s.weight > 0 for s in rule.shares)
    large = all(isinstance(t.x, Modifier) and t.x.part in AS_LARGE_AS_THE_SUM and t.sign > 0 for t in terms)
    return everywhere and large


def _fused(plan: Plan, facts: Facts) -> set[str]:
    """The outputs of convolutions that nothing but one node reads, whose own rule does not."""
    outputs, consumers = {o.name for o in facts.model.outputs}, facts.model.consumers
    made: Mapping[str, Step] = {s.layer.output: s for s in plan.steps if s.layer.kind == "convolution"}
    single = {name for name in made if name not in outputs and len(consumers[name]) == 1}
    return {name for name in single if not _reads_output(made[name])}


def _reads_output(step: Step) -> bool:
    """Whether z = A(w) x + b is part of what a step's rule divides by, or decides where it holds."""
    rule = step.rule
    if not isinstance(rule, LinearRule):
        return True
    return any(s.where != "everywhere" or any(t.w == ALL for t in s.terms) for s in rule.shares)

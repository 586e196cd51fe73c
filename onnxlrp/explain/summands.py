"""A summand that only its sum reads need not be kept for relevance: x = z - (the others).

Where a convolution makes it, runtimes add the others within the convolution, and a relu behind, unless something else
reads what the convolution alone gives. Relevance that vanishes with relu(z) needs x only where z = relu(z), up to the
rounding of the sum, half an ulp of z, or of R in what becomes of R.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from onnx import TensorProto

from onnxlrp.explain.plan import Plan, Step
from onnxlrp.graph.build import Builder, One
from onnxlrp.graph.facts import Facts
from onnxlrp.layers.registry import Layer, Linear, Relevance
from onnxlrp.rules.rule import ALL, LinearRule


class Summands:
    """The sums of a plan of which one summand is taken from the others."""

    def __init__(self, build: Builder, plan: Plan) -> None:
        self.build = build
        made = {step.layer.output: step for step in plan.steps}
        self.spared = _spared(plan, made, build.facts) if build.exact else {}

    def taken(self, layer: Layer, r: Relevance) -> Layer:
        """The layer; where it is one of these sums, and R vanishes with what is at hand of it, with that summand as a
        difference."""
        if not isinstance(layer, Linear) or layer.output not in self.spared or r.gate is None:
            return layer
        spared, rest = self.spared[layer.output], r.gate
        for k, x in enumerate(layer.x):
            rest = rest if k == spared else self.build.op("Sub", rest, x, step="summand")
        return replace(layer, x=tuple(rest if k == spared else x for k, x in enumerate(layer.x)))


def _spared(plan: Plan, made: Mapping[str, Step], facts: Facts) -> dict[str, int]:
    """For the output of a sum, which of its inputs is not kept."""
    found: dict[str, int] = {}
    for layer in (s.layer for s in plan.steps if s.layer.kind == "sum"):
        shapes = {facts.shape(name) for name in layer.inputs}
        plain = isinstance(layer, Linear) and isinstance(layer.w, One) and len(shapes) == 1
        if plain and facts.element_type(layer.output) != TensorProto.FLOAT16:  # whose ulp is large
            fused = [k for k, name in enumerate(layer.inputs) if name in made and _is_fused(made[name], facts)]
            if fused:
                found[layer.output] = fused[0]
    return found


def _is_fused(step: Step, facts: Facts) -> bool:
    """Whether a convolution's output is not kept but for its relevance, and its rule does not read it."""
    layer, rule, outputs = step.layer, step.rule, [o.name for o in facts.model.outputs]
    kept = layer.output in outputs or len(facts.model.consumers[layer.output]) > 1
    return layer.kind == "convolution" and not kept and isinstance(rule, LinearRule) and not _reads_output(rule)


def _reads_output(rule: LinearRule) -> bool:
    """Whether z = A(w) x + b is part of what the rule divides by, or decides where it holds."""
    return any(s.where != "everywhere" or any(t.w == ALL for t in s.terms) for s in rule.shares)

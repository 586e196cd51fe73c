"""The mask of a relu's derivative, 1 where the unit is active: where it is multiplied, and in which memory layout.

Max pooling routes to the largest of a window, and where that is zero all of a relu's outputs in the window are. So the
mask of a relu before a max pooling is taken behind it, where there are fewer elements; what was routed then vanishes
with the relu.
"""

from __future__ import annotations

import collections
from collections.abc import Collection, Sequence
from dataclasses import replace

from onnxlrp.explain.plan import Plan, Step
from onnxlrp.graph.build import Builder
from onnxlrp.layers.activation import where_active
from onnxlrp.layers.registry import Relevance
from onnxlrp.layers.steps import in_blocks
from onnxlrp.rules.rule import ActivationRule, PoolingRule


class Masks:
    """The masks that a walk multiplies by. Tensors that are `watched` keep the relevance that belongs to them."""

    def __init__(self, build: Builder, plan: Plan, watched: Collection[str]) -> None:
        self.build = build
        self.behind_pooling = _behind_pooling(plan, watched) if build.exact else set()

    def summands(self, step: Step, parts: Sequence[Relevance]) -> Sequence[Relevance]:
        """What reached a layer's output; where a mask comes next and convolutions made some of it, all in their layout,
        in which they sum as well."""
        name, blocked = step.layer.output, [self.build.is_blocked(r.value) for r in parts]
        if not any(blocked) or not any(self._masked_next(step, r) for r in parts):
            return parts
        shape = self.build.facts.shape(name)
        return [replace(r, value=in_blocks(self.build, r.value, shape)) for r in parts]

    def taken(self, step: Step, r: Relevance) -> Relevance:
        """R of a layer's output, multiplied by the mask of the relu before the layer where it is taken here."""
        if step.layer.output not in self.behind_pooling or not self._masked_next(step, r):
            return r
        y = self.build.tensor(step.layer.output)
        return Relevance(where_active(self.build, r.value, y), y)

    def _masked_next(self, step: Step, r: Relevance) -> bool:
        """Whether R of a layer's output is multiplied by a mask before it reaches the layer's input."""
        name = step.layer.output
        return not r.vanishes_with(name) and (name in self.behind_pooling or _takes_derivative(step))


def _behind_pooling(plan: Plan, watched: Collection[str]) -> set[str]:
    """The outputs of max poolings of what a relu makes, and nothing else reads, where its derivative is a factor."""
    readers = collections.Counter(name for step in plan.steps for name in step.layer.inputs)
    masked = {s.layer.output for s in plan.steps if _takes_derivative(s)} - set(watched)
    poolings = (s.layer for s in plan.steps if _routes_to_largest(s))
    return {p.output for p in poolings if p.inputs[0] in masked and readers[p.inputs[0]] == 1}


def _takes_derivative(step: Step) -> bool:
    """Whether the step multiplies R by a relu's derivative."""
    rule, layer = step.rule, step.layer
    return layer.rectifies and isinstance(rule, ActivationRule) and rule.derivative and rule.smooth is None


def _routes_to_largest(step: Step) -> bool:
    return step.layer.kind == "max pooling" and isinstance(step.rule, PoolingRule) and not step.rule.average

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
from onnxlrp.layers.registry import Activation, Layer, Relevance
from onnxlrp.rules.rule import ActivationRule, PoolingRule


class Masks:
    """The masks that a walk multiplies by. Tensors that are `watched` keep the relevance that belongs to them."""

    def __init__(self, build: Builder, plan: Plan, watched: Collection[str]) -> None:
        self.build = build
        self.behind_pooling = _behind_pooling(plan, watched) if build.exact else set()

    def met(self, step: Step, parts: Sequence[Relevance]) -> Sequence[Relevance]:
        """What reached a layer's output; where a mask comes next, in the layout in which sums and products are
        cheap."""
        name = step.layer.output
        needed = _masks(step) and not all(r.vanishes_with(name) for r in parts)
        if not needed and name not in self.behind_pooling:
            return parts
        shape = self.build.facts.shape(name)
        return [replace(r, value=self.build.in_blocks(r.value, shape)) for r in parts]

    def taken(self, layer: Layer, r: Relevance) -> Relevance:
        """R of a layer's output, multiplied by the mask of the relu before the layer where it is taken here."""
        if layer.output not in self.behind_pooling or r.vanishes_with(layer.output):
            return r
        y = self.build.tensor(layer.output)
        return Relevance(where_active(self.build, r.value, y), y)


def _behind_pooling(plan: Plan, watched: Collection[str]) -> set[str]:
    """The outputs of max poolings of what a relu makes, and nothing else reads, where its derivative is a factor."""
    readers = collections.Counter(name for step in plan.steps for name in step.layer.inputs)
    masked = {s.layer.output for s in plan.steps if _masks(s) and readers[s.layer.output] == 1} - set(watched)
    return {s.layer.output for s in plan.steps if _routes_to_largest(s) and s.layer.inputs[0] in masked}


def _masks(step: Step) -> bool:
    """Whether the step multiplies R by a relu's derivative."""
    rule, layer = step.rule, step.layer
    relu = isinstance(layer, Activation) and layer.rectifies
    return relu and isinstance(rule, ActivationRule) and rule.derivative and rule.smooth is None


def _routes_to_largest(step: Step) -> bool:
    return step.layer.kind == "max pooling" and isinstance(step.rule, PoolingRule) and not step.rule.average

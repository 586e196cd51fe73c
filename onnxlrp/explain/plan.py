"""Every layer on the way, its rule and why; every problem with its remedy. Nothing is emitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnxlrp.errors import Problem
from onnxlrp.explain.composite import WEIGHTED, Case, Composite, Place, matches
from onnxlrp.graph.facts import Facts
from onnxlrp.layers.registry import Activation, Diagonal, Layer, Linear, Routing, Special
from onnxlrp.rules.rule import ActivationRule, LinearRule, PassRule, Rule


@dataclass(frozen=True)
class Step:
    """One layer with its rule (None where there is nothing to choose) and the reason for it."""

    layer: Layer
    rule: Rule | None
    why: str


@dataclass(frozen=True)
class Plan:
    """What converting would do: steps in the order the model computes them, and what stands in the way."""

    composite: str
    steps: tuple[Step, ...]
    problems: tuple[Problem, ...]

    @property
    def rules(self) -> dict[str, str]:
        """Layer name -> rule, for layers that have one."""
        return {s.layer.name: str(s.rule) for s in self.steps if s.rule}


def plan(layers: Sequence[Layer], composite: Composite, overrides: Sequence[Case], facts: Facts) -> Plan:
    """Give every layer its rule: the first override that matches, else the composite's."""
    first = first_weighted(layers, facts)
    chosen = Composite(composite.name, composite.cases)
    users = Composite("--rule", tuple(overrides))
    steps, problems = [], []
    for layer in layers:
        place = Place(layer, layer.name in first)
        rule, why = users.rule_for(place)
        if rule is None:
            rule, why = chosen.rule_for(place)
        if isinstance(layer, Routing):
            rule, why = None, "relevance goes where the value came from"
        problems += unfit(layer, rule, facts)
        steps.append(Step(layer, rule, why))
    problems += [
        Problem(f"--rule {case.pattern}", "matches no layer on the way", "see the names with: onnxlrp plan")
        for case in overrides
        if not any(matches(case.pattern, layer) for layer in layers)
    ]
    return Plan(composite.name, tuple(steps), tuple(problems))


def first_weighted(layers: Sequence[Layer], facts: Facts) -> set[str]:
    """Names of the weighted linear layers that some path from the image reaches before any other."""
    reached, found = {facts.image}, set()
    for layer in layers:
        if not reached.isdisjoint(layer.inputs):
            if layer.kind in WEIGHTED:
                found.add(layer.name)
            else:
                reached.add(layer.output)
    return found


def unfit(layer: Layer, rule: Rule | None, facts: Facts) -> list[Problem]:
    """The problem with giving this rule to this layer, if there is one."""
    if isinstance(layer, Routing):
        return []
    if rule is None:
        return [Problem(str(layer), f"the composite has no rule for its kind ({layer.kind})", "give one with --rule")]
    fits = {
        Activation: isinstance(rule, (PassRule, ActivationRule)),
        Diagonal: isinstance(rule, (LinearRule, PassRule)),
        Linear: isinstance(rule, LinearRule) or (isinstance(rule, PassRule) and _keeps_shape(layer, facts)),
        Special: isinstance(layer, Special) and layer.accepts(rule),
    }[type(layer)]
    if fits:
        return []
    reason = f"the rule {rule} does not fit a layer of kind {layer.kind}"
    return [Problem(str(layer), reason, "choose another with --rule; onnxlrp rules lists them")]


def _keeps_shape(layer: Layer, facts: Facts) -> bool:
    return len(layer.inputs) == 1 and facts.shape(layer.inputs[0]) == facts.shape(layer.output)

"""Every layer on the way, its rule and why; every problem with its remedy. Nothing is emitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from onnxlrp import contract
from onnxlrp.errors import Problem
from onnxlrp.explain.composite import Case, Composite, Place, matches, unmatched
from onnxlrp.explain.places import places
from onnxlrp.graph.facts import Facts
from onnxlrp.layers.registry import Activation, Diagonal, Layer, Linear, Routing, Special
from onnxlrp.rules.rule import ActivationRule, Bound, InputRange, LinearRule, PassRule, Rule, Term


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


def plan(
    layers: Sequence[Layer],
    composite: Composite,
    overrides: Sequence[Case],
    facts: Facts,
    preprocess: contract.Preprocessing | None,
) -> Plan:
    """Give every layer its rule: the first override that matches, else the composite's."""
    users = Composite("--rule", tuple(overrides))
    steps, problems = [], []
    for place in places(layers, facts):
        layer = _with_skips(place)
        rule, why = users.rule_for(place)
        if rule is None:
            rule, why = composite.rule_for(place)
        if isinstance(layer, Routing):
            rule, why = None, "relevance goes where the value came from"
        problems += unfit(layer, rule, facts)
        rule, unresolved = _with_bounds(layer, rule, preprocess)
        problems += unresolved
        steps.append(Step(layer, rule, why))
    problems += [p for case in overrides for p in _unused(case, layers)]
    return Plan(composite.name, tuple(steps), tuple(problems))


def _unused(case: Case, layers: Sequence[Layer]) -> list[Problem]:
    """The problem with a case of the user's that no layer can meet, if it is one."""
    if case.pattern and not any(matches(case.pattern, layer) for layer in layers):
        return [unmatched(f"--rule {case.pattern}={case.rule}", case.pattern, layers)]
    if case.kind and not any(layer.kind in case.kind for layer in layers):
        reason = f"the model has no layer of kind {' or '.join(case.kind)} to give the rule {case.rule} to"
        return [Problem("--residual" if "sum" in case.kind else "--max-pool", reason, "leave it out")]
    return []


def _with_skips(place: Place) -> Layer:
    """The layer, a sum knowing which of its inputs are identity skips."""
    return replace(place.layer, skips=place.skips) if type(place.layer) is Linear and place.skips else place.layer


def _with_bounds(
    layer: Layer, rule: Rule | None, preprocess: contract.Preprocessing | None
) -> tuple[Rule | None, list[Problem]]:
    """The rule with the ends of the input's range filled in, where it asks for them."""
    if not isinstance(rule, LinearRule) or not any(isinstance(t.x, InputRange) for s in rule.shares for t in s.terms):
        return rule, []
    if preprocess is None:
        remedy = f"give both, {rule.name}(low=…, high=…) in the units of the model's input, or --preprocess"
        return rule, [Problem(str(layer), f"{rule.name} needs the lowest and highest value of the input", remedy)]
    low, high = preprocess.bounds()

    def filled(term: Term) -> Term:
        return replace(term, x=Bound(high if term.x.high else low)) if isinstance(term.x, InputRange) else term

    shares = tuple(replace(s, terms=tuple(filled(t) for t in s.terms)) for s in rule.shares)
    stated = {"low": list(low), "high": list(high), **dict(rule.parameters)}
    return replace(rule, shares=shares, parameters=tuple(stated.items())), []


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

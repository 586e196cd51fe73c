"""Every layer on the way, its rule and why; every problem with its remedy. Nothing is emitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from onnxlrp import contract
from onnxlrp.errors import Problem
from onnxlrp.explain.composite import WEIGHTED, Case, Composite, Place, own_names, rules_on, touches, unmatched
from onnxlrp.explain.places import places
from onnxlrp.explain.ranges import input_range
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
        """Layer name -> rule, for layers that have one; of two layers of one name the second goes by its output."""
        found: dict[str, str] = {}
        for step in self.steps:
            if step.rule:
                found[step.layer.output if step.layer.name in found else step.layer.name] = str(step.rule)
        return found


def plan(
    layers: Sequence[Layer],
    composite: Composite,
    overrides: Sequence[Case],
    facts: Facts,
    preprocess: contract.Preprocessing | None,
) -> Plan:
    """Give every layer its rule: the first override that matches, else the composite's."""
    both = (Composite("--rule", tuple(overrides)), composite)
    steps, problems = [], []
    for place in places(layers, facts):
        layer = _with_skips(place)
        rule, why = _chosen(place, both)
        if isinstance(layer, Routing):
            rule, why = None, "relevance goes where the value came from"
        problems += unfit(layer, rule, facts)
        rule, unresolved = _with_bounds(layer, rule, layers, facts, preprocess)
        problems += unresolved
        steps.append(Step(layer, rule, why))
    return Plan(composite.name, tuple(steps), tuple(problems))


def passed(layers: Sequence[Layer], composite: Composite, overrides: Sequence[Case], facts: Facts) -> set[str]:
    """The outputs of the activations and normalisations that relevance passes as it is."""
    both = (Composite("--rule", tuple(overrides)), composite)
    candidates = [place for place in places(layers, facts) if isinstance(place.layer, (Activation, Diagonal))]
    return {p.layer.output for p in candidates if isinstance(_chosen(p, both)[0], PassRule)}


def _chosen(place: Place, both: tuple[Composite, Composite]) -> tuple[Rule | None, str]:
    """The rule that the user's cases have for a layer, else the composite's, and why; None where neither has one."""
    users, composite = both
    rule, why = users.rule_for(place)
    return (rule, why) if rule is not None else composite.rule_for(place)


def unused(overrides: Sequence[Case], layers: Sequence[Layer]) -> list[Problem]:
    """The problems with the user's cases that no layer can meet, of those that `view` has found."""
    return [p for case in overrides for p in _unused(case, layers)]


def _unused(case: Case, layers: Sequence[Layer]) -> list[Problem]:
    """The problem with a case of the user's that no layer can meet, if it is one."""
    meant = [layer for layer in layers if case.pattern and rules_on(case.pattern, layer)]
    if case.pattern and not meant:
        thing = f"--rule {case.pattern}={case.rule}"
        return [_joined(case, layers) or unmatched(thing, case.pattern, layers, own_names)]
    if meant and all(isinstance(layer, Routing) for layer in meant):
        reason = f"matches only what moves values and takes no rule, such as {meant[0]}"
        return [Problem(f"--rule {case.pattern}={case.rule}", reason, "choose another pattern")]
    if case.kind and not any(layer.kind in case.kind for layer in layers):
        reason = f"the model has no layer of kind {' or '.join(case.kind)} to give the rule {case.rule} to"
        return [Problem("--residual" if "sum" in case.kind else "--max-pool", reason, "leave it out")]
    return []


def _joined(case: Case, layers: Sequence[Layer]) -> Problem | None:
    """The problem with a case whose pattern matches only what is joined to a layer, if it is that."""
    layer = next((one for one in layers if touches(case.pattern, one)), None)
    if layer is None:
        return None
    reason = f"matches only what acts as one with {layer.name}, as in {layer}, and has no rule of its own"
    return Problem(f"--rule {case.pattern}={case.rule}", reason, f"give one to the whole layer: {layer.name}")


def _with_skips(place: Place) -> Layer:
    """The layer, a sum knowing which of its inputs are identity skips."""
    return replace(place.layer, skips=place.skips) if type(place.layer) is Linear and place.skips else place.layer


def _with_bounds(
    layer: Layer, rule: Rule | None, layers: Sequence[Layer], facts: Facts, preprocess: contract.Preprocessing | None
) -> tuple[Rule | None, list[Problem]]:
    """The rule with the ends of its input's range filled in, where it asks for them; and what is wrong with them."""
    terms = [t.x for s in rule.shares for t in s.terms] if isinstance(rule, LinearRule) else []
    stated_ends = [x.values for x in terms if isinstance(x, Bound)]
    if not isinstance(rule, LinearRule) or not isinstance(layer, Linear):
        return rule, []
    if not any(isinstance(x, InputRange) for x in terms):
        return rule, _misfits(layer, rule, stated_ends, facts)
    give = f"give both, {rule.name}(low=…, high=…), in the units of {layer.inputs[0]}"
    if preprocess is None:
        reason = f"{rule.name} needs the lowest and highest value of the input"
        return rule, [Problem(str(layer), reason, f"{give}, or --preprocess")]
    known = input_range(layer.inputs[0], layers, facts.image, preprocess.bounds())
    if isinstance(known, Layer):
        reason = f"{rule.name} needs the lowest and highest value of its input, which {known} makes of the image"
        return rule, [Problem(str(layer), reason, give)]
    low, high = known
    if problems := _misfits(layer, rule, [low, high, *stated_ends], facts):
        return rule, problems

    def filled(term: Term) -> Term:
        return replace(term, x=Bound(high if term.x.high else low)) if isinstance(term.x, InputRange) else term

    shares = tuple(replace(s, terms=tuple(filled(t) for t in s.terms)) for s in rule.shares)
    stated = {"low": list(low), "high": list(high), **dict(rule.parameters)}
    return replace(rule, shares=shares, parameters=tuple(stated.items())), []


def _misfits(layer: Linear, rule: LinearRule, ends: Sequence[Sequence[float]], facts: Facts) -> list[Problem]:
    """The problem with a range that does not fit the layer, if there is one."""
    if not ends:
        return []
    if layer.kind not in WEIGHTED:
        reason = f"the rule {rule.brief} does not fit a layer of kind {layer.kind}"
        return [Problem(str(layer), reason, "give it to convolutions and dense layers")]
    channels = facts.shape(layer.inputs[0])[layer.channel]
    wrong = next((len(e) for e in ends if len(e) not in (1, channels)), None)
    if wrong is None:
        return []
    reason = f"{rule.brief} has {wrong} values for the {channels} channels of {layer.inputs[0]}"
    return [Problem(str(layer), reason, "give one value, or one a channel")]


def unfit(layer: Layer, rule: Rule | None, facts: Facts) -> list[Problem]:
    """The problem with giving this rule to this layer, if there is one."""
    if isinstance(layer, Routing):
        return []
    if rule is None:
        return [Problem(str(layer), f"the composite has no rule for its kind ({layer.kind})", "give one with --rule")]
    reason = _misfit(layer, rule, facts)
    if not reason:
        return []
    return [Problem(str(layer), f"the rule {rule} {reason}", "choose another with --rule; onnxlrp rules lists them")]


def _misfit(layer: Layer, rule: Rule, facts: Facts) -> str:
    """Why a rule is none for a layer; "" where it is one."""
    match layer, rule:
        case Special(), _:
            return layer.misfit(rule)
        case Activation(rectifies=False), ActivationRule(smooth=float()):
            return "is for relus only"
        case (Activation(), PassRule() | ActivationRule()) | (Diagonal(), PassRule() | LinearRule()):
            return ""
        case (Linear(), PassRule()) if _keeps_shape(layer, facts):
            return ""
        case Linear(), LinearRule():
            return ""
    return f"does not fit a layer of kind {layer.kind}"


def _keeps_shape(layer: Layer, facts: Facts) -> bool:
    return len(layer.inputs) == 1 and facts.shape(layer.inputs[0]) == facts.shape(layer.output)

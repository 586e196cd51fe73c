"""The walk: from the scores back to the image, layer by layer; what arrives by several paths is summed."""

from __future__ import annotations

import collections
import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from onnxlrp.explain.decompose import decompose
from onnxlrp.explain.edits import Edit
from onnxlrp.explain.masks import Masks
from onnxlrp.explain.plan import Plan
from onnxlrp.explain.summands import Summands
from onnxlrp.graph.build import Builder, Value
from onnxlrp.layers.registry import Activation, Layer, Linear, Relevance, Routing, Special
from onnxlrp.rules.catalogue import norm
from onnxlrp.rules.rule import ActivationRule, LinearRule, PassRule, PoolingRule, Rule


def propagate(
    build: Builder,
    plan: Plan,
    start: Mapping[str, Relevance],
    edits: Mapping[str, Edit] = MappingProxyType({}),
    wanted: Collection[str] = (),
) -> dict[str, Relevance]:
    """The relevance of every tensor on the way, by name; a tensor that gets none is missing.

    `edits` change the relevance that reaches a tensor before it goes on. That of a relu's output which is not `wanted`
    may be masked already, as behind the relu.
    """
    masks, summands = Masks(build, plan, {*edits, *wanted}), Summands(build, plan)
    arrived: dict[str, list[Relevance]] = collections.defaultdict(list)
    totals: dict[str, Relevance] = {}
    for name, relevance in start.items():
        arrived[name].append(relevance)
    for step in reversed(plan.steps):
        layer = step.layer
        if not arrived[layer.output]:
            continue
        with build.scope(layer.name, str(step.rule or layer.kind), layer.output):
            total = _sum(build, masks.summands(step, arrived.pop(layer.output)))
            total = totals[layer.output] = edits.get(layer.output, lambda r: r)(total)
            total = masks.taken(step, total)
            parts = backward(build, summands.taken(step, total), step.rule, total)
        if len(parts) != len(layer.inputs):
            raise AssertionError(f"{layer}: {len(parts)} relevances for {len(layer.inputs)} inputs")
        for name, part in zip(layer.inputs, parts, strict=True):
            if part is not None and build.facts.carries(name):
                arrived[name].append(part)
    image = build.facts.image
    if arrived[image]:
        with build.scope("image", "sum"):
            totals[image] = _sum(build, arrived[image])
    return totals


def _sum(build: Builder, parts: Sequence[Relevance]) -> Relevance:
    """All relevance that reached a tensor; its gate is known where all parts agree on it, x ⊙ c + x ⊙ d is
    x ⊙ (c + d). Without optimisation nothing but its value is."""
    if not build.exact:
        return Relevance(_total(build, [p.value for p in parts]))
    if len(parts) == 1:
        return parts[0]
    gates = {p.gate for p in parts}
    gate = gates.pop() if len(gates) == 1 else None
    cofactors = [p.cofactor for p in parts if p.cofactor is not None]
    if gate is not None and len(cofactors) == len(parts):
        cofactor = _total(build, cofactors)
        return Relevance(build.op("Mul", gate, cofactor, step="relevance"), gate, cofactor)
    return Relevance(_total(build, [p.value for p in parts]), gate)


def _total(build: Builder, values: Sequence[Value]) -> Value:
    return functools.reduce(lambda a, b: build.op("Add", a, b, step="relevance"), values)


def backward(build: Builder, layer: Layer, rule: Rule | None, r: Relevance) -> tuple[Relevance | None, ...]:
    """One layer's step: the relevance of each of its inputs."""
    match layer, rule:
        case Special(), PoolingRule(average=True) if layer.linear is not None:
            return decompose(norm(), layer.linear(), Relevance(r.value), build)  # its z is not the gate's tensor
        case Special(), Rule():
            return layer.backward(r, rule)
        case Linear(), LinearRule():
            return decompose(rule, layer, r, build)
        case Activation(), ActivationRule():
            return (Relevance(_activation(build, layer, rule, r)),)
        case Activation(rectifies=True), PassRule():
            return (r if r.vanishes_with(layer.output) else replace(r, gate=None, cofactor=None),)
        case _, PassRule():
            return (Relevance(r.value),)
        case Routing(), None:
            parts = layer.transpose(r.value)
            kept = r.vanishes_with(layer.output)
            return tuple(
                Relevance(p, build.tensor(n) if kept else None) for p, n in zip(parts, layer.inputs, strict=True)
            )
    raise AssertionError(f"{layer}: no way to apply {rule}")


def _activation(build: Builder, layer: Activation, rule: ActivationRule, r: Relevance) -> Value:
    """[R]⁺ where the rule clips, times f'(x) or a smooth stand-in where it asks for the derivative. That of a relu
    changes nothing where R vanishes with its output."""
    result = build.positive(r.value) if rule.clip else r.value
    if not isinstance(result, Value):  # R ≤ 0
        return build.op("Clip", r.value, *[build.constant(0.0, r.value)] * 2)
    if rule.smooth is not None:
        x = build.tensor(layer.inputs[0])
        return build.op("Mul", result, build.op("Sigmoid", build.op("Mul", x, build.constant(rule.smooth, x))))
    needless = layer.rectifies and r.vanishes_with(layer.output)
    return layer.times_derivative(result) if rule.derivative and not needless else result

"""Where a rule meets a layer:

    R_x = Σ_share weight · Σ_term sign · x′ ⊙ A(w′)ᵀ[ R ⊘ stab( Σ_term sign · (A(w′) x′ + b′) ) ]

No rule and no operator is named here. What is known of signs, and of where R vanishes, makes terms disappear.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxlrp.graph.build import ONE, Builder, One, Symbol, Value
from onnxlrp.graph.signs import Sign
from onnxlrp.layers.registry import Inputs, Linear, Relevance
from onnxlrp.rules.rule import Bound, LinearRule, Modifier, Part, Share, Stabilizer, Term

KEEPS_ZERO = frozenset({Part.ZERO, Part.ALL, Part.POSITIVE, Part.NEGATIVE, Part.ABSOLUTE, Part.SQUARE})


def decompose(rule: LinearRule, layer: Linear, r: Relevance, build: Builder) -> tuple[Relevance | None, ...]:
    """The relevance of each of the layer's inputs; None where it is zero by algebra."""
    totals: list[Symbol] = [None] * len(layer.x)
    for share in rule.shares:
        terms = [_modified(term, layer, build) for term in share.terms]
        s = _quotient(share, terms, rule.stabilizer, layer, r, build)
        for term in terms if s is not None else ():
            for i, (x, c) in enumerate(zip(term.x, layer.transpose(s, term.w), strict=True)):
                product = build.scale(share.weight * term.sign, _product(build, x, c, layer.inputs[i]))
                totals[i] = build.add(totals[i], product)
    vanish = all(isinstance(t.x, Modifier) and t.x.part in KEEPS_ZERO for s in rule.shares for t in s.terms)
    return tuple(
        Relevance(total, x if vanish else None) if isinstance(total, Value) else None
        for total, x in zip(totals, layer.x, strict=True)
    )


@dataclass(frozen=True)
class _Modified:
    """A term with its modifiers carried out on a layer's tensors."""

    x: Inputs
    w: Symbol
    b: Symbol
    sign: float


def _modified(term: Term, layer: Linear, build: Builder) -> _Modified:
    xs = tuple(modify(term.x, x, build, layer.channel) for x in layer.x)
    w = modify(term.w, layer.w, build) if any(x is not None for x in xs) else None
    return _Modified(xs, w, modify(term.b, layer.b, build), term.sign)


def modify(modifier: Modifier | Bound, v: Symbol, build: Builder, channel: int = 1) -> Symbol:
    """v′: what a modifier makes of a tensor. A bound lies along the axis `channel`."""
    if isinstance(modifier, Bound):
        like = v if isinstance(v, Value) else build.constant(0.0)
        rank = len(build.facts.shape(like.name))
        return build.constant(np.reshape(modifier.values, [-1 if i == channel else 1 for i in range(rank)]), like)
    parts = {
        Part.ZERO: lambda: None,
        Part.ALL: lambda: v,
        Part.POSITIVE: lambda: build.positive(v),
        Part.NEGATIVE: lambda: build.negative(v),
        Part.ABSOLUTE: lambda: build.absolute(v),
        Part.SQUARE: lambda: build.mul(v, v),
        Part.ONES: lambda: ONE,
    }
    part = build.scale(modifier.gain, parts[modifier.part]())
    return build.add(build.scale(modifier.keep, v), part)


def _quotient(
    share: Share, terms: list[_Modified], stabilizer: Stabilizer, layer: Linear, r: Relevance, build: Builder
) -> Value | None:
    """s = R ⊘ stab(z), where the share holds; None where the share has nothing to give."""
    if all(t.w is None for t in terms):
        return None
    relevance = _restricted(share, layer, r, build)
    if relevance is None or not share.divide:
        return relevance
    z: Symbol = None
    for term in terms:
        z = build.add(z, build.scale(term.sign, _forward(layer, term)), step="z")
    if not isinstance(z, Value):
        z = build.constant(1.0 if isinstance(z, One) else 0.0, relevance)
    if z == layer.z and r.gate is not None:
        z = r.gate  # equal to z, or to relu(z), wherever R is not zero
    elif share.where == "positive":
        z = build.positive(z) or build.constant(0.0, relevance)  # z < 0 only where R is zero
    quotient = build.div(relevance, stabilise(stabilizer, z, build), step="s")
    assert isinstance(quotient, Value)
    return quotient


def _forward(layer: Linear, term: _Modified) -> Symbol:
    """A(w′) x′ + b′, which is the layer's own output where nothing is modified."""
    if term.x == layer.x and term.w == layer.w and term.b == layer.b:
        return layer.z
    return layer.apply(term.x, term.w, term.b)


def _restricted(share: Share, layer: Linear, r: Relevance, build: Builder) -> Value | None:
    """R where the share holds: outputs of one sign, or all."""
    if share.where == "everywhere":
        return r.value
    if r.gate is not None and r.gate.sign is Sign.NONNEGATIVE:  # R is zero wherever z <= 0
        return None if share.where == "negative" else r.value
    zero = build.constant(0.0, layer.z)
    condition = build.op("Greater" if share.where == "positive" else "Less", layer.z, zero)
    return build.op("Where", condition, r.value, build.constant(0.0, r.value), step="r")


def stabilise(stabilizer: Stabilizer, z: Value, build: Builder) -> Value:
    """stab(z): z kept away from zero, with sign(0) = +1."""
    epsilon = build.constant(stabilizer.epsilon, z)
    if z.sign is Sign.NONNEGATIVE:
        return build.op("Add" if stabilizer.kind == "sign" else "Max", z, epsilon, step="stabilised")
    negative = build.op("Less", z, build.constant(0.0, z))
    away = build.op("Where", negative, build.constant(-stabilizer.epsilon, z), epsilon)
    return build.op("Add", z, away, step="stabilised")


def _product(build: Builder, x: Symbol, c: Symbol, name: str) -> Symbol:
    """x′ ⊙ c, of the shape of the input it belongs to."""
    product = build.mul(x, c, step="r")
    whole = isinstance(x, Value) and x.array is None
    if product is None or whole or not isinstance(product, Value):
        return product
    return build.broadcast(product, build.facts.shape(name), step="r")

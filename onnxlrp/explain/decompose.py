"""Where a rule meets a layer:

    R_x = Σ_share weight · Σ_term sign · x′ ⊙ A(w′)ᵀ[ R ⊘ stab( Σ_term sign · (A(w′) x′ + b′) ) ]

No rule and no operator is named here. What is known of signs, and of where R vanishes, makes terms disappear.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxlrp.graph.build import ONE, Builder, Symbol, Value
from onnxlrp.graph.signs import Sign
from onnxlrp.layers.registry import Inputs, Linear, Relevance
from onnxlrp.rules.rule import Bound, InputRange, LinearRule, Modifier, Part, Share, Stabilizer, Term

KEEPS_ZERO = frozenset({Part.ZERO, Part.ALL, Part.POSITIVE, Part.NEGATIVE, Part.ABSOLUTE, Part.SQUARE})


def decompose(rule: LinearRule, layer: Linear, r: Relevance, build: Builder) -> tuple[Relevance | None, ...]:
    """The relevance of each of the layer's inputs; None where it is zero by algebra."""
    totals: list[Symbol] = [None] * len(layer.x)
    for share in rule.shares:
        terms = [_modified(term, layer, build) for term in share.terms]
        s = _quotient(share, terms, rule.stabilizer, layer, r, build)
        if s is None:
            continue
        for term in terms:
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
    skips = layer.skips or (False,) * len(layer.x)
    xs = tuple(modify(term.x, x, build, layer.channel, skip) for x, skip in zip(layer.x, skips, strict=True))
    w = modify(term.w, layer.w, build) if any(x is not None for x in xs) else None
    return _Modified(xs, w, modify(term.b, layer.b, build), term.sign)


def modify(
    modifier: Modifier | Bound | InputRange, v: Symbol, build: Builder, channel: int = 1, skip: bool = False
) -> Symbol:
    """v′: what a modifier makes of a tensor. A bound lies along the axis `channel`; `skip` marks an identity skip."""
    if isinstance(modifier, Bound):
        like = v if isinstance(v, Value) else build.constant(0.0)
        rank = len(build.facts.shape(like.name))
        return build.constant(np.reshape(modifier.values, [-1 if i == channel else 1 for i in range(rank)]), like)
    if isinstance(modifier, InputRange):
        raise AssertionError("an input range must be resolved before a rule is applied")
    parts = {
        Part.ZERO: lambda: None,
        Part.ALL: lambda: v,
        Part.POSITIVE: lambda: build.positive(v),
        Part.NEGATIVE: lambda: build.negative(v),
        Part.ABSOLUTE: lambda: build.absolute(v),
        Part.SQUARE: lambda: build.mul(v, v),
        Part.ONES: lambda: ONE,
        Part.MAIN: lambda: None if skip else ONE,
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
    z = build.tensor_of(z, relevance)
    spread = _spread(stabilizer, z, layer, build)
    if z == layer.z and r.gate is not None:
        z = r.gate  # equal to z, or to relu(z), wherever R is not zero
    elif share.where == "positive":
        z = build.tensor_of(build.positive(z), relevance)  # z < 0 only where R is zero
    elif share.where == "negative":
        z = build.tensor_of(build.negative(z), relevance)
    if stabilizer.epsilon == 0:
        return _exact_quotient(relevance, z, build)
    return build.op("Div", relevance, stabilise(stabilizer, z, spread, build), step="s")


def _exact_quotient(r: Value, z: Value, build: Builder) -> Value:
    """R ⊘ z where z is not zero, else 0: LRP-0 has nothing to say there."""
    zero = build.op("Equal", z, build.constant(0.0, z))
    quotient = build.op("Div", r, build.op("Where", zero, build.constant(1.0, z), z))
    return build.op("Where", zero, build.constant(0.0, r), quotient, step="s")


def _spread(stabilizer: Stabilizer, z: Value, layer: Linear, build: Builder) -> Value:
    """ε, or for the stabiliser `norm` ε·rms(z), one value per sample."""
    if stabilizer.kind != "norm":
        return build.constant(stabilizer.epsilon, z)
    axes = list(range(1, len(build.facts.shape(layer.output))))
    rms = build.op("Sqrt", build.mean(build.op("Mul", z, z), axes, keepdims=True))
    return build.op(
        "Add", build.op("Mul", rms, build.constant(stabilizer.epsilon, z)), build.constant(1e-30, z), step="spread"
    )


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


def stabilise(stabilizer: Stabilizer, z: Value, epsilon: Value, build: Builder) -> Value:
    """stab(z): z kept away from zero by `epsilon` > 0, with sign(0) = +1."""
    combine = "Max" if stabilizer.kind == "clip" else "Add"
    if z.sign is Sign.NONNEGATIVE:
        return build.op(combine, z, epsilon, step="stabilised")
    negative = build.op("Less", z, build.constant(0.0, z))
    if stabilizer.kind != "clip":
        return build.op("Add", z, build.op("Where", negative, build.op("Neg", epsilon), epsilon), step="stabilised")
    below, above = build.op("Min", z, build.op("Neg", epsilon)), build.op(combine, z, epsilon)
    return build.op("Where", negative, below, above, step="stabilised")


def _product(build: Builder, x: Symbol, c: Symbol, name: str) -> Symbol:
    """x′ ⊙ c, of the shape of the input it belongs to."""
    product = build.mul(x, c, step="r")
    whole = isinstance(x, Value) and x.array is None
    if product is None or whole or not isinstance(product, Value):
        return product
    return build.broadcast(product, build.facts.shape(name), step="r")

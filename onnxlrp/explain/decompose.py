"""Where a rule meets a layer:

    R_x = Σ_share weight · Σ_term sign · x′ ⊙ A(w′)ᵀ[ R ⊘ stab( Σ_term sign · (A(w′) x′ + b′) ) ]

No rule and no operator is named here. What is known of signs, and of where R vanishes, makes terms disappear.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxlrp.explain.quotient import Modified, quotient
from onnxlrp.graph.build import ONE, Builder, Symbol, Value
from onnxlrp.graph.facts import Shape
from onnxlrp.layers.registry import Linear, Relevance
from onnxlrp.rules.rule import Bound, InputRange, LinearRule, Modifier, Part, Term

KEEPS_ZERO = frozenset({Part.ZERO, Part.ALL, Part.POSITIVE, Part.NEGATIVE, Part.ABSOLUTE, Part.SQUARE})


def decompose(rule: LinearRule, layer: Linear, r: Relevance, build: Builder) -> tuple[Relevance | None, ...]:
    """The relevance of each of the layer's inputs; None where it is zero by algebra."""
    totals: list[Symbol] = [None] * len(layer.x)
    for share in rule.shares:
        terms = [_modified(term, layer, build) for term in share.terms]
        s = quotient(share, terms, rule.stabilizer, layer, r, build)
        if s is None:
            continue
        for term in terms:
            for i, (x, c) in enumerate(zip(term.x, layer.transpose(s, term.w), strict=True)):
                product = build.scale(share.weight * term.sign, _product(build, x, c, layer.inputs[i]))
                totals[i] = build.add(totals[i], product)
    vanish = all(isinstance(t.x, Modifier) and t.x.part in KEEPS_ZERO for s in rule.shares for t in s.terms)
    return tuple(
        Relevance(total, x if vanish and x.name == name else None) if isinstance(total, Value) else None
        for total, x, name in zip(totals, layer.x, layer.inputs, strict=True)
    )


@dataclass(frozen=True)
class Along:
    """The shape of a layer's input and its channel axis."""

    shape: Shape
    channel: int


def _along(layer: Linear, name: str, build: Builder) -> Along:
    return Along(build.facts.shape(name), layer.channel)


def _modified(term: Term, layer: Linear, build: Builder) -> Modified:
    skips = layer.skips or (False,) * len(layer.x)
    xs = tuple(
        modify(term.x, x, build, _along(layer, name, build), skip)
        for x, name, skip in zip(layer.x, layer.inputs, skips, strict=True)
    )
    w = modify(term.w, layer.w, build) if any(x is not None for x in xs) else None
    return Modified(xs, w, modify(term.b, layer.b, build), term.sign)


def modify(
    modifier: Modifier | Bound | InputRange, v: Symbol, build: Builder, along: Along | None = None, skip: bool = False
) -> Symbol:
    """v′: what a modifier makes of a tensor. A bound lies `along` its channels; `skip` marks an identity skip."""
    if isinstance(modifier, Bound) and isinstance(v, Value) and along is not None:
        form = [-1 if i == along.channel else 1 for i in range(len(along.shape))]
        bound = build.constant(np.reshape(modifier.values, form), v)
        return build.broadcast(bound, (1, *along.shape[1:]), step="bound")
    if not isinstance(modifier, Modifier):
        raise AssertionError(f"{modifier} must be resolved before a rule is applied, and to a tensor")
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


def _product(build: Builder, x: Symbol, c: Symbol, name: str) -> Symbol:
    """x′ ⊙ c, of the shape of the input it belongs to."""
    product = build.mul(x, c, step="r")
    whole = isinstance(x, Value) and x.array is None
    if product is None or whole or not isinstance(product, Value):
        return product
    return build.broadcast(product, build.facts.shape(name), step="r")

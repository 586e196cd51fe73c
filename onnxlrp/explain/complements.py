"""Shares whose denominators add up to the layer's output: alpha_beta behind a relu.

    z⁺ + z⁻ = A(w)x + b = z,    so    z⁺ = z + |z⁻|,

which takes no convolution. Where R vanishes with relu(z), that is a sum of what is not negative, and as precise as z is
beside z⁺. (The other way round, z⁻ = z - z⁺ may be nothing but rounding.) With ε in the bias of |z⁻| it is in both:

    stab(z⁻) = -(|z⁻| + ε)    stab(z⁺) = relu(z) + (|z⁻| + ε)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from onnxlrp.explain.modify import Pulled, modified
from onnxlrp.explain.quotient import foldable, is_rectified, one_sided, over
from onnxlrp.graph.build import Builder
from onnxlrp.graph.signs import Sign
from onnxlrp.layers.registry import Linear, Relevance
from onnxlrp.rules.rule import NEGATIVE, POSITIVE, LinearRule, Modifier, Term

UP = (Term(POSITIVE, POSITIVE, POSITIVE), Term(NEGATIVE, NEGATIVE))
DOWN = (Term(POSITIVE, NEGATIVE, NEGATIVE), Term(NEGATIVE, POSITIVE))


def complements(rule: LinearRule, layer: Linear, r: Relevance, build: Builder) -> Iterator[Pulled] | None:
    """What a rule of two such shares pulls back; None for other rules, and where R does not vanish with relu(z)."""
    return _of_both(rule, layer, r, build) if are_complements(rule, layer, r) else None


def are_complements(rule: LinearRule, layer: Linear, r: Relevance) -> bool:
    """Whether a rule has two denominators, z⁺ and z⁻, and R vanishes with relu(z)."""
    divided = all(s.divide and s.where == "everywhere" for s in rule.shares)
    fits = [s.terms for s in rule.shares] == [UP, DOWN] and divided
    return fits and is_rectified(r) and foldable(rule.stabilizer, layer)


def _of_both(rule: LinearRule, layer: Linear, r: Relevance, build: Builder) -> Iterator[Pulled]:
    """R ⊘ |stab(z⁻)| for the second share, with its weights' signs reversed, and R ⊘ stab(z⁺) for the first. In this
    order ONNX Runtime comes to |z⁻| first, of an early layer before the scores."""
    up, down = rule.shares
    below = [modified(replace(t, w=_negative_of(t.w), b=_negative_of(t.b)), layer, build) for t in down.terms]
    n = one_sided(below, Sign.NONNEGATIVE, rule.stabilizer.epsilon, layer, build)
    assert r.gate is not None
    z = build.op("Add", r.gate, n, step="stabilised")
    yield over(r.value, n, layer, build), down.weight, below
    yield over(r.value, z, layer, build), up.weight, [modified(t, layer, build) for t in up.terms]


def _negative_of(m: Modifier) -> Modifier:
    return Modifier(m.part, -m.gain, -m.keep)

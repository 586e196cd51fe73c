"""Shares for both signs of z = A(w)x + b that divide by one size: the gamma rule.

    |stab(z′)| = u + γp + ε,    u = k·z for z > 0, (k + γ)·|z| for z < 0,

p being the positive contributions, A(w⁺)x⁺ + A(w⁻)x⁻ + b⁺, since those of the other sign are z - p. Where R = z ⊙ c,
what the shares pull back is the same sorted by weight as it is by side,

    R_x = x ⊙ A(w)ᵀ[u ⊙ s] + x⁺ ⊙ A(γw⁺)ᵀ[z ⊙ s] + x⁻ ⊙ A(γw⁻)ᵀ[z ⊙ s],    s = c ⊘ |stab(z′)|,

so that z is not taken apart. For z < 0 that is γw⁺ - (k + γ)w = -(kw + γw⁻) beside x⁺, a difference of what is up to
γ/k times as large: not for a large γ, and not in float16.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from onnx import TensorProto

from onnxlrp.explain.modify import Pulled, modified
from onnxlrp.explain.quotient import foldable, is_rectified, over, restricted, with_bias
from onnxlrp.graph.build import Builder, Value
from onnxlrp.layers.registry import Linear, Relevance
from onnxlrp.rules.rule import NEGATIVE, POSITIVE, LinearRule, Modifier, Part, Share, Term

MILD = 1.0  # γ/k up to which rounding is at most tripled


@dataclass(frozen=True)
class Added:
    """k, γ and the terms of γp: what such a rule divides by beside the layer's output."""

    keep: float
    gain: float
    contributions: tuple[Term, ...]


def both_sides(rule: LinearRule, layer: Linear, r: Relevance, build: Builder) -> Iterable[Pulled] | None:
    """What a rule of this form pulls back; None for other rules, and where R vanishes on one of the sides."""
    found = _added(rule, layer) if build.exact and not is_rectified(r) else None
    if found is None:
        return None
    terms = [modified(t, layer, build) for t in found.contributions]
    beside = with_bias(terms, rule.stabilizer.epsilon, layer, build)  # γp + ε
    uneven = build.uneven(layer.z, 1 + found.gain / found.keep, step="size")
    u = build.tensor_of(build.scale(found.keep, uneven), beside)
    size = build.op("Add", u, beside, step="stabilised")
    c = r.cofactor_of(layer.z)
    if c is None or _is_short(layer) or found.gain > MILD * found.keep:
        return _by_side(rule, size, layer, r, build)
    s = _cofactor_over(c, size, layer, build)
    whole = [modified(Term(), layer, build)]
    return [(build.op("Mul", v, s, step="r"), 1.0, pull) for v, pull in ((u, whole), (layer.z, terms))]


def _added(rule: LinearRule, layer: Linear) -> Added | None:
    """What a rule of this form adds to the layer's output; None for other rules."""
    if {s.where for s in rule.shares} != {"positive", "negative"} or not foldable(rule.stabilizer, layer):
        return None
    found = {_of_one_side(share) for share in rule.shares}
    return found.pop() if len(found) == 1 and len(rule.shares) == 2 else None


def _of_one_side(share: Share) -> Added | None:
    """What one share adds, the same for both sides."""
    parts = (Part.POSITIVE, Part.NEGATIVE) if share.where == "positive" else (Part.NEGATIVE, Part.POSITIVE)
    keep, gain = share.terms[0].w.keep, share.terms[0].w.gain
    own, other = (Modifier(part, gain, keep) for part in parts)
    whole = share.divide and share.weight == 1 and share.terms == (Term(POSITIVE, own, own), Term(NEGATIVE, other))
    if not whole or keep <= 0 or gain <= 0:
        return None
    up, down = Modifier(Part.POSITIVE, gain), Modifier(Part.NEGATIVE, gain)
    return Added(keep, gain, (Term(POSITIVE, up, up), Term(NEGATIVE, down)))


def _by_side(rule: LinearRule, size: Value, layer: Linear, r: Relevance, build: Builder) -> Iterator[Pulled]:
    """±R ⊘ size where z > 0 and where z < 0: R is divided once and then taken apart; the other way round in float16,
    where R ⊘ ε may be infinite beside z = 0."""
    short = _is_short(layer)
    s = r if short else _each_over(r, size, layer, build)
    for share in rule.shares:
        part = restricted(share, layer, s, build)
        if part is not None:
            terms = [modified(t, layer, build) for t in share.terms]
            sign = 1.0 if share.where == "positive" else -1.0
            yield over(part, size, layer, build) if short else part, sign, terms


def _is_short(layer: Linear) -> bool:
    return layer.z.element_type == TensorProto.FLOAT16


def _each_over(r: Relevance, size: Value, layer: Linear, build: Builder) -> Relevance:
    """R ⊘ size, in that of its forms which is read."""
    c = r.cofactor_of(layer.z)
    if c is None:
        return replace(r, value=over(r.value, size, layer, build))
    return replace(r, cofactor=_cofactor_over(c, size, layer, build))


def _cofactor_over(c: Value, size: Value, layer: Linear, build: Builder) -> Value:
    """c ⊘ size; c may be equal, and of size 1, along axes that the size has."""
    return over(c, size, layer, build, waits=build.is_whole(c, build.facts.shape(layer.output)))

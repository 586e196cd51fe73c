"""Shares for both signs of z = A(w)x + b that divide by one size: the gamma rule.

    |stab(z′)| = u + γp + ε,    u = k·z for z > 0, (k + γ)·|z| for z < 0,

p being the positive contributions, A(w⁺)x⁺ + A(w⁻)x⁻ + b⁺, since those of the other sign are z - p. Where R = z ⊙ c,
what the shares pull back is the same by weight as it is by side,

    R_x = x ⊙ A(k·w)ᵀ[u/k ⊙ s] + x⁺ ⊙ A(γw⁺)ᵀ[z ⊙ s] + x⁻ ⊙ A(γw⁻)ᵀ[z ⊙ s],    s = c ⊘ |stab(z′)|,

so that z is never taken apart: on the side z < 0 the two give γw⁺ - (k + γ)w = -(kw + γw⁻) beside x⁺.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from onnx import TensorProto

from onnxlrp.explain.modify import Modified, modified
from onnxlrp.explain.quotient import foldable, is_rectified, over, restricted, with_bias
from onnxlrp.graph.build import Builder, Value
from onnxlrp.layers.registry import Linear, Relevance
from onnxlrp.rules.rule import NEGATIVE, POSITIVE, LinearRule, Modifier, Part, Share, Term

Pulled = tuple[Value, float, Sequence[Modified]]  # s, the factor to take it with, and the terms whose adjoints take it


@dataclass(frozen=True)
class Added:
    """k, γ and the terms of γp: what such a rule divides by beside the layer's output."""

    keep: float
    gain: float
    contributions: tuple[Term, ...]


def both_sides(rule: LinearRule, layer: Linear, r: Relevance, build: Builder) -> Iterator[Pulled] | None:
    """What a rule of this form pulls back; None for other rules, and where R vanishes on one of the sides."""
    found = _added(rule, layer) if build.exact and not is_rectified(r) else None
    if found is None:
        return None
    terms = [modified(t, layer, build) for t in found.contributions]
    beside = with_bias(terms, rule.stabilizer.epsilon, layer, build)  # γp + ε
    u = build.uneven(layer.z, 1 + found.gain / found.keep, step="size")  # u / k
    size = build.op("Add", build.tensor_of(build.scale(found.keep, u), beside), beside, step="stabilised")
    if r.cofactor is None or r.gate != layer.z:
        return _by_side(rule, size, layer, r, build)
    whole = modified(Term(w=Modifier(Part.ALL, found.keep)), layer, build)
    return _by_weight([(u, [whole]), (layer.z, terms)], size, layer, r.cofactor, build)


def _added(rule: LinearRule, layer: Linear) -> Added | None:
    """What a rule of this form adds to the layer's output; None for other rules."""
    found = {_of_one_side(share) for share in rule.shares}
    return found.pop() if len(found) == 1 and len(rule.shares) == 2 and foldable(rule.stabilizer, layer) else None


def _of_one_side(share: Share) -> Added | None:
    """What one share adds, the same for both sides."""
    if share.where == "everywhere" or not share.divide or share.weight != 1:
        return None
    parts = (Part.POSITIVE, Part.NEGATIVE) if share.where == "positive" else (Part.NEGATIVE, Part.POSITIVE)
    keep, gain = share.terms[0].w.keep, share.terms[0].w.gain
    own, other = (Modifier(part, gain, keep) for part in parts)
    if not keep or gain <= 0 or share.terms != (Term(POSITIVE, own, own), Term(NEGATIVE, other)):
        return None
    up, down = Modifier(Part.POSITIVE, gain), Modifier(Part.NEGATIVE, gain)
    return Added(keep, gain, (Term(POSITIVE, up, up), Term(NEGATIVE, down)))


def _by_weight(
    products: Sequence[tuple[Value, Sequence[Modified]]], size: Value, layer: Linear, c: Value, build: Builder
) -> Iterator[Pulled]:
    """v ⊙ c ⊘ size for each v, with its terms; c is divided once."""
    short = _is_short(layer)
    waits = build.is_whole(c, build.facts.shape(layer.output))  # or c has size 1 along axes that z has
    s = c if short else over(c, size, layer, build, waits=waits)
    for v, terms in products:
        part = build.op("Mul", v, s, step="r")
        yield over(part, size, layer, build) if short else part, 1.0, terms


def _by_side(rule: LinearRule, size: Value, layer: Linear, r: Relevance, build: Builder) -> Iterator[Pulled]:
    """±R ⊘ size where z > 0 and where z < 0."""
    short = _is_short(layer)
    s = r if short else replace(r, value=over(r.value, size, layer, build), over_channels=None)
    for share in rule.shares:
        part = restricted(share, layer, s, build)
        if part is not None:
            sign = 1.0 if share.where == "positive" else -1.0
            terms = [modified(t, layer, build) for t in share.terms]
            yield over(part, size, layer, build) if short else part, sign, terms


def _is_short(layer: Linear) -> bool:
    """Whether what is divided by a size next to ε may be infinite, and so must be zero there before it is divided."""
    return layer.z.element_type == TensorProto.FLOAT16

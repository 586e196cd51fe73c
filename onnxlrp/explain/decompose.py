"""Where a rule meets a layer:

    R_x = Σ_share weight · Σ_term sign · x′ ⊙ A(w′)ᵀ[ R ⊘ stab( Σ_term sign · (A(w′) x′ + b′) ) ]

No rule and no operator is named here. What is known of signs, and of where R vanishes, makes terms disappear.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from onnxlrp.explain.both_sides import both_sides
from onnxlrp.explain.complements import complements
from onnxlrp.explain.modify import Modified, Pulled, modified
from onnxlrp.explain.quotient import quotient
from onnxlrp.explain.small_floats import in_range
from onnxlrp.graph.build import Builder, One, Symbol, Value
from onnxlrp.layers.registry import Inputs, Linear, Relevance
from onnxlrp.rules.rule import ALL, LinearRule, Modifier, Part, Share

_Pull = tuple[Inputs, Value, Value]  # x′, and the s and w′ of its A(w′)ᵀ s
KEEPS_ZERO = frozenset({Part.ZERO, Part.ALL, Part.POSITIVE, Part.NEGATIVE, Part.ABSOLUTE, Part.SQUARE})


def decompose(rule: LinearRule, layer: Linear, r: Relevance, build: Builder) -> tuple[Relevance | None, ...]:
    """The relevance of each of the layer's inputs; None where it is zero by algebra."""
    layer = in_range(rule, layer, r, build)
    adjoints, pulls = list[tuple[Inputs, Inputs]](), list[_Pull]()
    for s, factor, terms in _pulled(rule, layer, r, build):
        now, later = _adjoints([factor * term.sign for term in terms], layer, s, terms, build)
        adjoints, pulls = adjoints + now, pulls + later
    adjoints += _summed(layer, pulls)
    vanish = all(isinstance(t.x, Modifier) and t.x.part in KEEPS_ZERO for s in rule.shares for t in s.terms)
    return tuple(
        _relevance([(xs[i], c[i]) for xs, c in adjoints], x if x.name == name else None, name, vanish, build)
        for i, (x, name) in enumerate(zip(layer.x, layer.inputs, strict=True))
    )


def _pulled(rule: LinearRule, layer: Linear, r: Relevance, build: Builder) -> Iterable[Pulled]:
    """What a rule's shares pull back, together where that takes less."""
    for together in (both_sides, complements):
        found = together(rule, layer, r, build)
        if found is not None:
            return found
    return _by_share(rule, layer, r, build)


def _by_share(rule: LinearRule, layer: Linear, r: Relevance, build: Builder) -> Iterator[Pulled]:
    """What each share pulls back, where it has something to give."""
    for share in rule.shares:
        terms = [modified(term, layer, build) for term in share.terms]
        s = quotient(share, terms, rule.stabilizer, layer, r, build)
        if s is not None:
            yield s, share.weight, _distributed(share, terms, build)


def _distributed(share: Share, terms: Sequence[Modified], build: Builder) -> Sequence[Modified]:
    """The share's terms for its adjoint: A(w) = A(w⁺) + A(w⁻), so that a term with w joins those with w⁺ and w⁻."""
    if not build.exact or not share.between_bounds:
        return terms
    by_weight = {written.w: term for written, term in zip(share.terms, terms, strict=True)}
    whole = by_weight.pop(ALL)
    return [
        replace(
            part,
            x=tuple(
                build.add(x, build.scale(whole.sign * part.sign, _level(own, build)))
                for x, own in zip(whole.x, part.x, strict=True)
            ),
            sign=whole.sign,
        )
        for part in by_weight.values()
    ]


def _level(v: Symbol, build: Builder) -> Symbol:
    """A small constant that was made larger, as it was: a sum or product makes it larger again."""
    return build.constant(v.repeats, v) if isinstance(v, Value) and v.repeats is not None else v


def _adjoints(
    factors: Sequence[float], layer: Linear, s: Value, terms: Sequence[Modified], build: Builder
) -> tuple[list[tuple[Inputs, Inputs]], list[_Pull]]:
    """x′ and factor · A(w′)ᵀ s for each factor and term, together where the layer can; or what to take it of, where the
    layer sums it better with that of other shares. The factor goes into a weight, which runtimes fold when they load
    it."""
    inside = [build.exact and isinstance(t.w, Value) for t in terms]
    ws = [build.scale(factor, t.w) if taken else t.w for factor, t, taken in zip(factors, terms, inside, strict=True)]
    found = layer.transposes(s, ws) if layer.transposes and build.exact else None
    if found is None and build.exact and layer.transpose_sum and not any(isinstance(w, One) for w in ws):
        return [], [(t.x, s, w) for t, w in zip(terms, ws, strict=True) if isinstance(w, Value)]
    found = found or [layer.transpose(s, w) for w in ws]
    return [
        (term.x, adjoint if taken else tuple(build.scale(factor, c) for c in adjoint))
        for factor, term, adjoint, taken in zip(factors, terms, found, inside, strict=True)
    ], []


def _summed(layer: Linear, pulls: Sequence[_Pull]) -> list[tuple[Inputs, Inputs]]:
    """x′ and Σ A(w′)ᵀ s over all with the same x′."""
    by_x: dict[Inputs, list[tuple[Value, Value]]] = {}
    for xs, s, w in pulls:
        by_x.setdefault(xs, []).append((s, w))
    return [
        (xs, layer.transpose_sum(pairs) if layer.transpose_sum and len(pairs) > 1 else layer.transpose(*pairs[0]))
        for xs, pairs in by_x.items()
    ]


def _relevance(
    products: Sequence[tuple[Symbol, Symbol]], own: Value | None, name: str, vanish: bool, build: Builder
) -> Relevance | None:
    """Σ x′ ⊙ c of an input x, products with the same x′ as one."""
    cofactors: list[tuple[Symbol, Symbol]] = []
    for x, c in products:
        k = next((i for i, (y, _) in enumerate(cofactors) if build.exact and x is not None and x == y), None)
        if k is None:
            cofactors.append((x, c))
        else:
            cofactors[k] = (x, build.add(cofactors[k][1], c))
    total: Symbol = None
    for x, c in cofactors:
        total = build.add(total, _product(build, x, c, name))
    if not isinstance(total, Value):
        return None
    kept = [(x, c) for x, c in cofactors if x is not None and c is not None]
    factored = own is not None and len(kept) == 1 and kept[0][0] == own
    cofactor = kept[0][1] if factored else None
    return Relevance(total, own if vanish or factored else None, cofactor if isinstance(cofactor, Value) else None)


def _product(build: Builder, x: Symbol, c: Symbol, name: str) -> Symbol:
    """x′ ⊙ c, of the shape of the input it belongs to."""
    product, shape = build.mul(x, c, step="r"), build.facts.shape(name)
    if not isinstance(product, Value) or (isinstance(x, Value) and x.array is None) or build.is_whole(product, shape):
        return product
    return build.broadcast(product, shape, step="r")

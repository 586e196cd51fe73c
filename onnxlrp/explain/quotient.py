"""The quotient of a share: s = R ⊘ stab(z), in the fewest nodes that what is known of signs allows.

z = A(1)1         is one number for all channels: their sum is divided, and spread by A(1)ᵀ, which takes it
z ≥ 0             stab(z) = z + ε, and ε goes into the layer's bias
R = 0 for z ≤ 0   stab(z) = max(z, 0) + ε = max(z + ε, ε), or relu(z) + ε where the model computes relu(z) itself
else              stab(z) = z + ε·sign(z)

What two shares can have in common is in `both_sides` and `complements`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from onnx import TensorProto

from onnxlrp.explain.modify import Modified
from onnxlrp.graph.build import Builder, One, Symbol, Value
from onnxlrp.graph.signs import Sign
from onnxlrp.layers.registry import Linear, Relevance
from onnxlrp.rules.rule import Share, Stabilizer


def quotient(
    share: Share, terms: Sequence[Modified], stabilizer: Stabilizer, layer: Linear, r: Relevance, build: Builder
) -> Value | None:
    """s where the share holds; None where the share has nothing to give."""
    if all(t.w is None for t in terms):
        return None
    if _are_alike(share, terms, layer, build):
        batch, _, *spatial = build.facts.shape(layer.output)
        total = build.whole(_over_channels(r, layer, build), (batch, 1, *spatial))
        return build.whole(_divided(total, share, terms, stabilizer, layer, r, build), (batch, 1, *spatial))
    relevance = restricted(share, layer, r, build)
    if relevance is None:
        return None
    return _divided(relevance, share, terms, stabilizer, layer, r, build) if share.divide else relevance


def _are_alike(share: Share, terms: Sequence[Modified], layer: Linear, build: Builder) -> bool:
    """Whether z is one number for all outputs at a position, whatever the image, so that their sum may be divided. Not
    in float16, where it may be too large before it is."""
    fits = build.exact and layer.alike and layer.z.element_type != TensorProto.FLOAT16
    if not (fits and share.divide and share.where == "everywhere"):
        return False
    return all(t.b is None and all(isinstance(v, One) for v in (t.w, *t.x)) for t in terms)


def _over_channels(r: Relevance, layer: Linear, build: Builder) -> Value:
    """The sum of R over the channels, [N, 1, …]."""
    if layer.outputs == 1:
        return r.value
    return r.over_channels or build.op("ReduceSum", r.value, build.integers([1]), keepdims=1, step="sum")


def foldable(stabilizer: Stabilizer, layer: Linear) -> bool:
    """Whether ε is one number that the layer's bias can take."""
    return stabilizer.kind == "sign" and stabilizer.epsilon > 0 and layer.outputs > 0


def _divided(
    relevance: Value, share: Share, terms: Sequence[Modified], stabilizer: Stabilizer, layer: Linear, r: Relevance,
    build: Builder,
) -> Value:  # fmt: skip
    """R ⊘ stab(z), R where the share holds."""
    side = _side(share, terms, layer, build)
    if foldable(stabilizer, layer) and side is not Sign.ANY and not any(t.is_plain(layer) for t in terms):
        return over(relevance, one_sided(terms, side, stabilizer.epsilon, layer, build), layer, build)
    if build.exact and share.between_bounds:
        terms = _from_output(terms, layer)
    z = build.tensor_of(_forward(terms, layer, layer.z, build), relevance)
    epsilon = _spread(stabilizer, z, layer, build)
    if r.gate is not None:  # equal to the layer's output, or to its relu, wherever R is not zero
        z = build.tensor_of(_forward(terms, layer, r.gate, build), relevance)
    if z != r.gate and side is not Sign.ANY:  # z has the other sign only where R is zero
        one_side = build.positive(z) if side is Sign.NONNEGATIVE else build.negative(z)
        z = build.tensor_of(one_side, relevance)
    if stabilizer.epsilon == 0:
        return _exact_quotient(relevance, z, build)
    whole = stabilizer.kind != "norm"  # which may leave one value a sample
    return over(relevance, stabilise(stabilizer, z, epsilon, build), layer, build, waits=whole)


def over(r: Value, z: Value, layer: Linear, build: Builder, waits: bool = True) -> Value:
    """R ⊘ z; z `waits` for R rather than being kept from the forward pass on, unless the layer's is early."""
    shape = build.facts.shape(layer.output)
    if waits and layer.early:
        z, r = build.in_turn(z, r, shape)
    elif waits:  # where all channels are divided as one, z does not depend on the image, and never waits
        r, z = build.in_turn(r, z, shape)
    channels = shape[1] if len(shape) > 2 else 0
    return build.quotient(r, z, channels if isinstance(channels, int) else 0, step="s")


def restricted(share: Share, layer: Linear, r: Relevance, build: Builder) -> Value | None:
    """R where the share holds: outputs of one sign, or all."""
    if share.where == "everywhere":
        return r.value
    if is_rectified(r):
        return None if share.where == "negative" else r.value
    cofactor = r.cofactor_of(layer.z)
    if cofactor is not None:
        part = build.mul(_part(share, layer, build), cofactor, step="r")
        return part if isinstance(part, Value) else None
    zero = build.constant(0.0, layer.z)
    condition = build.op("Greater" if share.where == "positive" else "Less", layer.z, zero)
    return build.masked(r.value, condition, step="r")


def is_rectified(r: Relevance) -> bool:
    """Whether R is known to be zero wherever z <= 0."""
    return r.gate is not None and r.gate.sign is Sign.NONNEGATIVE


def _part(share: Share, layer: Linear, build: Builder) -> Symbol:
    """max(z, 0) or min(z, 0), the side of the layer's output that the share is for. Max, where Relu would do: ONNX
    Runtime computes a Relu of a convolution in the convolution's memory layout, and has two tensors to reorder."""
    if share.where == "negative":
        return build.negative(layer.z, step="side")
    if layer.z.sign in (Sign.NONNEGATIVE, Sign.NONPOSITIVE):
        return layer.z if layer.z.sign is Sign.NONNEGATIVE else None
    return build.op("Max", layer.z, build.constant(0.0, layer.z), step="side")


def _forward(terms: Sequence[Modified], layer: Linear, output: Value, build: Builder) -> Symbol:
    """Σ_term sign · (A(w′) x′ + b′), what does not depend on the image first: runtimes fold it when they load it.
    `output` is the layer's, A(w) x + b, which is not computed again."""
    parts = [build.scale(t.sign, output if t.is_plain(layer) else layer.apply(t.x, t.w, t.b)) for t in terms]
    z: Symbol = None
    for part in sorted(parts, key=build.moves):
        z = build.add(z, part, step="z")
    return z


def _from_output(terms: Sequence[Modified], layer: Linear) -> list[Modified]:
    """The terms, A(w) x among them as the layer's output less its bias. The difference has the rounding error of both:
    for sums that are large beside the bias."""
    found = []
    for t in terms:
        whole = replace(t, b=layer.b)
        if t.b is None and layer.b is not None and whole.is_plain(layer):
            found += [whole, Modified((None,) * len(layer.x), None, layer.b, -t.sign)]
        else:
            found.append(t)
    return found


def _side(share: Share, terms: Sequence[Modified], layer: Linear, build: Builder) -> Sign:
    """On which side of zero the share's z lies wherever R is not zero, as far as it is known before z is computed."""
    if not build.exact:
        return Sign.ANY
    if (
        share.where != "everywhere"
    ):  # z is then the layer's output and more of the same sign, unless its bias is left out
        whole = layer.b is None or any(t.b is not None for t in terms)
        return _SIDES[share.where] if whole else Sign.ANY
    sides = {_sign(x) * _sign(t.w) for t in terms for x in t.x if x is not None and t.w is not None}
    sides |= {_sign(t.b) for t in terms if t.b is not None}
    return sides.pop() if len(sides) == 1 and all(t.sign == 1 for t in terms) else Sign.ANY


_SIDES = {"positive": Sign.NONNEGATIVE, "negative": Sign.NONPOSITIVE}


def _sign(v: Symbol) -> Sign:
    return v.sign if isinstance(v, Value) else Sign.NONNEGATIVE


def one_sided(terms: Sequence[Modified], side: Sign, epsilon: float, layer: Linear, build: Builder) -> Value:
    """stab(z) for z on one side of zero, ε in the bias. Where z = 0 every share x′w′ is zero too, or R is: the sign of
    ε does not matter there."""
    sign = 1.0 if side is Sign.NONNEGATIVE else -1.0
    z = with_bias(terms, sign * epsilon, layer, build)
    if z.sign is side:
        return z
    bound = build.constant(sign * epsilon, z)
    return (
        build.op("Clip", z, bound, step="stabilised")
        if sign > 0
        else build.op("Clip", z, None, bound, step="stabilised")
    )


def with_bias(terms: Sequence[Modified], value: float, layer: Linear, build: Builder) -> Value:
    """Σ term, and a constant, in the bias where a term has a weight left to be convolved with."""
    like = next((x for t in terms for x in t.x if isinstance(x, Value)), layer.z)
    first = next((t for t in terms if t.w is not None), None)
    if first is None:
        biases = _forward(terms, layer, layer.z, build)
        return build.tensor_of(build.add(biases, build.constant(value, like), step="b"), like)
    constant = build.constant(value if first.b is not None else np.full(layer.outputs, value), like)
    shifted = build.add(first.b, constant, step="b")
    return build.tensor_of(
        _forward([replace(t, b=shifted) if t is first else t for t in terms], layer, layer.z, build), like
    )


def _exact_quotient(r: Value, z: Value, build: Builder) -> Value:
    """R ⊘ z where z is not zero, else 0: LRP-0 has nothing to say there."""
    zero = build.op("Equal", z, build.constant(0.0, z))
    quotient = build.op("Div", r, build.op("Where", zero, build.constant(1.0, z), z))
    return build.op("Where", zero, build.constant(0.0, r), quotient, step="s")


def _spread(stabilizer: Stabilizer, z: Value, layer: Linear, build: Builder) -> Value:
    """ε, or for the stabiliser `norm` ε·rms(z), one value per sample."""
    if stabilizer.kind != "norm":
        return build.constant(stabilizer.epsilon, z)
    axes = list(range(1 - len(build.facts.shape(layer.output)), 0))  # from the end: z may have no batch
    if z.array is not None:  # a constant is the same for every sample, and may have fewer axes than the layer's output
        return build.constant(stabilizer.epsilon * np.sqrt(np.mean(np.square(z.array))) + 1e-30, z)
    wide = build.op("Cast", z, to=TensorProto.FLOAT) if z.element_type == TensorProto.FLOAT16 else z  # z² < 65504
    rms = build.op("Sqrt", build.mean(build.op("Mul", wide, wide), axes, keepdims=True))
    rms = rms if wide is z else build.op("Cast", rms, to=z.element_type)
    return build.op(
        "Add", build.op("Mul", rms, build.constant(stabilizer.epsilon, z)), build.constant(1e-30, z), step="spread"
    )


def stabilise(stabilizer: Stabilizer, z: Value, epsilon: Value, build: Builder) -> Value:
    """stab(z): z kept away from zero by `epsilon` > 0, with sign(0) = +1."""
    combine = "Max" if stabilizer.kind == "clip" else "Add"
    if z.sign is Sign.NONNEGATIVE:
        return build.op(combine, z, epsilon, step="stabilised")
    negative = build.op("Less", z, build.constant(0.0, z))
    if stabilizer.kind != "clip":  # Where takes more time than a cast and two operators that work in place
        twice = build.op("Mul", build.op("Cast", negative, to=z.element_type), build.op("Add", epsilon, epsilon))
        return build.op("Add", z, build.op("Sub", epsilon, twice), step="stabilised")
    below, above = build.op("Min", z, build.op("Neg", epsilon)), build.op(combine, z, epsilon)
    return build.op("Where", negative, below, above, step="stabilised")

"""Sums of activations, and scaling or shifting by what does not depend on the image.

z = Σ_i x_i                        a residual sum: linear in all of its inputs, w = 1
z = factor ⊙ x + shift             one activation and constants: a diagonal map
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from onnx import NodeProto

from onnxlrp.graph.build import ONE, Builder, One, Symbol, Value
from onnxlrp.graph.facts import Shape
from onnxlrp.layers.registry import Diagonal, Inputs, Layer, Linear, defines, layer_name, refuse, uncovered


@defines("Add", "Sum")
def add(node: NodeProto, build: Builder) -> Layer:
    """Several activations summed, or one shifted by constants."""
    carriers = [i for i in node.input if build.facts.carries(i)]
    others = [i for i in node.input if not build.facts.carries(i)]
    if len(carriers) == 1:
        shift: Symbol = None
        for name in others:
            shift = build.add(shift, build.tensor(name))
        return diagonal(node, build, carriers[0], ONE, shift)
    if others:
        raise refuse(node, "sums activations and constants in one node", "export the sum as two Add nodes")
    return residual_sum(node, build)


@defines("Sub")
def subtract(node: NodeProto, build: Builder) -> Layer:
    """x - constant or constant - x."""
    left, right = (build.facts.carries(i) for i in node.input)
    if left and right:
        return residual_sum(node, build, signs=(1.0, -1.0))
    other = build.tensor(node.input[1 if left else 0])
    return diagonal(
        node, build, node.input[0 if left else 1], *((ONE, build.neg(other)) if left else (build.neg(ONE), other))
    )


@defines("Neg")
def negate(node: NodeProto, build: Builder) -> Layer:
    """-x."""
    return diagonal(node, build, node.input[0], build.neg(ONE))


@defines("Mul")
def multiply(node: NodeProto, build: Builder) -> Layer:
    """x · constant."""
    carriers = [i for i in node.input if build.facts.carries(i)]
    if len(carriers) > 1:
        raise uncovered(node, build, "is a product of two activations, which no rule covers yet")
    other = next(i for i in node.input if i != carriers[0])
    return diagonal(node, build, carriers[0], build.tensor(other))


@defines("Div")
def divide(node: NodeProto, build: Builder) -> Layer:
    """x / constant."""
    if build.facts.carries(node.input[1]):
        raise uncovered(node, build, "divides by an activation, which no rule covers")
    return diagonal(node, build, node.input[0], build.op("Reciprocal", build.tensor(node.input[1])))


def residual_sum(node: NodeProto, build: Builder, signs: Sequence[float] = ()) -> Linear:
    """z = Σ_i w_i · x_i, each x_i broadcast to z; w is ONE, or a vector of signs."""
    shape = build.facts.shape(node.output[0])
    shapes = [build.facts.shape(i) for i in node.input]

    def weights(w: Symbol) -> list[float]:
        known = np.ones(1) if isinstance(w, One) else np.zeros(1) if w is None else w.array
        assert known is not None
        return [float(v) for v in np.broadcast_to(known, len(shapes))]

    def apply(xs: Inputs, w: Symbol, b: Symbol) -> Symbol:
        total: Symbol = None
        for weight, x in zip(weights(w), xs, strict=True):
            total = build.add(total, build.scale(weight, x))
        return total

    def transpose(s: Value, w: Symbol) -> Inputs:
        parts = zip(weights(w), shapes, strict=True)
        return tuple(build.scale(weight, _unbroadcast(build, s, shape, to)) for weight, to in parts)

    z = build.tensor(node.output[0])
    return Linear(
        name=layer_name(node), kind="sum", nodes=(node,), inputs=tuple(node.input), output=node.output[0],
        x=tuple(build.tensor(i) for i in node.input), w=build.constant(signs, z) if signs else ONE, z=z,
        apply=apply, transpose=transpose,
    )  # fmt: skip


def _unbroadcast(build: Builder, s: Symbol, shape: Shape, to: Shape) -> Symbol:
    """The adjoint of broadcasting `to` up to `shape`: a sum over the axes that grew."""
    if shape == to or not isinstance(s, Value):
        return s
    aligned = (1,) * (len(shape) - len(to)) + to
    grown = [i for i, (a, b) in enumerate(zip(shape, aligned, strict=True)) if a != b]
    summed = build.op("ReduceSum", s, build.integers(grown), keepdims=1)
    return summed if len(to) == len(shape) else build.reshape(summed, to)


def diagonal(node: NodeProto, build: Builder, x_name: str, factor: Symbol, shift: Symbol = None) -> Diagonal:
    """z = factor ⊙ x + shift, with factor and shift of any shape that broadcasts to x's."""
    facts = build.facts
    shape = facts.shape(node.output[0])
    if facts.shape(x_name) != shape:
        reason = f"broadcasts an activation {facts.shape(x_name)} to {shape}"
        raise refuse(node, reason, "export with explicit Expand")
    channels = {channel_axis(build, v, len(shape)) for v in (factor, shift) if isinstance(v, Value)} - {None}
    channel = channels.pop() if len(channels) == 1 else 1
    vectors = not channels and channel is not None and channel >= 0

    def vector(v: Symbol) -> Symbol:
        return build.reshape(v, (-1 if _size(build, v) > 1 else 1,)) if isinstance(v, Value) and vectors else v

    return diagonal_layer(
        node, build, x_name, factor, shift, vector(factor), vector(shift), max(channel or 0, 0), vectors
    )


def diagonal_layer(
    node: NodeProto, build: Builder, x_name: str, w: Symbol, b: Symbol, factor: Symbol, shift: Symbol,
    channel: int, mergeable: bool = True,
) -> Diagonal:  # fmt: skip
    """The layer z = w ⊙ x + b; `factor` and `shift` are w and b as vectors along the axis `channel`."""

    def apply(xs: Inputs, w: Symbol, b: Symbol) -> Symbol:
        return build.add(build.mul(xs[0], w), b)

    def transpose(s: Value, w: Symbol) -> Inputs:
        return (build.mul(s, w),)

    return Diagonal(
        name=layer_name(node), kind="normalisation", nodes=(node,), inputs=(x_name,), output=node.output[0],
        x=(build.tensor(x_name),), w=w, b=b, z=build.tensor(node.output[0]), apply=apply, transpose=transpose,
        factor=factor, shift=shift, channel=channel, mergeable=mergeable,
    )  # fmt: skip


def _shape(build: Builder, v: Value) -> Shape:
    return v.array.shape if v.array is not None else build.facts.shape(v.name)


def _size(build: Builder, v: Value) -> int:
    return math.prod(int(d) for d in _shape(build, v))


def channel_axis(build: Builder, v: Value, rank: int) -> int | None:
    """The one axis of a rank-`rank` tensor along which v varies; None for a scalar, -1 where there are several."""
    if v.array is None and not build.facts.known(v.name):
        return -1
    shape = _shape(build, v)
    varied = [i + rank - len(shape) for i, d in enumerate(shape) if d != 1]
    return None if not varied else varied[0] if len(varied) == 1 else -1

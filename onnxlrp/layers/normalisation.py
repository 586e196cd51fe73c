"""Batch normalisation: a diagonal map along the channels.

    z = γ · (x - μ) / √(var + eps) + β  =  factor ⊙ x + shift

It is merged into the linear layer beside it where that is exact (`explain.view`).
"""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from onnxlrp.graph.build import Builder, Value
from onnxlrp.graph.facts import attributes
from onnxlrp.layers.arithmetic import diagonal_layer
from onnxlrp.layers.registry import Diagonal, defines


@defines("BatchNormalization")
def batch_normalization(node: NodeProto, build: Builder) -> Diagonal:
    """With stored statistics, or with those of the batch (training_mode=1), taken as constants either way."""
    given = attributes(node)
    eps = float(given.get("epsilon", 1e-5))
    gamma, beta = build.tensor(node.input[1]), build.tensor(node.input[2])
    shape = build.facts.shape(node.input[0])
    if given.get("training_mode"):
        mean, variance = _statistics(build, build.tensor(node.input[0]), len(shape))
    else:
        mean, variance = build.tensor(node.input[3]), build.tensor(node.input[4])
    factor, shift = _affine(build, gamma, beta, mean, variance, eps)
    along = (1, int(shape[1]), *[1] * (len(shape) - 2))
    w, b = build.reshape(factor, along), build.reshape(shift, along)
    return diagonal_layer(node, build, node.input[0], w, b, factor, shift, channel=1)


def _statistics(build: Builder, x: Value, rank: int) -> tuple[Value, Value]:
    """Mean and (biased) variance of x over all axes but the channels."""
    axes = [0, *range(2, rank)]
    centre = build.mean(x, axes, keepdims=True)
    offset = build.op("Sub", x, centre)
    return build.reshape(centre, (-1,)), build.mean(build.op("Mul", offset, offset), axes, keepdims=False)


def _affine(build: Builder, gamma: Value, beta: Value, mean: Value, variance: Value, eps: float) -> tuple[Value, Value]:
    """factor and shift, in float64 where the parameters are known."""
    arrays = [v.array for v in (gamma, beta, mean, variance)]
    if all(a is not None for a in arrays):
        g, b, m, v = (np.asarray(a, np.float64) for a in arrays)
        factor = g / np.sqrt(v + eps)
        return build.constant(factor, gamma), build.constant(b - m * factor, gamma)
    deviation = build.op("Sqrt", build.op("Add", variance, build.constant(eps, variance)))
    scale = build.op("Div", gamma, deviation)
    return scale, build.op("Sub", beta, build.op("Mul", mean, scale))

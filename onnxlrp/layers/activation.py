"""Elementwise activations y = f(x): relevance passes; some rules multiply it by f'(x).

Each definition is that product, g ⊙ f'(x), in the fewest passes over a tensor. What f' depends on is read from y where
it can be: y is what the classifier computes and keeps, x is often fused away.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from onnx import NodeProto

from onnxlrp.graph.build import Builder, Value
from onnxlrp.graph.facts import attributes
from onnxlrp.graph.signs import Sign
from onnxlrp.layers.registry import Activation, defines, layer_name, refuse, uncovered
from onnxlrp.layers.steps import channels_of_steps, in_blocks, step

Product = Callable[[Builder, Value, Value, Value, dict[str, Any]], Value]


def _relu(build: Builder, g: Value, x: Value, y: Value, given: dict[str, Any]) -> Value:
    return where_active(build, g, y)


def where_active(build: Builder, g: Value, y: Value) -> Value:
    """g where y > 0, else 0, for a y that is nowhere negative and has g's shape."""
    shape = build.facts.shape(y.name)
    g = in_blocks(build, g, shape)
    channels = channels_of_steps(build, y, shape) if build.is_blocked(g) else 0
    active = step(build, y, channels, "active") if channels else _rounded(build, y)
    return build.whole(replace(build.op("Mul", g, active), sign=g.sign), shape)


def _rounded(build: Builder, y: Value) -> Value:
    """y ≥ 0 cut at 1 and rounded up is 1 where y > 0. ONNX Runtime shares that among threads, and casts a comparison on
    one."""
    return build.op("Ceil", build.op("Clip", y, None, build.constant(1.0, y)), step="active")


def _by_side(build: Builder, x: Value, above: Value, below: Value) -> Value:
    """`above` where x > 0, else `below`."""
    return build.op("Where", build.op("Greater", x, build.constant(0.0, x)), above, below)


def _leaky_relu(build: Builder, g: Value, x: Value, y: Value, given: dict[str, Any]) -> Value:
    return _by_side(build, x, g, build.op("Mul", g, build.constant(float(given.get("alpha", 0.01)), x)))


def _sigmoid(build: Builder, g: Value, x: Value, y: Value, given: dict[str, Any]) -> Value:
    """y (1 - y)."""
    return build.op("Mul", g, build.op("Mul", y, build.op("Sub", build.constant(1.0, y), y)))


def _tanh(build: Builder, g: Value, x: Value, y: Value, given: dict[str, Any]) -> Value:
    """1 - y²."""
    return build.op("Mul", g, build.op("Sub", build.constant(1.0, y), build.op("Mul", y, y)))


def _softplus(build: Builder, g: Value, x: Value, y: Value, given: dict[str, Any]) -> Value:
    return build.op("Mul", g, build.op("Sigmoid", x))


def _elu(build: Builder, g: Value, x: Value, y: Value, given: dict[str, Any]) -> Value:
    """1 above zero, y + alpha below."""
    below = build.op("Add", y, build.constant(float(given.get("alpha", 1.0)), y))
    return _by_side(build, x, g, build.op("Mul", g, below))


def _selu(build: Builder, g: Value, x: Value, y: Value, given: dict[str, Any]) -> Value:
    """gamma above zero, y + alpha · gamma below."""
    gamma, alpha = float(given.get("gamma", 1.0507009873554805)), float(given.get("alpha", 1.6732632423543772))
    below = build.op("Add", y, build.constant(alpha * gamma, y))
    return _by_side(build, x, build.op("Mul", g, build.constant(gamma, g)), build.op("Mul", g, below))


def _inside(build: Builder, v: Value, low: float, high: float) -> Value:
    """Whether low < v < high; a bound that is infinite is none."""
    sides = [build.op("Greater", v, build.constant(low, v))] if low > -np.inf else []
    sides += [build.op("Less", v, build.constant(high, v))] if high < np.inf else []
    return sides[0] if len(sides) == 1 else build.op("And", *sides)


def _hard_sigmoid(build: Builder, g: Value, x: Value, y: Value, given: dict[str, Any]) -> Value:
    alpha = build.constant(float(given.get("alpha", 0.2)), g)
    return build.masked(build.op("Mul", g, alpha), _inside(build, y, 0.0, 1.0))


def _hard_swish(build: Builder, g: Value, x: Value, y: Value, given: dict[str, Any]) -> Value:
    """(2x + 3) / 6 within (-3, 3), 0 below, 1 above."""
    slope = build.op("Add", build.op("Mul", x, build.constant(1 / 3, x)), build.constant(0.5, x))
    outside = build.masked(g, build.op("Greater", x, build.constant(0.0, x)))
    return build.op("Where", _inside(build, x, -3.0, 3.0), build.op("Mul", g, slope), outside)


PRODUCTS: dict[str, Product] = {
    "Relu": _relu,
    "LeakyRelu": _leaky_relu,
    "Sigmoid": _sigmoid,
    "Tanh": _tanh,
    "Softplus": _softplus,
    "Elu": _elu,
    "Selu": _selu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
}


@defines(*PRODUCTS)
def elementwise(node: NodeProto, build: Builder) -> Activation:
    """An activation that is an operator of its own."""
    product = PRODUCTS[node.op_type]
    return _activation(node, build, node.input[0], lambda g, x, y: product(build, g, x, y, attributes(node)))


@defines("PRelu")
def learned_slope(node: NodeProto, build: Builder) -> Activation:
    """x above zero, slope · x below, with a slope of any shape that broadcasts to x's."""
    if build.facts.carries(node.input[1]):
        raise refuse(node, "has a slope that depends on the image", "export with constant slopes")
    slope = build.tensor(node.input[1])

    def product(g: Value, x: Value, y: Value) -> Value:
        return _by_side(build, x, g, build.op("Mul", g, slope))

    return _activation(node, build, node.input[0], product)


@defines("Clip", "Max", "Min")
def clip(node: NodeProto, build: Builder) -> Activation:
    """ReLU6 and other clipping to constant bounds, from one side as Max or Min too; from below to 0 it is relu."""
    if node.op_type == "Clip":
        x_name, *names = [*node.input, "", ""][:3]
    else:
        x_name, *others = sorted(node.input, key=build.facts.carries, reverse=True)
        if len(others) != 1 or build.facts.carries(others[0]):
            raise uncovered(node, build, f"only {node.op_type} of one activation and one constant is known")
        names = ["", *others] if node.op_type == "Min" else [*others, ""]
    bounds = [_number(build, name) if name else end for name, end in zip(names, (-np.inf, np.inf), strict=True)]
    if None in bounds or build.facts.shape(x_name) != build.facts.shape(node.output[0]):
        reason = f"a bound of {x_name} is not one number, known before the model runs"
        raise refuse(node, reason, "export with a constant number")
    low, high = (float(bound) for bound in bounds if bound is not None)
    rectifies = low == 0 and high == np.inf

    def product(g: Value, x: Value, y: Value) -> Value:
        if rectifies:
            return where_active(build, g, y)
        return g if low == -np.inf and high == np.inf else build.masked(g, _inside(build, y, low, high))

    return _activation(node, build, x_name, product, rectifies)


def _number(build: Builder, name: str) -> float | None:
    """The number that all elements of a tensor are, None where they are not known to be one. Zeros of x's shape are
    known by their sign, however large the batch."""
    if build.facts.sign(name) is Sign.ZERO:
        return 0.0
    value = build.facts.value(name)
    return float(value.flat[0]) if value is not None and len(np.unique(value)) == 1 else None


def _activation(
    node: NodeProto,
    build: Builder,
    x_name: str,
    product: Callable[[Value, Value, Value], Value],
    rectifies: bool | None = None,
) -> Activation:
    x, y = build.tensor(x_name), build.tensor(node.output[0])
    rectifies = node.op_type == "Relu" if rectifies is None else rectifies
    return Activation(
        name=layer_name(node), kind="activation", nodes=(node,), inputs=(x_name,), output=node.output[0],
        times_derivative=lambda g: product(g, x, y), rectifies=rectifies,
    )  # fmt: skip

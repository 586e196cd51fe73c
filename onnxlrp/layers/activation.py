"""Elementwise activations y = f(x): relevance passes; some rules multiply by f'(x)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import NodeProto

from onnxlrp.graph.build import Builder, Value
from onnxlrp.graph.facts import attributes
from onnxlrp.layers.registry import Activation, defines, layer_name, refuse

Derivative = Callable[[Builder, Value, Value, dict[str, Any]], Value]


def _step(build: Builder, condition: Value, above: float, below: float, like: Value) -> Value:
    return build.op("Where", condition, build.constant(above, like), build.constant(below, like))


def _relu(build: Builder, x: Value, y: Value, given: dict[str, Any]) -> Value:
    return _step(build, build.op("Greater", x, build.constant(0.0, x)), 1.0, 0.0, x)


def _leaky_relu(build: Builder, x: Value, y: Value, given: dict[str, Any]) -> Value:
    slope = float(given.get("alpha", 0.01))
    return _step(build, build.op("Greater", x, build.constant(0.0, x)), 1.0, slope, x)


def _sigmoid(build: Builder, x: Value, y: Value, given: dict[str, Any]) -> Value:
    """y (1 - y)."""
    return build.op("Mul", y, build.op("Sub", build.constant(1.0, y), y))


def _tanh(build: Builder, x: Value, y: Value, given: dict[str, Any]) -> Value:
    """1 - y²."""
    return build.op("Sub", build.constant(1.0, y), build.op("Mul", y, y))


def _softplus(build: Builder, x: Value, y: Value, given: dict[str, Any]) -> Value:
    return build.op("Sigmoid", x)


def _elu(build: Builder, x: Value, y: Value, given: dict[str, Any]) -> Value:
    """1 above zero, y + alpha below."""
    below = build.op("Add", y, build.constant(float(given.get("alpha", 1.0)), y))
    return build.op("Where", build.op("Greater", x, build.constant(0.0, x)), build.constant(1.0, x), below)


def _inside(build: Builder, x: Value, low: float, high: float) -> Value:
    above = build.op("Greater", x, build.constant(low, x))
    return build.op("And", above, build.op("Less", x, build.constant(high, x)))


def _hard_sigmoid(build: Builder, x: Value, y: Value, given: dict[str, Any]) -> Value:
    alpha = float(given.get("alpha", 0.2))
    return _step(build, _inside(build, y, 0.0, 1.0), alpha, 0.0, x)


def _hard_swish(build: Builder, x: Value, y: Value, given: dict[str, Any]) -> Value:
    """(2x + 3) / 6 within (-3, 3), 0 below, 1 above."""
    slope = build.op("Add", build.op("Mul", x, build.constant(1 / 3, x)), build.constant(0.5, x))
    outside = _step(build, build.op("Greater", x, build.constant(0.0, x)), 1.0, 0.0, x)
    return build.op("Where", _inside(build, x, -3.0, 3.0), slope, outside)


DERIVATIVES: dict[str, Derivative] = {
    "Relu": _relu,
    "LeakyRelu": _leaky_relu,
    "Sigmoid": _sigmoid,
    "Tanh": _tanh,
    "Softplus": _softplus,
    "Elu": _elu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
}


@defines(*DERIVATIVES)
def elementwise(node: NodeProto, build: Builder) -> Activation:
    """An activation that is an operator of its own."""
    rule = DERIVATIVES[node.op_type]
    return _activation(node, build, node.input[0], lambda x, y: rule(build, x, y, attributes(node)))


@defines("Clip")
def clip(node: NodeProto, build: Builder) -> Activation:
    """ReLU6 and other clipping to constant bounds; Clip(x, 0) is relu."""
    bounds = [build.facts.value(i) if i else None for i in [*node.input[1:], "", ""][:2]]
    low = -np.inf if bounds[0] is None else float(bounds[0])
    high = np.inf if bounds[1] is None else float(bounds[1])

    def derivative(x: Value, y: Value) -> Value:
        inside = [build.op("Greater", x, build.constant(low, x))] if low > -np.inf else []
        inside += [build.op("Less", x, build.constant(high, x))] if high < np.inf else []
        if not inside:
            return build.constant(1.0, x)
        return _step(build, inside[0] if len(inside) == 1 else build.op("And", *inside), 1.0, 0.0, x)

    return _activation(node, build, node.input[0], derivative, rectifies=low == 0 and high == np.inf)


@defines("Max")
def maximum(node: NodeProto, build: Builder) -> Activation:
    """relu written as Max(x, 0)."""
    carriers = [i for i in node.input if build.facts.carries(i)]
    others = [build.facts.value(i) for i in node.input if not build.facts.carries(i)]
    if len(carriers) != 1 or len(others) != 1 or others[0] is None or np.any(others[0]):
        raise refuse(node, "only Max(x, 0), a relu, is known", "explain from an earlier tensor (--output)")
    return _activation(node, build, carriers[0], lambda x, y: _relu(build, x, y, {}), rectifies=True)


def _activation(
    node: NodeProto,
    build: Builder,
    x_name: str,
    derivative: Callable[[Value, Value], Value],
    rectifies: bool | None = None,
) -> Activation:
    x, y = build.tensor(x_name), build.tensor(node.output[0])
    return Activation(
        name=layer_name(node), kind="activation", nodes=(node,), inputs=(x_name,), output=node.output[0],
        derivative=lambda: derivative(x, y), rectifies=node.op_type == "Relu" if rectifies is None else rectifies,
    )  # fmt: skip

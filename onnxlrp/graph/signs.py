"""The sign of an operator's output, from the signs of its inputs.

One table, used for the classifier's tensors and for those the relevance part adds: a tensor known to be non-negative
has no negative part, so whole terms of a rule disappear.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any

import numpy as np
from onnx import numpy_helper


class Sign(Enum):
    """What is known of every element of a tensor: 0, >= 0, <= 0, or nothing."""

    ZERO = "0"
    NONNEGATIVE = "≥0"
    NONPOSITIVE = "≤0"
    ANY = "±"

    def __neg__(self) -> Sign:
        return _OPPOSITE[self]

    def __mul__(self, other: Sign) -> Sign:
        if Sign.ZERO in (self, other):
            return Sign.ZERO
        if Sign.ANY in (self, other):
            return Sign.ANY
        return Sign.NONNEGATIVE if self is other else Sign.NONPOSITIVE


_OPPOSITE = {
    Sign.ZERO: Sign.ZERO,
    Sign.NONNEGATIVE: Sign.NONPOSITIVE,
    Sign.NONPOSITIVE: Sign.NONNEGATIVE,
    Sign.ANY: Sign.ANY,
}


def of_array(values: np.ndarray) -> Sign:
    """The sign of a known array; NaN has none."""
    if np.issubdtype(values.dtype, np.bool_):
        return Sign.NONNEGATIVE
    low, high = bool(np.all(values >= 0)), bool(np.all(values <= 0))
    if low:
        return Sign.ZERO if high else Sign.NONNEGATIVE
    return Sign.NONPOSITIVE if high else Sign.ANY


SignRule = Callable[[Sequence[Sign], Mapping[str, Any]], Sign]


def _nonnegative(signs: Sequence[Sign], attributes: Mapping[str, Any]) -> Sign:
    return Sign.NONNEGATIVE


def _first(signs: Sequence[Sign], attributes: Mapping[str, Any]) -> Sign:
    return signs[0]


def _same(signs: Sequence[Sign], attributes: Mapping[str, Any]) -> Sign:
    """The sign that all inputs share; a zero takes that of the others."""
    shared = set(signs) - {Sign.ZERO}
    return Sign.ZERO if not shared else shared.pop() if len(shared) == 1 else Sign.ANY


def _product(signs: Sequence[Sign], attributes: Mapping[str, Any]) -> Sign:
    return signs[0] * signs[1]


def _difference(signs: Sequence[Sign], attributes: Mapping[str, Any]) -> Sign:
    return _same((signs[0], -signs[1]), attributes)


def _largest(signs: Sequence[Sign], attributes: Mapping[str, Any]) -> Sign:
    return Sign.NONNEGATIVE if {Sign.NONNEGATIVE, Sign.ZERO} & set(signs) else _same(signs, attributes)


def _least(signs: Sequence[Sign], attributes: Mapping[str, Any]) -> Sign:
    return Sign.NONPOSITIVE if {Sign.NONPOSITIVE, Sign.ZERO} & set(signs) else _same(signs, attributes)


def _linear(signs: Sequence[Sign], attributes: Mapping[str, Any]) -> Sign:
    """x·w + b."""
    product = signs[0] * signs[1]
    return product if len(signs) < 3 else _same((product, signs[2]), attributes)


def _clip(signs: Sequence[Sign], attributes: Mapping[str, Any]) -> Sign:
    """Clip(x, low, high): a low bound >= 0 decides, or a high one <= 0."""
    low, high = [*signs[1:], Sign.ANY, Sign.ANY][:2]
    if low in (Sign.NONNEGATIVE, Sign.ZERO):
        return Sign.NONNEGATIVE
    return Sign.NONPOSITIVE if high in (Sign.NONPOSITIVE, Sign.ZERO) else Sign.ANY


def _pad(signs: Sequence[Sign], attributes: Mapping[str, Any]) -> Sign:
    """Pad(x, pads, value): zeros unless a value is given."""
    return _same((signs[0], signs[2]), attributes) if len(signs) > 2 else signs[0]


def _filled(signs: Sequence[Sign], attributes: Mapping[str, Any]) -> Sign:
    """ConstantOfShape(shape): zeros unless a value is given."""
    return of_array(numpy_helper.to_array(attributes["value"])) if "value" in attributes else Sign.ZERO


def _where(signs: Sequence[Sign], attributes: Mapping[str, Any]) -> Sign:
    return _same(signs[1:], attributes)


SIGNS: Mapping[str, SignRule] = {
    **dict.fromkeys(("Relu", "Sigmoid", "HardSigmoid", "Softmax", "Softplus", "Exp", "Abs", "Sqrt"), _nonnegative),
    **dict.fromkeys(
        (
            *("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "ReduceMean", "ReduceSum"),
            *("ReduceMax", "Identity", "Dropout", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"),
            *("Slice", "Gather", "Split", "Expand", "Tile", "DepthToSpace", "SpaceToDepth", "LeakyRelu", "Tanh"),
            *("Gelu", "GatherND", "Sign", "Floor", "Ceil", "Round", "LRN"),
        ),
        _first,
    ),
    **dict.fromkeys(("Add", "Sum", "Concat", "Mean"), _same),
    **dict.fromkeys(("Mul", "Div", "MatMul"), _product),
    **dict.fromkeys(("Conv", "Gemm", "ConvTranspose"), _linear),
    "Sub": _difference,
    "Max": _largest,
    "Min": _least,
    "Neg": lambda signs, _: -signs[0],
    "Clip": _clip,
    "ConstantOfShape": _filled,
    "Pad": _pad,
    "Where": _where,
}


def sign_of(op_type: str, signs: Sequence[Sign], attributes: Mapping[str, Any]) -> Sign:
    """The sign of what `op_type` makes of inputs with these signs; ANY where the table does not know.

    `attributes` are the node's; a Gemm with a negative alpha or beta and the like answers ANY.
    """
    negative = any(attributes.get(key, 1.0) < 0 for key in ("alpha", "beta"))
    rule = SIGNS.get(op_type)
    if rule is None or not signs or (negative and op_type in ("Gemm", "LeakyRelu")):
        return Sign.ANY
    return rule(signs, attributes)

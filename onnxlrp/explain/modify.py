"""What a rule's modifiers make of a layer's tensors: x′, w′ and b′ of each of its terms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxlrp.graph.build import ONE, Builder, Symbol, Value
from onnxlrp.graph.facts import Shape
from onnxlrp.layers.registry import Inputs, Linear
from onnxlrp.rules.rule import Bound, InputRange, Modifier, Part, Term


@dataclass(frozen=True)
class Modified:
    """A term with its modifiers carried out on a layer's tensors."""

    x: Inputs
    w: Symbol
    b: Symbol
    sign: float

    def is_plain(self, layer: Linear) -> bool:
        """Whether nothing is modified, so that A(w′)x′ + b′ is the layer's own output."""
        return self.x == layer.x and self.w == layer.w and self.b == layer.b


Pulled = tuple[Value, float, Sequence[Modified]]  # s, the factor to take it with, and the terms whose adjoints take it


@dataclass(frozen=True)
class Along:
    """The shape of a layer's input and its channel axis."""

    shape: Shape
    channel: int


def modified(term: Term, layer: Linear, build: Builder) -> Modified:
    """x′, w′ and b′ of one term; w′ is ZERO where no input is left."""
    skips = layer.skips or (False,) * len(layer.x)
    xs = tuple(
        modify(term.x, x, build, Along(build.facts.shape(name), layer.channel), skip)
        for x, name, skip in zip(layer.x, layer.inputs, skips, strict=True)
    )
    w = modify(term.w, layer.w, build) if any(x is not None for x in xs) else None
    return Modified(xs, w, modify(term.b, layer.b, build), term.sign)


def modify(
    modifier: Modifier | Bound | InputRange, v: Symbol, build: Builder, along: Along | None = None, skip: bool = False
) -> Symbol:
    """v′: what a modifier makes of a tensor. A bound lies `along` its channels; `skip` marks an identity skip."""
    if isinstance(modifier, Bound) and isinstance(v, Value) and along is not None:
        form = [-1 if i == along.channel else 1 for i in range(len(along.shape))]
        bound = build.constant(np.reshape(modifier.values, form), v)
        return build.broadcast(bound, (1, *along.shape[1:]), step="bound")
    if not isinstance(modifier, Modifier):
        raise AssertionError(f"{modifier} must be resolved before a rule is applied, and to a tensor")
    parts = {
        Part.ZERO: lambda: None,
        Part.ALL: lambda: v,
        Part.POSITIVE: lambda: build.positive(v),
        Part.NEGATIVE: lambda: build.negative(v),
        Part.ABSOLUTE: lambda: build.absolute(v),
        Part.SQUARE: lambda: build.mul(v, v),
        Part.ONES: lambda: ONE,
        Part.MAIN: lambda: None if skip else ONE,
    }
    part = build.scale(modifier.gain, parts[modifier.part]())
    return build.add(build.scale(modifier.keep, v), part)

"""What a stride takes apart and puts together: along an axis, input element stride·m + ρ belongs to phase ρ.

The adjoint of a strided convolution,

    c[i] = Σ_k w[k] · s[(i + before - k) / stride]    over the taps k for which that is a whole number,

is for each phase a convolution of stride 1 with every stride-th tap: with ρ + before = stride·o + φ, and taps
k = φ + stride·j, it is c_ρ[m] = Σ_j w[φ + stride·j] · s[m + o - j].
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from onnx import TensorProto

from onnxlrp.graph.build import Builder, Symbol, Value
from onnxlrp.layers.window import Axis


@dataclass(frozen=True)
class Phase:
    """One phase of an axis: its first tap, how many taps, and the zeros around s."""

    first: int
    taps: int
    before: int
    after: int


def phases(a: Axis) -> list[Phase]:
    """The phases of an axis of dilation 1; one without taps is zero everywhere."""
    length = -(-a.size // a.stride)
    found = []
    for rho in range(a.stride):
        offset, first = divmod(rho + a.before, a.stride)
        taps = len(range(first, a.kernel, a.stride))
        found.append(Phase(first, taps, taps - 1 - offset, length + offset - a.out))
    return found


def by_phases(
    build: Builder, w: Value, axes: Sequence[Axis], convolve: Callable[[Value, Sequence[Phase]], Value]
) -> Value | None:
    """The adjoint of a strided convolution with weight w [outputs, inputs, *kernel], where convolve(w′, phases) is that
    of stride 1 with some of the taps. None where a phase would read beyond s."""
    split = [phases(a) for a in axes]
    if any(a.dilation != 1 for a in axes) or any(p.taps and min(p.before, p.after) < 0 for one in split for p in one):
        return None
    parts: dict[tuple[int, ...], Symbol] = {}
    for index in itertools.product(*(range(a.stride) for a in axes)):
        chosen = [one[rho] for one, rho in zip(split, index, strict=True)]
        parts[index] = convolve(_taps(build, w, chosen, axes), chosen) if all(p.taps for p in chosen) else None
    lengths = [-(-a.size // a.stride) for a in axes]
    for i in reversed(range(len(axes))):
        done = [a.size for a in axes[i + 1 :]]
        parts = {
            index: _cut(build, interleaved(build, [parts[*index, rho] for rho in range(axes[i].stride)],
                                           2 + i, lengths[i], done), 2 + i, lengths[i] * axes[i].stride, axes[i].size)
            for index in itertools.product(*(range(a.stride) for a in axes[:i]))
        }  # fmt: skip
    (whole,) = parts.values()
    assert isinstance(whole, Value)
    return whole


def _taps(build: Builder, w: Value, chosen: Sequence[Phase], axes: Sequence[Axis]) -> Value:
    """The weight of one phase: every stride-th tap of each axis."""
    for i, (p, a) in enumerate(zip(chosen, axes, strict=True)):
        if p.taps != a.kernel:
            w = build.slice(w, 2 + i, p.first, a.kernel, a.stride, step="taps")
    return w


def _cut(build: Builder, v: Symbol, axis: int, have: int, size: int) -> Symbol:
    return build.slice(v, axis, 0, size) if isinstance(v, Value) and have != size else v


def interleaved(build: Builder, parts: Sequence[Symbol], axis: int, length: int, behind: Sequence[int]) -> Symbol:
    """The elements of the phases in turn along an axis, `length` of each; a phase may be ZERO. `behind` are the sizes
    of the axes after it."""
    like = next((p for p in parts if isinstance(p, Value)), None)
    if like is None or len(parts) == 1:
        return like
    if not all(isinstance(p, Value) for p in parts):
        zero = build.op("Where", build.constant(False, TensorProto.BOOL), like, build.constant(0.0, like))
    columns = [build.op("Unsqueeze", p if isinstance(p, Value) else zero, build.integers([axis + 1])) for p in parts]
    stacked = build.op("Concat", *columns, axis=axis + 1)
    return build.op("Reshape", stacked, build.integers([*[0] * axis, length * len(parts), *behind]))

"""What a stride takes apart and puts together: along an axis, input element stride·m + ρ belongs to phase ρ.

The adjoint of a strided convolution,

    c[i] = Σ_k w[k] · s[(i + before - k) / stride]    over the taps k for which that is a whole number,

is for each phase a convolution of stride 1 with every stride-th tap: with ρ + before = stride·o + φ, and taps
k = φ + stride·j, it is c_ρ[m] = Σ_j w[φ + stride·j] · s[m + o - j].

Phases of few channels are one convolution together, side by side as its channels, with taps where any of them has one.
Where there would still be few, an element's neighbours are phases of their own, each of every n·stride-th element, by a
convolution of stride n; so a stride of 1 has phases, too.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from onnxlrp.graph.build import Builder, Symbol, Value
from onnxlrp.layers.window import Axis

PHASES = 8  # at most: more would be hundreds of nodes


@dataclass(frozen=True)
class Phase:
    """One phase of an axis: its first tap, how many taps, the zeros around s, how far apart in s its elements are."""

    first: int
    taps: int
    before: int
    after: int
    stride: int = 1

    @property
    def offset(self) -> int:
        """What its first tap reads for element m is s[stride·m + offset]."""
        return self.taps - 1 - self.before

    @property
    def inside(self) -> bool:
        """Whether it reads all of s, and zeros beside it, as a padded convolution does."""
        return self.before >= 0 and self.after >= 0


Convolve = Callable[[Sequence[Value], Sequence[Phase], int], Value]  # w′ [outputs, channels, *taps], its phase an axis


def phases(a: Axis, n: int = 1) -> list[Phase]:
    """The phases of every n·stride-th element of an axis of dilation 1; one without taps is zero everywhere."""
    last = -(-a.size // (n * a.stride)) - 1
    found = []
    for rho in range(n * a.stride):
        offset, first = divmod(rho + a.before, a.stride)
        taps = len(range(first, a.kernel, a.stride))
        found.append(Phase(first, taps, taps - 1 - offset, n * last + 1 + offset - a.out, n))
    return found


def by_phases(
    build: Builder, ws: Sequence[Value], axes: Sequence[Axis], inputs: int, convolve: Convolve
) -> Value | None:
    """The sum of the adjoints of strided convolutions with weights w [outputs, inputs, *kernel], phase after phase:
    convolve(w′, phases, channels) is that of stride 1 with some of the taps. None where a phase reads beyond s."""
    split, periods = _split(axes, [1] * len(axes)), [a.stride for a in axes]
    if split is None or not all(p.inside for one in split for p in one if p.taps):
        return None
    parts: dict[tuple[int, ...], Symbol] = {}
    for index, chosen in _combined(split):
        reads = all(p.taps for p in chosen)
        parts[index] = convolve([_taps(build, w, chosen, axes) for w in ws], chosen, inputs) if reads else None
    return _put_together(build, parts, axes, periods)


def side_by_side(
    build: Builder, ws: Sequence[Value], axes: Sequence[Axis], inputs: int, convolve: Convolve, most: int
) -> Value | None:
    """As `by_phases`, with all phases as channels of one convolution, and those of neighbours while there are `most` at
    most. None where there is a single phase, or one that reads nothing, or they read beyond s."""
    together = _neighbours(axes, min(most, PHASES))
    split, periods = _split(axes, together), [n * a.stride for n, a in zip(together, axes, strict=True)]
    if split is None or math.prod(periods) == 1 or not all(p.taps for one in split for p in one):
        return None
    union, every = [_union(one) for one in split], list(_combined(split))
    if not all(u.inside for u in union):
        return None

    def united(w: Value) -> Value:
        weights = []
        for _, chosen in every:
            part = _taps(build, w, chosen, axes)
            for i, (p, u) in enumerate(zip(chosen, union, strict=True)):
                ahead = u.offset - p.offset
                part = build.pad(part, 2 + i, ahead, u.taps - p.taps - ahead, 2 + len(axes))
            weights.append(part)
        return build.op("Concat", *weights, axis=1, step="phases")

    stacked = convolve([united(w) for w in ws], union, inputs * len(every))
    parts: dict[tuple[int, ...], Symbol] = {
        index: build.slice(stacked, 1, k * inputs, (k + 1) * inputs) for k, (index, _) in enumerate(every)
    }
    return _put_together(build, parts, axes, periods)


def _neighbours(axes: Sequence[Axis], most: int) -> list[int]:
    """How many neighbours along each axis have phases of their own, where windows overlap: twice as many again and
    again, along the axis that has the fewest, while that makes `most` phases at most."""
    together = [1] * len(axes)
    overlapping = [i for i, a in enumerate(axes) if a.kernel > a.stride]
    while overlapping and 2 * math.prod(n * a.stride for n, a in zip(together, axes, strict=True)) <= most:
        together[min(overlapping, key=lambda i: together[i])] *= 2
    return together


def _split(axes: Sequence[Axis], together: Sequence[int]) -> list[list[Phase]] | None:
    """The phases of every axis, of so many neighbours; None where windows have holes, or phases are too many."""
    many = math.prod(n * a.stride for n, a in zip(together, axes, strict=True)) > PHASES
    if many or any(a.dilation > 1 for a in axes):
        return None
    return [phases(a, n) for a, n in zip(axes, together, strict=True)]


def _combined(split: Sequence[Sequence[Phase]]) -> Iterator[tuple[tuple[int, ...], list[Phase]]]:
    """Every choice of one phase an axis, with its indices."""
    for index in itertools.product(*(range(len(one)) for one in split)):
        yield index, [one[rho] for one, rho in zip(split, index, strict=True)]


def _union(one: Sequence[Phase]) -> Phase:
    """A phase that reads all that the phases of an axis read."""
    before = max(p.before for p in one)
    return Phase(0, max(p.offset for p in one) + before + 1, before, max(p.after for p in one), one[0].stride)


def _put_together(
    build: Builder, parts: dict[tuple[int, ...], Symbol], axes: Sequence[Axis], periods: Sequence[int]
) -> Value:
    """The whole from its phases, by their index on each axis, of which there are `periods`."""
    lengths = [-(-a.size // period) for a, period in zip(axes, periods, strict=True)]
    for i in reversed(range(len(axes))):
        done, have = [a.size for a in axes[i + 1 :]], lengths[i] * periods[i]
        rows = {
            index: interleaved(build, [parts[*index, rho] for rho in range(periods[i])], 2 + i, lengths[i], done)
            for index in itertools.product(*map(range, periods[:i]))
        }
        parts = {index: _cut(build, row, 2 + i, have, axes[i].size) for index, row in rows.items()}
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
    zero = like if None not in parts else build.op("Clip", like, *[build.constant(0.0, like)] * 2)
    columns = [build.op("Unsqueeze", p if isinstance(p, Value) else zero, build.integers([axis + 1])) for p in parts]
    stacked = build.op("Concat", *columns, axis=axis + 1)
    return build.op("Reshape", stacked, build.integers([*[0] * axis, length * len(parts), *behind]))

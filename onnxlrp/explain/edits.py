"""What may happen to relevance on its way, where it reaches a layer's output: only chosen channels go on (concept
relevance, Achtibat et al. 2023), or only the largest values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from onnxlrp import contract
from onnxlrp.errors import Problem
from onnxlrp.explain.composite import WEIGHTED, matches, output_names, unmatched
from onnxlrp.graph.build import Builder, Value
from onnxlrp.graph.facts import Facts, Shape
from onnxlrp.layers.registry import Activation, Layer, Linear, Relevance

Edit = Callable[[Relevance], Relevance]
INPUT = "input"  # the channels come from an input of the explainer
Conditions = Mapping[str, Sequence[int] | str]  # pattern -> channels, or INPUT


def edits(
    build: Builder, layers: Sequence[Layer], keep: float | None, conditions: Conditions, scores: str
) -> dict[str, Edit]:
    """By tensor, what happens to the relevance that reaches it. The `scores` themselves, where it starts, are kept."""
    found: dict[str, Edit] = {}
    for layer in layers:
        steps: list[Edit] = []
        for pattern, channels in conditions.items():
            if matches(pattern, layer):
                steps.append(_masking(build, layer, channel_axis(layer, layers), channels))
        if keep is not None and layer.kind in WEIGHTED and layer.output != scores:
            steps.append(_keeping(build, build.facts.shape(layer.output), keep))
        if steps:
            found[layer.output] = _chained(steps)
    return found


def _chained(steps: Sequence[Edit]) -> Edit:
    def edit(r: Relevance) -> Relevance:
        for step in steps:
            r = step(r)
        return r

    return edit


def channel_axis(layer: Layer, layers: Sequence[Layer]) -> int:
    """The axis of a layer's output that holds its channels: a linear layer knows its own, an activation has that of the
    layer before it, and any other keeps to ONNX's order."""
    if isinstance(layer, Activation):
        before = next((one for one in layers if one.output == layer.inputs[0]), None)
        return channel_axis(before, layers) if before else 1
    return layer.channel if isinstance(layer, Linear) else 1


def _masking(build: Builder, layer: Layer, axis: int, channels: Sequence[int] | str) -> Edit:
    """R times 1 at the chosen channels, which lie along `axis`, and 0 elsewhere."""
    shape = build.facts.shape(layer.output)
    count, form = int(shape[axis]), [-1 if i in (0, axis) else 1 for i in range(len(shape))]

    def edit(r: Relevance) -> Relevance:
        if channels == INPUT:
            mask = Value(contract.condition_name(layer.name), r.value.element_type)
            form[axis] = count
            mask = build.op("Reshape", mask, build.integers(form)) if len(shape) > 2 else mask
        else:
            form[0] = 1
            chosen = np.isin(np.arange(count), np.asarray(channels, int)).reshape(form)
            mask = build.constant(chosen, r.value)
        return Relevance(build.op("Mul", r.value, mask, step="condition"), r.gate)

    return edit


def _keeping(build: Builder, shape: Shape, keep: float) -> Edit:
    """Only the largest fraction of each sample's values; the rest is zero."""
    size = math.prod(int(d) for d in shape[1:])
    count = max(1, math.floor(keep * size))

    def edit(r: Relevance) -> Relevance:
        flat = build.reshape(r.value, (shape[0], size))
        largest = build.ops(
            "TopK", flat, build.integers([count]), outputs=2, axis=1, largest=1, sorted=1, step="largest"
        )[0]
        least = build.reshape(build.slice(largest, 1, count - 1, count), (shape[0], *[1] * (len(shape) - 1)))
        kept = build.op("GreaterOrEqual", r.value, least)
        return Relevance(build.masked(r.value, kept, step="kept"), r.gate)

    return edit


def problems(layers: Sequence[Layer], keep: float | None, conditions: Conditions, facts: Facts) -> list[Problem]:
    """What is wrong with the wishes."""
    found = []
    if keep is not None and not 0 < keep <= 1:
        found.append(
            Problem(f"--keep {keep:g}", "is not a fraction above 0 and up to 1", "0.1 keeps the largest tenth")
        )
    for pattern, channels in conditions.items():
        meant = [layer for layer in layers if matches(pattern, layer)]
        if not meant:
            found.append(unmatched(f"--condition {pattern}", pattern, layers, output_names))
        for layer in meant:
            count = facts.shape(layer.output)[channel_axis(layer, layers)]
            wrong = [c for c in channels if not 0 <= c < int(count)] if not isinstance(channels, str) else []
            if wrong:
                reason = f"{layer.name} has {count} channels, and no number {wrong[0]}"
                found.append(Problem(f"--condition {pattern}", reason, f"choose 0 to {int(count) - 1}"))
    return found

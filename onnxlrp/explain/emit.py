"""The relevance part: walks from the scores to the image, and the explainer's new inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnx import NodeProto, TensorProto

from onnxlrp import contract
from onnxlrp.errors import OnnxLrpError, Problem
from onnxlrp.explain import choose, pixels, render, small_floats
from onnxlrp.explain.backward import propagate
from onnxlrp.explain.composite import matches
from onnxlrp.explain.edits import INPUT, Conditions, channel_axis, edits
from onnxlrp.explain.examine import Study
from onnxlrp.explain.pixels import Entrance
from onnxlrp.explain.target import explained_class, start
from onnxlrp.graph.build import Builder, Value, export
from onnxlrp.graph.facts import Shape
from onnxlrp.graph.tidy import tidy
from onnxlrp.layers.registry import Layer


@dataclass(frozen=True)
class Port:
    """One of the explainer's inputs or outputs: name, TensorProto.DataType and shape."""

    name: str
    element_type: int
    shape: Shape


@dataclass(frozen=True)
class Part:
    """Nodes and constants to append to a classifier, and the inputs and outputs that they bring."""

    nodes: list[NodeProto]
    constants: list[TensorProto]
    inputs: list[Port]
    outputs: list[Port]
    entrance: Entrance | None = None  # what makes the image out of pixels, where they are the input


def emit(study: Study) -> Part:
    """Everything the explainer computes beyond the classifier."""
    build, options = study.build, study.options
    many = options.targets_per_input or 0
    image, taps = study.facts.image, choose.tapped(options.taps, [s.layer for s in study.plan.steps])
    explained = explained_class(build, study.scores, options.target, study.start, many)
    walks = [_walk(study, _column(build, explained, k, many), [image, *taps]) for k in range(max(many, 1))]
    with build.scope("result", "joins the walks", image):
        joined = {name: _stack(build, [w[name] for w in walks], many) for name in [image, *taps]}
        outputs = _outputs(study, joined, explained, taps)
    graph, constants, notes = build.finish([p.name for p in outputs])
    graph = tidy(graph)
    used = {i.name for n in graph.nodes for i in n.inputs}
    kept = [tensor for name, tensor in constants.items() if name in used]
    entrance = pixels.entrance(study.facts, _way(study)) if options.embed_preprocessing else None
    return Part(export(graph, notes), kept, _inputs(study), outputs, entrance)


def _outputs(study: Study, joined: Mapping[str, Value], explained: Value, taps: Sequence[str]) -> list[Port]:
    """The explainer's new outputs, in the order of the contract."""
    build, facts, options = study.build, study.facts, study.options
    many = _targets(study)

    def port(value: Value, name: str, of: Shape) -> Port:
        named = build.output(value, name)
        return Port(name, named.element_type, (of[0], *many, *of[1:]))

    relevance, shape = joined[facts.image], facts.shape(facts.image)
    axis = choose.channel_axis(shape, options.preprocess)
    grid = shape[1:axis] + shape[axis + 1 :]
    if options.embed_preprocessing:
        relevance = pixels.to_pixels(build, relevance, _way(study), 1 + len(many))
        shape, axis = (shape[0], *grid, pixels.COLOURS), 3
    outputs = [port(relevance, contract.RELEVANCE, shape), port(explained, contract.EXPLAINED, shape[:1])]
    if options.heatmap or options.render:
        summed = build.op("ReduceSum", relevance, build.integers([axis + len(many)]), keepdims=0, step="heatmap")
        if options.heatmap:
            outputs.append(port(summed, contract.HEATMAP, (shape[0], *grid)))
        if options.render:
            picture = _rendered(study, summed, (int(grid[0]), int(grid[1])))
            outputs.append(port(picture, contract.RENDER, (shape[0], *grid, pixels.COLOURS)))
    return outputs + [port(joined[name], contract.tap_name(name), facts.shape(name)) for name in taps]


def _rendered(study: Study, summed: Value, size: tuple[int, int]) -> Value:
    """The map [N, (K,) H, W] as a picture, uint8 [N, (K,) H, W, 3]."""
    build, options, many = study.build, study.options, study.options.targets_per_input
    note = f"{options.render} in the colours {options.cmap}"
    with build.scope(contract.RENDER, note, element_type=TensorProto.FLOAT):
        if summed.element_type != TensorProto.FLOAT:
            summed = build.op("Cast", summed, to=TensorProto.FLOAT)
        maps = build.op("Reshape", summed, build.integers([-1, *size])) if many else summed
        if options.render == "overlay":
            shown = pixels.to_picture(build, build.tensor(study.facts.image), _way(study))
            if many:
                shown = _repeated(build, shown, many, (*size, pixels.COLOURS))
            drawn = render.overlay(build, maps, shown, size, options.cmap)
        else:
            drawn = render.heatmap(build, maps, size, options.cmap)
        return build.op("Reshape", drawn, build.integers([-1, many, *size, pixels.COLOURS])) if many else drawn


def _repeated(build: Builder, value: Value, many: int, each: Sequence[int]) -> Value:
    """[N, …] as [N · K, …], every sample K times in a row."""
    tiled = build.op("Concat", *[build.op("Unsqueeze", value, build.integers([1]))] * many, axis=1)
    return build.op("Reshape", tiled, build.integers([-1, *each]))


def _way(study: Study) -> contract.Preprocessing:
    """How pictures become the input; `examine` has seen to it that this is known where it is needed."""
    assert study.options.preprocess is not None
    return study.options.preprocess


def _targets(study: Study) -> Shape:
    """The axis that several targets per input insert behind the batch, if there is one."""
    many = study.options.targets_per_input
    return (many,) if many else ()


def _walk(study: Study, explained: Value, wanted: Sequence[str]) -> dict[str, Value]:
    """The relevance of the wanted tensors for one class a sample."""
    build, facts, options, scores = study.build, study.facts, study.options, study.scores.tensor
    changes = edits(build, [s.layer for s in study.plan.steps], options.keep, options.conditions, scores)
    first, back = start(build, study.scores, explained, study.start), None
    if small_floats.spreads_in_float16(build, study.plan, study.start):
        (own,) = first
        others = any(name != facts.image for name in wanted)  # whose samples may lie along another axis than the first
        own, back = small_floats.enlarged(build, own, len(facts.shape(scores)), together=others)
        first = [own]
    runs = [propagate(build, study.plan, {scores: r}, changes, wanted) for r in first]
    if any(facts.image not in totals for totals in runs):
        remedy = "choose other rules for its layers"
        raise OnnxLrpError(Problem(f"input {facts.image}", "no relevance reaches it", remedy))
    found = {}
    for name in wanted:
        with build.scope("result", f"relevance of {name}", name):
            values = [totals[name].value if name in totals else _nothing(build, name) for totals in runs]
            found[name] = values[0] if len(values) == 1 else _above(build, *values)
            if back is not None:
                found[name] = small_floats.reduced(build, found[name], len(facts.shape(name)), back)
            if name == facts.image and study.composite.times_input:
                found[name] = build.op("Mul", found[name], build.tensor(name), step="times_input")
    return found


def _nothing(build: Builder, name: str) -> Value:
    """Zeros of a tensor's shape, for one that no relevance reaches."""
    tensor = build.tensor(name)
    return build.op("Where", build.constant(False, TensorProto.BOOL), tensor, build.constant(0.0, tensor))


def _above(build: Builder, own: Value, dual: Value) -> Value:
    """max(0, R - R_dual)."""
    return build.op("Relu", build.op("Sub", own, dual), step="contrast")


def _column(build: Builder, explained: Value, k: int, many: int) -> Value:
    """The k-th of several targets, [N]."""
    if not many:
        return explained
    with build.scope("target", f"target {k}"):
        return build.op("Squeeze", build.slice(explained, 1, k, k + 1), build.integers([1]))


def _stack(build: Builder, values: Sequence[Value], many: int) -> Value:
    """[N, …] for each target as [N, K, …]."""
    if not many:
        return values[0]
    return build.op("Concat", *(build.op("Unsqueeze", v, build.integers([1])) for v in values), axis=1)


def _inputs(study: Study) -> list[Port]:
    """What a host has to feed beyond the image."""
    facts, options = study.facts, study.options
    batch = facts.shape(facts.image)[0]
    ports = []
    if study.start == "fed":
        element_type = facts.element_type(study.scores.tensor)
        ports.append(Port(contract.START, element_type, (batch, study.scores.classes)))
    elif options.target == "input":
        ports.append(Port(contract.TARGET, TensorProto.INT64, (batch, *_targets(study))))
    layers = [s.layer for s in study.plan.steps]
    for layer in layers:
        if INPUT in _conditions_on(layer, options.conditions):
            channels = facts.shape(layer.output)[channel_axis(layer, layers)]
            ports.append(Port(contract.condition_name(layer.name), facts.element_type(layer.output), (batch, channels)))
    return ports


def _conditions_on(layer: Layer, conditions: Conditions) -> list[object]:
    return [channels for pattern, channels in conditions.items() if matches(pattern, layer)]

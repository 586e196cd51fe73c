"""The pipeline: load → view as layers → facts → plan → emit relevance backward → tidy → check → save."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper

from onnxlrp import contract
from onnxlrp.errors import OnnxLrpError, Problem, raise_if_any
from onnxlrp.explain import choose
from onnxlrp.explain.backward import propagate
from onnxlrp.explain.composite import Case, Composite
from onnxlrp.explain.plan import Plan, plan
from onnxlrp.explain.presets import DEFAULT, named
from onnxlrp.explain.target import Scores, Target, scores, start
from onnxlrp.explain.view import view
from onnxlrp.graph.build import Builder, Value, export
from onnxlrp.graph.facts import Facts, Shape, infer
from onnxlrp.graph.model import Model, load, skeleton
from onnxlrp.graph.save import save
from onnxlrp.graph.tidy import tidy
from onnxlrp.graph.upgrade import upgrade
from onnxlrp.layers.registry import Relevance
from onnxlrp.rules.catalogue import parse
from onnxlrp.rules.rule import Rule


@dataclass(frozen=True)
class Options:
    """What a conversion can be asked for; see `convert`."""

    composite: str | Composite = DEFAULT
    rules: Mapping[str, str | Rule] = field(default_factory=dict)
    input: str | None = None
    output: str | None = None
    input_shape: Sequence[int | None] | None = None
    taps: Sequence[str] = ()
    activations: Sequence[str] = ()
    target: Target = "input"
    heatmap: bool = False
    preprocess: contract.Preprocessing | None = None
    labels: Sequence[str] | None = None


@dataclass(frozen=True)
class Conversion:
    """An explainer. `.model` is the ModelProto, `.plan` what was done, `.save(path)` writes it."""

    model: ModelProto
    plan: Plan
    folder: Path | None = None

    def save(self, path: str | os.PathLike[str], force: bool = False) -> list[Path]:
        """Write the explainer: one file, or with PATH.data beside it above 2 GB. Returns the files written.

        Written whole or not at all. Raises `OnnxLrpError` where `path` exists (unless `force`) or cannot be created,
        `RunError` where the disk is full.
        """
        return save(self.model, path, self.folder, force)


def convert(source: str | os.PathLike[str] | ModelProto, **options: object) -> Conversion:
    """Turn a classifier into an explainer: one standard ONNX model with relevance as one more output.

    `source` is a path or a ModelProto (not changed). Options, all by keyword:

    composite    name of a preset, or a Composite: which layer gets which rule
    rules        {pattern: rule}; a pattern matches layer names or operators, shell-style; wins over the composite
    input        the image input, where the model has several; output: the class scores, likewise
    input_shape  sizes for an input that leaves them open; None or 0 stands for a batch of any size
    taps         patterns; relevance at the outputs of matching layers become outputs `relevance/<tensor>`
    activations  patterns; matching intermediate tensors become outputs under their own names
    target       "input" (an int64 [N] input, -1 = predicted), "predicted", or a class number
    heatmap      add the output `heatmap` [N, H, W]: relevance summed over channels
    preprocess   how a picture becomes the input (contract.Preprocessing), labels: class names: into the metadata

    Raises `OnnxLrpError` with every problem found: unsupported nodes, patterns that match nothing, bad options.
    """
    chosen = Options(**options)  # type: ignore[arg-type]
    study = examine(source, chosen)
    chosen = study.options
    raise_if_any(study.plan.problems)
    nodes, constants, outputs = emit(study, chosen)
    again, _, _ = emit(examine(study.model, chosen), chosen)
    if [n.SerializeToString(deterministic=True) for n in nodes] != [
        n.SerializeToString(deterministic=True) for n in again
    ]:
        raise AssertionError("converting twice gave two different graphs")
    proto = assemble(study, nodes, constants, outputs, chosen)
    return Conversion(proto, study.plan, study.model.folder)


@dataclass(frozen=True)
class Study:
    """A classifier examined: its facts, its layers with their rules, and what stands in the way."""

    model: Model
    facts: Facts
    build: Builder
    output: str
    scores: Scores
    plan: Plan
    composite: Composite
    options: Options


def examine(source: str | os.PathLike[str] | ModelProto | Model, options: Options) -> Study:
    """Load, look at and plan; nothing is emitted. Problems with single layers are in `.plan.problems`.

    Raises `OnnxLrpError` for what makes even a plan impossible (no ONNX file, no image input, bad options).
    """
    model = source if isinstance(source, Model) else upgrade(load(source))
    composite = options.composite if isinstance(options.composite, Composite) else named(options.composite)
    overrides = [Case(parse(r) if isinstance(r, str) else r, pattern=p) for p, r in options.rules.items()]
    image = choose.image_input(model, options.input)
    facts = infer(model, image, {image: choose.input_shape(model, image, options.input_shape)})
    output = choose.score_output(model, facts, options.output)
    found = scores(facts, output)
    options = choose.with_metadata(options, model.metadata, facts.shape(image))
    choose.check_target(options.target, found.classes)
    choose.check_labels(options.labels, found.classes)
    build = Builder(facts)
    layers, problems = view(build, found.tensor)
    if problems:
        planned = plan(layers, composite, [], facts, options.preprocess)
    else:
        planned = plan(layers, composite, overrides, facts, options.preprocess)
        problems = [
            *planned.problems,
            *choose.unmatched_taps(options, layers, model),
            *choose.taken_names(options, model),
        ]
    planned = Plan(planned.composite, planned.steps, tuple(problems))
    return Study(model, facts, build, output, found, planned, composite, options)


Output = tuple[Value, Shape]


def emit(study: Study, options: Options) -> tuple[list[NodeProto], list[TensorProto], list[Output]]:
    """The relevance part: its nodes, its constants, and the explainer's new outputs with their shapes."""
    build, facts = study.build, study.facts
    first, explained = start(build, study.scores, options.target, study.composite.start)
    totals = propagate(build, study.plan, {study.scores.tensor: first})
    if facts.image not in totals:
        raise OnnxLrpError(
            Problem(f"input {facts.image}", "no relevance reaches it", "choose other rules for its layers")
        )
    relevance, shape = totals[facts.image].value, facts.shape(facts.image)
    if study.composite.times_input:
        relevance = build.op("Mul", relevance, build.tensor(facts.image))
    outputs: list[Output] = [
        (build.output(relevance, contract.RELEVANCE), shape),
        (build.output(explained, contract.EXPLAINED), shape[:1]),
    ]
    if options.heatmap:
        axis = choose.channel_axis(shape, options.preprocess)
        summed = build.op("ReduceSum", relevance, build.integers([axis]), keepdims=0, step="heatmap")
        outputs.append((build.output(summed, contract.HEATMAP), shape[:axis] + shape[axis + 1 :]))
    for name in choose.tapped(options.taps, [s.layer for s in study.plan.steps]):
        outputs.append((build.output(_tap(build, totals, name), contract.tap_name(name)), facts.shape(name)))
    graph, constants, notes = build.finish([value for value, _ in outputs])
    graph = tidy(graph)
    used = {i.name for n in graph.nodes for i in n.inputs}
    return export(graph, notes), [t for name, t in constants.items() if name in used], outputs


def _tap(build: Builder, totals: Mapping[str, Relevance], name: str) -> Value:
    """The relevance that reached a tensor; zeros where none did."""
    if name in totals:
        return totals[name].value
    tensor = build.tensor(name)
    return build.op("Sub", tensor, tensor)


def assemble(
    study: Study,
    nodes: Sequence[NodeProto],
    constants: Sequence[TensorProto],
    outputs: Sequence[Output],
    options: Options,
) -> ModelProto:
    """The classifier as it was, with the relevance part appended; checked."""
    proto = study.model.proto
    before = [n.SerializeToString(deterministic=True) for n in proto.graph.node]
    count = len(before)
    graph = proto.graph
    weights = {t.name for t in graph.initializer}
    inputs = [v for v in graph.input if v.name not in weights]
    del graph.input[:]
    graph.input.extend(inputs)
    declare_input_shape(graph, study.facts)
    batch = study.facts.shape(study.facts.image)[0]
    if options.target == "input":
        graph.input.append(helper.make_tensor_value_info(contract.TARGET, TensorProto.INT64, [batch]))
    graph.node.extend(nodes)
    graph.initializer.extend(constants)
    for value, shape in outputs:
        graph.output.append(helper.make_tensor_value_info(value.name, value.element_type, list(shape)))
    listed = {o.name for o in graph.output}
    for name in choose.activated(options.activations, study.model):
        if name not in listed:
            info = (study.facts.element_type(name), list(study.facts.shape(name)))
            graph.output.append(helper.make_tensor_value_info(name, *info))
    proto.ir_version = max(proto.ir_version, 8)
    helper.set_model_props(proto, {**study.model.metadata, **describe(study, options)})
    onnx.checker.check_model(skeleton(proto), full_check=True)
    if before != [n.SerializeToString(deterministic=True) for n in proto.graph.node[:count]]:
        raise AssertionError("the classifier's nodes were changed")
    return proto


def declare_input_shape(graph: onnx.GraphProto, facts: Facts) -> None:
    """Write the image input's shape where the classifier left it open and the user fixed it."""
    for value in graph.input:
        if value.name == facts.image:
            shape = facts.shape(facts.image)
            for dim, size in zip(value.type.tensor_type.shape.dim, shape, strict=True):
                if isinstance(size, int):
                    dim.dim_value = size
                elif not dim.dim_param:
                    dim.dim_param = size


def describe(study: Study, options: Options) -> dict[str, str]:
    """The explainer's metadata."""
    pairs = {
        contract.KEY_CONTRACT: str(contract.VERSION),
        contract.KEY_VERSION: contract.package_version(),
        contract.KEY_COMPOSITE: study.plan.composite,
        contract.KEY_RULES: json.dumps(study.plan.rules),
        contract.KEY_INPUT: study.facts.image,
        contract.KEY_OUTPUT: study.output,
        contract.KEY_SCORES: "probabilities" if study.scores.squashed else "logits",
        contract.KEY_TARGET: str(options.target),
    }
    if options.preprocess is not None:
        pairs[contract.KEY_PREPROCESS] = options.preprocess.to_json()
    if options.labels is not None:
        pairs[contract.KEY_LABELS] = json.dumps(list(options.labels), ensure_ascii=False)
    return pairs


def signature(values: Sequence[onnx.ValueInfoProto]) -> list[str]:
    """Graph inputs or outputs as a person reads them: `relevance float32 [N, 3, 224, 224]`."""
    described = []
    for value in values:
        kind = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name
        dims = ", ".join(d.dim_param or str(d.dim_value) for d in value.type.tensor_type.shape.dim)
        described.append(f"{value.name} {kind} [{dims}]")
    return described

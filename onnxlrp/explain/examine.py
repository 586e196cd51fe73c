"""A classifier examined before anything is emitted: its facts, its layers with their rules, what stands in the way."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from onnx import ModelProto

from onnxlrp import contract
from onnxlrp.errors import OnnxLrpError, Problem
from onnxlrp.explain import choose, edits, pixels
from onnxlrp.explain.composite import Composite
from onnxlrp.explain.composite_file import read
from onnxlrp.explain.options import Options
from onnxlrp.explain.plan import Plan, passed, plan, unused
from onnxlrp.explain.presets import PRESETS, named
from onnxlrp.explain.runtimes import RUNTIMES, Runtime
from onnxlrp.explain.target import Scores, other_batches, scores, unsquashed
from onnxlrp.explain.view import through_relus, view
from onnxlrp.graph.build import Builder
from onnxlrp.graph.facts import Facts, infer
from onnxlrp.graph.model import Model, load
from onnxlrp.graph.upgrade import upgrade
from onnxlrp.rules.rule import LinearRule


@dataclass(frozen=True)
class Study:
    """What is known of a classifier and of the wishes for it. `options` are completed from the model's metadata."""

    model: Model
    facts: Facts
    build: Builder
    output: str
    scores: Scores
    plan: Plan
    composite: Composite
    options: Options

    @property
    def start(self) -> str:
        """Where relevance starts: as asked for, else as the composite has it."""
        return self.options.start or self.composite.start

    @property
    def runtime(self) -> Runtime:
        """What the explainer is written for."""
        return RUNTIMES[self.options.target_runtime]


def examine(source: str | os.PathLike[str] | ModelProto | Model, options: Options) -> Study:
    """Load, look at and plan; nothing is emitted. Problems with single layers are in `.plan.problems`.

    Raises `OnnxLrpError` for what makes even a plan impossible (no ONNX file, no image input, bad options).
    """
    composite = _composite(options.composite)
    overrides = options.overrides()
    model = source if isinstance(source, Model) else upgrade(load(source))
    image = choose.image_input(model, options.input)
    facts = infer(model, image, {image: choose.input_shape(model, image, options.input_shape)})
    output = choose.score_output(model, facts, options.output)
    runtime = RUNTIMES[options.target_runtime]
    build = Builder(facts, exact=options.optimize == "exact", dialect=runtime.dialect)
    if not facts.known(output):  # the walk says which node is to blame
        raise OnnxLrpError(*(view(build, unsquashed(facts, output)[0])[1] or view(build, output)[1]))
    found = scores(facts, output)
    labels_from = "--labels" if options.labels is not None else f"metadata {contract.KEY_LABELS}"
    options = choose.with_metadata(options, model, facts.shape(image))
    choose.check_target(options.target, options.targets_per_input, found.classes)
    choose.check_labels(options.labels, found.classes, labels_from)
    layers, problems = view(build, found.tensor)
    problems = problems or other_batches(facts, found, output)  # the node that is to blame, where there is one
    if problems:
        planned = plan(layers, composite, [], facts, options.preprocess)
    else:
        separate, passing = layers, passed(layers, composite, overrides, facts)
        layers = through_relus(build, separate, found.tensor, passing)
        planned = plan(layers, composite, overrides, facts, options.preprocess)
        problems = [
            *planned.problems,
            *unused(overrides, separate),
            *choose.unmatched_taps(options, layers, model),
            *choose.taken_names(options, model),
            *_unknown_pixels(options, facts),
            *_broken_weights(planned, facts),
        ]
        problems += edits.problems(layers, options.keep, options.conditions, facts)
    problems += runtime.refusals(model.proto, model.name)  # of its own nodes; the explainer has more
    planned = replace(planned, problems=tuple(problems))
    return Study(model, facts, build, output, found, planned, composite, options)


def _broken_weights(planned: Plan, facts: Facts) -> list[Problem]:
    """The weights of linear layers that make every relevance NaN, since R is divided by what they make. (The bounds of
    a Clip may well be infinite, and a masked class -inf for a gradient.)"""
    model, found = facts.model, []
    rules = ((s.layer, s.rule) for s in planned.steps if isinstance(s.rule, LinearRule))
    for layer in (layer for layer, rule in rules if any(share.divide for share in rule.shares)):
        read = dict.fromkeys(i for node in layer.nodes for i in node.input if i in model.initializers)
        reason = f"holds values that are NaN or infinite, and {layer} computes with them"
        found += [
            Problem(f"tensor {name}", reason, "check the model's training and export, or copy it again")
            for name in read
            if facts.is_float(name) and not model.is_finite(name)
        ]
    return found


def _unknown_pixels(options: Options, facts: Facts) -> list[Problem]:
    """Why what is asked for with pixels cannot be had."""
    asked = {"--embed-preprocessing": options.embed_preprocessing, "--render overlay": options.render == "overlay"}
    wanted = next((name for name, given in asked.items() if given), None)
    shape = facts.shape(facts.image)
    if wanted is not None:
        return pixels.problems(shape, options.preprocess, wanted)
    if options.render and len(shape) != 4:
        reason = f"the input has {len(shape)} axes, a batch of pictures has 4"
        return [Problem("--render heatmap", reason, "leave it out")]
    return []


def _composite(given: str | Path | Composite) -> Composite:
    """A composite, a preset by name, or a file, whatever its ending."""
    if isinstance(given, Composite):
        return given
    if isinstance(given, Path) or given.endswith(".toml") or (given not in PRESETS and os.path.isfile(given)):
        return read(Path(given))
    return named(given)

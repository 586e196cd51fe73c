"""What the user's options mean for this model: which input, output, tensors; and what is wrong with them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from onnxlrp import contract
from onnxlrp.errors import OnnxLrpError, Problem, closest, raise_if_any
from onnxlrp.explain.composite import SEE_NAMES, matches, output_names, unmatched
from onnxlrp.explain.options import Options
from onnxlrp.graph.facts import FLOATS, Facts, Shape, captured, declared_shape, declared_type, describe, shown
from onnxlrp.graph.model import Model
from onnxlrp.layers.registry import Layer

RANKS = (3, 4, 5)  # [N, C, L], [N, C, H, W], [N, C, D, H, W], or with C last
QUANTISED = ("quantize", "qlinear", "qgemm", "integer", "nbits")  # in the names of operators, of any domain


def image_input(model: Model, name: str | None) -> str:
    """The input to explain: the named one, or the only one that can be an image."""
    inputs = {v.name: v.type.tensor_type for v in model.inputs}
    described = "; ".join(f"{v.name} {declared_type(v.type)} {shown(declared_shape(v.type))}" for v in model.inputs)
    if name is not None and name not in inputs:
        reason = f"the model has no such input: {described}"
        raise OnnxLrpError(Problem(f"--input {name}", reason, closest(name, inputs, "choose one of these")))
    shaped = [v for v in model.inputs if len(v.type.tensor_type.shape.dim) in RANKS]
    images = [v.name for v in shaped if v.type.tensor_type.elem_type in FLOATS]
    whole = [v for v in shaped if v.name not in images and name in (None, v.name)]
    if whole and (name is not None or not images):
        reason = (
            f"is {declared_type(whole[0].type)} {shown(declared_shape(whole[0].type))}, and only floats have relevance"
        )
        remedy = "export the model with a float image; --embed-preprocessing then makes pixels the explainer's input"
        raise OnnxLrpError(Problem(f"input {whole[0].name}", reason, remedy))
    if name is not None:
        if name not in images:
            reason = f"is no image: {described}; a float tensor of rank 3 to 5 is needed"
            raise OnnxLrpError(Problem(f"--input {name}", reason, "choose another input"))
        return name
    if not images:
        reason = f"has no image input (a float tensor [N, C, H, W] or [N, H, W, C]): {described or 'no input at all'}"
        raise OnnxLrpError(Problem(model.name, reason, "export the model with its image as an input"))
    if len(images) == 1:
        return images[0]
    raise OnnxLrpError(Problem(model.name, f"has several image inputs: {described}", "choose one with --input NAME"))


def input_shape(model: Model, name: str, given: Sequence[int | None] | None) -> list[int | None]:
    """The shape to convert for: the declared one, its open dimensions filled from what the user gave."""
    declared = next(declared_shape(v.type) for v in model.inputs if v.name == name)
    if given is None:
        return declared
    wanted = [d or None for d in given]
    clash = len(wanted) != len(declared) or any(a and b and a != b for a, b in zip(declared, wanted, strict=False))
    clash = clash or (declared[0] is not None and wanted[0] is None)  # elsewhere None leaves a size as it is
    if clash or any(d is not None and d < 0 for d in wanted):
        reason = f"does not fit input {name}, which is {shown(declared)}"
        text = ",".join("N" if d is None else str(d) for d in wanted)
        raise OnnxLrpError(
            Problem(f"--input-shape {text}", reason, "change only dimensions that the model leaves open")
        )
    return [b or a for a, b in zip(declared, wanted, strict=True)]


def score_output(model: Model, facts: Facts, name: str | None) -> str:
    """The tensor to explain: the named one, an output or any inner tensor, else the only output that depends on the
    image."""
    outputs = [o.name for o in model.outputs]
    if name is not None and name not in outputs and name not in model.producer:
        reason = f"the model has no such tensor; its outputs are {', '.join(outputs)}"
        remedy = closest(name, [*outputs, *model.producer], "choose one of these")
        raise OnnxLrpError(Problem(f"--output {name}", reason, remedy))
    asked = [name] if name else outputs
    able = [o for o in asked if facts.carries(o) and o != facts.image]
    if len(able) > 1:
        shapes = "; ".join(f"{o} {shown(facts.shape(o)) if facts.known(o) else '?'}" for o in able)
        raise OnnxLrpError(Problem(model.name, f"has several outputs: {shapes}", "choose one with --output NAME"))
    raise_if_any(_quantised(facts, able or asked))
    if not able:
        reason = f"there is no path from input {facts.image} to {name or 'any output'}"
        raise OnnxLrpError(Problem(model.name, reason, "choose others with --input and --output"))
    return able[0]


def _quantised(facts: Facts, outputs: Sequence[str]) -> list[Problem]:
    """The problem with a model that computes in whole numbers between the image and the outputs, if it does.

    Weights that are only stored so are constants, and no problem.
    """
    model, behind, before = facts.model, {facts.image}, set(outputs)
    for node in model.nodes:
        if behind.intersection((*node.input, *captured(node))):
            behind.update(node.output)
    for node in reversed(model.nodes):
        if before.intersection(node.output):
            before.update((*node.input, *captured(node)))
    named = [n for n in model.nodes if any(word in n.op_type.lower() for word in QUANTISED)]
    found = [n for n in named if behind.intersection(n.output) and before.intersection(n.output)]
    if not found:
        return []
    others = f", here and in {len(found) - 1} more of its nodes" if found[1:] else ""
    reason = f"the model is quantised{others}, and what rounds has no relevance rule"
    return [Problem(describe(found[0]), reason, "convert the float model that it was made from")]


def check_target(target: object, many: int | None, classes: int) -> None:
    """Raise `OnnxLrpError` unless `target` is "input", "predicted" or a class number, and there are as many classes as
    are to be explained in one run."""
    if many is not None and many > classes:
        reason = f"the model has {classes} classes"
        raise OnnxLrpError(Problem(f"--targets-per-input {many}", reason, f"choose 1 to {classes}"))
    words = ("input", "predicted")
    if target in words or (type(target) is int and 0 <= target < classes):
        return
    reason = f"the model has {classes} classes" if type(target) is int else "is no class number, and no word for one"
    remedy = closest(str(target), words, f"choose 0 to {classes - 1}, {' or '.join(words)}")
    raise OnnxLrpError(Problem(f"--target {target}", reason, remedy))


def check_labels(labels: Sequence[str] | None, classes: int, where: str) -> None:
    """Raise `OnnxLrpError` unless there is one label a class. `where` says who gave them."""
    if labels is not None and len(labels) != classes:
        reason = f"{len(labels)} class names for {classes} classes"
        raise OnnxLrpError(Problem(where, reason, "give one name a line with --labels, in the order of the scores"))


def _labels(metadata: Mapping[str, str]) -> list[str]:
    """The class names in the classifier's own metadata."""
    try:
        found = json.loads(metadata[contract.KEY_LABELS])
        if not isinstance(found, list):
            raise ValueError("not a list")
        return [str(name) for name in found]
    except ValueError as error:
        reason = f"holds no JSON list of class names ({error})"
        raise OnnxLrpError(Problem(f"metadata {contract.KEY_LABELS}", reason, "give them with --labels")) from None


def with_metadata(options: Options, model: Model, shape: Shape) -> Options:
    """The options, completed by what the classifier's own metadata says of pre-processing and class names; checked."""
    preprocess, labels, metadata = options.preprocess, options.labels, model.metadata
    if preprocess is None and contract.KEY_PREPROCESS in metadata:
        preprocess = contract.Preprocessing.from_json(metadata[contract.KEY_PREPROCESS], model.name)
    if labels is None and contract.KEY_LABELS in metadata:
        labels = _labels(metadata)
    if preprocess is not None and len(shape) == 4:
        preprocess = fitted(preprocess, shape)
    return dataclasses.replace(options, preprocess=preprocess, labels=labels)


def fitted(preprocess: contract.Preprocessing, shape: Shape) -> contract.Preprocessing:
    """The pre-processing for an input of this shape [N, C, H, W] or [N, H, W, C]; raises `OnnxLrpError` where it does
    not fit."""
    if preprocess.layout == "NCHW" and contract.told_layout(shape) == "NHWC":
        preprocess = dataclasses.replace(preprocess, layout="NHWC")
    channels, height, width = shape[1:] if preprocess.layout == "NCHW" else (shape[3], shape[1], shape[2])
    size = (height, width)
    if channels == 1 and preprocess.color_order != "L":
        preprocess = dataclasses.replace(preprocess, color_order="L")
    problems = []
    if preprocess.size is None and isinstance(height, int) and isinstance(width, int):
        preprocess = dataclasses.replace(preprocess, size=(height, width))
    elif preprocess.size is not None and any(
        isinstance(d, int) and d != s for d, s in zip(size, preprocess.size, strict=True)
    ):
        reason = f"{preprocess.size[0]}×{preprocess.size[1]} pixels, and the model's input is {size[0]}×{size[1]}"
        problems.append(Problem("--size", reason, "leave it out: the model's own size is used"))
    for name, values in (("mean", preprocess.mean), ("std", preprocess.std)):
        if len(values) not in (1, channels):
            reason = f"{len(values)} values for {channels} channel{'s' * (channels != 1)} in the input {shown(shape)}"
            problems.append(Problem(f"--{name}", reason, "give one value, or one a channel"))
    if 0 in preprocess.std or preprocess.scale == 0:
        problems.append(
            Problem("--std" if 0 in preprocess.std else "--scale", "is 0, and pixels are divided by it", "give another")
        )
    if channels not in contract.CHANNELS or (preprocess.color_order == "L") != (channels == 1):
        order = preprocess.color_order
        reason = f"the input {shown(shape)} has {channels} channels in {preprocess.layout}; {order} pictures do not fit"
        fits = not {shape[1], shape[3]}.isdisjoint(contract.CHANNELS)
        remedy = "choose another --layout or --color-order" if fits else "leave it out"
        problems.append(Problem("pre-processing", reason, remedy))
    if problems:
        raise OnnxLrpError(*problems)
    return preprocess


def channel_axis(shape: Shape, preprocess: contract.Preprocessing | None) -> int:
    """The image's channel axis: as the pre-processing says, else as the shape gives away, else axis 1."""
    layout = contract.told_layout(shape) if preprocess is None else preprocess.layout
    return len(shape) - 1 if layout == "NHWC" else 1


def tapped(patterns: Sequence[str], layers: Sequence[Layer]) -> list[str]:
    """The tensors whose relevance the patterns ask for: outputs of matching layers; `all` is every layer."""
    return [a.output for a in layers if any(p == "all" or matches(p, a) for p in patterns)]


def activated(patterns: Sequence[str], model: Model) -> list[str]:
    """Intermediate tensors whose name, node name or operator matches one of the patterns; `all` is every one."""
    return [
        out
        for node in model.nodes
        for out in node.output
        if out and any(p == "all" or any(fnmatchcase(n, p) for n in (out, node.name, node.op_type)) for p in patterns)
    ]


def unmatched_taps(options: Options, layers: Sequence[Layer], model: Model) -> list[Problem]:
    """Patterns for taps and activations that match nothing."""
    taps = [unmatched(f"--tap {p}", p, layers, output_names) for p in options.taps if not tapped([p], layers)]
    names = dict.fromkeys(n for node in model.nodes for n in (*node.output, node.name, node.op_type) if n)
    return taps + [
        Problem(f"--activations {p}", "matches no tensor", closest(p, names, SEE_NAMES))
        for p in options.activations
        if not activated([p], model)
    ]


def taken_names(options: Options, model: Model) -> list[Problem]:
    """Names of the contract that the classifier uses for tensors of its own."""
    wanted = [contract.RELEVANCE, contract.EXPLAINED]
    wanted += [contract.START] if options.start == "fed" else []
    wanted += [contract.TARGET] if options.target == "input" and options.start != "fed" else []
    wanted += [contract.HEATMAP] if options.heatmap else []
    wanted += [contract.RENDER] if options.render else []
    wanted += [contract.PIXELS] if options.embed_preprocessing else []
    return [
        Problem(
            f"tensor {name}", "the model has a tensor of that name, which the explainer needs", "rename it in the model"
        )
        for name in wanted
        if name in model.tensor_names
    ]

"""The pipeline: load → view as layers → facts → plan → emit relevance backward → tidy → check → save."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

from onnx import ModelProto

from onnxlrp.errors import raise_if_any
from onnxlrp.explain.assemble import assemble, frozen
from onnxlrp.explain.emit import emit
from onnxlrp.explain.examine import examine
from onnxlrp.explain.options import Keywords, Options
from onnxlrp.explain.plan import Plan
from onnxlrp.graph.save import save


@dataclass(frozen=True)
class Conversion:
    """An explainer. `.model` is the ModelProto, `.plan` what was done, `.save(path)` writes it.

    `.folder` is where the model's external data lies, None where its weights are inside.
    """

    model: ModelProto
    plan: Plan
    folder: Path | None = None

    def save(self, path: str | os.PathLike[str], force: bool = False) -> list[Path]:
        """Write the explainer: one file, or with PATH.data beside it above 2 GB. Returns the files written.

        Written whole or not at all. Raises `OnnxLrpError` where `path` exists (unless `force`) or cannot be created,
        `RunError` where the disk is full.
        """
        return save(self.model, path, self.folder, force)


def convert(source: str | os.PathLike[str] | ModelProto, **options: Unpack[Keywords]) -> Conversion:
    """Turn a classifier into an explainer: one standard ONNX model with relevance as one more output.

    `source` is a path or a ModelProto (not changed). Options, all by keyword, their defaults in `Options`:

    composite    which layer gets which rule: the name of a preset, a TOML file, or a Composite
    rules        {pattern: rule}; a pattern matches layers' own names or operators, shell-style; wins over the composite
    residual     how residual sums share: "epsilon", "ratio", "equal", "main", "latest", "simple", "flows_skip",
                 "flows_skip_simple"
    max_pool     "winner" or "average"
    start        where relevance starts: "logit", "one-hot", "contrastive", "softmax-gradient" or "fed" (an input)
    keep         keep only this fraction of relevance, the largest values, at each weighted layer and sample
    conditions   {pattern: channels}; relevance passes only these channels; "input" makes them an input
    optimize     "exact" leaves out what is known to vanish, "none" emits every term, for finding faults
    target_runtime  "portable" for any, or "onnxruntime", "web", "openvino", "opencv", "tract", "tensorrt", "coreml":
                 written as that one likes it best, and refused where it cannot run there, or not be right
    input        the image input, where the model has several; output: the class scores, likewise
    input_shape  sizes for an input that leaves them open; None or 0 stands for a batch of any size
    taps         patterns; relevance at the outputs of matching layers become outputs `relevance/<tensor>`
    activations  patterns; matching intermediate tensors become outputs under their own names
    target       "input" (an int64 [N] input, -1 = predicted), "predicted", or a class number
    targets_per_input  K: `target` is [N, K], `relevance` [N, K, …], and the model still runs once
    heatmap      add the output `heatmap` [N, H, W]: relevance summed over channels
    render       "heatmap" or "overlay": add the output `render`, uint8 [N, H, W, 3], which the graph draws
    cmap         its colours, one of `onnxlrp.look.NAMES`; "hot" and "gray" do not show negative relevance
    embed_preprocessing  make `pixels`, uint8 [N, H, W, 3] in RGB, the input, and relevance that of the pixels
    preprocess   how a picture becomes the input: a Preprocessing or a preset's name; into the metadata
    labels       the class names, likewise

    Raises `OnnxLrpError` with every problem found: unsupported nodes, patterns that match nothing, bad options.
    """
    study = examine(source, Options.of(**options))
    raise_if_any(study.plan.problems)
    part = emit(study)
    if frozen(part.nodes) != frozen(emit(examine(study.model, study.options)).nodes):
        raise AssertionError("converting twice gave two different graphs")
    model = assemble(study, part)
    raise_if_any(study.runtime.refusals(model, study.model.name))
    return Conversion(model, study.plan, study.model.folder)

"""What the page must know of its explainer, as the JSON that its scripts read; what it cannot serve is refused here.

All numbers by which pixels become an input, and relevance colours, come from the code that `onnxlrp run` uses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from onnxlrp import contract, look
from onnxlrp.deploy.opening import Opened, Tensor
from onnxlrp.errors import OnnxLrpError, Problem
from onnxlrp.run.preparing import Fitted

TYPES = ("float32", "float64", "float16", "uint8")  # that ONNX Runtime takes in a browser


def page_form(opened: Opened, fitted: Fitted) -> dict[str, Any]:
    """The explainer's names, shapes, classes and pre-processing (`fitted`).

    Raises `OnnxLrpError` with everything that keeps the explainer from being explained by a picture and a class.
    """
    explainer = opened.explainer
    image = opened.input
    _refuse(opened, fitted)
    return {
        "input": {
            "name": image.name,
            "type": image.type_name,
            "batch": explainer.input_shape[0] or 1,
            "dims": _input_dims(fitted),
        },
        "output": explainer.output_name,
        "target_input": contract.TARGET in {t.name for t in opened.inputs},
        "fixed_target": explainer.fixed_target,
        "targets": explainer.targets_per_input,
        "conditions": [
            {"name": t.name, "type": t.type_name, "channels": t.shape[1]} for t in _conditions(opened.inputs)
        ],
        "scores": explainer.scores,
        "labels": explainer.labels,
        "preparing": {
            "size": fitted.preprocessing.size,
            "mean": fitted.preprocessing.mean,
            "std": fitted.preprocessing.std,
            "scale": fitted.preprocessing.scale,
            "color_order": fitted.preprocessing.color_order,
            "layout": fitted.preprocessing.layout,
            "channels": fitted.channels,
            "luminance": contract.LUMINANCE,
        },
        "drawing": {
            "percentile": look.PERCENTILE,
            "table": look.table(look.DEFAULT).reshape(-1).tolist(),
            "cover": [look.COVER, look.COVER_POWER],
            "hue": [look.HUE_FROM, look.HUE_SPAN],
            "gaussian": look.gaussian(*(fitted.preprocessing.size or (1, 1))).tolist(),
        },
    }


def facts(opened: Opened) -> str:
    """A sentence for the page's foot: what relevance was made by."""
    rules = opened.explainer.composite
    by = f" by the rules of {rules}" if rules else ""
    return f"{Path(opened.explainer.name).name}: relevance{by}, from onnxlrp {contract.package_version()}."


def _conditions(inputs: Sequence[Tensor]) -> list[Tensor]:
    return [t for t in inputs if t.name.startswith(contract.condition_name(""))]


def _input_dims(fitted: Fitted) -> list[int]:
    height, width = fitted.preprocessing.size or (0, 0)
    nchw = fitted.preprocessing.layout == "NCHW"
    return [fitted.channels, height, width] if nchw else [height, width, fitted.channels]


def _refuse(opened: Opened, fitted: Fitted) -> None:
    """Raise `OnnxLrpError` for a form of explainer that the page has no way to feed."""
    explainer, image = opened.explainer, opened.input
    if explainer.fed:
        reason = "starts from relevance that is fed (--start fed), which a picture and a class do not say"
        raise OnnxLrpError(Problem(explainer.name, reason, "convert the classifier without --start fed"))
    if fitted.preprocessing.size is None:
        reason = "takes pictures of any size, and a page needs to know one"
        raise OnnxLrpError(Problem(explainer.name, reason, "convert the classifier with --input-shape or --size"))
    for tensor in (image, *_conditions(opened.inputs)):
        if tensor.type_name not in TYPES:
            reason = f"is {tensor.type_name}, and a page can feed {', '.join(TYPES)}"
            raise OnnxLrpError(Problem(f"input {tensor.name}", reason, "convert a float32 export of the classifier"))
    numbers = (*fitted.preprocessing.mean, *fitted.preprocessing.std, fitted.preprocessing.scale)
    if not all(map(math.isfinite, numbers)):
        raise OnnxLrpError(Problem("the pre-processing", "holds a number that is not finite", "convert it again"))

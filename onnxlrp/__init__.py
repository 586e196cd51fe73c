"""Turn an ONNX image classifier into one that also says why: layer-wise relevance propagation in standard ONNX.

import onnxlrp

onnxlrp.convert("model.onnx").save("model.lrp.onnx")
explanation = onnxlrp.Explainer("model.lrp.onnx").explain(batch)
explanation.relevance  # like the batch: how much each pixel spoke for the class
"""

from __future__ import annotations

import os

# ONNX Runtime's Linux wheels send telemetry unless told not to before they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from onnxlrp import attributors, heatmap, layers
from onnxlrp.contract import Preprocessing, package_version
from onnxlrp.errors import OnnxLrpError, Problem, RunError
from onnxlrp.explain.convert import Conversion, convert
from onnxlrp.run.session import Explainer, Explanation

__version__ = package_version()

__all__ = [
    "Conversion",
    "Explainer",
    "Explanation",
    "OnnxLrpError",
    "Preprocessing",
    "Problem",
    "RunError",
    "attributors",
    "convert",
    "heatmap",
    "layers",
]

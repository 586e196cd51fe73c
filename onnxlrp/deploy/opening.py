"""An explainer's file, opened to be carried elsewhere: checked as `onnxlrp run` does, and described by tensor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from onnxlrp import contract
from onnxlrp.errors import OnnxLrpError, Problem
from onnxlrp.run.reading import metadata_of, read_model
from onnxlrp.run.session import Explainer

Axis = int | str  # its size, or the name of what leaves it open ("" where it has none)


@dataclass(frozen=True)
class Tensor:
    """An input or output of a model: `element_type` is ONNX's number, the batch is the first axis of `shape`."""

    name: str
    element_type: int
    shape: tuple[Axis, ...]

    @property
    def type_name(self) -> str:
        """Its type as NumPy calls it."""
        return str(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(self.element_type)).name)


@dataclass(frozen=True)
class Opened:
    """An explainer that loads and keeps the contract. `folder` is where its external data lies."""

    explainer: Explainer
    proto: onnx.ModelProto
    folder: Path
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def input(self) -> Tensor:
        """The input that is explained."""
        return next(t for t in self.inputs if t.name == self.explainer.input_name)


def open_explainer(model: str) -> Opened:
    """Open the explainer in the file `model`; raises `OnnxLrpError` where it is a plain classifier, or not in order."""
    proto, name = read_model(model)
    if contract.KEY_CONTRACT not in metadata_of(proto):
        remedy = f"convert it first: onnxlrp convert {name}"
        raise OnnxLrpError(Problem(name, "is a plain classifier, and an explainer is needed here", remedy))
    explainer = Explainer(model, "cpu")
    weights = {t.name for t in proto.graph.initializer}
    inputs = tuple(_tensor(v) for v in proto.graph.input if v.name not in weights)
    return Opened(explainer, proto, Path(model).resolve().parent, inputs, tuple(map(_tensor, proto.graph.output)))


def _tensor(value: onnx.ValueInfoProto) -> Tensor:
    kind = value.type.tensor_type
    shape = tuple(d.dim_value if d.HasField("dim_value") else d.dim_param for d in kind.shape.dim)
    return Tensor(value.name, kind.elem_type, shape)

"""The memory layout of ONNX Runtime's convolutions on the CPU: images in blocks of 8 or 16 channels.

Convolutions and poolings compute in it, and so do batch normalisations, relus, sums and products that follow them.
Most other operators have their inputs put in order first, a pass over each, and what they give is put into blocks
again where the next convolution reads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onnx import TensorProto

from onnxlrp.graph.facts import Shape

CHANNELS = 16  # a multiple of these fills whole blocks on every CPU


def fills_blocks(element_type: int, shape: Shape) -> bool:
    """Whether a tensor of this shape can be in that layout."""
    image = element_type == TensorProto.FLOAT and len(shape) == 4
    return image and isinstance(shape[1], int) and shape[1] % CHANNELS == 0


def stays_in_blocks(op_type: str, blocked: Sequence[bool], attributes: Mapping[str, Any]) -> bool:
    """Whether an operator's output is in that layout where its inputs are, or are not."""
    if op_type == "Conv":
        return attributes.get("group", 1) == 1
    return op_type == "MaxPool" or (op_type in ("Add", "Mul", "Relu") and all(blocked))

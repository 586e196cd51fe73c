"""The classifier inside an explainer answers as it did."""

from __future__ import annotations

import numpy as np
import pytest

import onnxlrp

from . import onnx_side
from .networks import subject
from .onnx_side import LEVELS

TO_THE_BIT = (LEVELS.ORT_DISABLE_ALL, LEVELS.ORT_ENABLE_BASIC, LEVELS.ORT_ENABLE_EXTENDED)
CASES = [
    *(("mri_vgg", "legacy"), ("mri_resnet", "legacy"), ("vgg16", "legacy"), ("resnet50", "legacy")),
    *(("resnet18", "legacy"), ("resnet18", "dynamo"), ("resnet18", "unfolded"), ("vgg11_bn", "unfolded")),
]


@pytest.mark.parametrize(("network", "kind"), CASES)
def test_logits_are_those_of_the_untouched_model(network: str, kind: str) -> None:
    """To the bit until ONNX Runtime changes the layout of tensors, and with it the order of summation."""
    it = subject(network, 32)
    proto = it.proto if kind == "legacy" else onnx_side.exported(it.network, it.x, kind)
    made = onnxlrp.convert(proto).model
    output = proto.graph.output[0].name
    for level in (*TO_THE_BIT, LEVELS.ORT_ENABLE_ALL):
        before = onnx_side.run(proto, it.image, level=level)[output]
        after = onnx_side.run(made, it.image, it.targets, level)[output]
        if level in TO_THE_BIT:
            assert np.array_equal(before, after), level
        assert np.abs(after - before).max() <= 1e-5 * np.abs(before).max()

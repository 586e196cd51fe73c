"""The classifier inside an explainer answers as it did."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import onnxlrp

from . import onnx_side
from .networks import subject
from .onnx_side import LEVELS

TO_THE_BIT = (LEVELS.ORT_DISABLE_ALL, LEVELS.ORT_ENABLE_BASIC, LEVELS.ORT_ENABLE_EXTENDED)
CASES = [
    *(("mri_vgg", "legacy"), ("mri_resnet", "legacy"), ("vgg16", "legacy"), ("resnet50", "legacy")),
    *(("resnet18", "legacy"), ("resnet18", "dynamo"), ("resnet18", "unfolded"), ("vgg11_bn", "unfolded")),
]


def rounding(network: nn.Module, x: Tensor, found: np.ndarray) -> float:
    """The largest error of logits, against the network in float64."""
    with torch.no_grad():
        exact = copy.deepcopy(network).double()(x.double()).numpy()
    return float(np.abs(found - exact).max())


@pytest.mark.parametrize(("network", "kind"), CASES)
def test_logits_are_those_of_the_untouched_model(network: str, kind: str) -> None:
    """To the bit until ONNX Runtime changes the layout of tensors, and with it the order of summation: then no further
    from the truth than the untouched model, but for a factor of two (ResNet-50 with random weights errs by 5e-5)."""
    it = subject(network, 32)
    proto = it.proto if kind == "legacy" else onnx_side.exported(it.network, it.x, kind)
    made = onnxlrp.convert(proto).model
    output = proto.graph.output[0].name
    for level in (*TO_THE_BIT, LEVELS.ORT_ENABLE_ALL):
        before = onnx_side.run(proto, it.image, level=level)[output]
        after = onnx_side.run(made, it.image, it.targets, level)[output]
        if level in TO_THE_BIT:
            assert np.array_equal(before, after), level
        own = rounding(it.network, it.x, before)
        assert own <= 1e-4 * np.abs(before).max()
        assert rounding(it.network, it.x, after) <= 2 * own

"""The networks that the tests here share, built once."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from onnx import ModelProto
from torch import Tensor, nn

from onnxlrp.contract import PREPROCESS_PRESETS, Preprocessing
from tools import zoo

from . import onnx_side, zennit_side

GREY = Preprocessing(mean=(0.5,), std=(0.25,), color_order="L")
COUNT = 6


@dataclass(frozen=True)
class Subject:
    """A network, images and classes to explain: the predicted one, for every second image the next."""

    name: str
    network: nn.Module
    x: Tensor
    targets: np.ndarray
    proto: ModelProto
    preprocess: Preprocessing

    @property
    def image(self) -> np.ndarray:
        """The images as an explainer takes them."""
        return np.asarray(self.x.numpy())

    @functools.cached_property
    def proto64(self) -> ModelProto:
        """The classifier in float64."""
        return onnx_side.exported64(self.network, self.x)


@functools.lru_cache(maxsize=4)
def subject(name: str, size: int = 64, count: int = COUNT) -> Subject:
    """A network of the zoo by name."""
    torch.set_num_threads(1)
    network, x = zoo.build(name, size), zoo.inputs(name, count, size)
    scores = zennit_side.logits(network, x)
    targets = (scores.argmax(1) + np.arange(len(x)) % 2) % scores.shape[1]
    trained = name in zoo.TRAINED
    proto = zoo.load(name) if trained else onnx_side.exported(network, x)
    return Subject(name, network, x, targets, proto, GREY if trained else PREPROCESS_PRESETS["imagenet"])

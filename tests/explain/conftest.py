"""The two networks of most tests, in float32 and restated in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from onnx import ModelProto

from .networks import PLAIN, RESIDUAL, images, network
from .restated import Network, Rule, linear, one_hot


@dataclass(frozen=True)
class Subject:
    """A network to explain: as ONNX, as its restatement, with a batch, its logits and a target for each sample."""

    proto: ModelProto
    restated: Network
    x: np.ndarray
    logits: np.ndarray
    targets: list[int]

    @property
    def hot(self) -> np.ndarray:
        """[N, K], 1 at the targets."""
        return one_hot(self.targets, self.logits.shape[1])

    @property
    def start(self) -> np.ndarray:
        """The target's logit times its one-hot, where relevance starts unless told otherwise."""
        return self.logits * self.hot


def subject(proto: ModelProto, x: np.ndarray) -> Subject:
    """A network with a batch of three and the targets 0, 1, 2."""
    restated = Network(proto)
    return Subject(proto, restated, x, restated.logits(x), [0, 1, 2])


@pytest.fixture(scope="session")
def plain() -> Subject:
    """Convolutions, max pooling, dense layers."""
    return subject(network(PLAIN), images())


@pytest.fixture(scope="session")
def residual() -> Subject:
    """An identity skip, a convolutional skip, average pooling."""
    return subject(network(RESIDUAL), images())


@pytest.fixture(scope="session")
def default_rules() -> dict[str, Rule]:
    """epsilon_plus_flat for the plain network."""
    return {"conv1": linear("flat"), "Conv": linear("zplus"), "Gemm": linear("epsilon")}


@pytest.fixture(scope="session")
def residual_rules() -> dict[str, Rule]:
    """epsilon_plus_flat for the residual network."""
    return {"stem": linear("flat"), "Conv": linear("zplus"), "Gemm": linear("epsilon")}

"""However a network is exported, its relevance is the same."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

import onnxlrp
from tools import zoo

from . import zennit_side
from .networks import Subject, subject
from .onnx_side import distances

COMPOSITE = "epsilon_plus_flat"
CLOSE = 1e-5  # float32 against float64, median over the images
NETWORKS = [("vgg11_bn", 32), ("resnet18", 32)]
KINDS = [k for k in zoo.EXPORTS if k != "training"]


def explained(it: Subject, kind: str, batch: str | int, folder: Path, network: nn.Module | None = None) -> np.ndarray:
    """Relevance through files, as a user makes it: exported, converted, saved, loaded."""
    source, target = folder / "model.onnx", folder / "model.lrp.onnx"
    zoo.EXPORTS[kind](network or it.network, it.x, source, batch)
    onnxlrp.convert(source, composite=COMPOSITE).save(target)
    session = ort.InferenceSession(str(target), providers=["CPUExecutionProvider"])
    step = batch if isinstance(batch, int) else len(it.x)
    name = session.get_inputs()[0].name
    parts = [
        session.run(["relevance"], {name: it.image[i : i + step], "target": it.targets[i : i + step]})[0]
        for i in range(0, len(it.x), step)
    ]
    return np.concatenate(parts)


@pytest.mark.parametrize("batch", ["N", 2], ids=["open", "static"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("network", "size"), NETWORKS)
def test_gives_the_same_relevance(network: str, size: int, kind: str, batch: str | int, tmp_path: Path) -> None:
    it = subject(network, size)
    exact = zennit_side.relevance(it.network, it.x, it.targets, zennit_side.preset(COMPOSITE), torch.float64)
    assert np.median(distances(explained(it, kind, batch, tmp_path), exact)) < CLOSE


@pytest.mark.parametrize(("network", "size"), NETWORKS)
def test_training_mode_takes_the_statistics_of_the_batch(network: str, size: int, tmp_path: Path) -> None:
    it = subject(network, size)
    found = explained(it, "training", len(it.x), tmp_path)
    frozen = with_statistics_of(it.network, it.x)
    exact = zennit_side.relevance(frozen, it.x, it.targets, zennit_side.preset(COMPOSITE), torch.float64)
    assert np.median(distances(found, exact)) < 10 * CLOSE


def with_statistics_of(network: nn.Module, x: Tensor) -> nn.Module:
    """A copy whose batch norms have the mean and the biased variance of this batch stored."""
    frozen = copy.deepcopy(network).double()
    with torch.no_grad(), recording(frozen):
        frozen(x.double())
    return frozen.eval()


@contextlib.contextmanager
def recording(network: nn.Module) -> Iterator[None]:
    """While it lasts, batch norms store the statistics of what they get before they use them."""

    def store(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        assert isinstance(module, nn.BatchNorm2d) and module.running_mean is not None
        module.running_mean = given[0].mean((0, 2, 3))
        module.running_var = given[0].var((0, 2, 3), unbiased=False)

    hooks = [m.register_forward_pre_hook(store) for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    yield
    for hook in hooks:
        hook.remove()

"""The VGGs and ResNets of torchvision, in every form in which torch exports them."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from tools import zoo

from . import contract

SIZE = 64  # pixels; the networks' own 224 are for the slow tests
VGG, RESNET = 1.02, 1.03  # how many times the classifier's size its explainer may have
FAST = ("vgg11_bn", "resnet18")
BOTH = ("legacy", "dynamo")  # exported for an open batch and for one image in the fast tests too


@functools.cache
def network(name: str, size: int) -> nn.Module:
    """One is built once for all its exports."""
    return zoo.build(name, size)


def export(name: str, kind: str, batch: str | int, folder: Path, size: int = SIZE) -> Path:
    """The exported classifier's path."""
    path = folder / f"{name}.onnx"
    zoo.EXPORTS[kind](network(name, size), zoo.inputs(name, 2, size), path, batch)
    return path


def check(name: str, kind: str, batch: str | int, folder: Path, size: int = SIZE) -> None:
    path = export(name, kind, batch, folder, size)
    count = batch if isinstance(batch, int) else 3
    image = zoo.inputs(name, count, size).numpy().astype(np.float32)
    growth = VGG if name.startswith("vgg") else RESNET
    contract.holds(path, folder / "explainer.onnx", image, growth)


def cases(names: tuple[str, ...], slow: bool) -> list[object]:
    """Every network in every form; the slow ones are those that are not fast."""
    return [
        pytest.param(name, kind, batch, marks=marks(name, kind, slow))
        for name in names
        for kind in zoo.EXPORTS
        for batch in (("N", 1) if slow or kind in BOTH else ("N",))
    ]


def marks(name: str, kind: str, slow: bool) -> list[pytest.MarkDecorator]:
    """What is expected of a case."""
    return [pytest.mark.slow] if slow else []


others = tuple(n for n in zoo.RANDOM if n not in FAST)


@pytest.mark.parametrize(("name", "kind", "batch"), [*cases(FAST, False), *cases(others, True)])
def test_every_network_in_every_form(name: str, kind: str, batch: str | int, tmp_path: Path) -> None:
    check(name, kind, batch, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vgg16", "resnet50"])
def test_at_full_size(name: str, tmp_path: Path) -> None:
    check(name, "legacy", "N", tmp_path, zoo.SIZE)

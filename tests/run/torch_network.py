"""A small convolutional network, as torch knows it and as ONNX."""

from __future__ import annotations

import io

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

SHAPE = (2, 12, 14)
CLASSES = 4


class Network(torch.nn.Module):
    """Two convolutions, one max pooling, one dense layer."""

    def __init__(self) -> None:
        super().__init__()
        nn = torch.nn
        self.body = nn.Sequential(
            nn.Conv2d(2, 5, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(5, 6, 3), nn.ReLU(), nn.Flatten(),
            nn.Linear(6 * 4 * 5, CLASSES),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores."""
        return self.body(x)


def network() -> Network:
    """Always the same."""
    torch.manual_seed(5)
    return Network().eval()


def exported(batch: int | str = "N") -> onnx.ModelProto:
    """The network in ONNX, its input `x`."""
    buffer = io.BytesIO()
    example = torch.zeros(1 if isinstance(batch, str) else batch, *SHAPE)
    free = {"x": {0: batch}, "scores": {0: batch}} if isinstance(batch, str) else None
    torch.onnx.export(
        network(), (example,), buffer, dynamo=False, input_names=["x"], output_names=["scores"], dynamic_axes=free
    )
    return onnx.load_from_string(buffer.getvalue())


def images(count: int = 3) -> np.ndarray:
    """float32 [count, *SHAPE]."""
    return np.random.default_rng(2).normal(size=(count, *SHAPE)).astype(np.float32)


def gradient(x: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The derivative of each input's target score, in float64."""
    variable = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    scores = network().double()(variable)
    scores[torch.arange(len(x)), torch.as_tensor(targets)].sum().backward()
    return variable.grad.numpy()


def scores(x: np.ndarray) -> np.ndarray:
    """[N, K] in float64."""
    with torch.no_grad():
        return network().double()(torch.tensor(x, dtype=torch.float64)).numpy()

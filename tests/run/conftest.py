"""An explainer written by hand after the contract, small enough to check by eye, and pictures to run it on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageDraw

from onnxlrp import contract

SIZE = 8
CLASSES = 3
LABELS = ["cat", "dog, hound", "hamster"]

NODES = [
    ("Shape", ["image"], ["shape"], {}),
    ("Flatten", ["image"], ["flat"], {"axis": 1}),
    ("MatMul", ["flat", "weight"], ["logits"], {}),
    ("ArgMax", ["logits"], ["predicted"], {"axis": 1, "keepdims": 0}),
    ("Less", ["target", "zero"], ["is_open"], {}),
    ("Where", ["is_open", "predicted", "target"], ["explained"], {}),
    ("Transpose", ["weight"], ["rows"], {"perm": [1, 0]}),
    ("Gather", ["rows", "explained"], ["row"], {"axis": 0}),
    ("Mul", ["flat", "row"], ["relevance/flat"], {}),
    ("Reshape", ["relevance/flat", "shape"], ["relevance"], {}),
]


def weights(channels: int = 3) -> np.ndarray:
    """float32 [C*H*W, K]: the weights of the linear classifier, whose relevance is x * w."""
    return np.random.default_rng(7).normal(size=(channels * SIZE * SIZE, CLASSES)).astype(np.float32)


def make_explainer(
    channels: int = 3,
    batch: int | str = "N",
    taps: bool = True,
    target: str = "input",
    metadata: dict[str, str] | None = None,
) -> onnx.ModelProto:
    """logits = flatten(image) @ weight, relevance = image * weight of the class explained: it sums up to the logit."""
    shape = [batch, channels, SIZE, SIZE]
    tensors = [
        numpy_helper.from_array(weights(channels), "weight"),
        numpy_helper.from_array(np.array(0, np.int64), "zero"),
    ]
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)]
    if target == "input":
        inputs.append(helper.make_tensor_value_info("target", TensorProto.INT64, [batch]))
    else:
        tensors.append(numpy_helper.from_array(np.array([-1 if target == "predicted" else int(target)]), "target"))
    outputs = [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, CLASSES]),
        helper.make_tensor_value_info("relevance", TensorProto.FLOAT, shape),
        helper.make_tensor_value_info("explained", TensorProto.INT64, [batch]),
    ]
    if taps:
        outputs.append(helper.make_tensor_value_info("relevance/flat", TensorProto.FLOAT, [batch, None]))
    nodes = [helper.make_node(op, i, o, **attributes) for op, i, o, attributes in NODES]
    model = helper.make_model(
        helper.make_graph(nodes, "fake", inputs, outputs, tensors),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    preprocessing = contract.Preprocessing(size=(SIZE, SIZE), mean=(0.5,), std=(0.5,))
    properties = {
        contract.KEY_CONTRACT: "1",
        contract.KEY_INPUT: "image",
        contract.KEY_OUTPUT: "logits",
        contract.KEY_SCORES: "logits",
        contract.KEY_TARGET: target,
        contract.KEY_COMPOSITE: "epsilon",
        contract.KEY_PREPROCESS: preprocessing.to_json(),
        contract.KEY_LABELS: json.dumps(LABELS),
    }
    properties.update(metadata or {})
    helper.set_model_props(model, {key: value for key, value in properties.items() if value})
    return model


@pytest.fixture
def explainer_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes an explainer made with `make_explainer`'s options and returns its path."""

    def write(**options: object) -> Path:
        path = tmp_path / "classifier.lrp.onnx"
        onnx.save_model(make_explainer(**options), path)  # type: ignore[arg-type]
        return path

    return write


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Three colour PNGs of different sizes, in a folder of their own."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    random = np.random.default_rng(3)
    paths = []
    for index, size in enumerate([(20, 30), (8, 8), (40, 10)]):
        path = folder / f"photo-{index}.png"
        Image.fromarray(random.integers(0, 256, (*size, 3), np.uint8)).save(path)
        paths.append(path)
    return paths


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by every text that is drawn, in its order."""
    drawn: list[str] = []
    draw = ImageDraw.ImageDraw.text

    def noted(self: ImageDraw.ImageDraw, place: tuple[float, float], text: str, *more: Any, **options: Any) -> None:
        drawn.append(text)
        draw(self, place, text, *more, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", noted)
    return drawn


@pytest.fixture
def build() -> Callable[..., onnx.ModelProto]:
    """`make_explainer`, for tests that change the model further."""
    return make_explainer


@pytest.fixture
def weight() -> np.ndarray:
    """float32 [192, 3]: the classifier's weights."""
    return weights()

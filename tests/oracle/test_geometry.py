"""Random windows: convolutions and poolings of geometries that nobody thought of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from onnxlrp.rules.catalogue import CATALOGUE

from . import cases
from .emitting import relevance, relevances
from .restatement import RESTATEMENTS, Stabilizer
from .test_linear import compared
from .test_max_pooling import winners

BATCH = 2
STABILIZER = Stabilizer(0.05)
RULES = {
    "gradient": CATALOGUE["gradient"].make(),
    **{rule: CATALOGUE[rule].make(epsilon=STABILIZER.epsilon) for rule in ("epsilon", "zplus", "flat", "wsquare")},
}


def geometry(generator: np.random.Generator, pool: bool) -> tuple[list[int], dict[str, list[int]]]:
    """Sizes of one or two axes and the window's attributes; padding of a pooling is less than its kernel."""
    sizes, before, after = [], [], []
    window: dict[str, list[int]] = {"kernel_shape": [], "strides": [], "dilations": []}
    for _ in range(generator.integers(1, 3)):
        kernel, stride, dilation = generator.integers(1, 4), generator.integers(1, 5), generator.integers(1, 4)
        extent = dilation * (kernel - 1) + 1
        most = kernel if pool else extent + 2
        pads = generator.integers(0, most, 2)
        sizes.append(int(max(extent - pads.sum(), 1) + generator.integers(0, 5)))
        before.append(int(pads[0]))
        after.append(int(pads[1]))
        for key, value in zip(window, (kernel, stride, dilation), strict=True):
            window[key].append(int(value))
    return sizes, {**window, "pads": before + after}


def model(op: str, shape: list[int], weights: dict[str, np.ndarray], **attributes: Any) -> ModelProto:
    """One node from x to y."""
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *shape])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * (1 + len(shape)))
    node = helper.make_node(op, ["x", *weights], ["y"], **attributes)
    constants = [numpy_helper.from_array(v, k) for k, v in weights.items()]
    graph = helper.make_graph([node], "random", [image], [output], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def against_the_restatement(proto: ModelProto, generator: np.random.Generator) -> dict[str, float]:
    """Errors of RULES as multiples of what float32 allows."""
    shape = cases.image_shape(proto, BATCH)
    while True:
        x = generator.normal(size=shape).astype(np.float32)
        w, b = cases.dense(proto, x)
        y = cases.tensors(proto, x)["y"]
        fed = generator.normal(size=y.shape).astype(np.float32)
        flat, r = (v.reshape(BATCH, -1).astype(np.float64) for v in (x, fed))
        expected = {rule: RESTATEMENTS[rule](flat, w, b, r, STABILIZER) for rule in RULES}
        if not any(e.doubtful for e in expected.values()):
            break
    results = relevances(proto, RULES, x, fed, "nodes")
    assert not any(isinstance(v, Exception) for v in results.values()), results
    return {rule: compared(np.asarray(results[rule]), e) for rule, e in expected.items()}


@pytest.mark.parametrize("seed", range(40))
def test_convolutions(seed: int) -> None:
    """Any stride, dilation, padding and number of groups."""
    generator = np.random.default_rng(seed)
    sizes, window = geometry(generator, pool=False)
    groups, inputs, outputs = (int(v) for v in generator.integers(1, 3, 3))
    weights = {
        "w": cases.draw(f"{seed}/w", [groups * outputs, inputs, *window["kernel_shape"]]),
        "b": cases.draw(f"{seed}/b", [groups * outputs]),
    }
    errors = against_the_restatement(
        model("Conv", [groups * inputs, *sizes], weights, group=groups, **window), generator
    )
    assert max(errors.values()) <= 1, (sizes, window, groups, errors)


@pytest.mark.parametrize("seed", range(30))
def test_average_poolings(seed: int) -> None:
    """Any stride, dilation and padding, counted or not."""
    generator = np.random.default_rng(seed)
    sizes, window = geometry(generator, pool=True)
    if generator.integers(2):
        window["dilations"] = [1] * len(sizes)  # ONNX Runtime's dilated and undilated poolings are different code
    proto = model("AveragePool", [2, *sizes], {}, count_include_pad=int(generator.integers(2)), **window)
    x = np.zeros(cases.image_shape(proto, BATCH), np.float32)
    if not cases.dense(proto, x)[0].any(axis=1).all():
        pytest.skip("a window lies wholly in the padding")
    errors = against_the_restatement(proto, generator)
    assert max(errors.values()) <= 1, (sizes, window, errors)


@pytest.mark.parametrize("seed", range(30))
def test_max_poolings(seed: int) -> None:
    """The first of the largest, whatever the window."""
    generator = np.random.default_rng(seed)
    sizes, window = geometry(generator, pool=True)
    proto = model("MaxPool", [2, *sizes], {}, **window)
    x = generator.integers(-2, 3, cases.image_shape(proto, BATCH)).astype(np.float32)
    y = cases.tensors(proto, x)["y"]
    if y.min() < -2:
        pytest.skip("a window lies wholly in the padding")
    fed = generator.normal(size=y.shape).astype(np.float32)
    result = relevance(proto, CATALOGUE["winner"].make(), x, fed)
    np.testing.assert_allclose(result, winners(proto.graph.node[0], x, fed), rtol=1e-5, atol=1e-5)

"""Max pooling against loops: the winner is the first largest element of a window in row-major order."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, helper, numpy_helper

from onnxlrp.graph.blocks import CHANNELS
from onnxlrp.graph.build import Builder, Value
from onnxlrp.layers.registry import Layer, Relevance, Special
from onnxlrp.rules.catalogue import CATALOGUE

from . import cases
from .emitting import emitted, relevance
from .restatement import Stabilizer, epsilon
from .test_linear import compared

Reads = list[tuple[int, ...]]


def pooling(proto: ModelProto, x: np.ndarray, pooled: np.ndarray) -> tuple[NodeProto, np.ndarray]:
    """The node that pools x, and what is `pooled` with all of x's axes: a reduction as the MaxPool that it equals."""
    node = next(n for n in proto.graph.node if "Max" in n.op_type)
    if node.op_type != "ReduceMax":
        return node, pooled
    constants = {t.name: numpy_helper.to_array(t).tolist() for t in proto.graph.initializer}
    axes = constants[node.input[1]] if len(node.input) > 1 else next(a.ints for a in node.attribute if a.name == "axes")
    reduced = {a % x.ndim for a in axes}
    kernel = [n if i in reduced else 1 for i, n in enumerate(x.shape)][2:]
    outs = [n - k + 1 for n, k in zip(x.shape[2:], kernel, strict=True)]
    whole = helper.make_node("MaxPool", node.input, node.output, kernel_shape=kernel)
    return whole, pooled.reshape(*x.shape[:2], *outs)


def windows(node: NodeProto, sizes: tuple[int, ...], outs: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], Reads]]:
    """Every window's place and the elements it reads, padding left out, in row-major order."""
    given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    rank = len(sizes)
    kernel = list(given.get("kernel_shape", sizes))
    stride, dilation = given.get("strides", [1] * rank), given.get("dilations", [1] * rank)
    before = list(given.get("pads", [0] * 2 * rank))[:rank]
    if (same := given.get("auto_pad", b"NOTSET").decode()).startswith("SAME"):
        needed = [
            max((o - 1) * s + d * (k - 1) + 1 - n, 0)
            for o, s, d, k, n in zip(outs, stride, dilation, kernel, sizes, strict=True)
        ]
        before = [n // 2 if same == "SAME_UPPER" else n - n // 2 for n in needed]
    for place in np.ndindex(*outs):
        taps = [tuple(o * s + t * d - p for o, s, t, d, p in zip(place, stride, tap, dilation, before, strict=True))
                for tap in itertools.product(*(range(k) for k in kernel))]  # fmt: skip
        yield place, [tap for tap in taps if all(0 <= i < n for i, n in zip(tap, sizes, strict=True))]


def winners(node: NodeProto, x: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Relevance of the first largest element of each window, summed over windows."""
    result = np.zeros(x.shape, np.float64)
    for place, taps in windows(node, x.shape[2:], r.shape[2:]):
        for sample, channel in np.ndindex(*x.shape[:2]):
            best = taps[0]
            for tap in taps[1:]:
                if x[(sample, channel, *tap)] > x[(sample, channel, *best)]:
                    best = tap
            result[(sample, channel, *best)] += r[(sample, channel, *place)]
    return result


def averaging(node: NodeProto, x: np.ndarray, outs: tuple[int, ...]) -> np.ndarray:
    """The dense matrix [outputs, inputs] of the average pooling of the same geometry, one channel."""
    sizes = x.shape[2:]
    w = np.zeros((*outs, *sizes))
    for place, taps in windows(node, sizes, outs):
        for tap in taps:
            w[(*place, *tap)] += 1 / len(taps)
    return w.reshape(int(np.prod(outs)), int(np.prod(sizes)))


def drawn(name: str, ties: str, variant: str = "mixed") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """image, x and relevance to feed: images of few integers, or of one value only, tie often."""
    proto = cases.case(name, variant)
    generator = np.random.default_rng(len(name))
    shape = cases.image_shape(proto, 2)
    low, high = {"some": (-3, 4), "many": (-1, 2), "all": (-2, -1)}[ties]
    image = generator.integers(low, high, shape).astype(np.float32)
    found = cases.tensors(proto, image)
    fed = generator.normal(size=found["y"].shape) * (np.maximum(found["y"], 0) if variant == "gated" else 1)
    return image, found["x"], fed.astype(np.float32)


@pytest.mark.parametrize("how", ["folded", "terms"])
@pytest.mark.parametrize(
    ("ties", "variant"), [("some", "mixed"), ("many", "mixed"), ("all", "mixed"), ("some", "gated")]
)
@pytest.mark.parametrize("name", cases.names("max_pooling"))
def test_the_first_largest_wins(name: str, ties: str, variant: str, how: str) -> None:
    """`winner` on inputs with ties, negative values and zeros."""
    image, x, fed = drawn(name, ties, variant)
    proto = cases.case(name, variant)
    result = relevance(proto, CATALOGUE["winner"].make(), image, fed, how)
    node, r = pooling(proto, x, fed)
    np.testing.assert_allclose(result, winners(node, x, r), rtol=1e-5, atol=1e-5)


def wide(name: str, variant: str) -> ModelProto:
    """A case with channels that fill blocks."""
    proto = ModelProto()
    proto.CopyFrom(cases.case(name, variant))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[1].dim_value = CHANNELS
    return proto


def close(shape: list[int], scale: float) -> np.ndarray:
    """Zeros, and numbers about ±`scale` that are equal or one unit in the last place apart."""
    generator = np.random.default_rng(3)
    base = np.float32(scale) * generator.choice([1, 1, 1, -1, 0], shape).astype(np.float32)
    return np.where((generator.random(shape) < 0.5) & (base != 0), np.nextafter(base, np.float32(np.inf)), base)


@pytest.mark.parametrize("scale", [1e-21, 1.0, 1e30])
@pytest.mark.parametrize("variant", ["mixed", "nonnegative"])
@pytest.mark.parametrize(
    "name", [n for n in cases.names("max_pooling") if len(cases.image_shape(cases.case(n), 2)) == 4]
)
def test_channels_that_fill_blocks(name: str, variant: str, scale: float) -> None:
    """What wins is found from differences there, to the last digit; not where zeros from the padding could win."""
    proto = wide(name, variant)
    image = close(cases.image_shape(proto, 2), scale)
    found = cases.tensors(proto, image)
    fed = np.random.default_rng(5).normal(size=found["y"].shape).astype(np.float32)
    vanishes, operators = variant == "nonnegative", set[str]()
    if vanishes:
        fed *= found["y"] != 0
    node, r = pooling(proto, found["x"], fed)
    kernel = list(next((a.ints for a in node.attribute if a.name == "kernel_shape"), found["x"].shape[2:]))
    whole = all(len(taps) == np.prod(kernel) for _, taps in windows(node, found["x"].shape[2:], r.shape[2:]))

    def routed(build: Builder, layer: Layer) -> dict[str, Value]:
        assert isinstance(layer, Special)
        relevance = Relevance(Value("r"), build.tensor("y") if vanishes else None)
        (part,) = layer.backward(relevance, CATALOGUE["winner"].make())
        assert part is not None
        operators.update(n.op for n in build.finish([part.value.name])[0].nodes)
        return {"routed": part.value}

    result = emitted(proto, routed, {"r": fed}, image)["routed"]
    np.testing.assert_allclose(result, winners(node, found["x"], r), rtol=1e-5, atol=1e-5)
    if max(kernel) > 1:
        differences = (whole or vanishes) and max(kernel) <= 3
        assert ("Equal" in operators) == (not differences)


@pytest.mark.parametrize("name", cases.names("max_pooling"))
def test_the_sum_over_channels(name: str) -> None:
    """The relevance that goes on, summed over the channels before the taps are put together."""
    image, _, fed = drawn(name, "some")

    def both(build: Builder, layer: Layer) -> dict[str, Value]:
        assert isinstance(layer, Special)
        (found,) = layer.backward(Relevance(Value("r")), CATALOGUE["winner"].make())
        assert found is not None and found.over_channels is not None
        return {"whole": found.value, "summed": found.over_channels}

    found = emitted(cases.case(name), both, {"r": fed}, image)
    assert found["summed"].shape[1] == 1
    np.testing.assert_allclose(found["summed"], found["whole"].sum(1, keepdims=True), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", cases.names("max_pooling"))
def test_average_is_the_norm_rule_of_average_pooling(name: str) -> None:
    """`average`, channel by channel against the dense matrix."""
    proto = cases.case(name)
    for seed in itertools.count(11):
        generator = np.random.default_rng(seed)
        image = generator.normal(size=cases.image_shape(proto, 2)).astype(np.float32)
        y = cases.tensors(proto, image)["y"]
        fed = generator.normal(size=y.shape).astype(np.float32)
        node, pooled = pooling(proto, image, y)
        w = averaging(node, image, pooled.shape[2:])
        flat, r = (v.reshape(v.shape[0] * v.shape[1], -1).astype(np.float64) for v in (image, fed))
        expected = epsilon(flat, w, np.zeros(len(w)), r, Stabilizer(1e-6))
        if not expected.doubtful:
            break
    result = relevance(proto, CATALOGUE["average"].make(), image, fed)
    assert compared(result.reshape(expected.relevance.shape), expected) <= 1

"""Linear layers by themselves: apply is the forward map, transpose its adjoint; and the tests notice when it is not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx.parser
import pytest
from onnx import TensorProto, numpy_helper

from onnxlrp.graph.build import ONE, Builder, Symbol, Value
from onnxlrp.layers import convolution
from onnxlrp.layers.registry import Inputs, Layer, Linear

from . import cases, emitting
from .emitting import emitted, layers_of, relevance
from .restatement import Stabilizer
from .test_linear import EPSILON, REPRESENTATIVE, compared, drawn, make, measured, restated, sound_seed

TOLERANCE = 1e-5
CONVOLUTIONS = [n for n in cases.names("linear") if n.startswith("conv")]
STRIDED = [n for n in CONVOLUTIONS if "stride" in n]


def plain(build: Builder, layer: Linear) -> Symbol:
    """The layer's own weight."""
    return layer.w


def ones(build: Builder, layer: Linear) -> Symbol:
    """Ones in place of the weight."""
    return ONE


def positive(build: Builder, layer: Linear) -> Symbol:
    """w⁺."""
    return build.positive(layer.w)


def gap(name: str, how: str, weight: Callable[[Builder, Linear], Symbol], seed: int = 0) -> float:
    """|⟨A x, g⟩ - ⟨x, Aᵀ g⟩| relative to ⟨A x, g⟩, for the first seed of which that is not close to zero."""
    proto = cases.case(name)
    build, found = layers_of(proto)
    shapes = [
        [2 if isinstance(d, str) else d for d in build.facts.shape(t)] for t in (*found[-1].inputs, found[-1].output)
    ]
    generator = np.random.default_rng(seed)
    fed = {f"v{i}": generator.normal(size=shape).astype(np.float32) for i, shape in enumerate(shapes[:-1])}
    fed["g"] = generator.normal(size=shapes[-1]).astype(np.float32)

    def both(build: Builder, layer: Layer) -> dict[str, Value]:
        assert isinstance(layer, Linear)
        w = weight(build, layer)
        forward = layer.apply(tuple(Value(n, TensorProto.FLOAT) for n in list(fed)[:-1]), w, None)
        backward = layer.transpose(Value("g", TensorProto.FLOAT), w)
        assert len(backward) == len(layer.inputs)
        values = {"forward": forward, **{f"back{i}": v for i, v in enumerate(backward)}}
        return {"seen": build.tensor(build.facts.image)} | {k: v for k, v in values.items() if isinstance(v, Value)}

    image = generator.normal(size=cases.image_shape(proto, 2)).astype(np.float32)
    results = emitted(proto, both, fed, image, how)
    if "forward" not in results:  # this weight is zero
        assert not any(key.startswith("back") for key in results)
        return 0.0
    forward = np.broadcast_to(results["forward"], shapes[-1]).astype(np.float64)
    left = float(np.vdot(forward, fed["g"]))
    if abs(left) < 0.1 * np.linalg.norm(forward) * np.linalg.norm(fed["g"]):
        return gap(name, how, weight, seed + 1)
    back = [results.get(f"back{i}", np.zeros(())) for i in range(len(shapes) - 1)]  # none: this input's weight is zero
    right = sum(np.vdot(fed[f"v{i}"], np.broadcast_to(b, shapes[i])) for i, b in enumerate(back))
    return abs(left - float(right)) / abs(left)


@pytest.mark.parametrize("how", ["folded", "nodes", "terms"])
@pytest.mark.parametrize("name", cases.names("linear"))
def test_transpose_is_the_adjoint(name: str, how: str) -> None:
    """⟨A x, g⟩ = ⟨x, Aᵀ g⟩ with the layer's weight, its positive part, and ones."""
    gaps = {weight.__name__: gap(name, how, weight) for weight in (plain, positive, ones)}
    assert max(gaps.values()) < TOLERANCE, gaps


@pytest.mark.parametrize("how", ["folded", "nodes"])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_several_weights_at_once(name: str, how: str) -> None:
    """As one after the other, from one convolution where there is one group."""
    proto = cases.case(name)
    build, found = layers_of(proto)
    shape = [2 if isinstance(d, str) else d for d in build.facts.shape(found[-1].output)]

    def both(build: Builder, layer: Layer) -> dict[str, Value]:
        assert isinstance(layer, Linear)
        assert layer.transposes is not None
        s, ws = Value("g", TensorProto.FLOAT), [layer.w, build.positive(layer.w)]
        together = layer.transposes(s, ws)
        assert (together is None) == (layer.in_axis is None)
        alone = {f"alone{i}": layer.transpose(s, w)[0] for i, w in enumerate(ws)}
        values = {**alone, **{f"together{i}": c for i, (c,) in enumerate(together or ())}}
        return {"seen": build.tensor(build.facts.image)} | {k: v for k, v in values.items() if isinstance(v, Value)}

    generator = np.random.default_rng(0)
    image = generator.normal(size=cases.image_shape(proto, 2)).astype(np.float32)
    results = emitted(proto, both, {"g": generator.normal(size=shape).astype(np.float32)}, image, how)
    for i in range(2 if "together0" in results else 0):
        np.testing.assert_allclose(results[f"together{i}"], results[f"alone{i}"], rtol=1e-5, atol=1e-5)


FORMS = {"by phases": (1, 0), "side by side": (10**9, 0), "transposed": (1, 10**9)}  # MANY and WORK


def test_many_phases_are_not_taken_apart() -> None:
    """A patch embedding would be hundreds of nodes."""
    text = "net (float[N, 3, 32, 32] image) => (float[N, 8, 2, 2] y) { y = Conv<strides = [16, 16]>(image, w) }"
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
    proto.graph.initializer.append(numpy_helper.from_array(np.ones((8, 3, 16, 16), np.float32), "w"))
    build, (layer,) = layers_of(proto)
    assert isinstance(layer, Linear)
    build.output(next(c for c in layer.transpose(layer.z, layer.w) if isinstance(c, Value)), "c")
    assert [node.op for node in build.finish(["c"])[0].nodes if node.op != "Identity"] == ["ConvTranspose"]


def choose(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all strided adjoints have the form that some have for their size."""
    for name, value in zip(("MANY", "WORK"), FORMS[form], strict=True):
        monkeypatch.setattr(convolution, name, value)


@pytest.mark.parametrize("how", ["folded", "nodes"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_every_form_of_an_adjoint_is_the_adjoint(
    name: str, form: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(form, monkeypatch)
    assert gap(name, how, plain) < TOLERANCE


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", STRIDED)
def test_the_sum_of_strided_adjoints(name: str, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of several s and w, summed before phases are put together."""
    choose(form, monkeypatch)
    proto = cases.case(name)
    build, found = layers_of(proto)
    shape = [2 if isinstance(d, str) else d for d in build.facts.shape(found[-1].output)]

    def both(build: Builder, layer: Layer) -> dict[str, Value]:
        assert isinstance(layer, Linear) and isinstance(layer.w, Value) and layer.transpose_sum
        pairs = [(Value("g", TensorProto.FLOAT), layer.w), (Value("h", TensorProto.FLOAT), build.op("Neg", layer.w))]
        together, alone = layer.transpose_sum(pairs), [layer.transpose(s, w)[0] for s, w in pairs]
        values = {"together": together[0], "alone": build.add(*alone)}
        return {"seen": build.tensor(build.facts.image)} | {k: v for k, v in values.items() if isinstance(v, Value)}

    generator = np.random.default_rng(0)
    image = generator.normal(size=cases.image_shape(proto, 2)).astype(np.float32)
    results = emitted(proto, both, {v: generator.normal(size=shape).astype(np.float32) for v in "gh"}, image)
    assert np.abs(results["alone"]).max() > 0.1
    np.testing.assert_allclose(results["together"], results["alone"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("form", "name", "expected"),
    [
        *(("by phases", name, {"Conv"}) for name in ("conv_1d_stride", "conv_1x1_stride", "conv_stride_exact")),
        *(("side by side", name, {"Conv"}) for name in ("conv_1d_stride", "conv_stride_exact")),
        ("side by side", "conv_1x1_stride", {"ConvTranspose"}),  # most of its phases read nothing
        *(("transposed", name, {"ConvTranspose"}) for name in ("conv_1d_stride", "conv_pads_asymmetric_stride")),
    ],
)
def test_the_form_of_a_strided_adjoint(
    form: str, name: str, expected: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(form, monkeypatch)
    build, (layer,) = layers_of(cases.case(name))
    assert isinstance(layer, Linear)
    build.output(next(c for c in layer.transpose(layer.z, layer.w) if isinstance(c, Value)), "c")
    found = [node.op for node in build.finish(["c"])[0].nodes if node.op.startswith("Conv")]
    assert set(found) == expected
    assert len(found) == 1 or form == "by phases"


@pytest.mark.parametrize(
    ("name", "strides"),
    [
        ("conv_wide", [2, 2]),  # 3 channels of 4 neighbours
        ("conv_wide_single_channel", [4, 2]),
        ("conv_padded", [1, 1]),  # too little to compute
        ("conv_1x1", [1, 1]),  # no windows overlap
    ],
)
def test_neighbours_are_channels_where_those_are_few(name: str, strides: list[int]) -> None:
    build, (layer,) = layers_of(cases.case(name))
    assert isinstance(layer, Linear)
    build.output(next(c for c in layer.transpose(layer.z, layer.w) if isinstance(c, Value)), "c")
    (found,) = [node for node in build.finish(["c"])[0].nodes if node.op == "Conv"]
    assert found.attrs["strides"] == strides


@pytest.mark.parametrize("how", ["folded", "nodes"])
@pytest.mark.parametrize("name", cases.names("linear"))
def test_apply_is_the_forward_map(name: str, how: str) -> None:
    """A(w) x + b is the layer's own output, merged or not."""

    def again(build: Builder, layer: Layer) -> dict[str, Value]:
        assert isinstance(layer, Linear)
        z = layer.apply(layer.x, layer.w, layer.b)
        assert isinstance(z, Value)
        return {"again": z}

    image, _, y, *_ = measured(name, "mixed")
    result = emitted(cases.case(name), again, {}, image, how)["again"]
    np.testing.assert_allclose(np.broadcast_to(result, y.shape), y, rtol=0, atol=TOLERANCE * np.abs(y).max())


MERGED = {
    "conv_bn": ["Conv+BatchNormalization"],
    "conv_bn_groups": ["Conv+BatchNormalization"],
    "conv_bn_mul_add": ["Conv+BatchNormalization+Mul+Add"],
    "gemm_bn": ["Gemm+BatchNormalization"],
    "bn_gemm": ["BatchNormalization+Gemm"],
    "bn_conv": ["BatchNormalization+Conv"],
    "bn_conv_padded": ["BatchNormalization", "Conv"],
    "batchnormalization_twice": ["BatchNormalization+BatchNormalization"],
    "conv_mul_add": ["Conv+Mul+Add"],
    "conv_mul_scalar_add_scalar": ["Conv+Mul+Add"],
    "conv_sub_mul_add": ["Conv+Sub+Mul+Add"],
    "conv_reversed_sub": ["Conv+Sub"],
    "conv_div": ["Conv+Div"],
    "matmul_add": ["MatMul+Add"],
    "matmul_3d_add": ["MatMul+Add"],
    "matmul_add_mul_add": ["MatMul+Add+Mul+Add"],
    "mul_add_conv": ["Mul+Add+Conv"],
    "mul_scalar_conv_padded": ["Mul+Conv"],
    "sub_scalar_conv": ["Sub+Conv"],
}


@pytest.mark.parametrize("name", MERGED)
def test_what_acts_as_one_layer(name: str) -> None:
    """Diagonal layers join the linear one beside them where that is exact, and only there."""
    _, found = layers_of(cases.case(name))
    assert ["+".join(layer.op_types) for layer in found] == MERGED[name]


def broken(build_and_layers: tuple[Builder, list[Layer]]) -> tuple[Builder, list[Layer]]:
    """The same with every linear layer's transpose wrong by 0.1 %."""
    build, layers = build_and_layers

    def wrong(layer: Linear) -> Linear:
        def off(adjoint: Inputs) -> Inputs:
            return tuple(build.scale(1.001, c) for c in adjoint)

        def together(s: Value, ws: Sequence[Symbol]) -> Sequence[Inputs] | None:
            found = layer.transposes(s, ws) if layer.transposes else None
            return found and [off(adjoint) for adjoint in found]

        def summed(pairs: Sequence[tuple[Value, Value]]) -> Inputs:
            assert layer.transpose_sum is not None
            return off(layer.transpose_sum(pairs))

        return dataclasses.replace(
            layer, transpose=lambda s, w: off(layer.transpose(s, w)), transposes=together,
            transpose_sum=summed if layer.transpose_sum else None,
        )  # fmt: skip

    return build, [wrong(layer) if isinstance(layer, Linear) else layer for layer in layers]


@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_a_wrong_transpose_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of 0.1 % fails both the adjoint test and the comparison with the restatement."""
    right = layers_of
    monkeypatch.setattr(emitting, "layers_of", lambda *given, **named: broken(right(*given, **named)))
    assert gap(name, "folded", plain) > TOLERANCE
    rules: dict[str, dict[str, Any]] = {r: {"epsilon": EPSILON} for r in ("epsilon", "zplus", "gamma", "flat", "zbox")}
    for rule, settings in rules.items():
        if rule == "zbox" and name == "averagepool_padded":
            continue
        stab = Stabilizer(EPSILON)
        seed = sound_seed(name, "mixed", (rule, stab, "keep"))
        result = relevance(
            cases.case(name), make(rule, **settings), measured(name, "mixed", seed)[0], drawn(name, "mixed", seed)
        )
        assert compared(result, restated(name, "mixed", rule, seed, stab)) > 1, rule

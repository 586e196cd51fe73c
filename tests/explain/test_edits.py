"""What may happen to relevance on its way: only the largest values go on, or only chosen channels (CRP)."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest

import onnxlrp

from .conftest import Subject
from .networks import CLOSE, distance, explain
from .restated import Rule

Rules = dict[str, Rule]
WEIGHTED = {"plain": ("z1", "z2", "z3", "logits"), "residual": ("z0", "z1", "z2", "z3", "z4", "z5", "logits")}


def largest(k: float):  # type: ignore[no-untyped-def]
    """The largest fraction k of each sample's values; zero elsewhere."""

    def edit(r: np.ndarray) -> np.ndarray:
        flat = r.reshape(len(r), -1)
        count = max(1, math.floor(k * flat.shape[1]))
        least = np.sort(flat, axis=1)[:, -count][:, None]
        return np.where(flat >= least, flat, 0.0).reshape(r.shape)

    return edit


@pytest.mark.parametrize("k", [0.05, 0.3, 0.75, 1.0])
def test_keep(plain: Subject, default_rules: Rules, k: float) -> None:
    """At every weighted layer and for each sample by itself."""
    edits = {t: largest(k) for t in WEIGHTED["plain"]}
    found = explain(plain.proto, plain.x, plain.targets, keep=k, start="one-hot")
    expected = plain.restated.relevance(plain.x, plain.hot, default_rules, edits)
    assert expected["image"].any(axis=(1, 2, 3)).all()
    assert distance(found["relevance"], expected["image"]) < CLOSE


def test_keep_in_a_residual_network(residual: Subject, residual_rules: Rules) -> None:
    """The fraction is of what arrives at a layer by all paths."""
    edits = {t: largest(0.5) for t in WEIGHTED["residual"]}
    found = explain(residual.proto, residual.x, residual.targets, keep=0.5, start="one-hot")
    expected = residual.restated.relevance(residual.x, residual.hot, residual_rules, edits)
    assert distance(found["relevance"], expected["image"]) < CLOSE


def test_keep_leaves_at_most_its_fraction(plain: Subject) -> None:
    """What goes on from a layer is zero but for the largest."""
    found = explain(plain.proto, plain.x, plain.targets, keep=0.1, taps=["conv2", "pool"], start="one-hot")
    assert found["relevance/p1"].any()
    nonzero = np.count_nonzero(found["relevance/z2"].reshape(3, -1), axis=1)
    assert np.all(nonzero <= math.floor(0.1 * 45))


def test_keep_explains_a_negative_logit(plain: Subject) -> None:
    """A class that the model speaks against has a map too."""
    found = explain(plain.proto, plain.x, plain.targets, keep=0.9)
    assert (found["logits"][range(3), plain.targets] < 0).any()
    assert found["relevance"].any(axis=(1, 2, 3)).all()


def test_keep_all_changes_nothing(plain: Subject) -> None:
    """k = 1."""
    kept, whole = (explain(plain.proto, plain.x, plain.targets, **o)["relevance"] for o in ({"keep": 1.0}, {}))
    assert np.array_equal(kept, whole)


def masked(chosen: list[int], count: int):  # type: ignore[no-untyped-def]
    """R at the chosen channels, zero elsewhere."""
    return lambda r: r * np.isin(np.arange(count), chosen).reshape(1, -1, *[1] * (r.ndim - 2))


CONDITIONS = [
    {"conv2": [1, 3]},
    {"dense1": [0, 5, 9]},
    {"conv2": [0], "dense1": [2, 3, 4]},
    {"pool": [2]},
]
SIZES = {"conv2": ("z2", 5), "dense1": ("z3", 16), "pool": ("p1", 4)}


@pytest.mark.parametrize("condition", CONDITIONS, ids=str)
def test_condition(plain: Subject, default_rules: Rules, condition: dict[str, list[int]]) -> None:
    """Relevance passes only the chosen channels of a layer (Achtibat et al. 2023)."""
    edits = {SIZES[layer][0]: masked(chosen, SIZES[layer][1]) for layer, chosen in condition.items()}
    expected = plain.restated.relevance(plain.x, plain.start, default_rules, edits)["image"]
    assert distance(explain(plain.proto, plain.x, plain.targets, conditions=condition)["relevance"], expected) < CLOSE


@pytest.mark.parametrize("condition", CONDITIONS, ids=str)
def test_the_mask_as_an_input_agrees(plain: Subject, condition: dict[str, list[int]]) -> None:
    """`condition/<layer>` [N, C] at run time does what channels fixed in the graph do."""
    fixed = explain(plain.proto, plain.x, plain.targets, conditions=condition)["relevance"]
    masks = {
        f"condition/{layer}": np.tile(np.isin(np.arange(SIZES[layer][1]), chosen), (3, 1)).astype(np.float32)
        for layer, chosen in condition.items()
    }
    fed = explain(plain.proto, plain.x, plain.targets, conditions=dict.fromkeys(condition, "input"), **masks)
    assert np.allclose(fed["relevance"], fixed, rtol=1e-5, atol=1e-9)


def test_each_sample_has_its_own_mask(plain: Subject) -> None:
    """And a mask of ones is no mask."""
    mask = np.ones([3, 5], np.float32)
    mask[1] = [0, 1, 0, 0, 0]
    found = explain(plain.proto, plain.x, plain.targets, conditions={"conv2": "input"}, **{"condition/conv2": mask})
    whole = explain(plain.proto, plain.x, plain.targets)["relevance"]
    alone = explain(plain.proto, plain.x, plain.targets, conditions={"conv2": [1]})["relevance"]
    for i, expected in enumerate((whole, alone, whole)):
        assert np.allclose(found["relevance"][i], expected[i], rtol=1e-5, atol=1e-9)


def test_channels_add_up(plain: Subject) -> None:
    """The maps of all channels of a layer, one by one, sum to the map without a condition."""
    whole = explain(plain.proto, plain.x, plain.targets)["relevance"]
    parts = [explain(plain.proto, plain.x, plain.targets, conditions={"conv2": [c]})["relevance"] for c in range(5)]
    assert distance(np.sum(parts, axis=0), whole.astype(np.float64)) < 1e-5


def test_the_mask_is_an_input_of_the_contract(plain: Subject) -> None:
    """Named, shaped and typed as the contract says."""
    model = onnxlrp.convert(plain.proto, conditions={"conv2": "input"}).model
    value = next(i for i in model.graph.input if i.name == "condition/conv2")
    assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    dims = value.type.tensor_type.shape.dim
    assert (dims[0].dim_param, dims[1].dim_value) == ("N", 5)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"keep": 0.0}, "not a fraction above 0"),
        ({"keep": 1.5}, "not a fraction above 0"),
        ({"conditions": {"conv9": [1]}}, "matches no layer"),
        ({"conditions": {"conv2": [5]}}, "choose 0 to 4"),
        ({"conditions": {"conv2": [-1]}}, "choose 0 to 4"),
    ],
    ids=str,
)
def test_mistakes(plain: Subject, options: dict[str, object], sentence: str) -> None:
    """A sentence with what would be right."""
    with pytest.raises(onnxlrp.OnnxLrpError, match=f"(?i){sentence}"):
        onnxlrp.convert(plain.proto, **options)

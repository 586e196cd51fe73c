"""Sheets of layers and channels: nothing is lost, shares are right, and every shape has a form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxlrp import heatmap
from onnxlrp.errors import OnnxLrpError
from onnxlrp.run.explaining import Case
from onnxlrp.run.layers import draw_channels, draw_layers, layers_of, most_relevant_channels
from onnxlrp.run.sheet import TILE, UNUSED

HEADING = heatmap.Heading("cat", 0.9, "a line")


def case(**taps: Any) -> Case:
    relevance = np.random.default_rng(0).normal(size=(1, 8, 8))
    shown, scores = np.zeros((8, 8, 3), np.uint8), np.array([1.0, 2.0])
    return Case(Path("a.png"), shown, 1, scores, scores / 3, relevance, {n: np.asarray(v) for n, v in taps.items()})


def test_layers_that_hand_relevance_on_are_one() -> None:
    values = np.random.default_rng(1).normal(size=(3, 4, 4))
    pooled = values.sum((1, 2))
    given = {
        "/layer1/layer1.0/conv1/Conv_output_0": values, "/layer1/layer1.0/relu/Relu_output_0": values,
        "other:0": 2 * values, "/pool/Pool": pooled.reshape(3, 1, 1), "flat": pooled, "again": values,
    }  # fmt: skip
    layers = layers_of(case(**given))
    titles = [layer.title for layer in layers]
    assert titles == ["/layer1.0/conv1/Conv + Relu", "other", "/pool/Pool + flat", "again"]
    assert layers[2].values.shape == (3,)


@pytest.mark.parametrize("last", [False, True])
def test_the_most_relevant_channels_and_their_shares(last: bool) -> None:
    values = np.zeros((3, 2, 2) if not last else (2, 2, 3))
    channels = np.moveaxis(values, -1, 0) if last else values
    channels[0], channels[1], channels[2] = 0.25, -1.5, 0.75
    (layer,) = layers_of(case(layer=values))
    assert layer.most_relevant(2) == [(1, -0.6), (2, 0.3)]
    assert layer.most_relevant(9) == [(1, -0.6), (2, 0.3), (0, 0.1)]
    assert most_relevant_channels(case(layer=values), 1) == {"layer": [{"channel": 1, "share": -0.6}]}


def test_channels_without_relevance_are_left_out() -> None:
    (silent,) = layers_of(case(layer=np.zeros((3, 2, 2))))
    assert silent.most_relevant(2) == []
    (vector,) = layers_of(case(layer=[0.0, -3.0, 1.0]))
    assert vector.most_relevant(5) == [(1, -0.75), (2, 0.25)]
    (tokens,) = layers_of(case(layer=np.ones((4, 6))))
    assert tokens.channels is None


def test_sheets_have_a_tile_for_everything() -> None:
    random = np.random.default_rng(2)
    few = case(one=random.normal(size=(3, 4, 4)), bars=random.normal(size=5))
    many = case(
        one=random.normal(size=(3, 4, 4)), wide=random.normal(size=(2, 3, 300)), bars=random.normal(size=5),
        grid=random.normal(size=700), tokens=random.normal(size=(9, 5)), zero=np.zeros((2, 2, 2)), single=[1.0],
        scalar_map=random.normal(size=(1, 4, 4)),
    )  # fmt: skip
    small, large = draw_layers(few, "NCHW", HEADING), draw_layers(many, "NCHW", HEADING)
    assert small.width == large.width
    assert large.height > small.height + TILE
    three, five = draw_channels(many, HEADING, 3), draw_channels(many, HEADING, 1)
    assert three.width > five.width
    with pytest.raises(OnnxLrpError, match="no tapped layer has channels"):
        draw_channels(case(bars=[1.0, 2.0]), HEADING, 3)


def test_the_channels_of_a_layer_share_one_scale() -> None:
    tiles = [heatmap.Tile("a", np.full((4, 4), 2.0)), heatmap.Tile("b", np.full((4, 4), 1.0))]
    page = np.asarray(heatmap.channel_sheet([heatmap.Row("layer", "", tiles[0], tiles)], cmap="gray", percentile=100))
    assert (page == 255).all(axis=2).any()
    greys = {int(v) for v, count in zip(*np.unique(page[..., 0], return_counts=True), strict=True) if count > 10000}
    assert greys == {255, 128}


@pytest.mark.parametrize(("layers", "channels"), [(1, 1), (9, 1), (30, 1), (30, 5), (30, 20), (7, 3)])
def test_a_sheet_of_many_layers_has_columns(layers: int, channels: int, words: list[str]) -> None:
    """And is no strip that nobody can look at as a whole; nor is a layer left out."""
    tile = heatmap.Tile("channel 0", np.ones((4, 4)))
    rows = [heatmap.Row(f"layer {i}", "64 × 56 × 56", tile, [tile] * channels) for i in range(layers)]
    page = heatmap.channel_sheet(rows, HEADING)
    assert page.height < 1.6 * page.width
    assert page.width < 1.6 * page.height or layers < 4 or channels > 9
    assert [w for w in words if w.startswith("layer")] == [row.title for row in rows]
    assert not any(w.startswith("…") for w in words)


def test_the_scores_are_left_out_where_all_relevance_is_one_class_s(words: list[str]) -> None:
    """A thousand squares with one dot say less than the heading, which names the class."""
    draw_layers(case(logits=[0.0, 2.0], pool=[1.0, 0.0, 0.0], map=np.ones((2, 1, 2))), "NCHW", HEADING)
    assert [w for w in words if w in ("logits", "pool", "map")] == ["pool", "map"]
    assert "2 × 1 × 2    sum +4.00" in words
    draw_layers(case(logits=[-1.0, 2.0]), "NCHW", HEADING)
    assert "logits" in words


def test_squares_that_stand_for_nothing_are_grey() -> None:
    page = np.asarray(heatmap.contact_sheet([heatmap.Tile("grid", np.ones(90))]))  # 9 rows of 10
    assert not (page == UNUSED).all(axis=2).any()
    page = np.asarray(heatmap.contact_sheet([heatmap.Tile("grid", np.ones(85))]))
    assert (page == UNUSED).all(axis=2).sum() == pytest.approx(5 * (TILE / 10) ** 2, rel=0.15)


def test_bars_go_up_and_down_from_one_line() -> None:
    page = np.asarray(heatmap.contact_sheet([heatmap.Tile("bars", [3.0, -1.0])])).astype(int)
    warm, cold = page[..., 0] - page[..., 2] > 60, page[..., 2] - page[..., 0] > 60
    rows_up, rows_down = np.flatnonzero(warm.any(1)), np.flatnonzero(cold.any(1))
    assert len(rows_up) == pytest.approx(3 * len(rows_down), rel=0.1)
    assert rows_up.max() == pytest.approx(rows_down.min(), abs=1)

"""Colours must not lie: zero is neutral, a sign is a hue, both signs share one scale."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from PIL import Image

from onnxlrp import heatmap, look
from onnxlrp.errors import OnnxLrpError
from onnxlrp.run.drawing import (
    BETWEEN,
    LEADING,
    _lines,
    font,
    has_letters,
    heading_height,
    lettered,
    percent,
    printed,
    shortened,
    text_width,
)
from onnxlrp.run.region import strongest_region

NEUTRAL = {"bwr": 255, "seismic": 255, "coldnhot": 0, "hot": 0, "gray": 0}


@pytest.mark.parametrize("cmap", heatmap.CMAPS)
def test_zero_is_the_neutral_colour(cmap: str) -> None:
    assert heatmap.colour(0.0, cmap).tolist() == [NEUTRAL[cmap]] * 3
    picture = np.asarray(heatmap.heatmap(np.array([[0.0, 3.0], [-1.0, 0.0]]), cmap))
    assert picture[0, 0].tolist() == picture[1, 1].tolist() == [NEUTRAL[cmap]] * 3


@pytest.mark.parametrize("cmap", ["bwr", "seismic", "coldnhot"])
@pytest.mark.parametrize("strength", [0.1, 0.3, 0.5])
def test_positive_is_warm_and_negative_cold(cmap: str, strength: float) -> None:
    warm, cold = heatmap.colour([strength, -strength], cmap).astype(int)
    assert warm[0] > warm[2]
    assert cold[2] > cold[0]


@pytest.mark.parametrize("cmap", ["hot", "gray"])
def test_sequential_maps_leave_negatives_at_zero(cmap: str) -> None:
    assert heatmap.colour(-0.7, cmap).tolist() == heatmap.colour(0.0, cmap).tolist()
    assert not look.is_diverging(cmap)


@pytest.mark.parametrize(
    ("cmap", "values", "caption", "lowest"),
    [
        ("hot", [[1.0, -2.0]], "Relevance, negative not shown", "≤ 0"),
        ("gray", [[-1.0, -2.0]], "Relevance, negative not shown", "≤ 0"),
        ("hot", [[1.0, 2.0]], "Relevance", "0"),
        ("bwr", [[1.0, -2.0]], "Relevance", "−2.0"),
        ("bwr", [[1.7e-4, 0.0]], "Relevance", "−1.7e−4"),
    ],
)
def test_a_panel_says_where_negative_relevance_is_not_shown(
    cmap: str, values: list[list[float]], caption: str, lowest: str, words: list[str]
) -> None:
    heatmap.panel(np.zeros((1, 2, 3), np.uint8), values, heatmap.Heading("cat"), cmap)
    assert [w for w in words if w.startswith("Relevance")] == [caption]
    assert words[-1] == lowest
    assert all(map(has_letters, words))


def test_tables_cannot_be_changed_and_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="read-only"):
        look.table("bwr")[0] = 0
    with pytest.raises(OnnxLrpError, match="Choose one of bwr"):
        look.table("jet")


def test_both_signs_share_one_scale() -> None:
    scaled = heatmap.normalise(np.array([[4.0, -2.0, 0.0]]), percentile=100)
    assert scaled.values.tolist() == [[1.0, -0.5, 0.0]]
    assert scaled.limit == 4.0


def test_a_spike_does_not_pale_the_rest() -> None:
    values = np.full((100, 100), 1.0)
    values[0, 0] = 1000.0
    assert heatmap.normalise(values).limit == pytest.approx(1.0)
    assert heatmap.normalise(values, percentile=100).limit == 1000.0


def test_a_single_pixel_is_seen_and_no_relevance_is_neutral() -> None:
    values = np.zeros((100, 100))
    assert np.all(np.asarray(heatmap.heatmap(values)) == 255)
    values[3, 4] = -1e-12
    assert heatmap.normalise(values).values[3, 4] == -1.0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(OnnxLrpError, match="1 of 4"):
        heatmap.normalise(np.array([[1.0, bad], [0.0, 0.0]]))


def test_maps_from_relevance_keep_the_sum() -> None:
    values = np.arange(24.0).reshape(2, 3, 4)
    assert heatmap.as_map(values).shape == (3, 4)
    assert heatmap.as_map(values, "NHWC").shape == (2, 3)
    assert heatmap.as_map(np.arange(10.0)).shape == (3, 4)
    assert heatmap.as_map(np.arange(10.0)).sum() == 45.0
    assert heatmap.as_map(np.float32(3)).tolist() == [[3.0]]


def test_overlay_leaves_the_grey_picture_where_there_is_no_relevance() -> None:
    shown = np.random.default_rng(0).integers(0, 255, (50, 50, 3), np.uint8)
    values = np.zeros((50, 50))
    values[5, 5] = 1.0
    picture = np.asarray(heatmap.overlay(shown, values)).astype(int)
    grey = np.asarray(Image.fromarray(shown).convert("L"))
    assert np.all(picture[30:] == grey[30:, :, None])
    assert picture[5, 5, 0] > picture[5, 5, 2] + 50  # red
    with pytest.raises(OnnxLrpError, match=r"\[50, 50\].*\[2, 2\]"):
        heatmap.overlay(shown, np.ones((2, 2)))


@pytest.mark.parametrize(("height", "width"), [(8, 8), (96, 96), (224, 224), (50, 400), (900, 300)])
def test_panels_show_small_inputs_large_and_large_ones_whole(height: int, width: int) -> None:
    shown = np.full((height, width, 3), 90, np.uint8)
    page = heatmap.panel(shown, np.ones((height, width)), heatmap.Heading("cat", 0.5, "a line"))
    tile = max(min(640, max(height, width)), 320)
    assert page.mode == "RGB"
    assert page.getpixel((0, 0)) == (255, 255, 255)
    assert page.height >= tile * height // max(height, width)
    assert 3 * tile * width // max(height, width) < page.width < 3 * max(tile, 640) + 400


def test_a_panel_keeps_each_value_one_square() -> None:
    values = np.zeros((8, 8))
    values[0, 0], values[7, 7] = 1.0, -1.0
    page = np.asarray(heatmap.panel(np.zeros((8, 8, 3), np.uint8), values, heatmap.Heading("cat")))
    strongest = look.table("bwr")[-1]
    hits = np.all(page == strongest, axis=2)
    rows, columns = np.nonzero(hits[:, : page.shape[1] // 2 + 60])
    assert len(rows) == 40 * 40 == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)


def test_a_narrow_panel_leaves_room_for_its_captions() -> None:
    shown, words = np.zeros((200, 24, 3), np.uint8), font(16)
    page = heatmap.panel(shown, np.ones((200, 24)), heatmap.Heading("cat"))
    assert page.width > 3 * text_width("Relevance", words)
    alone = heatmap.panel(shown, np.ones((200, 24)), heatmap.Heading("cat", subtitle=BETWEEN.join(["a line"] * 20)))
    assert (alone.width, alone.height > page.height + 2 * LEADING) == (page.width, True)


def test_a_long_line_is_broken_between_its_parts_then_between_words() -> None:
    parts = ["photo.png", "class 3, rank 1 of 4", "epsilon_plus_flat", "the most relevant channels of each layer"]
    subtitle = BETWEEN.join(parts)
    for width in (2000, 600, 300, 170):
        lines = _lines(subtitle, width)
        assert all(text_width(line, font(16)) <= width for line in lines)
        assert " ".join(lines).replace(" · ", " ").split() == " ".join(parts).split()
        assert heading_height(heatmap.Heading("cat", subtitle=subtitle), width) == 62 + len(lines) * LEADING
    assert [len(_lines(subtitle, width)) for width in (2000, 600)] == [1, 2]
    assert _lines("", 100) == []
    assert _lines("a" * 99, 100)[0].endswith("…")


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        ("Löwe, né à Åre", "Löwe, né à Åre"),
        ("Lo\u0308we", "Löwe"),  # as macOS spells the names of files
        ("žába, ğ ș ő ł ß", "žába, ğ ș ő ł ß"),
        ("3 × 4 − 1 – 5 ≤ 6", "3 × 4 − 1 – 5 ≤ 6"),
        ("mèo trắng", "mèo trang"),
        ("脑部 a", "?? a"),
        ("\x1b[31m\n", "?[31m?"),
        ("plain · …", "plain · …"),
    ],
)
def test_texts_in_the_letters_of_the_font(text: str, drawn: str) -> None:
    assert lettered(text) == drawn
    assert shortened(text, font(14), 500) == drawn
    assert has_letters(text) == (drawn == unicodedata.normalize("NFC", text))


@pytest.mark.parametrize(
    ("number", "signs"),
    [
        ("-1.7e-04", "−1.7e−4"),
        ("+1.70e+05", "+1.70e5"),
        ("1.0e-10", "1.0e−10"),
        ("1.0e+00", "1.0e0"),
        ("-0.12", "−0.12"),
        ("+4.30", "+4.30"),
    ],
)
def test_numbers_in_the_signs_of_print(number: str, signs: str) -> None:
    assert printed(number) == signs


def test_contact_sheet_holds_every_map() -> None:
    maps = [(f"layer {i}", np.full((4, 4), float(i + 1))) for i in range(5)]
    sheet, larger = heatmap.contact_sheet(maps), heatmap.contact_sheet(maps * 4, heatmap.Heading("cat", 0.1))
    assert larger.height > sheet.height
    with pytest.raises(OnnxLrpError, match="--tap"):
        heatmap.contact_sheet([])


def test_percent_never_rounds_to_certainty() -> None:
    assert [percent(p) for p in (0.0, 0.0004, 0.5, 0.9996, 1.0)] == [
        "0.0 %",
        "< 0.1 %",
        "50.0 %",
        "> 99.9 %",
        "100.0 %",
    ]


def test_the_strongest_region_is_boxed_and_others_left_out() -> None:
    values = np.zeros((60, 60))
    values[10:15, 20:30] = 2.0
    values[40:45, 40:45] = 1.9
    values[0:5, 0:5] = -9.0
    box = strongest_region(values)
    assert box is not None
    assert (box.left, box.top, box.right, box.bottom) == pytest.approx((20, 10, 29, 14), abs=1)
    assert strongest_region(-np.abs(values)) is None

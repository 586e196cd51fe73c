"""A picture becomes the input the model states; what does not fit is refused with both numbers."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from onnxlrp import contract
from onnxlrp.contract import Preprocessing
from onnxlrp.errors import OnnxLrpError
from onnxlrp.explain import choose
from onnxlrp.run.images import Picture
from onnxlrp.run.preparing import fit, layout_of

COLOUR = Picture(Path("x"), np.dstack([np.full((4, 4), v, np.float32) for v in (255, 51, 0)]))
GREY = Picture(Path("x"), np.full((4, 4), 102, np.float32))


def test_scale_mean_std_and_colour_order() -> None:
    way = Preprocessing(size=(2, 2), mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0), color_order="BGR")
    values = fit((None, 3, 2, 2), way)(COLOUR).values
    assert values.shape == (3, 2, 2)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values[:, 0, 0], [(0 - 0.1) / 0.5, 0.2 - 0.2, (1 - 0.3) / 2], atol=1e-6)


def test_layout_nhwc() -> None:
    values = fit((1, 5, 7, 3), Preprocessing(size=(5, 7), layout="NHWC"))(COLOUR).values
    assert values.shape == (5, 7, 3)
    np.testing.assert_allclose(values[0, 0], [1.0, 0.2, 0.0], atol=1e-6)


def test_grey_models_take_luminance_and_colour_models_repeat_grey() -> None:
    grey = fit((None, 1, 4, 4), Preprocessing(color_order="L"))(COLOUR).values
    np.testing.assert_allclose(grey, (0.299 * 255 + 0.587 * 51) / 255, rtol=1e-5)
    colour = fit((None, 3, 4, 4), Preprocessing())(GREY).values
    np.testing.assert_allclose(colour, 0.4, rtol=1e-6)
    assert colour.shape == (3, 4, 4)


def test_what_is_shown_is_the_picture_at_the_models_size() -> None:
    prepared = fit((None, 1, 2, 6), None)(COLOUR)
    assert prepared.shown.shape == (2, 6, 3)
    assert prepared.shown[0, 0].tolist() == [255, 51, 0]


def test_the_guess_takes_size_and_layout_from_the_shape() -> None:
    fitted = fit((1, 6, 5, 3), None)
    assert fitted.preprocessing.layout == "NHWC"
    assert fitted.preprocessing.size == (6, 5)
    np.testing.assert_allclose(fitted(COLOUR).values[0, 0], [1.0, 0.2, 0.0], atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((None, 3, 224, 224), "NCHW"), ((None, 4, 224, 224), "NCHW"), ((8, 1, None, None), "NCHW"),
        ((None, 224, 224, 3), "NHWC"), ((None, 9, 9, 4), "NHWC"), ((None, "H", "W", 1), "NHWC"),
        ((None, 3, 9, 3), None), ((None, 4, 9, 1), None), ((None, 8, 8, 8), None), ((None, None, None, None), None),
        ((None, 9, 3), "NHWC"), ((None, 1, 9, 9, 9), "NCHW"), ((None, 3), None), ((), None),
    ],
)  # fmt: skip
def test_the_layout_that_a_shape_gives_away(shape: tuple[int | str | None, ...], layout: str | None) -> None:
    assert contract.told_layout(shape) == layout
    if layout and len(shape) == 4:
        assert layout_of(shape) == layout  # type: ignore[arg-type]
        assert choose.channel_axis(shape, None) == (1 if layout == "NCHW" else 3)  # type: ignore[arg-type]


def test_a_preset_keeps_the_models_size_and_layout() -> None:
    stated = Preprocessing(size=(6, 5), layout="NHWC")
    fitted = fit((None, None, None, 3), stated, "imagenet")
    assert (fitted.preprocessing.size, fitted.preprocessing.layout) == ((6, 5), "NHWC")
    assert fitted.preprocessing.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize(
    ("stated", "override", "doubt"),
    [
        (None, None, "which is a guess. Say it with --preprocess imagenet|"),
        (None, "unit", ""),
        (Preprocessing(), None, ""),
        (Preprocessing(mean=(0.0, 0.0, 0.0)), "unit", ""),
        (Preprocessing(size=(6, 5), layout="NHWC", color_order="L"), "unit", ""),
        (Preprocessing(std=(1.0, 1.0, 0.5)), "unit", "states another pre-processing.* --preprocess unit goes before"),
        (Preprocessing(color_order="BGR"), "unit", "states another"),
        (Preprocessing(scale=1.0), "unit", "states another"),
        (Preprocessing(mean=(1.0, 2.0)), "unit", "states another"),
    ],
)
def test_what_the_model_does_not_state_is_told(stated: Preprocessing | None, override: str | None, doubt: str) -> None:
    told = fit((None, 6, 5, 3), stated and replace(stated, layout="NHWC"), override).doubt
    assert re.search(doubt, told) if doubt else told == ""


def test_free_axes_keep_the_pictures_size() -> None:
    assert fit((None, 3, None, None), None)(COLOUR).values.shape == (3, 4, 4)


@pytest.mark.parametrize(
    ("shape", "way", "numbers"),
    [
        ((None, 10), None, "2 axes.* 4"),
        ((None, 4, 8, 8), None, "4 channels.* 1 or 3"),
        ((None, 3, 8, 8), Preprocessing(size=(9, 9)), "9 x 9.* 8 x 8"),
        ((None, 3, 8, 8), Preprocessing(mean=(1.0, 2.0)), "2 values of mean.* 3 channels"),
        ((None, 8, 8, 3), Preprocessing(size=(8, 8)), "NCHW.*--layout NHWC"),
        ((None, 3, 8, None), None, "only one side"),
    ],
)
def test_what_does_not_fit_is_refused(shape: tuple[int | None, ...], way: Preprocessing | None, numbers: str) -> None:
    with pytest.raises(OnnxLrpError, match=numbers):
        fit(shape, way)


def test_a_grey_model_refuses_a_colour_preset() -> None:
    with pytest.raises(OnnxLrpError, match="3 values of mean for an input with 1 channel"):
        fit((None, 1, 8, 8), None, "imagenet")

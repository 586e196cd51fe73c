"""The options of `convert` as callers of Python write them: many forms are one, and no wrong one passes in silence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxlrp
from onnxlrp import contract
from onnxlrp.explain.composite_file import write
from onnxlrp.explain.options import FORMS, Keywords, Options
from onnxlrp.explain.presets import named

from .networks import PLAIN, network


def test_the_lists_of_options_are_one() -> None:
    """What callers may write, what the pipeline reads, and how one becomes the other."""
    assert list(Keywords.__annotations__) == [f.name for f in fields(Options)] == list(FORMS)
    said = onnxlrp.convert.__doc__ or ""
    assert all(f"    {name} " in said or f"; {name}: " in said for name in FORMS)


def test_the_defaults_have_their_forms() -> None:
    """None is no default, and none is refused."""
    assert Options() == Options.of()
    for option in fields(Options):
        value = getattr(Options(), option.name)
        assert value is None or FORMS[option.name].read(value) == value


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({"taps": "all"}, ("all",)),
        ({"activations": "Relu"}, ("Relu",)),
        ({"taps": ["a", "b"]}, ("a", "b")),
        ({"target": np.int64(1)}, 1),
        ({"targets_per_input": np.int32(2)}, 2),
        ({"keep": np.float32(0.5)}, 0.5),
        ({"input_shape": np.array([2, 3, 8, 8])}, (2, 3, 8, 8)),
        ({"input_shape": (None, 3, 8, 8)}, (None, 3, 8, 8)),
        ({"preprocess": "imagenet"}, contract.PREPROCESS_PRESETS["imagenet"]),
        ({"composite": Path("c.toml")}, Path("c.toml")),
        ({"conditions": {"Conv": np.arange(2)}}, {"Conv": (0, 1)}),
        ({"conditions": {"Conv": "input"}}, {"Conv": "input"}),
        ({"labels": ("a", "b")}, ("a", "b")),
        ({"labels": None}, None),
    ],
)
def test_forms_that_are_taken(given: dict[str, Any], meant: object) -> None:
    """Numbers of numpy's, one pattern for a list of one, names of presets, paths."""
    (name,) = given
    found = getattr(Options.of(**given), name)
    assert found == meant
    assert type(found) is type(meant)


def test_a_path_is_a_composite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As its text is, and whatever it ends in; the name of a preset is the preset, though a file has it too."""
    monkeypatch.chdir(tmp_path)
    for name in ("mine.toml", "mine.txt", "seed"):
        Path(name).write_text(write(named("epsilon")), encoding="utf-8")
        assert onnxlrp.convert(network(PLAIN), composite=Path(name)).plan.composite == "epsilon"
        found = onnxlrp.convert(network(PLAIN), composite=name).plan.composite
        assert found == ("seed" if name == "seed" else "epsilon")


WRONG: list[tuple[Mapping[str, Any], str]] = [
    ({"composit": "epsilon"}, "option composit: there is no such option. Did you mean composite?"),
    ({"rules": {"Conv": 5}}, "rules={'Conv': 5}: has the wrong form. Give {pattern: rule}"),
    ({"rules": "Conv=zplus"}, "rules='Conv=zplus': has the wrong form"),
    ({"conditions": {"Conv": "inptu"}}, "{'Conv': 'inptu'}: has the wrong form. Give {pattern: channels}"),
    ({"conditions": {"Conv": 3}}, "has the wrong form"),
    ({"conditions": {"Conv": []}}, "has the wrong form"),
    ({"conditions": {"Conv": [True]}}, "has the wrong form"),
    ({"labels": "abc"}, "labels='abc': has the wrong form. Give a list of class names"),
    ({"labels": [1, 2, 3]}, "has the wrong form"),
    ({"taps": 3}, "taps=3: has the wrong form. Give a pattern or a list of them"),
    ({"taps": [3]}, "has the wrong form"),
    ({"target": True}, "target=True: has the wrong form"),
    ({"target": 1.0}, "has the wrong form"),
    ({"target": "1"}, "--target 1: is no class number"),
    ({"targets_per_input": 2.0}, "has the wrong form. Give a whole number"),
    ({"keep": "0.5"}, "keep='0.5': has the wrong form. Give a fraction"),
    ({"heatmap": "no"}, "has the wrong form. Give True or False"),
    ({"composite": None}, "has the wrong form. Give a name, a TOML file or a Composite"),
    ({"preprocess": "imagnet"}, "has the wrong form. Give a Preprocessing, or one of imagenet"),
    ({"input_shape": "N,3,8,8"}, "has the wrong form. Give a list of sizes"),
    ({"residual": 3}, "residual=3: has the wrong form. Choose among: epsilon, ratio"),
    ({"residual": "ration"}, "--residual ration: is none of the choices. Did you mean ratio?"),
    ({"start": "fed", "target": 1}, "--target 1: relevance is fed, so there is no target to choose"),
]


@pytest.mark.parametrize(("given", "words"), WRONG)
def test_forms_that_are_refused(given: dict[str, Any], words: str) -> None:
    """With the keyword, what was given, and what would be right."""
    with pytest.raises(onnxlrp.OnnxLrpError) as error:
        onnxlrp.convert(network(PLAIN), **given)
    assert words in str(error.value)


def test_every_wrong_form_is_said_at_once() -> None:
    """Not only the first; and an explainer made of a classifier refuses alike."""
    with pytest.raises(onnxlrp.OnnxLrpError) as error:
        Options(taps=3, labels="abc", max_pool="mean")  # type: ignore[arg-type]
    assert len(error.value.problems) == 3
    with pytest.raises(onnxlrp.OnnxLrpError, match="Did you mean composite"):
        onnxlrp.Explainer(network(PLAIN), "cpu", composit="epsilon")  # type: ignore[call-arg]

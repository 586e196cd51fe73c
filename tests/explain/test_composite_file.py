"""Composites as TOML: every preset written and read again, and every mistake in a file gets a sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import onnxlrp
from onnxlrp.explain.composite import Case, Composite
from onnxlrp.explain.composite_file import read, write
from onnxlrp.explain.presets import PRESETS, named
from onnxlrp.rules import catalogue

from .networks import PLAIN, RESIDUAL, explain, images, network

TEXTS = [
    *PRESETS,
    "epsilon_gamma_box(low=[-2.1179, -2.0357, -1.8044], high=[2.2489, 2.4286, 2.64])",
    "epsilon_gamma_box(low=-2.1179039301310043, high=2.64, gamma=0.123456789)",
    "epsilon(epsilon=1.23456789e-5)",
    "beta_smooth(beta=1234567.5)",
]


def saved(text: str, folder: Path) -> Path:
    """A composite file with this text."""
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def again(composite: Composite, folder: Path) -> Composite:
    """Written and read."""
    return read(saved(write(composite), folder))


@pytest.mark.parametrize("text", TEXTS)
def test_round_trip(text: str, tmp_path: Path) -> None:
    """Name, start, cases in order with their conditions and rules, to the last digit of a parameter."""
    composite = named(text)
    found = again(composite, tmp_path)
    assert (found.name, found.start, found.times_input) == (composite.name, composite.start, composite.times_input)
    assert [str(c) for c in found.cases] == [str(c) for c in composite.cases]
    for one, other in zip(found.cases, composite.cases, strict=True):
        assert type(one.rule) is type(other.rule)
        assert getattr(one.rule, "shares", None) == getattr(other.rule, "shares", None)
        assert getattr(one.rule, "stabilizer", None) == getattr(other.rule, "stabilizer", None)
        assert getattr(one.rule, "smooth", None) == getattr(other.rule, "smooth", None)


@pytest.mark.parametrize("name", ["epsilon_plus_flat", "montavon_vgg(low=-3, high=3)", "guided_backprop", "seed"])
@pytest.mark.parametrize("text", [PLAIN, RESIDUAL], ids=["plain", "residual"])
def test_a_file_does_what_its_preset_does(name: str, text: str, tmp_path: Path) -> None:
    """The same map to the bit."""
    path = saved(write(named(name)), tmp_path)
    proto = network(text)
    one, other = (explain(proto, images(), [0, 1, 2], composite=c)["relevance"] for c in (name, str(path)))
    assert np.array_equal(one, other)


def test_every_condition(tmp_path: Path) -> None:
    """The first case that matches wins, by kind, pattern, first, last, depth and identity skips."""
    path = saved(
        """
        name = "mine"
        start = "one-hot"

        [[case]]
        kind = "convolution"
        first = true
        rule = "wsquare"
        [[case]]
        last = true
        rule = "epsilon(0.01)"
        [[case]]
        pattern = "conv_*"
        rule = "alpha_beta(2, 1)"
        [[case]]
        kind = ["convolution", "dense"]
        depth = [0.0, 0.3]
        rule = "gamma(0.1)"
        [[case]]
        kind = "convolution"
        rule = "zplus"
        [[case]]
        kind = "sum"
        identity_skip = true
        rule = "main"
        [[case]]
        kind = "sum"
        rule = "ratio"
        [[case]]
        kind = ["activation"]
        rule = "pass"
        [[case]]
        rule = "norm"
        """,
        tmp_path,
    )
    conversion = onnxlrp.convert(network(RESIDUAL), composite=str(path))
    rules = {k: v.partition("(")[0] for k, v in conversion.plan.rules.items() if not k.startswith("relu")}
    assert rules == {
        "stem": "wsquare", "conv1": "gamma", "conv2": "gamma", "conv3": "zplus", "conv4": "zplus",
        "conv_skip": "alpha_beta", "identity_skip": "main", "projected_skip": "ratio", "average": "norm",
        "dense": "epsilon",
    }  # fmt: skip
    metadata = {p.key: p.value for p in conversion.model.metadata_props}
    assert (metadata["onnxlrp.composite"], metadata["onnxlrp.start"]) == ("mine", "one-hot")


def test_names_in_any_script(tmp_path: Path) -> None:
    """In ASCII, which every terminal and every editor takes."""
    given = Composite(
        "köpfe", (Case(catalogue.zplus(), pattern="脳/🧠*"), Case(catalogue.norm(), pattern='"a\\b\x7f"'))
    )
    assert write(given).isascii()
    assert again(given, tmp_path) == given


CASE = '[[case]]\nrule = "zplus"\n'
MISTAKES = {
    "not TOML": ("name = ", "is not TOML"),
    "not text": (b"\xff\xfe\x00", "is not TOML"),
    "empty": ("", r"has no \[\[case\]\]"),
    "unknown entry": ("nmae = 'x'\n" + CASE, "unknown entry 'nmae'.*did you mean name"),
    "unknown start": ("start = 'logits'\n" + CASE, "start 'logits'.*did you mean logit"),
    "unknown condition": ('[[case]]\nkinds = ["dense"]\nrule = "zplus"', "entry 'kinds'.*did you mean kind"),
    "no rule": ('[[case]]\nkind = ["dense"]', "case 1.*has no rule"),
    "unknown rule": ('[[case]]\nrule = "zpluss"', "did you mean zplus"),
    "bad parameter": ('[[case]]\nrule = "gamma(gama=1)"', "has no parameter 'gama'"),
    "rule of another type": ("[[case]]\nrule = 3", "rule"),
    "unknown kind": ('[[case]]\nkind = ["convolutional"]\nrule = "zplus"', "did you mean convolution"),
    "beginning of a kind": ('[[case]]\nkind = "conv"\nrule = "zplus"', "kind 'conv'.*did you mean convolution"),
    "depth of one": ('[[case]]\ndepth = [0.5]\nrule = "zplus"', "is a pair of fractions"),
    "depth of words": ('[[case]]\ndepth = ["a", "b"]\nrule = "zplus"', "is a pair of fractions"),
    "depth the wrong way round": ('[[case]]\ndepth = [0.5, 0.2]\nrule = "zplus"', "the lower one first"),
    "depth of nothing": ('[[case]]\ndepth = [0.5, 0.5]\nrule = "zplus"', "the lower one first"),
    "depth that is no number": ('[[case]]\ndepth = [0.0, nan]\nrule = "zplus"', "is a pair of fractions"),
    "depth without end": ('[[case]]\ndepth = [0.0, inf]\nrule = "zplus"', "is a pair of fractions"),
    "depth below the first layer": ('[[case]]\ndepth = [-1, 1]\nrule = "zplus"', "is a pair of fractions"),
    "first of text": ('[[case]]\nfirst = "yes"\nrule = "zplus"', "is true or false"),
    "last of a number": ('[[case]]\nlast = 1\nrule = "zplus"', "is true or false"),
    "case is no list": ('[case]\nrule = "zplus"', "case"),
    "cases are words": ('case = ["zplus"]', "case"),
    "kind is a number": ('[[case]]\nkind = 3\nrule = "zplus"', "kind"),
    "pattern is a number": ('[[case]]\npattern = 3\nrule = "zplus"', "pattern"),
    "times_input is text": ('times_input = "no"\n' + CASE, "times_input"),
    "start is a number": ("start = 3\n" + CASE, "start"),
    "start is a list": ("start = ['logit']\n" + CASE, "start"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(mistake: str, tmp_path: Path) -> None:
    """The file, what is wrong in it, and what would be right."""
    text, sentence = MISTAKES[mistake]
    path = tmp_path / "wrong.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(onnxlrp.OnnxLrpError, match=rf"(?i)wrong\.toml.*{sentence}"):
        onnxlrp.convert(network(PLAIN), composite=str(path))


def test_every_mistake_is_said_at_once(tmp_path: Path) -> None:
    """Not only the first."""
    text = '[[case]]\nrule = "zpluss"\n[[case]]\nkind = ["dens"]\nrule = "zplus"\n[[case]]\nfirst = 3\nrule = "flat"'
    with pytest.raises(onnxlrp.OnnxLrpError) as error:
        read(saved(text, tmp_path))
    assert ["case 1" in str(p) or "case 2" in str(p) or "case 3" in str(p) for p in error.value.problems] == [True] * 3


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """None there, a folder."""
    (tmp_path / "folder.toml").mkdir()
    for name in ("none.toml", "folder.toml"):
        with pytest.raises(onnxlrp.OnnxLrpError, match=f"{name}.*cannot be read"):
            onnxlrp.convert(network(PLAIN), composite=str(tmp_path / name))

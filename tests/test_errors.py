"""The word that was probably meant."""

from __future__ import annotations

import pytest

from onnxlrp.errors import Problem, closest, suggest, told

KINDS = ("convolution", "dense", "normalisation", "sum", "pooling", "max pooling", "activation")
NAMES = ("epsilon_plus_flat", "epsilon_plus", "epsilon", "zbox", "zplus", "zplus_ones")


@pytest.mark.parametrize(
    ("word", "valid", "meant"),
    [
        ("conv", KINDS, "convolution"),
        ("max", KINDS, "max pooling"),
        ("CONVOLUTIONAL", KINDS, "convolution"),
        ("maxpool", KINDS, "max pooling"),
        ("lo", ("low", "high", "epsilon"), "low"),
        ("sample", ("samples", "noise", "seed"), "samples"),
        ("epsilon_p", NAMES, "epsilon_plus"),
        ("epsilon_plus_flt", NAMES, "epsilon_plus_flat"),
        ("plus", NAMES, "zplus"),
        ("thebox_zbox_rule", NAMES, "zbox"),
        ("jett", ("bwr", "jet"), "jet"),
        ("layer4*", ("/layer4/conv", "/layer40/conv"), "/layer4/conv"),
    ],
)
def test_the_closest_word(word: str, valid: tuple[str, ...], meant: str) -> None:
    """One that it begins, else one spelt much like it, else one with it inside."""
    assert closest(word, valid).startswith(f"did you mean {meant}?")


@pytest.mark.parametrize("word", ["", "c", "*", "xyzzy", "qq"])
def test_no_word_is_close(word: str) -> None:
    """Nothing is better than a guess."""
    assert closest(word, KINDS) == ""
    assert suggest(word, KINDS).startswith("choose among: convolution, dense")


def test_what_is_said_of_one_operator_is_said_once() -> None:
    """Not what is said of several files, whose names may end like an operator's."""
    nodes = [Problem(f"layer{k} (Mish)", "has no rule", "export without it") for k in range(4)]
    files = [Problem(name, "is no picture", "save it again") for name in ("a (1).png", "b (1).png", "a (2)", "b (2)")]
    assert told([*nodes, *files]) == [
        "layer0 (Mish): has no rule. Export without it. The same goes for 3 others.",
        *(f"{file.node}: is no picture. Save it again." for file in files),
    ]

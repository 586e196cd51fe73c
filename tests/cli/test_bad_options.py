"""Words on the command line that mean nothing, or nothing for this model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from onnx import ModelProto

from onnxlrp.rules.catalogue import CATALOGUE, parse

from .classifiers import of_channels
from .conftest import Refused, invoke

BOTH = [
    ("--rule=Conv", "--rule Conv: is not of the form PATTERN=RULE. For example"),
    ("--rule==epsilon", "is not of the form PATTERN=RULE"),
    ("--rule=Conv=gama", "rule 'gama': there is no such rule. Did you mean gamma?"),
    ("--rule=Conv=nonsense", "Choose among: epsilon,"),
    ("--rule=Conv=gamma(0.1", "rule 'gamma(0.1': cannot be read. Write NAME"),
    ("--rule=Conv=gamma(size=1)", "has no parameter 'size'. Use gamma(gamma=0.25"),
    ("--rule=Conv=gamma('much')", "its parameters do not fit"),
    ("--rule=Conv=gamma(1,2,3,4,5,6)", "its parameters do not fit"),
    ("--rule=Conv=gamma(True)", "gamma is True, and must be a number"),
    ("--rule=Conv=gamma([1, 2])", "gamma is [1, 2], and must be a number"),
    ("--rule=Conv=gamma(1e400)", "gamma is inf, and must be a finite number"),
    ("--rule=Conv=gamma(1e39)", "gamma is 1e+39, and must be a finite number that float32 can hold"),
    ("--rule=Conv=alpha_beta(1e400, 1e400)", "alpha is inf"),
    ("--rule=Conv=epsilon(1e400)", "epsilon is inf"),
    ("--rule=Relu=beta_smooth(1e400)", "beta is inf"),
    ("--composite=beta_smooth(1e400)", "beta is inf"),
    ("--composite=epsilon_gamma_box(low=1, high=-1)", "low must not be above high"),
    ("--rule=Conv=zbox(low=(), high=3)", "low names no value. Use zbox(low=None"),
    ("--rule=Conv=zbox(low=3, high=-3)", "from 3 to -3 there is nothing: low must not be above high"),
    ("--rule=Conv=zbox(low=[0, 1, 2], high=1.5)", "from 2 to 1.5 there is nothing"),
    ("--rule=Conv=zbox(low=[0, 1, 2], high=[3, 4])", "low has 3 values, and high 2"),
    ("--rule=Conv=zbox(low=[0, 0, -1e400], high=3)", "low is -inf"),
    ("--rule=Conv=zbox(low='3', high=4)", "low is '3', and must be a number"),
    ("--rule=Conv=zbox(lo=1, high=4)", "has no parameter 'lo'. Did you mean low? Use zbox("),
    ("--rule=Conv=epsilon(stabilizer=nrm)", "stabilizer 'nrm' is none of sign, clip, norm"),
    ("--rule=Conv=epsilon(stabilizer=a.b)", "cannot be read. Write NAME"),
    ("--rule=Conv=epsilon(-1)", "epsilon is -1, and must be 0 or a positive number"),
    ("--rule=Relu=epsilon", "relu (Relu): the rule epsilon does not fit a layer of kind activation"),
    ("--rule=Conv=winner", "conv (Conv): the rule winner does not fit a layer of kind convolution"),
    ("--rule=Conv=zbox", "conv (Conv): zbox needs the lowest and highest value of the input"),
    ("--rule=Conx=epsilon", "--rule Conx=epsilon: matches no layer on the way. Did you mean Conv?"),
    ("--composite=epsilon_plus_flt", "Did you mean epsilon_plus_flat?"),
    ("--composite=nonsense", "composite 'nonsense': there is no such composite"),
    ("--composite=epsilon(size=1)", "has no parameter 'size'"),
    ("--composite=", "composite '': cannot be read"),
    ("--input-shape=N,3", "--input-shape N,3: does not fit input x"),
    ("--input-shape=N,3,9,9", "Change only dimensions that the model leaves open"),
    ("--input-shape=large", "is not of the form N,C,H,W. For example N,3,224,224."),
    ("--input-shape=N,N,8,8", "is not of the form N,C,H,W"),
    ("--input-shape=N,3,²,8", "is not of the form N,C,H,W"),
    ("--input-shape=", "is not of the form N,C,H,W"),
    ("--mean=grey", "--mean grey: is not a list of numbers. Give numbers separated by commas"),
    ("--mean=", "is not a list of numbers"),
    ("--mean=1,2", "--mean: 2 values for 3 channels"),
    ("--mean=nan", "--mean nan: is not a finite number"),
    ("--mean=0,0,inf", "is not a finite number"),
    ("--std=0", "--std 0: is not above 0, and pixels are divided by it"),
    ("--std=1,1,-1", "is not above 0"),
    ("--std=nan", "is not a finite number"),
    ("--scale=0", "--scale 0.0: is not above 0"),
    ("--scale=-1", "is not above 0"),
    ("--scale=inf", "is not a finite number"),
    ("--scale=big", "'big' is not a valid float"),
    ("--size=9,9", "--size: 9×9 pixels, and the model's input is 8×8"),
    ("--size=0,0", "is not a height and width in pixels. For example 224,224."),
    ("--size=8,8,8", "is not a height and width in pixels"),
    ("--size=²", "is not a height and width in pixels"),
    ("--size=", "is not a height and width in pixels"),
    ("--layout=NHWC", "8 channels in NHWC"),
    ("--color-order=L", "3 channels in NCHW; L pictures do not fit"),
    ("--preprocess=none_such", "'none_such' is not one of 'imagenet', 'unit', 'caffe', 'none'"),
    ("--preprocess=imagnet", "'none'. Did you mean imagenet?"),
    ("--nonsense", "No such option"),
    ("--target-runtime=openvin", "'coreml'. Did you mean openvino?"),
    ("--target-runtime=ort", "'ort' is not one of 'portable', 'onnxruntime', 'web'"),
    ("--tap=nothing", "--tap nothing: matches no layer on the way"),
    ("--activations=nothing", "--activations nothing: matches no tensor"),
    *(
        (f"--target={text}", f"--target {text}: {reason}. Choose 0 to 4, input or predicted.")
        for text, reason in [
            ("5", "the model has 5 classes"), ("-1", "the model has 5 classes"), ("9" * 30, "the model has 5 classes"),
            *((word, "is no class number, and no word for one") for word in ("best", "", "1.5", "²", "--5")),
        ]
    ),
    ("--targets-per-input=6", "--targets-per-input 6: the model has 5 classes. Choose 1 to 5."),
    ("--targets-per-input=0", "--targets-per-input 0: is not a positive number"),
    ("--target=INPUT", "Did you mean input? Choose 0 to 4, input or predicted."),
    ("--target=predict", "Did you mean predicted? Choose"),
]  # fmt: skip


@pytest.mark.parametrize(("option", "words"), BOTH)
def test_what_convert_and_plan_refuse(option: str, words: str, model: Path, refused: Refused) -> None:
    refused("convert", model, option, words=words)
    refused("plan", model, option, words=words)


def test_a_rule_can_be_typed_as_it_is_listed(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every parameter, words bare or in quotes."""
    monkeypatch.setenv("COLUMNS", "200")  # a narrow terminal cuts the table's cells
    for entry in CATALOGUE.values():
        listed = f"{entry.name}({', '.join(f'{k}={v}' for k, v in entry.parameters.items())})"
        assert listed in invoke("rules").stdout or not entry.parameters
        assert str(parse(listed)) == str(parse(entry.name))
    for text in ("epsilon(stabilizer=norm)", "epsilon(stabilizer='norm')"):
        assert "epsilon(stabilizer='norm')" in invoke("plan", model, f"--rule=Conv={text}").stdout


def test_no_picture_becomes_an_input_of_two_channels(written: Callable[[ModelProto], Path], refused: Refused) -> None:
    """Whatever its layout."""
    model = written(of_channels(2))
    words = "pre-processing: the input [N, 2, 8, 8] has 2 channels in NCHW; RGB pictures do not fit. Leave it out."
    for command in (["convert"], ["plan"], ["run", "--device=cpu", __file__]):
        refused(command[0], model, "--preprocess=unit", *command[1:], words=words)


@pytest.mark.parametrize("option", ["--size=8x8", "--size=8", "--input-shape=Nx3x8x8", "--target=4", "--mean=0.5"])
def test_other_spellings(option: str, model: Path) -> None:
    assert invoke("convert", model, option).exit_code == 0


@pytest.mark.parametrize("words", [("--rule", "Conv=zplus", "Conv=flat"), ("--condition", "Conv=1", "Conv=2")])
def test_a_pattern_is_given_once(words: tuple[str, str, str], model: Path, refused: Refused) -> None:
    option, one, other = words
    for command in ("convert", "plan"):
        said = f"{option} {other}: 'Conv' was given before. Give it once."
        refused(command, model, option, one, option, other, words=said)


def test_places_without_a_name(model: Path, refused: Refused) -> None:
    """What a shell makes of a variable that is not set."""
    for command in (
        ["convert", model, "-o", ""],
        ["run", model, "picture.png", "-o", ""],
        ["run", model, ""],
        ["demo", "-o", ""],
        ["page", model, "-o", ""],
        ["triton", model, "-o", ""],
    ):
        refused(*command, words=" '': names no file or folder. Check that the variable is set.")


def test_commands_that_are_not_there(refused: Refused) -> None:
    refused("explain", words="No such command 'explain'")
    refused("convert", words="Missing argument 'MODEL'")

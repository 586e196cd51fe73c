"""How tables and help look, at any width."""

from __future__ import annotations

import re
from pathlib import Path

import click
import onnx
import pytest
from onnx import TensorProto

from onnxlrp.cli.main import main
from onnxlrp.cli.table import file_size, table
from onnxlrp.contract import PREPROCESS_PRESETS
from onnxlrp.look import ONE_SIDED
from onnxlrp.run.terminal import columns, cut, padded, printable
from tests.explain.networks import of_type

from .conftest import invoke

CLASSIFIER = Path(__file__).parents[2] / "graphs" / "models" / "mri_resnet.onnx"
HEAD = ("layer", "nodes", "output", "rule", "why")
ROWS = [
    ("/features/features.0/Conv_and_a_long_name_of_a_module", "Conv", "N×64×224×224", "flat", "first layer, dense"),
    ("fc", "MatMul+Add+Mul", "N×4", "epsilon", "dense"),
]
GIVE = {"layer": "end", "nodes": "start", "why": "start"}


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_a_table_fits_the_terminal(width: int) -> None:
    lines = table(HEAD, ROWS, GIVE, width).splitlines()  # type: ignore[arg-type]
    assert max(map(len, map(click.unstyle, lines))) <= width
    assert ROWS[0][0][-8:] in lines[2]
    assert all("N×64×224×224" in line for line in lines[2:3])
    assert ("…" in lines[2]) == (width < 120)


def test_a_plan_that_goes_elsewhere_is_not_cut(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    said = invoke("plan", model).stdout
    assert "x N×3×8×8 → y N×5, explained by epsilon_plus_flat" in said
    assert "…" not in said
    assert "4 layers get their rule. 1 only moves values. Nothing stands in the way." in said


@pytest.mark.parametrize("columns", ["60", "80", "120"])
def test_a_plan_fits(columns: str, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    lines = invoke("plan", model, "--rule", "Conv=gamma(0.125)").stdout.splitlines()
    assert max(map(len, lines[1:-1])) <= int(columns)


def test_a_layer_without_a_rule_is_not_said_to_move_values(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    Path("mine.toml").write_text('[[case]]\nkind = "convolution"\nrule = "zplus"\n')
    said = invoke("plan", model, "--composite", "mine.toml").stdout.splitlines()
    whys = {line.split()[0]: line.rpartition("  ")[2] for line in said[4:] if line}
    assert whys == {
        "conv": "convolution",
        "relu": "no case matches",
        "globalaveragepool": "no case matches",
        "flatten": "only moves values",
        "gemm": "no case matches",
    }


def test_costs_have_a_unit_each_and_no_number_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    said = invoke("plan", CLASSIFIER, "--cost").stdout
    (head,) = (line for line in said.splitlines() if "MFLOP" in line)
    assert [w for w in head.split("  ") if w] == [
        "layer", "forward MFLOP", "forward MB", "relevance MFLOP", "relevance MB", "× forward"
    ]  # fmt: skip
    assert "nan" not in said
    assert next(line for line in said.splitlines() if line.startswith("other")).endswith("–")


def test_names_cannot_command_the_terminal() -> None:
    assert printable("a\x1b[31m\nb") == "a\\x1b[31m\\nb"
    assert printable("ü€ 😀×") == "ü€ 😀×"
    assert "\x1b" not in table(("a",), [("\x1b[2J",)], {}, 80).splitlines()[2]


def test_wide_characters_take_two_columns() -> None:
    lines = table(("a", "b"), [("肿瘤", "x"), ("e\u0301", "y"), ("tumour", "z")], {"a": "end"}, 12).splitlines()
    assert [columns(line[: line.index(c)]) for line, c in zip(lines[2:], "xyz", strict=True)] == [8, 8, 8]
    for width in (1, 4, 5, 9):
        for keep_end in (False, True):
            assert columns(padded(cut("良性肿瘤ab", width, keep_end), width)) == width
    assert (cut("良性肿瘤", 5), cut("良性肿瘤", 5, keep_end=True)) == ("良性…", "…肿瘤")


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (87_000, "87 kB"), (2_250_000, "2.2 MB")],
)
def test_sizes_of_files(size: int, words: str, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(size))
    assert file_size(path) == words


def test_every_command_says_what_it_is_for() -> None:
    said = invoke("--help").stdout
    for name, command in main.commands.items():
        assert f"  {name}" in said
        assert command.short_help in said
        shown = invoke(name, "--help")
        assert shown.exit_code == 0
        assert max(map(len, shown.stdout.splitlines())) <= 100


@pytest.mark.parametrize("command", ["run", "convert", "plan", "page"])
def test_help_says_what_words_do(command: str) -> None:
    said = " ".join(invoke(command, "--help").stdout.split())
    for preset in PREPROCESS_PRESETS:
        assert f" {preset}: " in said
    for colours in ONE_SIDED:
        assert command == "page" or re.search(rf"\b{colours}\b[^.]* do not show negative relevance", said)


@pytest.mark.parametrize("error", [KeyError("oops"), OSError(5, "oops")])
def test_a_bug_is_called_one(error: Exception, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("onnxlrp.cli.plan.examine", broken)
    result = invoke("plan", model)
    assert result.exit_code == 1
    said = f"Error: onnxlrp failed unexpectedly ({type(error).__name__}: {error}). This is a bug of onnxlrp"
    assert said in result.stderr
    monkeypatch.setenv("ONNXLRP_DEBUG", "1")
    assert invoke("plan", model).exception is error


def test_convert_says_that_hosts_will_not_know_the_preprocessing(model: Path) -> None:
    """Where the input is pictures and nothing is stored; not on stdout, which tells what was written."""
    bare, told = invoke("convert", model), invoke("convert", model, "--preprocess=imagenet", "--force")
    assert bare.stderr.startswith("Note: ") and "--preprocess imagenet|" in bare.stderr
    assert told.stderr == ""
    assert told.stdout.splitlines()[1:] == bare.stdout.splitlines()[1:]


def test_float16_is_explained_without_noise(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """ONNX Runtime's CPU would print a line for each constant of that type that it does not fold."""
    onnx.save(of_type(onnx.load(CLASSIFIER), TensorProto.FLOAT16), "half.onnx")
    assert invoke("convert", "half.onnx").exit_code == 0
    assert invoke("run", "half.lrp.onnx", CLASSIFIER.parent / "samples", "--device=cpu").exit_code == 0
    assert capfd.readouterr() == ("", "")

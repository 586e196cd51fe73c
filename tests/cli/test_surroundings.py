"""Where the program runs: a standard output that takes little or nothing, and signals that end it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from onnxlrp.cli.main import main

from .conftest import invoke

COMMAND = f"{sys.executable} -m onnxlrp"
UNHEARD = "Error: standard output: {}. Send it elsewhere.\n"


def shell(line: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A process of its own, run by a shell."""
    return subprocess.run(line, shell=True, capture_output=True, text=True, env={**os.environ, **variables})


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "cp437"])
@pytest.mark.parametrize(
    "command", [["plan", "model.onnx"], ["plan", "model.onnx", "--cost"], ["rules"], ["composites"]]
)
def test_characters_that_the_output_lacks_are_replaced(encoding: str, command: list[str], model: Path) -> None:
    result = CliRunner(charset=encoding).invoke(main, command)
    assert result.exit_code == 0, result.output
    assert "?" in result.stdout
    assert len(result.stdout.splitlines()) == len(invoke(*command).stdout.splitlines())


def test_class_names_that_the_output_lacks_are_replaced(model: Path) -> None:
    Path("names.txt").write_text("猫\n犬\nlièvre\nd\ne\n", encoding="utf-8")
    Image.new("RGB", (8, 8)).save("picture.png")
    assert invoke("convert", model, "--labels", "names.txt").exit_code == 0
    result = CliRunner(charset="cp1252").invoke(main, ["run", "model.lrp.onnx", "picture.png", "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert "lièvre" in result.stdout and "猫" not in result.stdout
    assert len(list(Path("heatmaps").iterdir())) == 1


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", ["plan model.onnx", "--version", "--help", "plan --help"])
def test_a_full_output_is_told(words: str, unbuffered: str, model: Path) -> None:
    said = shell(f"{COMMAND} {words} > /dev/full", PYTHONUNBUFFERED=unbuffered)
    assert (said.returncode, said.stderr) == (1, UNHEARD.format("cannot be written (No space left on device)"))


@pytest.mark.parametrize("words", ["plan model.onnx", "--version"])
def test_a_closed_output_is_told(words: str, model: Path) -> None:
    said = shell(f"{COMMAND} {words} >&-")
    assert (said.returncode, said.stderr) == (1, UNHEARD.format("is closed"))


def test_a_reader_that_has_gone_is_no_error(model: Path) -> None:
    for words in ("plan model.onnx", "--help"):
        said = shell(f"({COMMAND} {words}; echo $? > code) | true")
        assert said.stderr == ""
        assert Path("code").read_text() == "1\n"


def test_progress_is_drawn_for_nobody_where_errors_are_not_wanted(model: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8)).save(name)
    said = shell(f"{COMMAND} run {model} a.png b.png --device cpu 2>&-")
    assert said.returncode == 0
    assert "Ran on CPU" in said.stdout


def test_a_signal_that_is_to_be_ignored_is(model: Path) -> None:
    """As whoever started the program had it."""
    program = f"""
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
from onnxlrp.cli.main import main
os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGTERM)
main(["convert", "{model}", "-o", "made.onnx"])
"""
    assert subprocess.run([sys.executable, "-c", program], capture_output=True).returncode == 0
    assert Path("made.onnx").is_file()


def test_a_model_may_come_through_a_pipe(model: Path) -> None:
    said = shell(f"cat {model} | {COMMAND} plan /dev/stdin")
    assert (said.returncode, said.stderr) == (0, "")


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_leaves_no_half_written_file(name: str, code: int, folder: Path, model: Path) -> None:
    """The signal arrives when the file is written under its temporary name."""
    program = f"""
import os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background has it ignored
from onnxlrp.cli.main import main
os.fsync = lambda handle: os.kill(os.getpid(), signal.{name})
main(["convert", "{model}"])
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert said.returncode == code
    assert "Traceback" not in said.stderr
    assert [p.name for p in folder.iterdir()] == [model.name]

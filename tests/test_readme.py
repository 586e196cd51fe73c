"""What the README says is so: its commands run, its output is the product's, its tables are the code's."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onnxlrp import contract
from onnxlrp.explain.presets import DEFAULT, PRESETS
from onnxlrp.explain.target import STARTS
from onnxlrp.graph.upgrade import HIGHEST, LOWEST
from onnxlrp.layers.registry import DEFINITIONS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMAND = [sys.executable, "-c", "from onnxlrp.cli.main import main; main(prog_name='onnxlrp')"]
LONG = 120  # seconds; a command takes a few
PACKAGES = ("onnxruntime-node", "pngjs")  # what the Node example imports


def blocks(language: str) -> list[str]:
    """The README's code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def rows(heading: str) -> list[list[str]]:
    """The cells of the tables under a heading, without their heads."""
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in section.splitlines() if line.startswith("|")]
    return [[c.strip() for c in cells] for cells in lines if not set("".join(cells)) <= set("-: ")]


def named(cells: Iterator[str]) -> set[str]:
    """What stands in code between backquotes at the start of each cell."""
    return {match[1] for cell in cells if (match := re.match(r"`([^`]+)`", cell))}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place that looks like the repository's root to a reader who types along."""
    place = tmp_path_factory.mktemp("reader")
    shutil.copytree(ROOT / "graphs" / "models", place / "graphs" / "models")
    return place


def typed(line: str, folder: Path) -> str:
    """What an `onnxlrp …` line prints; it must succeed."""
    words = shlex.split(line)
    assert words[0] == "onnxlrp", line
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [*COMMAND, *words[1:]], cwd=folder, env=environment, capture_output=True, encoding="utf-8", timeout=LONG
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout


def worded(text: str) -> list[str]:
    """Lines as a reader compares them: numbers and the width of columns do not matter."""
    lines = (re.sub(r"[\d.]+", "0", " ".join(re.sub("─+", "─", line).split())) for line in text.splitlines())
    return [line for line in lines if line]


# -- commands, in the order of the page -------------------------------------------------------------------------------


def test_the_two_commands_come_first() -> None:
    """Install and demo, then the tests: exactly these two, before all else."""
    assert [b.strip() for b in blocks("sh")[:2]] == ["pip install . && onnxlrp demo", "pip install '.[test]' && pytest"]


def test_the_demo_runs(folder: Path) -> None:
    """It names the file and the picture that it wrote."""
    output = typed("onnxlrp demo", folder)
    written = re.findall(r"^(?:Explainer|Picture) +(\S+)", output, re.MULTILINE)
    assert len(written) == 2
    assert all((folder / path).is_file() for path in written)


def test_console(folder: Path) -> None:
    """Each `$ command` prints the lines that the README shows, in their order; `…` stands for the rest."""
    assert len(blocks("console")) > 3
    for block in blocks("console"):
        command, *expected = block.splitlines()
        found = iter(worded(typed(command.removeprefix("$ "), folder)))
        for line in worded("\n".join(expected)):
            assert line == "…" or line in found, f"{command} does not print (any more): {line}"


def commands() -> list[str]:
    """Every line for a shell that starts with `onnxlrp`."""
    return [line for block in blocks("sh") for line in block.splitlines() if line.startswith("onnxlrp ")]


def test_commands(folder: Path) -> None:
    """Every line for a shell, one after the other as some read what others wrote."""
    assert len(commands()) > 5
    for line in commands():
        typed(line, folder)


def test_python(folder: Path) -> None:
    """The Python example, in a process of its own."""
    (example,) = blocks("python")
    done = subprocess.run([sys.executable, "-c", example], cwd=folder, capture_output=True, text=True, timeout=LONG)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(2, 3) [1 2] (2, 1, 128, 128)"
    assert Image.open(folder / "heatmap.png").size == (128, 128)


# -- Node -------------------------------------------------------------------------------------------------------------


def node_modules() -> Path:
    """A folder that holds what the Node example imports; skips the test where there is none."""
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    places = [ROOT / "node_modules", *map(Path, filter(None, os.environ.get("NODE_PATH", "").split(os.pathsep)))]
    if npm := shutil.which("npm"):
        root = subprocess.run([npm, "root", "-g"], capture_output=True, text=True, timeout=LONG)
        places += [Path(root.stdout.strip())] if root.returncode == 0 else []
    for place in places:
        if all((place / package).is_dir() for package in PACKAGES):
            return place
    pytest.skip(f"npm install --ignore-scripts {' '.join(PACKAGES)}, and set NODE_PATH")


@pytest.fixture(scope="module")
def reader_of_node(folder: Path) -> Path:
    """A place with the Node example and its packages."""
    modules = node_modules()
    place = folder / "node"
    place.mkdir()
    (place / "node_modules").symlink_to(modules)
    (place / "why.mjs").write_text(blocks("js")[0], encoding="utf-8")
    return place


def test_node_is_ten_lines() -> None:
    """And they name the packages that the page says to install."""
    (example,) = blocks("js")
    assert len([line for line in example.splitlines() if line]) == 10
    assert f"`npm install --ignore-scripts {' '.join(PACKAGES)}`" in README


@pytest.mark.parametrize(("style", "most"), [("heatmap", 0), ("overlay", 10)])
def test_node_draws_what_the_program_draws(style: str, most: int, folder: Path, reader_of_node: Path) -> None:
    """Pixel for pixel; with `overlay` at most so many pixels in ten thousand are one level off, and none by more."""
    place, samples = reader_of_node, folder / "graphs" / "models" / "samples"
    line = next(one for one in commands() if "-o pixels.lrp.onnx" in one)
    drawing = line.replace("-o pixels.lrp.onnx", "-o node/pixels.lrp.onnx --force")
    typed(drawing.replace("--render heatmap", f"--render {style}"), folder)
    typed(
        f"onnxlrp run node/pixels.lrp.onnx graphs/models/samples --style {style} -o node/{style} --device cpu", folder
    )
    pictures = sorted(samples.glob("*.png"))
    assert len(pictures) > 4
    for picture in pictures:
        shutil.copy(picture, place / "slice.png")
        done = subprocess.run(["node", "why.mjs"], cwd=place, capture_output=True, text=True, timeout=LONG)
        assert done.returncode == 0, done.stderr
        (own,) = (place / style).glob(f"{picture.stem}.*png")
        a, b = (np.asarray(Image.open(p).convert("RGB")).astype(int) for p in (place / "why.png", own))
        assert a.shape == b.shape == (128, 128, 3)
        assert (a != b).any(axis=2).mean() <= most / 10_000 and np.abs(a - b).max() <= 1, picture.name
        assert re.fullmatch(r"class [012] of 3: why\.png", done.stdout.strip())


# -- tables -----------------------------------------------------------------------------------------------------------


def test_the_contract_table_is_the_contract() -> None:
    """Names of inputs, outputs and metadata, all of them and no others."""
    cells = rows("The contract")
    ports = named(r[1] for r in cells if len(r) == 4)
    assert ports == {
        contract.PIXELS,
        contract.TARGET,
        contract.START,
        contract.condition_name("<layer>"),
        contract.RELEVANCE,
        contract.EXPLAINED,
        contract.HEATMAP,
        contract.RENDER,
        contract.tap_name("<tensor>"),
    }
    keys = named(r[0] for r in cells if len(r) == 2)
    assert keys == {value for name, value in vars(contract).items() if name.startswith("KEY_")}
    assert f"It has a version, {contract.VERSION}," in README
    starts = next(r[1] for r in cells if r[0] == f"`{contract.KEY_START}`")
    assert re.findall(r"`([^`]+)`", starts) == list(STARTS)


def test_the_composites_table_is_the_catalogue() -> None:
    """Every preset, with the default marked."""
    cells = [r[0] for r in rows("Composites")]
    assert {name.partition("(")[0] for name in named(iter(cells))} == set(PRESETS)
    assert [c for c in cells if "(default)" in c] == [f"`{DEFAULT}` (default)"]


def test_the_limits_are_the_code_s() -> None:
    """Every operator that is defined is listed, and no other; so is the range of opsets."""
    listed = README.split("others made of these operators:")[1].split(".")[0]
    assert set(re.findall(r"\b[A-Z]\w+", listed)) == set(DEFINITIONS)
    assert f"**Opset**: {LOWEST} to {HIGHEST}." in README


def test_links_and_pictures_are_there() -> None:
    """Every relative link leads to a file, and no picture is large."""
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    for link in links:
        assert (ROOT / link).is_file(), link
        assert not link.endswith(".png") or (ROOT / link).stat().st_size < 300_000

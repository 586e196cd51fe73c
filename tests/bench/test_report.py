"""The page and the picture from given results; the command line's answers to what it cannot do."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from tests.bench.made import results, row
from tools.bench import plot, report
from tools.bench.__main__ import main
from tools.bench.results import DEFAULT, Peak, Results
from tools.command import typed

ROOT = Path(__file__).parents[2]


def page(made: Results) -> str:
    return report.page(made, "cpu", "stop", 2, "python -m tools.bench", ("light.png", "dark.png"))


def test_the_headline_is_the_default_composite_beside_zennit() -> None:
    lines = report.headline(results())
    assert "| VGG-16 | 1 s | 3 s | 3.00 | 12 s | 8.00 | **4.00** |" in lines
    assert f"`{DEFAULT}`, batch 8" in lines[0]


def test_the_headline_takes_the_batch_that_there_is() -> None:
    assert "batch 1;" in report.headline(Results([row(batch=1)]))[0]
    assert report.headline(Results([row(composite="gradient")])) == [f"`{DEFAULT}` was not measured."]


def test_the_readme_has_the_headline_of_the_report() -> None:
    measured = (ROOT / "tools" / "reports" / "BENCHMARKS.md").read_text("utf-8").split("\n## ")[0]
    said = (ROOT / "README.md").read_text("utf-8").split("\n## Speed\n")[1].split("\n## ")[0]
    tables = [[line for line in text.splitlines() if line.startswith("|")] for text in (measured, said)]
    assert tables[0] and tables[0] == tables[1]


def test_every_section_has_its_numbers() -> None:
    text = page(results())
    assert "| 8 | epsilon_plus_flat | 2.50 | 1 s (1–1) | 3 s (3–3) | 3.00 | 1.20 |" in text
    assert "| 8 | epsilon_plus_flat | zennit | 12 s (12–12) | 8.00 | 4.00 | 4.00 | 4 |" in text
    assert "| ResNet-50 | 0.0 MB | 0.0 MB | 1.0100 | 2 s | 1 s | 2.00 |" in text
    assert "## Not measured" not in text


def test_tables_have_as_many_cells_as_their_heads() -> None:
    for block in page(results()).split("\n\n"):
        widths = {line.count("|") for line in block.splitlines() if line.startswith("|")}
        assert len(widths) <= 1, block


def test_what_failed_is_told() -> None:
    made = results()
    made.rows[0].failed["zennit"] = "TypeError: broken"
    made.peaks.append(Peak("vgg16", 8, DEFAULT, "captum", None, failed="out of memory"))
    made.problems.append("vgg16_bn: no space left")
    text = page(made)
    assert "- VGG-16, batch 8, epsilon_plus_flat, float32: zennit: TypeError: broken" in text
    assert "- VGG-16, batch 8, epsilon_plus_flat: memory of captum: out of memory" in text
    assert "- vgg16_bn: no space left" in text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0412, "41.2 ms"), (0.9996, "1 s"), (12.34, "12.3 s"), (1234.5, "1234 s"), (None, "–")]
)
def test_seconds_read_well(seconds: float | None, text: str) -> None:
    assert report._seconds(seconds) == text


def test_numbers_stand_at_the_ends_and_between_where_there_is_room() -> None:
    assert plot.sides({"a": 1.0, "b": 5.0, "c": 9.0}, 2.0) == {"a": "right", "b": "left", "c": "left"}
    assert plot.sides({"a": 1.0, "b": 1.5, "c": 2.0}, 2.0) == {"a": "right", "c": "left"}
    assert plot.sides({"a": 1.0}, 2.0) == {"a": "right"}


def test_marks_that_would_cover_one_another_lie_apart() -> None:
    assert plot.lanes({"a": 1.0, "b": 5.0, "c": 5.1}, 0.5) == {"a": 0, "b": -0.5, "c": 0.5}
    assert plot.lanes({"a": 1.0, "b": 2.0}, 0.5) == {"a": 0, "b": 0}
    assert plot.lanes({"a": 1.0, "b": 1.4, "c": 1.8}, 0.5) == {"a": -0.5, "b": 0.5, "c": -0.5}, "within the row"


def test_the_picture_is_small_and_one_for_each_theme(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    names = plot.draw(results(), tmp_path / "BENCHMARKS.md")
    assert names == ["benchmarks-light.png", "benchmarks-dark.png"]
    for name in names:
        assert (tmp_path / name).stat().st_size < 200_000
        with Image.open(tmp_path / name) as picture:
            assert picture.width >= 1200
    assert plot.draw(Results(), tmp_path / "none.md") == []


def test_the_command_in_the_report_holds_no_paths() -> None:
    words = ["--models", "vgg16", "--cache", "/a/b", "--folder=/c", "--rounds=3", "-o", "/d"]
    assert typed("tools.bench", words) == "python -m tools.bench --models vgg16 --rounds 3"


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["--models", "vgg99"], "vgg99 is none of vgg16,"),
        (["--batches", "1,x"], "is no list of positive whole numbers"),
        (["--composites", ","], "nothing is none of gradient,"),
        (["--peers", "lime"], "lime is none of zennit,"),
        (["--precisions", "tf32"], "tf32 is there on CUDA only"),
        (["--known"], "--known reports what --cache holds"),
    ],
)
def test_wrong_options_are_refused(words: list[str], answer: str) -> None:
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 2
    assert answer in done.output

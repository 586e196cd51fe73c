"""`onnxlrp run` from end to end with an explainer written by hand."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from onnxlrp import files
from onnxlrp.cli.run import run
from onnxlrp.errors import OnnxLrpError, RunError
from onnxlrp.run import flow
from onnxlrp.run.explaining import explain_pictures
from onnxlrp.run.names import class_slugs, unique_stems
from onnxlrp.run.preparing import Prepared
from onnxlrp.run.report import Wishes, heading, record
from onnxlrp.run.session import Explainer
from onnxlrp.run.targets import Choice, parse_targets, wanted

Write = Callable[..., Path]
LABELS = ["cat", "dog, hound", "hamster"]


def call(*arguments: object) -> Result:
    return CliRunner().invoke(run, [str(a) for a in arguments] + ["--device", "cpu"])


def refused(message: str, *arguments: object) -> OnnxLrpError:
    """The error of a run that must be refused with a message that holds `message`."""
    error = call(*arguments).exception
    assert isinstance(error, OnnxLrpError), error
    assert message in str(error)
    return error


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []


def test_processes_draw_what_threads_draw(
    explainer_file: Write, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With many cores and pictures; here two and two."""
    model, formats = explainer_file(), ("--format", "png,npy,json", "--target", "top2")
    assert call(model, *pictures, "-o", tmp_path / "threads", *formats).exit_code == 0
    for name, value in (("WORKERS", 2), ("FEW_CORES", 1), ("FEW_PICTURES", 1)):
        monkeypatch.setattr(flow, name, value)
    assert isinstance(flow.drawers(len(pictures)), ProcessPoolExecutor)
    result = call(model, *pictures, "-o", tmp_path / "processes", *formats)
    assert result.exit_code == 0, result.output
    assert names(tmp_path / "processes") == names(tmp_path / "threads")
    for path in (tmp_path / "threads").iterdir():
        assert (tmp_path / "processes" / path.name).read_bytes() == path.read_bytes()


def test_only_pictures_are_drawn() -> None:
    """What is drawn decides whether processes are worth their start."""
    assert Wishes(("npy", "json")).pictures == 0
    assert Wishes(("png", "npy"), layers=True, channels=3).pictures == 3


def test_every_format_of_one_picture(
    explainer_file: Write, pictures: list[Path], tmp_path: Path, weight: np.ndarray
) -> None:
    out = tmp_path / "out"
    result = call(explainer_file(), pictures[1], "-o", out, "--format", "png,npy,json")
    assert result.exit_code == 0, result.output
    record = json.loads(next(out.glob("*.json")).read_text())
    slug = ["cat", "dog", "hamster"][record["class"]]
    assert names(out) == [f"photo-1.{slug}.{ending}" for ending in ("json", "npy", "png")]
    pixels = np.asarray(Image.open(pictures[1])).astype(np.float32) / 255
    values = ((pixels - 0.5) / 0.5).transpose(2, 0, 1)
    logits = values.reshape(1, -1) @ weight
    relevance = np.load(out / f"photo-1.{slug}.npy")
    np.testing.assert_allclose(relevance, values * weight[:, record["class"]].reshape(3, 8, 8), rtol=1e-4, atol=1e-5)
    assert record["class"] == int(logits.argmax())
    assert record["score"] == pytest.approx(logits.max(), rel=1e-4)
    assert record["relevance_sum"] == pytest.approx(logits.max(), rel=1e-4)
    assert record["name"] == LABELS[record["class"]]
    assert [entry["class"] for entry in record["top"]] == [int(i) for i in np.argsort(-logits[0])]
    assert sum(entry["probability"] for entry in record["top"]) == pytest.approx(1.0)
    assert (record["provider"], record["composite"], record["scores"]) == ("CPU", "epsilon", "logits")
    assert Image.open(out / f"photo-1.{slug}.png").width > 960


def test_the_table_marks_the_class_explained_and_the_provider(
    explainer_file: Write, pictures: list[Path], tmp_path: Path
) -> None:
    result = call(explainer_file(), pictures[0], "-o", tmp_path / "out", "--target", "hamster")
    marked = [line for line in result.output.splitlines() if "<- explained" in line]
    assert len(marked) == 1
    assert "hamster" in marked[0]
    assert "photo-0.hamster.png" in marked[0]
    assert "Ran on CPU" in result.output


def test_top_classes_give_a_picture_each(explainer_file: Write, pictures: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = call(
        explainer_file(), *pictures, "-o", out, "--target", "top2", "--target", "0", "--format", "json", "--batch", 2
    )
    assert result.exit_code == 0, result.output
    for index in range(3):
        records = [json.loads(p.read_text()) for p in out.glob(f"photo-{index}.*.json")]
        best = {entry["class"] for entry in records[0]["top"][:2]}
        assert {r["class"] for r in records} == best | {0}
        for r in records:
            assert r["relevance_sum"] == pytest.approx(r["score"], rel=1e-3, abs=1e-3)


def test_batches_do_not_change_the_answer(explainer_file: Write, pictures: list[Path], tmp_path: Path) -> None:
    for batch in (1, 2, 8):
        assert (
            call(
                explainer_file(), pictures[0].parent, "-o", tmp_path / f"o{batch}", "--format", "npy", "--batch", batch
            ).exit_code
            == 0
        )
    assert len(names(tmp_path / "o1")) == 3
    for name in names(tmp_path / "o1"):
        for other in ("o2", "o8"):
            np.testing.assert_allclose(np.load(tmp_path / "o1" / name), np.load(tmp_path / other / name), rtol=1e-5)


@pytest.mark.parametrize("fixed", ["1", "predicted"])
def test_models_with_a_fixed_target_cannot_be_asked_for_another(
    explainer_file: Write, pictures: list[Path], tmp_path: Path, fixed: str
) -> None:
    model = explainer_file(target=fixed)
    for target in ("top2", "2", "cat"):
        refused("always explains", model, pictures[0], "-o", tmp_path / "out", "--target", target)
    assert call(model, pictures[0], "-o", tmp_path / "out", "--target", fixed).exit_code == 0
    assert call(model, pictures[1], "-o", tmp_path / "out", "--format", "json").exit_code == 0
    record = json.loads(next((tmp_path / "out").glob("*.json")).read_text())
    assert record["class"] == (1 if fixed == "1" else record["top"][0]["class"])


def test_further_classes_are_explained_on_the_right_pictures(build: Callable[..., onnx.ModelProto]) -> None:
    values = np.random.default_rng(5).normal(size=(6, 3, 8, 8)).astype(np.float32)
    explainer = Explainer(build(), "cpu")
    alone = [explainer.explain(values[i : i + 1], 2).relevance[0] for i in range(6)]
    assert len(set(explainer.explain(values).target.tolist())) > 1  # some pictures need the second run, some do not
    prepared = [Prepared(v, np.zeros((8, 8, 3), np.uint8)) for v in values]
    paths = [Path(f"{i}.png") for i in range(6)]
    cases = list(explain_pictures(explainer, paths, prepared, [Choice(), Choice(2)]))
    assert sum(case.target == 2 for case in cases) == 6
    for case in cases:
        if case.target == 2:
            np.testing.assert_allclose(case.relevance, alone[int(case.path.stem)], rtol=1e-5)


@pytest.mark.parametrize("style", ["heatmap", "overlay", "panel"])
def test_styles(explainer_file: Write, pictures: list[Path], tmp_path: Path, style: str) -> None:
    call(explainer_file(), pictures[0], "-o", tmp_path / "out", "--style", style, "--cmap", "coldnhot")
    image = Image.open(next((tmp_path / "out").glob("*.png")))
    assert (image.size == (8, 8)) == (style != "panel")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["--format", "json", "--style", "overlay"],
            "--style overlay: says how pictures look, and --format json draws",
        ),
        (["--format", "npy", "--style", "panel"], "Add png to --format, or leave out --style."),
        (["--format", "npy,json", "--cmap", "hot"], "--cmap hot: says how pictures look, and --format npy,json draws"),
        (["--format", "json", "--layers", "--style", "heatmap"], "--style heatmap: "),
    ],
)
def test_how_pictures_look_is_not_said_where_there_are_none(
    explainer_file: Write, pictures: list[Path], tmp_path: Path, options: list[str], words: str
) -> None:
    refused(words, explainer_file(), pictures[0], "-o", tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("sheet", [["--layers"], ["--format", "png"]])
def test_colours_are_for_sheets_too(
    explainer_file: Write, pictures: list[Path], tmp_path: Path, sheet: list[str], words: list[str]
) -> None:
    result = call(explainer_file(), pictures[0], "-o", tmp_path, "--format", "json", "--cmap", "hot", *sheet)
    assert result.exit_code == 0, result.output
    assert any("negative not shown" in w for w in words)


def test_layers_draw_a_sheet_beside_the_picture(explainer_file: Write, pictures: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert call(explainer_file(), pictures[0], "-o", out, "--target", 0, "--layers").exit_code == 0
    assert names(out) == ["photo-0.cat.layers.png", "photo-0.cat.png"]
    both = call(explainer_file(), pictures[0], "-o", out, "--force", "--layers", "--format", "npy,json")
    assert "\nBeside each .npy: .json, .layers.png\n" in both.stdout
    assert "Beside" not in call(explainer_file(), pictures[0], "-o", out, "--force").stdout
    refused("--tap all", explainer_file(taps=False), pictures[0], "-o", tmp_path / "none", "--layers")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("target", ["0", "predicted"])
def test_results_are_replaced_only_by_force(
    explainer_file: Write, pictures: list[Path], tmp_path: Path, target: str
) -> None:
    out, model = tmp_path / "out", explainer_file()
    call(model, pictures[0], "-o", out, "--target", target)
    (file,) = out.iterdir()
    file.write_bytes(b"mine")
    error = refused("exists already", model, pictures[0], "-o", out, "--target", target)
    assert error.problems[0].node == str(file)
    assert file.read_bytes() == b"mine"
    assert call(model, pictures[0], "-o", out, "--target", target, "--force").exit_code == 0
    assert file.read_bytes() != b"mine"
    assert call(model, pictures[1], "-o", out, "--target", target).exit_code == 0  # another picture is in nobody's way
    file.unlink()
    file.mkdir()
    refused(f"{file}: is a folder. Move it away", model, pictures[0], "-o", out, "--target", target, "--force")


def test_a_folder_that_may_not_be_read(
    explainer_file: Write, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it holds is not known, so nothing is written into it."""
    model = explainer_file()

    def forbidden(folder: Path) -> list[str]:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "listdir", forbidden)
    refused("cannot be read (Permission denied). Choose another -o.", model, pictures[0], "-o", tmp_path)


def test_what_is_refused_writes_nothing(explainer_file: Write, pictures: list[Path], tmp_path: Path) -> None:
    out, model = tmp_path / "out", explainer_file()
    bad = tmp_path / "bad.png"
    bad.write_bytes(pictures[0].read_bytes()[:500])
    for message, arguments in [
        ("cut off", [pictures[0], bad]),
        ("no such file", [tmp_path / "gone.png"]),
        ("'3': is out of range: the model has 3 classes", [pictures[0], "--target", "3"]),
        ("Perhaps you mean 'hamster'", [pictures[0], "--target", "hamsta"]),
        ("top1..top3", [pictures[0], "--target", "top4"]),
        ("Choose from png,npy,json", [pictures[0], "--format", "gif"]),
        ("explainer already, so composite", [pictures[0], "--composite", "epsilon"]),
    ]:
        refused(message, model, *arguments, "-o", out)
    assert not out.exists()
    refused("is a file", model, pictures[0], "-o", bad)
    assert call(model, pictures[0], "--style", "poster").exit_code == 2


def test_every_bad_picture_is_named(explainer_file: Write, pictures: list[Path], tmp_path: Path) -> None:
    folder = pictures[0].parent
    for name in ("a.png", "z.png"):
        (folder / name).write_bytes(b"no picture")
    error = refused("a.png: is not a picture", explainer_file(), folder, "-o", tmp_path / "out")
    assert [Path(p.node).name for p in error.problems] == ["a.png", "z.png"]
    assert not (tmp_path / "out").exists()


def test_names_that_would_be_too_long(explainer_file: Write, pictures: list[Path], tmp_path: Path) -> None:
    model, out = explainer_file(), tmp_path / "out"
    long = [p.rename(p.with_name(f"{letter * 248}.png")) for p, letter in zip(pictures[:2], "ab", strict=True)]
    for more in ([], ["--force"], ["--target", "cat"]):
        error = refused("Give the picture a shorter name", model, *long, pictures[2], "-o", out, *more)
        assert [p.node for p in error.problems] == list(map(str, long))
    refused("have 256 bytes, and 255 is the most", model, long[0], "-o", out, "--target", "cat")
    refused("cannot be read (File name too long)", model, "x" * 300, "-o", out)
    refused("cannot be made (File name too long)", model, pictures[2], "-o", tmp_path / ("x" * 300))
    assert not out.exists()
    fits = long[0].rename(long[0].with_name(f"{'ü' * 123}1.png"))
    assert call(model, fits, "-o", out, "--target", "cat").exit_code == 0
    assert names(out) == [f"{fits.stem}.cat.png"]


def test_a_model_without_preprocessing_warns_of_the_guess(
    explainer_file: Write, pictures: list[Path], tmp_path: Path
) -> None:
    model = explainer_file(metadata={"onnxlrp.preprocess": "", "onnxlrp.labels": ""})
    guessed = call(model, pictures[0], "-o", tmp_path / "a", "--format", "npy", "--target", 1)
    assert "--preprocess" in guessed.output
    told = call(model, pictures[0], "-o", tmp_path / "b", "--format", "npy", "--target", 1, "--preprocess", "unit")
    assert "--preprocess" not in told.output
    other = call(explainer_file(), pictures[0], "-o", tmp_path / "c", "--target", "cat", "--preprocess", "unit")
    assert other.stderr.startswith("Warning: the model states another pre-processing")
    trained = Path(__file__).parents[2] / "graphs" / "models" / "mri_vgg.onnx"
    anew = call(trained, pictures[0], "-o", tmp_path / "d", "--preprocess", "none")
    assert anew.stderr == "Warning: the model states another pre-processing, which --preprocess none goes before.\n"
    assert names(tmp_path / "a") == ["photo-0.1.npy"]
    np.testing.assert_array_equal(np.load(tmp_path / "a/photo-0.1.npy"), np.load(tmp_path / "b/photo-0.1.npy"))


def test_frames_that_are_not_explained_are_told(explainer_file: Write, pictures: list[Path], tmp_path: Path) -> None:
    model, frames = explainer_file(), [Image.new("L", (9, 9), value) for value in (0, 90, 180)]
    for name in ("stack.tif", "walk.gif"):
        frames[0].save(pictures[0].with_name(name), save_all=True, append_images=frames[1:])
    stack, walk = (pictures[0].with_name(name) for name in ("stack.tif", "walk.gif"))
    said = f"Warning: {stack} holds 3 frames, and only the first is explained{{}}. Save each as a file.\n"
    for places, others in (([stack], ""), ([*pictures, stack, walk], " (likewise of 1 other file)"), (pictures, None)):
        result = call(model, *places, "-o", tmp_path / "out", "--target", "cat", "--force")
        assert (result.exit_code, result.stderr) == (0, "" if others is None else said.format(others))


def test_many_pictures_get_one_line_each(explainer_file: Write, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for index in range(10):
        Image.new("L", (9, 9), index * 20).save(folder / f"{index}.png")
    result = call(explainer_file(), folder, "-o", tmp_path / "out")
    assert result.exit_code == 0
    assert len([line for line in result.stdout.splitlines() if ".png" in line]) == 10
    assert "rank" not in result.stdout


@pytest.mark.parametrize("count", [1, 10])
def test_names_cannot_command_the_terminal(explainer_file: Write, tmp_path: Path, count: int) -> None:
    model = explainer_file(metadata={"onnxlrp.labels": json.dumps(["\x1b[31mred", "黑\r", "\x07"])})
    folder = tmp_path / "\x1b[2Jfolder"
    folder.mkdir()
    for index in range(count):
        Image.new("RGB", (8, 8), (25 * index, 9, 0)).save(folder / f"\x1b[1m{index}.png")
    result = call(model, folder, "-o", tmp_path / "out", "--target", "top3")
    assert result.exit_code == 0, result.output
    assert all(line.isprintable() for line in result.output.splitlines())
    assert "\\x1b[31mred" in result.output
    assert "黑\\r" in result.output


def test_a_name_in_letters_that_the_font_lacks_is_drawn_as_a_number(build: Callable[..., onnx.ModelProto]) -> None:
    labels = ["脑部病变", "Löwe", "what?"]
    explainer = Explainer(build(metadata={"onnxlrp.labels": json.dumps(labels)}), "cpu")
    prepared = [Prepared(np.ones((3, 8, 8), np.float32), np.zeros((8, 8, 3), np.uint8))]
    cases = list(explain_pictures(explainer, [Path("a.png")], prepared, [Choice(0), Choice(1), Choice(2)]))
    headings = [heading(case, explainer, Wishes()) for case in cases]
    assert [h.title for h in headings] == ["Class 0", "Löwe", "What?"]
    assert ["class" in h.subtitle for h in headings] == [False, True, True]  # its number is said once
    assert [record(case, explainer, Wishes())["name"] for case in cases] == labels


def test_names_that_pictures_do_not_show_in_full_are_told(
    explainer_file: Write, pictures: list[Path], tmp_path: Path
) -> None:
    model = explainer_file(metadata={"onnxlrp.labels": json.dumps(["кошка", "Katzenbär (weiß)", "mèo trắng"])})
    chinese = pictures[0].rename(pictures[0].with_name("图.png"))
    told = call(model, chinese, pictures[1], "-o", tmp_path / "a", "--target", "top3")
    said = "Warning: the pictures' font lacks letters of class 0 (кошка), class 2 (mèo trắng), 图.png. There it shows"
    assert told.stderr.startswith(said)
    assert told.stderr.count("\n") == 1
    for quiet in (["--style", "overlay"], ["--format", "npy"], ["--target", 1]):
        given = pictures[1] if "--target" in quiet else chinese
        assert call(model, given, "-o", tmp_path / str(quiet[1]), *quiet).stderr == ""


def test_relevance_that_is_not_finite_is_a_run_error(
    explainer_file: Write, pictures: list[Path], tmp_path: Path
) -> None:
    path = explainer_file()
    model = onnx.load(path)
    values = np.frombuffer(model.graph.initializer[0].raw_data, np.float32).copy()
    values[0] = np.nan
    model.graph.initializer[0].raw_data = values.tobytes()
    onnx.save(model, path)
    assert isinstance(refused("NaN", path, pictures[0], "-o", tmp_path / "out"), RunError)
    assert names(tmp_path / "out") == []


def test_a_full_disk_leaves_nothing_behind(
    explainer_file: Write, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    error = refused("No space left", explainer_file(), pictures[0], "-o", tmp_path / "out")
    assert isinstance(error, RunError)
    assert names(tmp_path / "out") == []


def test_writing_replaces_whole_files(tmp_path: Path) -> None:
    path = files.write_whole(tmp_path / "a.txt", b"one")
    files.write_whole(path, b"two")
    assert path.read_bytes() == b"two"
    assert names(tmp_path) == ["a.txt"]
    assert path.stat().st_mode & 0o600 == 0o600
    with pytest.raises(OnnxLrpError, match="cannot be written"):
        files.write_whole(tmp_path / "gone" / "a.txt", b"x")


def test_stems_that_collide_become_different() -> None:
    paths = [Path(p) for p in ("left/01.png", "right/01.png", "x/Scan.png", "x/scan.jpg", "x/single.png")]
    stems = unique_stems(paths)
    assert [stems[p] for p in paths] == ["left-01", "right-01", "Scan-1", "scan-2", "single"]
    tricky = unique_stems([Path("a/a-1.png"), Path("a/1.png"), Path("b/1.png")])
    assert len({s.casefold() for s in tricky.values()}) == 3


def test_slugs_are_different_and_safe() -> None:
    assert class_slugs(["Great white shark, man-eater", "a/b.c", "a b c", "", "7"], 6) == [
        "great-white-shark",
        "a-b-c-1",
        "a-b-c-2",
        "3",
        "7-4",
        "5",
    ]
    assert class_slugs(None, 2) == ["0", "1"]


def test_a_number_that_is_the_name_of_another_class(
    explainer_file: Write, pictures: list[Path], tmp_path: Path
) -> None:
    """The name counts, and it is said which class that is."""
    model = explainer_file(metadata={"onnxlrp.labels": json.dumps(["2", "1", "0"])})
    said = "Warning: target '2' is taken for class 0, whose name that is, and not for class 2, which is named '0'.\n"
    for target, index, told in (("2", 0, said), ("1", 1, ""), ("predicted", None, "")):
        out = tmp_path / target
        result = call(model, pictures[0], "-o", out, "--format", "json", "--target", target)
        assert (result.exit_code, result.stderr) == (0, told)
        assert index in (None, json.loads(next(out.glob("*.json")).read_text())["class"])
    beyond = explainer_file(metadata={"onnxlrp.labels": json.dumps(["3", "7", "9"])})
    assert call(beyond, pictures[0], "-o", tmp_path / "beyond", "--target", "3").stderr == ""


def test_targets_in_words() -> None:
    assert parse_targets([], LABELS, 3) == [Choice()]
    assert parse_targets(["TOP2", "Cat", "2", "predicted", "top1"], LABELS, None) == [
        Choice(best=2),
        Choice(0),
        Choice(2),
        Choice(),
    ]
    assert wanted([Choice(1), Choice(best=2)], np.array([0.1, 0.5, 0.4])) == [1, 2]
    with pytest.raises(OnnxLrpError) as caught:
        parse_targets(["horse", "9", "-1"], LABELS, 3)
    assert len(caught.value.problems) == 3
    with pytest.raises(OnnxLrpError, match=r"name of 2 classes.*0, 1"):
        parse_targets(["crane"], ["crane", "Crane"], 2)

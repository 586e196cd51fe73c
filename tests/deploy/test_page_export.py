"""`onnxlrp page` as a command: whole folders or none, refusals with a remedy, and where the runtime comes from."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import pytest
from click.testing import CliRunner, Result

from onnxlrp.cli.main import main
from onnxlrp.deploy import page_export, web_runtime
from onnxlrp.deploy.web_runtime import BACKENDS, INTEGRITY, SHA256, VERSION
from onnxlrp.errors import RunError
from onnxlrp.explain.convert import convert

from .conftest import MODELS, SAMPLES


def run(*words: object) -> Result:
    """Run `onnxlrp page`."""
    return CliRunner().invoke(main, ["page", *map(str, words)])


def package(folder: Path, version: str = "9.9.9") -> Path:
    """A folder like the package's, with a few bytes in place of megabytes; another version is taken as it is."""
    (folder / "dist").mkdir(parents=True)
    (folder / "package.json").write_text(json.dumps({"name": "onnxruntime-web", "version": version}))
    for name in SHA256:
        (folder / "dist" / name).write_text(f"stands for {name}")
    return folder


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """Such a package."""
    return package(tmp_path / "runtime")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test finds, or fills, the user's own cache or node_modules."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def part(folder: Path, name: str) -> bytes:
    """A part of an exported page, unpacked without the page's own loader."""
    parts: Mapping[str, Any] = json.loads(
        re.search(r"^onnxlrp\.parts = (.*);$", (folder / "explainer.js").read_text("utf-8"), re.M)[1]  # type: ignore[index]
    )
    texts = [re.fullmatch(r'onnxlrp\.piece\("(.*)"\);\n', (folder / file).read_text()) for file in parts[name]["files"]]
    data = b"".join(gzip.decompress(base64.b64decode(found[1])) for found in texts if found)
    assert len(data) == parts[name]["bytes"]
    return data


def test_parts_are_the_files_byte_for_byte(
    explainer: Path, stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Model, runtime and samples come out of the page as they went in, in pieces; and twice in the same bytes."""
    monkeypatch.setattr(page_export, "PIECE", 100_000)
    for name in ("one", "two"):
        result = run(explainer, "-o", name, "--runtime", stand_in, "--sample", SAMPLES[0])
        assert result.exit_code == 0, result.output
        assert "has onnxruntime-web 9.9.9" in result.output
    assert part(Path("one"), "model") == explainer.read_bytes()
    assert len(list(Path("one/parts").glob("model.*.js"))) > 5
    assert part(Path("one"), "sample-1") == SAMPLES[0].read_bytes()
    for backend, files in BACKENDS.items():
        for kind, file in files.items():
            assert part(Path("one"), f"{backend}.{kind}") == (stand_in / "dist" / file).read_bytes()
    ones = {p.relative_to("one"): p.read_bytes() for p in Path("one").rglob("*") if p.is_file()}
    assert ones == {p.relative_to("two"): p.read_bytes() for p in Path("two").rglob("*") if p.is_file()}
    assert "Microsoft" in Path("one/NOTICE.txt").read_text()


def test_external_data_is_taken_in(explainer: Path, stand_in: Path) -> None:
    """A page's model is one file, whatever the user's is."""
    onnx.save_model(onnx.load(explainer), "m.onnx", save_as_external_data=True, location="m.data", size_threshold=100)
    assert run("m.onnx", "-o", "page", "--runtime", stand_in, "--no-webgpu").exit_code == 0
    made = onnx.load_model_from_string(part(Path("page"), "model"))
    assert made.graph.initializer[0].raw_data == onnx.load(explainer).graph.initializer[0].raw_data
    assert not any("webgpu" in p.name for p in Path("page/parts").iterdir())


def test_words_of_the_user_stay_words(explainer: Path, stand_in: Path) -> None:
    """A title cannot become markup, nor a class a script."""
    proto = onnx.load(explainer)
    next(p for p in proto.metadata_props if p.key == "onnxlrp.labels").value = '["</script><b>", "\u2028", "{{title}}"]'
    onnx.save(proto, "odd.onnx")
    title = "<script>alert(1)</script> {{facts}} & Co"
    assert run("odd.onnx", "-o", "page", "--runtime", stand_in, "--title", title).exit_code == 0
    text = Path("page/index.html").read_text("utf-8")
    assert "<script>alert" not in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt; {{facts}} &amp; Co") == 2


def test_what_cannot_be_shown_is_refused(explainer: Path, stand_in: Path, tmp_path: Path) -> None:
    """Exit 2, a reason and a remedy, and nothing written."""
    fed, pixels = tmp_path / "fed.onnx", tmp_path / "pixels.onnx"
    convert(MODELS / "mri_vgg.onnx", start="fed").save(fed)
    convert(MODELS / "mri_vgg.onnx", embed_preprocessing=True).save(pixels)
    tiff = tmp_path / "a.tif"
    from PIL import Image

    Image.open(SAMPLES[0]).save(tiff)
    cases = {
        "is a plain classifier": (MODELS / "mri_vgg.onnx",),
        "there is no such file": ("none.onnx",),
        "without --start fed": (fed,),
        "Leave --preprocess out": (pixels, "--preprocess", "unit"),
        "that browsers do not read": (explainer, "--sample", tiff),
        "holds no onnxruntime-web": (explainer, "--runtime", tmp_path / "cache"),
    }
    for said, words in cases.items():
        result = run(*words, "-o", "page", *([] if "--runtime" in words else ["--runtime", stand_in]))
        assert result.exit_code == 2, result.output
        assert said in result.output
        assert "bug" not in result.output
        assert not Path("page").exists()


def test_a_folder_that_is_not_empty_stays(explainer: Path, stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is replaced only with --force, only once the new page is whole, and only where nothing else would go."""
    words = (explainer, "-o", "page", "--runtime", stand_in)
    assert run(*words).exit_code == 0
    assert (run(*words).exit_code, "is not empty" in run(*words).output) == (2, True)
    before = Path("page/index.html").read_bytes()
    Path("page/index.html").write_text("mine")
    with monkeypatch.context() as patch:

        def full(*given: object) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(page_export, "_write_page", full)
        broken = run(*words, "--force")
        assert (broken.exit_code, "No space left on device" in broken.output) == (1, True)
        assert run(explainer, "-o", "new/page", "--runtime", stand_in).exit_code == 1
    assert Path("page/index.html").read_text() == "mine"
    assert sorted(p.name for p in Path().iterdir()) == ["page", "runtime"]  # nothing half-written, no empty folder
    Path("page/parts/index.html").write_text("not of the page")
    refused = run(*words, "--force")
    assert (refused.exit_code, "was not written by onnxlrp" in refused.output) == (2, True)
    assert Path("page/index.html").read_text() == "mine"
    Path("page/parts/index.html").unlink()
    assert run(*words, "--force").exit_code == 0
    assert Path("page/index.html").read_bytes() == before
    assert sorted(p.name for p in Path().iterdir()) == ["page", "runtime"]
    assert (run(explainer, "-o", ".", "--runtime", stand_in, "--force").exit_code) == 2


def test_a_model_too_large_for_a_browser_is_refused(
    explainer: Path, stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a large one is announced."""
    monkeypatch.setattr(page_export, "HEAVY", 1000)
    assert "every visitor loads" in run(explainer, "-o", "heavy", "--runtime", stand_in).output
    monkeypatch.setattr(page_export, "LIMIT", 2000)
    result = run(explainer, "-o", "page", "--runtime", stand_in)
    assert (result.exit_code, "a browser cannot hold" in result.output) == (2, True)


def npm(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program called npm first in the PATH."""
    folder.mkdir()
    path = folder / "npm"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def archive(path: Path, folder: Path) -> str:
    """Pack a folder as npm does; the archive's integrity."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as packed:
        packed.add(folder, "package")
    path.write_bytes(buffer.getvalue())
    return base64.b64encode(hashlib.sha512(buffer.getvalue()).digest()).decode()


def test_the_runtime_comes_from_npm_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is announced, checked and kept; what npm gives under another hash is not used."""
    integrity = archive(tmp_path / "web.tgz", package(tmp_path / "original", VERSION))
    npm(tmp_path / "bin", f"echo called >> {tmp_path}/calls; cp {tmp_path}/web.tgz onnxruntime-web.tgz", monkeypatch)
    said: list[str] = []
    with pytest.raises(Exception, match="that is not the one published"):
        web_runtime.find_runtime(None, said.append)
    assert not web_runtime.cache_folder().exists()
    monkeypatch.setattr(web_runtime, "INTEGRITY", integrity)
    for _ in range(2):
        found = web_runtime.find_runtime(None, said.append)
        assert found.folder == tmp_path / "cache" / "onnxlrp" / f"onnxruntime-web-{VERSION}"
    assert (tmp_path / "calls").read_text().count("called") == 2  # the refused one and one more
    assert all("with npm" in text for text in said)
    with pytest.raises(Exception, match="is not the file that was published"):
        found.read("ort.wasm.min.js")
    with pytest.raises(Exception, match="is not the file that was published"):
        web_runtime.find_runtime(str(package(tmp_path / "changed", VERSION)), said.append).read("ort.wasm.min.js")


def test_without_npm_or_connection_there_is_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What npm says last is passed on."""
    npm(tmp_path / "bin", "echo 'npm error network no route' >&2; exit 1", monkeypatch)
    with pytest.raises(RunError, match=r"no route.*npm install onnxruntime-web@"):
        web_runtime.find_runtime(None, print)
    monkeypatch.setenv("PATH", str(tmp_path / "cache"))
    with pytest.raises(Exception, match=r"there is no npm to get it with.*--runtime"):
        web_runtime.find_runtime(None, print)


def test_the_pinned_hashes_are_those_of_the_pinned_package(runtime: str) -> None:
    """Of the files that are used; the archive's is checked where it is fetched."""
    found = web_runtime.find_runtime(runtime, print)
    assert all(found.read(name) for name in SHA256)
    assert len(base64.b64decode(INTEGRITY)) == 64

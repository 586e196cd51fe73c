"""The page as a person uses it, in Chromium without a window: from the disk and from a server, by mouse and keyboard.

What it shows is compared with what `onnxlrp run` writes for the same picture and class.
"""

from __future__ import annotations

import base64
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from chromium import Browser, Page
from click.testing import CliRunner
from PIL import Image

from onnxlrp import look
from onnxlrp.cli.main import main

from .conftest import SAMPLES, opened

CLASSES = ("no lesion", "bright lesion", "dark lesion")
PICTURE = SAMPLES[3]
# WebAssembly sums in another order than the CPU provider, about 1e-7 of a value: where that crosses from one of the
# 257 colours to the next, a pixel has the neighbouring one.
MOST_NEIGHBOURS = 0.005


def text(page: Page, name: str) -> str:
    """What an element says."""
    return str(page.run(f"document.getElementById('{name}').textContent")).replace("\xa0", " ")


def canvas(page: Page, name: str) -> np.ndarray:
    """The pixels [H, W, 3] of one of the page's pictures."""
    address = page.run(f"document.getElementById('tile-{name}').toDataURL()")
    image = Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))
    return np.asarray(image.convert("RGB")).astype(int)


def written_by_run(explainer: Path, picture: Path, target: str, style: str, folder: Path) -> np.ndarray:
    """The pixels of the PNG that `onnxlrp run` writes."""
    words = [
        "run",
        explainer,
        picture,
        "--target",
        target,
        "--style",
        style,
        "-o",
        folder,
        "--force",
        "--device",
        "cpu",
    ]
    result = CliRunner().invoke(main, [str(w) for w in words])
    assert result.exit_code == 0, result.output
    (path,) = folder.glob(f"*.{target.replace(' ', '-')}.png")
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def places(pixels: np.ndarray) -> np.ndarray:
    """Where in the table of colours the pixels of a heatmap are, [H, W]; fails for a colour that is not in it."""
    entries = {tuple(colour): i for i, colour in enumerate(look.table(look.DEFAULT).astype(int).tolist())}
    return np.array([[entries[tuple(pixel)] for pixel in row] for row in pixels.tolist()])


def explained(page: Page, target: str) -> None:
    """Wait until the page shows a class."""
    page.wait(f"document.getElementById('status').textContent.includes('relevance for {target},')")


def choose(page: Page, picture: Path) -> None:
    """Choose a file and wait until it is explained."""
    page.choose_file("#file", picture)
    page.wait(f"document.getElementById('status').textContent.startsWith('{picture.name}')")


@pytest.mark.parametrize("way", ["disk", "server"])
def test_heatmaps_are_those_of_run(
    way: str, browser: Browser, exported: Path, served: str, explainer: Path, tmp_path: Path
) -> None:
    """Every class's heatmap, chosen with the mouse, from both kinds of address; nothing is fetched from elsewhere."""
    address = exported.joinpath("index.html").as_uri() if way == "disk" else served
    page = opened(browser, address)
    assert page.run("document.title") == "A <b>title</b>"
    choose(page, PICTURE)
    page.click("input[value=heatmap] + span")
    for number, target in enumerate(CLASSES):
        page.click(f"#best label:has(input[value='{number}'])")
        explained(page, target)
        expected = written_by_run(explainer, PICTURE, target, "heatmap", tmp_path)
        apart = np.abs(places(canvas(page, "heatmap")) - places(expected))
        assert apart.max() <= 1
        assert (apart == 1).mean() <= MOST_NEIGHBOURS
        assert (places(expected) != 128).mean() > 0.1  # there is something to see
    home = address.rpartition("/")[0]
    assert [r for r in page.requests() if not r.startswith((home, "blob:", "data:"))] == []
    assert [c for c in page.complaints() if "No available adapters" not in c] == []


def test_the_policy_keeps_requests_in(page: Page) -> None:
    """A request to anywhere is refused by the browser itself, whatever script asks for it."""
    fetched = "fetch('https://example.org/').then(() => 'sent', () => 'refused')"
    image = "new Promise((r) => { const i = new Image(); i.onerror = r; i.src = 'https://example.org/x.png'; })"
    assert page.run(fetched) == "refused"
    page.run(image)
    refused = [c for c in page.complaints() if "Content Security Policy" in c]
    for directive in ("connect-src", "img-src"):
        assert any(directive in c for c in refused), page.complaints()


def test_overlays_are_those_of_run(page: Page, explainer: Path, tmp_path: Path) -> None:
    """The overlay at full opacity is within a level of run's; at none it is the picture in grey."""
    choose(page, PICTURE)
    explained(page, "dark lesion")
    expected = written_by_run(explainer, PICTURE, "dark lesion", "overlay", tmp_path)
    apart = np.abs(canvas(page, "overlay") - expected).max(axis=2)
    assert apart.max() <= 3  # a neighbouring colour of the table is at most so far away
    assert (apart > 1).mean() <= MOST_NEIGHBOURS
    page.run("(() => { const o = document.getElementById('opacity'); o.value = 0; o.oninput(); })()")
    grey = np.asarray(Image.open(PICTURE).convert("L").convert("RGB")).astype(int)
    assert np.array_equal(canvas(page, "overlay"), grey)
    assert not np.array_equal(grey, expected)


def test_the_keyboard_is_enough(page: Page) -> None:
    """From the file to the class, the view and the opacity with Tab and the arrows, in the order they are seen in."""
    choose(page, PICTURE)
    page.run("document.querySelector('#best input:checked').focus()")
    reached = []
    for _ in range(7):
        page.press("Tab")
        reached.append(page.run("document.activeElement.id || document.activeElement.name"))
    assert reached == ["style", "opacity", "download", "another", "", "", "backend"]  # "": the two samples
    page.run("document.querySelector('#best input:checked').focus()")
    page.press("ArrowDown")
    explained(page, "bright lesion")
    assert page.run("document.activeElement.value") == "1"
    page.run("document.querySelector('[name=style]:checked').focus()")
    page.press("ArrowRight")
    page.press("ArrowRight")
    assert page.run("document.querySelectorAll('#tiles canvas').length") == 3
    assert "for bright lesion" in page.run("document.getElementById('tile-heatmap').ariaLabel")


def test_dropped_and_offered_pictures(page: Page) -> None:
    """A file dropped on the page, and a click on a sample, are explained; the best class comes first."""
    page.drop_file("#drop", PICTURE)
    explained(page, "dark lesion")
    assert text(page, "best").startswith("dark lesion> 99.9 %")
    page.click("#samples button")
    explained(page, "bright lesion")
    assert text(page, "status").startswith(SAMPLES[0].name)
    assert "Ran on WebAssembly in" in text(page, "ran")


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("notes.png", b"just words", "is not a picture that this browser can read"),
        ("empty.png", b"", "is empty"),
        ("cut.png", PICTURE.read_bytes()[:-900], "is damaged or cut off"),
        ("scan.dcm", bytes(128) + b"DICM" + bytes(64), "16-bit grey PNG"),
        ("scan.tif", b"II*\0" + bytes(64), "TIFF"),
    ],
)
def test_what_is_no_picture_is_refused(name: str, data: bytes, said: str, page: Page, tmp_path: Path) -> None:
    """With a sentence that says what to do; the next picture works, and the sentence goes."""
    path = tmp_path / name
    path.write_bytes(data)
    page.choose_file("#file", path)
    page.wait("!document.getElementById('alert').hidden")
    assert said in text(page, "alert")
    assert name in text(page, "alert")
    choose(page, PICTURE)
    assert page.run("document.getElementById('alert').hidden")


def test_the_download_is_what_is_shown(page: Page) -> None:
    """One value of the heatmap is a whole square of the downloaded picture, which names picture, class and view."""
    choose(page, PICTURE)
    page.click("input[value=heatmap] + span")
    page.run(
        "HTMLAnchorElement.prototype.click = function () { globalThis.saved = { name: this.download, blob:"
        " new Promise((r) => { const x = new XMLHttpRequest(); x.open('GET', this.href); x.responseType = 'blob';"
        " x.onload = () => { const f = new FileReader(); f.onload = () => r(f.result); f.readAsDataURL(x.response); };"
        " x.send(); }) }; }"
    )
    page.click("#download")
    page.wait("globalThis.saved")
    assert page.run("saved.name") == "dark-lesion-2.dark-lesion.heatmap.png"
    data = base64.b64decode(page.run("saved.blob").partition(",")[2])
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    shown = canvas(page, "heatmap")
    assert pixels.shape == (512, 512, 3)
    assert np.array_equal(pixels, shown.repeat(4, axis=0).repeat(4, axis=1))


def test_a_browser_without_webassembly_is_told(browser: Browser, exported: Path) -> None:
    """Before anything is chosen; the page itself stands."""
    page = Page(browser)
    page.call("Page.addScriptToEvaluateOnNewDocument", source="delete globalThis.WebAssembly")
    page.open(exported.joinpath("index.html").as_uri())
    page.wait("!document.getElementById('alert').hidden")
    assert "This browser has no WebAssembly" in text(page, "alert")
    assert page.run("document.getElementById('progress').hidden")


def test_a_file_that_was_not_copied_is_named(browser: Browser, exported: Path, tmp_path: Path) -> None:
    """A page is a folder; whoever moves it may leave a part behind."""
    moved = shutil.copytree(exported, tmp_path / "moved")
    (moved / "parts" / "model.0.js").unlink()
    page = Page(browser)
    page.open(moved.joinpath("index.html").as_uri())
    page.wait("!document.getElementById('alert').hidden")
    assert "parts/model.0.js is missing. Copy the whole folder again." in text(page, "alert")

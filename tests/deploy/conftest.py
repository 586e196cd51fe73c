"""What a test of the page needs: Chromium, ONNX Runtime's files for browsers, and pages exported with them.

Tests are left out, with the remedy, where one of the two is not there: `apt-get install chromium`, and
`npm install --no-save onnxruntime-web@VERSION` in the checkout (or ONNXRUNTIME_WEB names a folder that has it).
"""

from __future__ import annotations

import functools
import http.server
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from onnxlrp.deploy import web_runtime
from onnxlrp.deploy.page_export import export_page
from onnxlrp.deploy.web_runtime import VERSION, cache_folder, version_in
from onnxlrp.explain.convert import convert

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tools" / "runtimes" / "browser"))

from chromium import Browser, Page, find_chromium  # noqa: E402  (a maintainers' program, not part of the package)

MODELS = ROOT / "graphs" / "models"
SAMPLES = sorted((MODELS / "samples").glob("*.png"))


def runtime_folder() -> Path | None:
    """Where onnxruntime-web of the pinned version lies on this machine."""
    named = os.environ.get("ONNXRUNTIME_WEB")
    places = ([Path(named)] if named else []) + [ROOT / "node_modules" / web_runtime.PACKAGE, cache_folder()]
    return next((place for place in places if version_in(place) == VERSION), None)


@pytest.fixture(scope="session")
def runtime() -> str:
    """The folder with onnxruntime-web."""
    folder = runtime_folder()
    if folder is None:
        pytest.skip(f"no onnxruntime-web: npm install --no-save onnxruntime-web@{VERSION}, or set ONNXRUNTIME_WEB")
    return str(folder)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests of a process."""
    if find_chromium() is None:
        pytest.skip("no Chromium: apt-get install chromium, or set CHROMIUM")
    with Browser() as running:
        yield running


@pytest.fixture(scope="session")
def explainer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The explainer of a small classifier of three classes, which takes grey pictures of 128 x 128."""
    path = tmp_path_factory.mktemp("explainer") / "mri.lrp.onnx"
    convert(MODELS / "mri_vgg.onnx").save(path)
    return path


@pytest.fixture(scope="session")
def exported(explainer: Path, runtime: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page with that explainer in it, with two samples."""
    folder = tmp_path_factory.mktemp("page") / "page"
    export_page(str(explainer), folder, samples=[str(s) for s in SAMPLES[:2]], title="A <b>title</b>", runtime=runtime)
    return folder


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is said."""


@pytest.fixture(scope="session")
def served(exported: Path) -> Iterator[str]:
    """The address of that page on a plain web server."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(exported)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://localhost:{server.server_port}/index.html"
    server.shutdown()
    server.server_close()


@pytest.fixture
def page(browser: Browser, exported: Path) -> Page:
    """A tab with the page opened from the disk, its model ready."""
    return opened(browser, exported.joinpath("index.html").as_uri())


def opened(browser: Browser, address: str) -> Page:
    """A tab with a page whose model is ready."""
    tab = Page(browser)
    tab.open(address)
    tab.wait("document.getElementById('ran').textContent || !document.getElementById('alert').hidden")
    assert tab.run("document.getElementById('alert').textContent") == ""
    return tab

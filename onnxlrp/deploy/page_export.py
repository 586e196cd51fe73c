"""The page exported: a folder that any web server can serve, and that works when it is just opened from the disk.

A page on the disk (file://) may neither fetch nor import, only run classic scripts. So the model, the runtime and the
samples become script files of gzip in base64, cut into pieces, which over http serve as well: one folder, one way. The
page's policy (Content-Security-Policy) then forbids every request but for those files.
"""

from __future__ import annotations

import base64
import gzip
import html
import io
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from PIL import Image

from onnxlrp.deploy import web_runtime
from onnxlrp.deploy.folder import refuse_filled, whole_folder
from onnxlrp.deploy.opening import Opened, open_explainer
from onnxlrp.deploy.page_form import facts, page_form
from onnxlrp.deploy.web_runtime import BACKENDS, Tell, WebRuntime
from onnxlrp.errors import OnnxLrpError, Problem
from onnxlrp.graph import stream, weights
from onnxlrp.run.images import read_picture

SOURCE = Path(__file__).parent / "page"
STATIC = ("page.css", "pictures.js", "preparing.js", "drawing.js", "loading.js", "engine.js", "page.js")
WRITTEN = ("index.html", *STATIC, "explainer.js", "NOTICE.txt", "parts/*.js")
PIECE = 8_000_000  # bytes of a part in one file: it bounds a string in the browser, and lets it show progress
HEAVY = 100_000_000  # bytes of a model above which the user is told what that means
LIMIT = 1_000_000_000  # bytes of a model that a browser cannot take: WebAssembly has 4 GB, and folds copies of weights
MEDIA = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif", "BMP": "image/bmp"}
NOTICE = """This folder holds files of onnxruntime-web {version}, a package of npm,
unmodified but for being packed into scripts. ONNX Runtime is licensed under the MIT License:

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


@dataclass(frozen=True)
class Sample:
    """A picture that comes with the page, its bytes as they are on the disk."""

    name: str
    media: str
    data: bytes


def export_page(
    model: str,
    folder: Path,
    *,
    samples: Sequence[str] = (),
    title: str | None = None,
    preprocess: str | None = None,
    webgpu: bool = True,
    runtime: str | None = None,
    force: bool = False,
    tell: Tell = lambda text: None,
) -> list[Path]:
    """Write the page with the explainer `model` in it to `folder`; returns its files.

    `runtime` names a folder with onnxruntime-web (see `find_runtime`); without `webgpu` the page runs on WebAssembly
    only, and is smaller. `tell` is given what the user should know. Raises `OnnxLrpError` where the explainer cannot be
    shown this way or the folder is not empty (unless `force`, and it
    holds such a page), `RunError` where the disk or npm fails.
    """
    refuse_filled(folder, force, WRITTEN)
    opened = open_explainer(model)
    fitted = opened.explainer.fit(preprocess)
    form = page_form(opened, fitted)
    if fitted.doubt:
        tell(f"Warning: {fitted.doubt}")
    _weigh(opened, tell)
    pictures = [read_sample(path) for path in samples]
    found = web_runtime.find_runtime(runtime, tell)
    title = title or Path(model).name.removesuffix(".onnx").removesuffix(".lrp")
    with whole_folder(folder) as staged:
        parts = _write_runtime(staged, found, webgpu)
        parts["worker"] = _write_part(staged, "worker", io.BytesIO((SOURCE / "worker.js").read_bytes()))
        with _whole_model(opened, model, staged) as file:
            parts["model"] = _write_part(staged, "model", file)
        form["samples"] = []
        for number, sample in enumerate(pictures, 1):
            part = f"sample-{number}"
            parts[part] = _write_part(staged, part, io.BytesIO(sample.data))
            form["samples"].append({"name": sample.name, "type": sample.media, "part": part})
        _write_page(staged, title, facts(opened), form, parts)
        (staged / "NOTICE.txt").write_text(NOTICE.format(version=found.version), encoding="utf-8")
    return sorted(path for path in folder.rglob("*") if path.is_file())


def read_sample(path: str) -> Sample:
    """A picture for the page; raises `OnnxLrpError` where it is none, or in a format that browsers do not read."""
    picture = read_picture(path)
    data = picture.path.read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        kind = image.format or ""
    if kind not in MEDIA:
        reason = f"is a picture ({kind}) that browsers do not read"
        raise OnnxLrpError(Problem(f"--sample {path}", reason, f"save it as {', '.join(MEDIA)}"))
    return Sample(picture.path.name, MEDIA[kind], data)


def _weigh(opened: Opened, tell: Tell) -> None:
    """Raise `OnnxLrpError` for a model that no browser can take, and tell what a heavy one means."""
    size = opened.proto.ByteSize() + sum(weights.size(t) for t in weights.external(opened.proto))
    if size > LIMIT:
        reason = f"has {size / 1e9:.1f} GB, and a browser cannot hold a model of more than {LIMIT / 1e9:.0f} GB"
        raise OnnxLrpError(Problem(opened.explainer.name, reason, "serve it instead: onnxlrp triton"))
    if size > HEAVY:
        tell(f"Note: the model has {size / 1e6:.0f} MB, all of which every visitor loads before the first answer.")


def _whole_model(opened: Opened, model: str, staged: Path) -> IO[bytes]:
    """The model's file, opened: itself, or one with its external data inside that vanishes when it is closed."""
    if not weights.external(opened.proto):
        return open(model, "rb")
    file: IO[bytes] = tempfile.TemporaryFile(dir=staged)  # noqa: SIM115 (whoever asked closes it)
    stream.write_model(opened.proto, opened.folder, file)
    file.seek(0)
    return file


def _write_runtime(staged: Path, found: WebRuntime, webgpu: bool) -> dict[str, Any]:
    parts = {}
    for backend, files in BACKENDS.items():
        if backend == "webgpu" and not webgpu:
            continue
        for part, file in files.items():
            parts[f"{backend}.{part}"] = _write_part(staged, f"{backend}.{part}", io.BytesIO(found.read(file)))
    return parts


def _write_part(staged: Path, name: str, source: IO[bytes]) -> dict[str, Any]:
    """Write a part's pieces under parts/; returns what the page's loader must know of it."""
    (staged / "parts").mkdir(exist_ok=True)
    files, total = [], 0
    for number, piece in enumerate(_pieces(source)):
        file = f"parts/{name}.{number}.js"
        packed = base64.b64encode(gzip.compress(piece, 6, mtime=0)).decode("ascii")
        (staged / file).write_text(f'onnxlrp.piece("{packed}");\n', encoding="ascii")
        files.append(file)
        total += len(piece)
    return {"files": files, "bytes": total}


def _pieces(source: IO[bytes]) -> Iterator[bytes]:
    while piece := source.read(PIECE):
        yield piece


def _write_page(staged: Path, title: str, foot: str, form: dict[str, Any], parts: dict[str, Any]) -> None:
    """The page's own files, with the words and numbers of this explainer filled in."""
    for file in STATIC:
        (staged / file).write_bytes((SOURCE / file).read_bytes())
    page = (SOURCE / "index.html").read_text(encoding="utf-8")
    for key, text in (("facts", foot), ("title", title)):
        page = page.replace("{{" + key + "}}", html.escape(text))
    (staged / "index.html").write_text(page, encoding="utf-8", newline="\n")
    lines = [
        "// Written by `onnxlrp page`: what this page must know of its explainer, and which files its parts are in.",
        "var onnxlrp = globalThis.onnxlrp ?? {};",
        f"onnxlrp.explainer = {json.dumps(form)};",
        f"onnxlrp.parts = {json.dumps(parts)};",
    ]
    (staged / "explainer.js").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")

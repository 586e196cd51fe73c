"""ONNX Runtime in a browser: Chromium without a window runs onnxruntime-web, this program feeds it and compares.

    python with_browser.py check DIR            a conformance kit, one line a case
    python with_browser.py EXPLAINER PICTURE    a heatmap

ONNXRUNTIME_WEB names the folder of the npm package (default: node_modules/onnxruntime-web here or in the checkout).
BACKEND is wasm (default) or webgpu; SOFTWARE_GPU=1 lets Chromium compute WebGPU on the CPU, where there is no GPU.
"""

from __future__ import annotations

import base64
import functools
import http.server
import json
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "python"))

import kit  # noqa: E402
from chromium import Browser, Page  # noqa: E402

LONGEST = 600.0  # seconds to load a large model, or to run it
BACKEND = os.environ.get("BACKEND", "wasm")
SCRIPTS = {"wasm": "ort.wasm.min.js", "webgpu": "ort.webgpu.min.js"}
SOFTWARE_GPU = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan")
PAGE = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">
<script src="/dist/{script}"></script>
<script>
ort.env.logLevel = "error";
ort.env.wasm.numThreads = 1;
const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const text = (data) => {{
  let said = "";
  const all = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  for (let i = 0; i < all.length; i += 8192) said += String.fromCharCode(...all.subarray(i, i + 8192));
  return btoa(said);
}};
async function start(path) {{
  await globalThis.session?.release();
  globalThis.session = await ort.InferenceSession.create(path, {{ executionProviders: ["{backend}"] }});
}}
async function answer(feeds, outputs) {{
  const tensors = {{}};
  for (const [name, {{ type, dims, data }}] of Object.entries(feeds)) {{
    if (!session.inputNames.includes(name)) continue;
    const kind = {{ float32: Float32Array, float64: Float64Array, int64: BigInt64Array, uint8: Uint8Array }}[type];
    tensors[name] = new ort.Tensor(type, new kind(bytes(data).buffer), dims);
  }}
  const found = await session.run(tensors, outputs);
  const described = ({{ type, dims, data }}) => ({{ type, dims, data: text(data) }});
  return Object.fromEntries(outputs.map((name) => [name, described(found[name])]));
}}
</script>"""


def runtime_folder() -> Path:
    """Where onnxruntime-web lies."""
    named = os.environ.get("ONNXRUNTIME_WEB")
    places = (
        [Path(named)] if named else [p / "node_modules" / "onnxruntime-web" for p in (Path(), HERE, HERE.parents[2])]
    )
    for place in places:
        if (place / "dist" / SCRIPTS[BACKEND]).is_file():
            return place
    sys.exit("there is no onnxruntime-web: npm install onnxruntime-web here, or name its folder with ONNXRUNTIME_WEB")


class _Files(http.server.SimpleHTTPRequestHandler):
    """The runtime's files under /dist, models under /model/ and their path, and the page itself."""

    def do_GET(self) -> None:
        """Answer with the page, or with a file."""
        if self.path != "/":
            return super().do_GET()
        data = PAGE.format(script=SCRIPTS[BACKEND], backend=BACKEND).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        return None

    def translate_path(self, path: str) -> str:
        """The file that an address means."""
        model = path.removeprefix("/model/")
        if model != path:
            return base64.urlsafe_b64decode(model).decode()
        return super().translate_path(path)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is said."""


@contextmanager
def _served() -> Iterator[str]:
    """The address of a server that only this machine reaches."""
    handler = functools.partial(_Files, directory=str(runtime_folder()))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://localhost:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def opener(page: Page, home: str) -> kit.Open:
    """Opens explainers in a tab."""

    def opens(path: Path, feeds: kit.Feeds, outputs: list[str]) -> kit.Run:
        model = base64.urlsafe_b64encode(str(path.resolve()).encode()).decode()
        page.run(f"start({json.dumps(f'{home}/model/{model}')})")

        def run(feeds: kit.Feeds) -> Mapping[str, np.ndarray]:
            given = {
                name: {"type": str(v.dtype), "dims": v.shape, "data": base64.b64encode(v.tobytes()).decode()}
                for name, v in feeds.items()
            }
            found = page.run(f"answer({json.dumps(given)}, {json.dumps(outputs)})")
            return {
                n: np.frombuffer(base64.b64decode(t["data"]), t["type"]).reshape(t["dims"]) for n, t in found.items()
            }

        return run

    return opens


def main() -> None:
    """Start the browser, then do what every host does."""
    if BACKEND not in SCRIPTS:
        sys.exit(f"BACKEND is {' or '.join(SCRIPTS)}, not {BACKEND}")
    extra = SOFTWARE_GPU if os.environ.get("SOFTWARE_GPU") else ()
    with _served() as home, Browser(extra, LONGEST) as browser:
        page = Page(browser)
        page.open(f"{home}/")
        version = page.run("ort.env.versions.web")
        kit.main(f"onnxruntime-web {version}, {BACKEND}, in {browser.version}", opener(page, home))


if __name__ == "__main__":
    main()

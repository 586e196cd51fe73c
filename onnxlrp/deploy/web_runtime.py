"""ONNX Runtime for browsers: the unmodified files of the npm package onnxruntime-web, found or fetched.

They are too large to be kept here (and not ours), so each page takes them from a folder that the user names, from
./node_modules, from the user's cache, or, once, from npm. What comes in under the pinned version must be what was
published under it, byte for byte.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from onnxlrp.deploy.folder import whole_folder
from onnxlrp.errors import OnnxLrpError, Problem, RunError

PACKAGE = "onnxruntime-web"
VERSION = "1.30.0"
# Of the package's archive, as npm states it: sha512 in base64.
INTEGRITY = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="

# backend -> what it is made of: {part: file in dist/}
BACKENDS: Mapping[str, Mapping[str, str]] = {
    "wasm": {
        "script": "ort.wasm.min.js",
        "glue": "ort-wasm-simd-threaded.mjs",
        "wasm": "ort-wasm-simd-threaded.wasm",
    },
    "webgpu": {
        "script": "ort.webgpu.min.js",
        "glue": "ort-wasm-simd-threaded.asyncify.mjs",
        "wasm": "ort-wasm-simd-threaded.asyncify.wasm",
    },
}
SHA256: Mapping[str, str] = {
    "ort.wasm.min.js": "faece07e84faa9001f5104bbe4e5c70861d06cb2376a0dea1fa0ad33a67adc81",
    "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    "ort.webgpu.min.js": "7d65dad7eb4564ad98db9924a259af2e2c68ebfbdbf254fa5d728f1c5736e07a",
    "ort-wasm-simd-threaded.asyncify.mjs": "3d1c85995364bb643302fc6fd877a0c3ba5ae72401815e0f24828a53d9191e28",
    "ort-wasm-simd-threaded.asyncify.wasm": "39f9f0894d478800487ed9f7dbe92618498db320cf55c8e3d89adff8dce658da",
}
REMEDY = f"run npm install {PACKAGE}@{VERSION} here, or name a folder that has it with --runtime"
NPM_SECONDS = 600

Tell = Callable[[str], object]


@dataclass(frozen=True)
class WebRuntime:
    """A folder with the package's `dist`, and the version that it says it is."""

    folder: Path
    version: str

    def read(self, file: str) -> bytes:
        """A file of `dist`; raises `OnnxLrpError` where it is missing, or not what was published as the pinned one."""
        path = self.folder / "dist" / file
        try:
            data = path.read_bytes()
        except OSError as error:
            raise OnnxLrpError(Problem(str(path), f"cannot be read ({error.strerror})", REMEDY)) from None
        if self.version == VERSION and hashlib.sha256(data).hexdigest() != SHA256[file]:
            reason = f"is not the file that was published with {PACKAGE} {VERSION}"
            raise OnnxLrpError(Problem(str(path), reason, f"delete that folder, then {REMEDY}"))
        return data


def find_runtime(named: str | None, tell: Tell) -> WebRuntime:
    """The runtime in the folder `named`, else in ./node_modules or the cache, else from npm into the cache.

    `tell` is given sentences for the user. A folder that the user names may have another version; the others must have
    the pinned one. Raises `OnnxLrpError` where there is none.
    """
    if named is not None:
        return _named(Path(named), tell)
    for folder in (Path("node_modules") / PACKAGE, cache_folder()):
        if version_in(folder) == VERSION:
            return WebRuntime(folder, VERSION)
    _fetch(cache_folder(), tell)
    return WebRuntime(cache_folder(), VERSION)


def cache_folder() -> Path:
    """Where this user's programs keep what they can fetch again."""
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "onnxlrp" / f"{PACKAGE}-{VERSION}"


def version_in(folder: Path) -> str | None:
    """The version of the package in `folder`, None where it is not there."""
    try:
        said = json.loads((folder / "package.json").read_text(encoding="utf-8"))
        return str(said["version"]) if said.get("name") == PACKAGE else None
    except (OSError, ValueError, KeyError, AttributeError):
        return None


def _named(folder: Path, tell: Tell) -> WebRuntime:
    """The runtime in a folder that the user names: the package itself, a node_modules, or the folder around that."""
    for place in (folder, folder / PACKAGE, folder / "node_modules" / PACKAGE):
        version = version_in(place)
        if version is not None:
            if version != VERSION:
                tell(f"Note: {place} has {PACKAGE} {version}; the page was tested with {VERSION}.")
            return WebRuntime(place, version)
    raise OnnxLrpError(
        Problem(f"--runtime {folder}", f"holds no {PACKAGE}", f"run npm install {PACKAGE}@{VERSION} there")
    )


def _fetch(folder: Path, tell: Tell) -> None:
    """Get the pinned package from npm and keep in `folder` those of its files that a page needs."""
    npm = shutil.which("npm")
    if npm is None:
        reason = f"version {VERSION} is neither in ./node_modules nor in {folder}, and there is no npm to get it with"
        raise OnnxLrpError(Problem(PACKAGE, reason, REMEDY))
    tell(f"Getting {PACKAGE} {VERSION} with npm (33 MB, once; kept in {folder}) …")
    with tempfile.TemporaryDirectory(prefix="onnxlrp-") as place:
        archive = _packed(npm, Path(place))
        digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        if digest != INTEGRITY:
            reason = f"npm gave a {PACKAGE} {VERSION} that is not the one published (sha512 {digest[:16]}…)"
            raise OnnxLrpError(Problem(PACKAGE, reason, "check where npm gets its packages: npm config get registry"))
        with whole_folder(folder) as staged, tarfile.open(archive) as packed:
            (staged / "dist").mkdir()
            for name in ("package.json", *(f"dist/{file}" for file in SHA256)):
                member = packed.extractfile(f"package/{name}")
                (staged / name).write_bytes(member.read() if member else b"")


def _packed(npm: str, place: Path) -> Path:
    """The package's archive, got by npm into the folder `place`."""
    command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--silent", "--ignore-scripts"]
    try:
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=NPM_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RunError(Problem("npm", f"cannot get {PACKAGE} {VERSION} ({error})", REMEDY)) from None
    found = list(place.glob("*.tgz"))
    if done.returncode or len(found) != 1:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        reason = f"cannot get {PACKAGE} {VERSION} ({' '.join(said[-1].split())[:200] if said else 'it says nothing'})"
        raise RunError(Problem("npm", reason, f"check the connection, or {REMEDY}"))
    return found[0]

"""Build stand-ins for the CUDA libraries: `python -m tools.cuda_placement.stubs FOLDER`.

ONNX Runtime's real CUDA provider loads against them on a machine without a GPU. They answer "one device, success" to
everything, so that a session is made and its nodes are given to providers exactly as on a GPU. Nothing is computed:
such a session must never be run. Needs gcc and binutils, onnxruntime-gpu, and the package nvidia-cuda-runtime for the
header driver_types.h.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

PROVIDER = "libonnxruntime_providers_cuda.so"
DRIVER = "libcuda.so.1"  # the library of symbols that carry no version

_ALLOCATE = "{ *p = aligned_alloc(256, (n + 511) / 256 * 256); return 0; }"
_PROPERTIES = """int cudaGetDeviceProperties(struct cudaDeviceProp* p, int device) {
  memset(p, 0, sizeof *p); strcpy(p->name, "stub"); p->major = 9; p->totalGlobalMem = 80ull << 30;
  p->multiProcessorCount = 132; p->warpSize = 32; p->maxThreadsPerBlock = 1024;
  p->maxThreadsPerMultiProcessor = 2048; p->sharedMemPerBlock = 49152; p->sharedMemPerBlockOptin = 232448;
  p->regsPerBlock = 65536; p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024; p->maxThreadsDim[2] = 64;
  p->maxGridSize[0] = 2147483647; p->maxGridSize[1] = p->maxGridSize[2] = 65535; return 0; }"""
_TEXTS = ("cudaGetErrorName", "cudaGetErrorString", "cublasGetStatusName", "cublasGetStatusString")
_CREATES = (
    *("cudaStreamCreate", "cudaStreamCreateWithFlags", "cudaEventCreate", "cudaEventCreateWithFlags"),
    *("cublasCreate_v2", "cublasLtCreate", "cudaMemPoolCreate", "cublasLtMatmulDescCreate"),
)
# Functions that must do more than succeed.
BODIES: Mapping[str, str] = {
    "cudaGetDeviceProperties": _PROPERTIES,
    "cudaMalloc": f"int cudaMalloc(void** p, size_t n) {_ALLOCATE}",
    "cudaMallocHost": f"int cudaMallocHost(void** p, size_t n) {_ALLOCATE}",
    "cudaHostAlloc": f"int cudaHostAlloc(void** p, size_t n, unsigned f) {_ALLOCATE}",
    "cudaMallocFromPoolAsync": f"int cudaMallocFromPoolAsync(void** p, size_t n, void* a, void* b) {_ALLOCATE}",
    "cudaMemcpy": "int cudaMemcpy(void* d, const void* s, size_t n, int k) { memcpy(d, s, n); return 0; }",
    "cudaMemcpyAsync": (
        "int cudaMemcpyAsync(void* d, const void* s, size_t n, int k, void* t) { memcpy(d, s, n); return 0; }"
    ),
    "cudaMemset": "int cudaMemset(void* d, int c, size_t n) { memset(d, c, n); return 0; }",
    "cudaMemsetAsync": "int cudaMemsetAsync(void* d, int c, size_t n, void* s) { memset(d, c, n); return 0; }",
    "cudaGetDevice": "int cudaGetDevice(int* d) { *d = 0; return 0; }",
    "cudaGetDeviceCount": "int cudaGetDeviceCount(int* d) { *d = 1; return 0; }",
    "cudaMemGetInfo": "int cudaMemGetInfo(size_t* a, size_t* b) { *a = 70ull << 30; *b = 80ull << 30; return 0; }",
    "cudaDriverGetVersion": "int cudaDriverGetVersion(int* v) { *v = 13000; return 0; }",
    "cudaRuntimeGetVersion": "int cudaRuntimeGetVersion(int* v) { *v = 13000; return 0; }",
    "cudaDeviceGetAttribute": "int cudaDeviceGetAttribute(int* v, int a, int d) { *v = 1024; return 0; }",
    **{name: f'const char* {name}(int e) {{ return "stub"; }}' for name in _TEXTS},
    **{name: f"int {name}(void** p) {{ *p = calloc(1, 4096); return 0; }}" for name in _CREATES},
}
# In place of a header that belongs to the compiler's own package.
HOST_DEFINES = "".join(
    f"#define {name}\n"
    for name in (
        *("__device_builtin__", "__device_builtin_texture_type__", "__device_builtin_surface_type__"),
        *("__cudart_builtin__", "CUDARTAPI"),
        *("__align__(n) __attribute__((aligned(n)))", "__builtin_align__(n) __align__(n)"),
    )
)


def build(folder: Path) -> list[str]:
    """Compile the stand-ins into `folder`; returns the libraries' names."""
    package = importlib.util.find_spec("onnxruntime")
    if package is None or package.origin is None:
        raise SystemExit("onnxruntime-gpu is not installed")
    site = Path(package.origin).parent
    provider = site / "capi" / PROVIDER
    header = next(site.parent.glob("nvidia/**/include/driver_types.h"), None)
    if not provider.is_file() or header is None:
        raise SystemExit("onnxruntime-gpu and nvidia-cuda-runtime are needed: pip install them")
    (folder / "crt").mkdir(parents=True, exist_ok=True)
    (folder / "crt" / "host_defines.h").write_text(HOST_DEFINES)
    symbols = _symbols(provider)
    for library in symbols:
        _compile(library, symbols[library], folder, header.parent)
    return sorted(symbols)


def _symbols(provider: Path) -> dict[str, set[str]]:
    """The CUDA functions that the provider wants, by library."""
    wanted: dict[str, set[str]] = defaultdict(set)
    for line in _said("nm", "-D", "--undefined-only", str(provider)).splitlines():
        if found := re.match(r"((?:cu|__cuda)\w*)(?:@(.*))?$", line.split()[-1]):
            wanted[found[2] or DRIVER].add(found[1])
    for library in re.findall(r"NEEDED.*\[((?:libcu|libnv)[^\]]*)\]", _said("readelf", "-d", str(provider))):
        wanted[library]  # one that is loaded though nothing of it is named
    return dict(wanted)


def _compile(library: str, functions: set[str], folder: Path, headers: Path) -> None:
    """Make one shared library of functions that succeed."""
    lines = ["#include <stddef.h>", "#include <string.h>", "#include <stdlib.h>"]
    if "cudaGetDeviceProperties" in functions:
        lines = ["#define __CUDA_INTERNAL_COMPILATION__", *lines, '#include "driver_types.h"']
    lines.append(f"int stub_of_{re.sub('[^A-Za-z0-9]', '_', library)};")
    lines += [BODIES.get(f, f"int {f}() {{ return 0; }}") for f in sorted(functions)]
    source, versions = folder / f"{library}.c", folder / f"{library}.map"
    source.write_text("\n".join(lines) + "\n")
    versions.write_text(f"{library} {{ global: *; }};\n")
    linking = [f"-Wl,-soname,{library}", f"-Wl,--version-script={versions}"]
    including = [f"-I{headers}", f"-I{folder}"]
    _said("gcc", "-shared", "-fPIC", "-w", *including, "-o", str(folder / library), str(source), *linking)


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m tools.cuda_placement.stubs FOLDER")
    print(*build(Path(sys.argv[1])), sep="\n")

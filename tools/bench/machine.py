"""With what the numbers were made."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("onnxruntime-gpu", "onnxruntime", "onnx", "numpy", "torch", "torchvision", "zennit", "captum", "onnx-ad")


def versions() -> dict[str, str]:
    """The installed ones of the packages that matter."""
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def processor() -> str:
    """The CPU's name and its number of cores."""
    name = platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = f"{line.split(':', 1)[1].strip()} ({platform.machine()})"
                break
    return f"{name}, {os.cpu_count()} cores"


def gpu() -> str:
    """The GPU's name and its driver's version."""
    asked = ("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        lines = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()
        return lines[0].replace(", ", ", driver ") if lines else ""
    return ""


def memory() -> str:
    """How much there is, in GiB."""
    with contextlib.suppress(ValueError, OSError, AttributeError):
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    return "?"


def sources() -> str:
    """A digest of the package's code, on which the time of converting depends."""
    texts = (p.read_bytes() for p in sorted((ROOT / "onnxlrp").rglob("*.py")))
    return hashlib.sha256(b"\0".join(texts)).hexdigest()[:16]


def commit() -> str:
    """The commit that is checked out, with a + where files differ from it."""
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        asked = (("git", "rev-parse", "--short", "HEAD"), ("git", "status", "--porcelain", "--", "onnxlrp"))
        head, changed = (
            subprocess.run(a, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip() for a in asked
        )
        return head + "+" * bool(changed)
    return "unknown"


def described(device: str) -> str:
    """All of it in two lines of Markdown."""
    where = processor() + (f"; {gpu() or 'unknown GPU'}" if device == "cuda" else "")
    parts = (f"{name} {version}" for name, version in versions().items())
    return (
        f"{datetime.date.today()}; {where}, {memory()} of memory; {platform.system()} {platform.release()}, Python "
        f"{platform.python_version()}.\n{', '.join(parts)}; onnxlrp at commit {commit()}."
    )

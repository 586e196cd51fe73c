"""Where torch or torchvision is missing, what needs them is left out, and said to be."""

from __future__ import annotations

import importlib.util

NEEDED = ("torch", "torchvision", "onnxscript")
missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
collect_ignore_glob = ["test_torch.py", "test_cuda_placement.py"] if missing else []


def pytest_report_header() -> str | None:
    """Say what is left out."""
    return (
        f"tests/models/test_torch.py and test_cuda_placement.py are left out: {', '.join(missing)} not installed"
        if missing
        else None
    )

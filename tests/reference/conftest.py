"""Nothing here runs without torch and zennit; with them, `tools` must be importable from the checkout."""

from __future__ import annotations

import importlib.util

NEEDED = ("torch", "torchvision", "zennit")
missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
collect_ignore_glob = ["test_*.py"] if missing else []


def pytest_report_header() -> str | None:
    """Say what is left out."""
    return f"tests/reference is left out: {', '.join(missing)} not installed (extra: reference)" if missing else None

"""What all tests share: operators are registered, runtimes keep to one thread each, `tools` and `tests` are found."""

from __future__ import annotations

import os
import sys
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# Behind all else: the package that is tested is the one that is installed.
sys.path.append(str(Path(__file__).parents[1]))

import onnxlrp.layers  # noqa: E402, F401  (registers the operators)

"""What all tests share: operators are registered, and runtimes keep to one thread each."""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxlrp.layers  # noqa: E402, F401  (registers the operators)

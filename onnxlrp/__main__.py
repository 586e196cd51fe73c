"""`python -m onnxlrp` is the command `onnxlrp`."""

from __future__ import annotations

from onnxlrp.cli.main import main

main(prog_name="onnxlrp")

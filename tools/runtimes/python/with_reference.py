"""onnx's own reference evaluator: slow, in numpy, and free of any optimisation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import kit
import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator


def opens(path: Path, feeds: kit.Feeds, outputs: list[str]) -> kit.Run:
    """An evaluator of the file."""
    evaluator = ReferenceEvaluator(str(path))

    def run(feeds: kit.Feeds) -> Mapping[str, np.ndarray]:
        given = {name: feeds[name] for name in evaluator.input_names if name in feeds}
        return dict(zip(outputs, evaluator.run(outputs, given), strict=True))

    return run


if __name__ == "__main__":
    kit.main(f"onnx reference evaluator {onnx.__version__}", opens)

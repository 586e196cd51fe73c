"""tract, a runtime in Rust. It is told the shapes of the inputs when it opens a file, and only numbers its outputs."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import kit
import numpy as np
import picture
import tract

TYPES = {"float32": "f32", "float64": "f64", "float16": "f16", "int64": "i64", "uint8": "u8"}


def opens(path: Path, feeds: kit.Feeds, outputs: list[str]) -> kit.Run:
    """A model made for the shapes of `feeds`."""
    model = tract.onnx().load(path)
    taken, given = ([port.name for port in ports] for ports in picture.ports(path))
    for i, name in enumerate(taken):
        model.set_input_fact(i, ",".join([*map(str, feeds[name].shape), TYPES[str(feeds[name].dtype)]]))
    runnable = model.into_model().into_runnable()

    def run(feeds: kit.Feeds) -> Mapping[str, np.ndarray]:
        found = runnable.run([feeds[name] for name in taken])
        return {name: value.to_numpy() for name, value in zip(given, found, strict=True)}

    return run


if __name__ == "__main__":
    kit.main(f"tract {metadata.version('tract')}", opens)

"""Buffers on a device, used again run after run.

With feeds of one shape a GPU plans once, allocates once, and only what was asked for travels back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxlrp.run.runtime import import_onnxruntime

Array = npt.NDArray[Any]
Shapes = tuple[tuple[str, tuple[int, ...]], ...]


def shapes_of(feeds: Mapping[str, Array]) -> Shapes:
    """What must stay the same for a binding to be used again."""
    return tuple((name, array.shape) for name, array in feeds.items())


class Binding:
    """A session's inputs and outputs bound to a device ("cuda" or "cpu"), for feeds of one shape."""

    def __init__(self, session: Any, device: str, feeds: Mapping[str, Array], wanted: Sequence[str]) -> None:
        self._session, self._wanted = session, list(wanted)
        self.shapes = shapes_of(feeds)
        make = import_onnxruntime().OrtValue.ortvalue_from_numpy
        # On the CPU an OrtValue lives in the array it was made from: it must not be the caller's.
        self._inputs = {name: make(array.copy(), device, 0) for name, array in feeds.items()}
        self._binding = session.io_binding()
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        for name in self._wanted:
            self._binding.bind_output(name, device, 0)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Every wanted output by name, in arrays of their own; raises what ONNX Runtime raises."""
        for name, array in feeds.items():
            self._inputs[name].update_inplace(np.ascontiguousarray(array))
        self._session.run_with_iobinding(self._binding)
        found = self._binding.copy_outputs_to_cpu()
        return {name: np.array(array) for name, array in zip(self._wanted, found, strict=True)}

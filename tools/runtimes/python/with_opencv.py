"""OpenCV's DNN module on the CPU."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import cv2
import kit
import numpy as np
import picture

cv2.setNumThreads(int(os.environ.get("OMP_NUM_THREADS", "-1")))


def opens(path: Path, feeds: kit.Feeds, outputs: list[str]) -> kit.Run:
    """A net. It does not say what inputs and outputs it has, so the file is asked; all outputs must be asked for."""
    taken, given = ([port.name for port in ports] for ports in picture.ports(path))
    net = cv2.dnn.readNetFromONNX(str(path))

    def run(feeds: kit.Feeds) -> Mapping[str, np.ndarray]:
        for name in taken:
            net.setInput(feeds[name], name)
        return dict(zip(given, net.forward(given), strict=True))

    return run


if __name__ == "__main__":
    kit.main(f"OpenCV {cv2.__version__}", opens)

"""A few held-back images as PNG files, with the outlines of their lesions, for demonstrations and tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image

from tools.mri.slices import CLASSES, LesionSlices

CHOSEN = (27, 42, 13, 16, 20, 38)  # indices into the held-back samples of seed 0, chosen by eye


def write_samples(dataset: LesionSlices, folder: Path) -> None:
    """Write `folder`/CLASS-NUMBER.png, 8-bit grey, and masks/ with the same names: 255 in the lesion, else 0."""
    (folder / "masks").mkdir(parents=True, exist_ok=True)
    seen = dict.fromkeys(CLASSES, 0)
    for index in CHOSEN:
        image, label, mask = dataset[index]
        seen[CLASSES[label]] += 1
        name = f"{CLASSES[label].replace(' ', '-')}-{seen[CLASSES[label]]}.png"
        PIL.Image.fromarray(np.round(image * 255).astype(np.uint8)).save(folder / name)
        PIL.Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "masks" / name)

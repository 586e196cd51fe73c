"""Axial brain-MRI slices, some with a pasted lesion whose outline is known exactly.

The anatomy is the ICBM 152 (2009a, symmetric) T1 average that the nilearn package carries. Every sample takes one of
its slices, deforms it gently (also out of its plane, but never beyond its block), perhaps puts a lesion into grey or
white matter, and then degrades it as a scanner would (bias field, gamma, noise). A sample depends on nothing but the
part, the seed and its index.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files
from typing import Literal, cast

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates, zoom

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]
Field = NDArray[np.floating]
Part = Literal["train", "held-back"]

CLASSES = ("no lesion", "bright lesion", "dark lesion")
SIZE = 128
MM_PER_PIXEL = 1.6
CENTRE = (98.0, 117.0)  # the voxel (x, y) in the middle of every image
FIRST_SLICE, LAST_SLICE = 28, 139  # millimetre slices, counted from below; outside of them there is too little brain
PERIOD = 14  # of every 14 mm: 10 for training, 1 unused, 2 held back, 1 unused
BLOCK: dict[Part, range] = {"train": range(10), "held-back": range(11, 13)}
SEED_OF_PART: dict[Part, int] = {"train": 1, "held-back": 2}


@dataclass(frozen=True)
class Template:
    """The volumes the slices are cut from, each [z, x, y] at 1 mm."""

    t1: Field  # brightness in 0..1: cerebrospinal fluid about 0.1, grey matter 0.4, white matter 0.65
    brain: Field  # 1 inside the brain, 0 outside
    tissue: Field  # 1 in grey or white matter, 0 in fluid and outside


def load_template() -> Template:
    """Read the volumes out of the installed nilearn package and bring them to a radiological range of greys."""
    raw, grey, white = (_volume(name) for name in ("t1", "gm", "wm"))
    brain = gaussian_filter((raw > 0).astype(np.float32), (0, 0.7, 0.7))
    t1 = np.clip(0.08 + (raw - 100) * (0.57 / 125), 0.03, 1) * (raw > 0)
    tissue = _smoothstep(gaussian_filter((grey + white) / 255, (0, 0.7, 0.7)), 0.35, 0.8)
    return Template(gaussian_filter(t1, (0, 0.6, 0.6)), brain, tissue)


def blocks_of(part: Part) -> list[range]:
    """The z of all slices of one part, block by block. Between blocks of the two parts one slice is unused."""
    starts = range(FIRST_SLICE, LAST_SLICE + 1, PERIOD)
    return [range(start + BLOCK[part].start, start + BLOCK[part].stop) for start in starts]


class LesionSlices:
    """`count` samples of one part; the classes take turns, so that the set is balanced.

    `dataset[i]` is (image, label, mask): image float32 [SIZE, SIZE] with values 0, 1/255, …, 1, anterior on top; label
    an index into CLASSES; mask bool [SIZE, SIZE], the lesion's pixels, all False for "no lesion".
    """

    def __init__(self, template: Template, part: Part, count: int, seed: int = 0) -> None:
        self.template, self.count = template, count
        self.blocks = blocks_of(part)
        self.seeds = (seed, SEED_OF_PART[part])

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Image, int, Mask]:
        if not 0 <= index < self.count:
            raise IndexError(index)
        random = np.random.default_rng((*self.seeds, index))
        label = index % len(CLASSES)
        t1, brain, tissue = _deformed(self.template, self.blocks[random.integers(len(self.blocks))], random)
        mask = np.zeros((SIZE, SIZE), bool)
        if label:
            t1, mask = _with_lesion(t1, tissue, CLASSES[label] == "bright lesion", random)
        return _scanned(t1, brain, random), label, mask


def _volume(name: str) -> Image:
    with as_file(files("nilearn.datasets") / "data" / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz") as path:
        volume = np.asarray(cast(nib.Nifti1Image, nib.load(path)).dataobj, dtype=np.float32)
    return np.ascontiguousarray(volume.transpose(2, 0, 1))


def _smoothstep(x: Field, low: float, high: float) -> Field:
    t: Field = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _coarse_field(random: np.random.Generator, knots: int) -> Field:
    """[SIZE, SIZE] of about unit variance that varies slowly: `knots` independent values along a side."""
    basis = _spline_basis(knots)
    field: Field = basis @ random.standard_normal((knots, knots)) @ basis.T
    return field


@cache
def _spline_basis(knots: int) -> NDArray[np.float64]:
    """[SIZE, knots]: what each of the knots adds to each of SIZE places between them (cubic spline)."""
    basis: NDArray[np.float64] = zoom(np.eye(knots), (SIZE / knots, 1), order=3, grid_mode=True, mode="nearest")
    return basis


def _fine_field(random: np.random.Generator, sigma: float) -> Field:
    """[SIZE, SIZE] of zero mean and unit variance: white noise blurred by `sigma` pixels."""
    field = gaussian_filter(random.standard_normal((SIZE, SIZE)), sigma, mode="wrap")
    normal: Field = (field - field.mean()) / field.std()
    return normal


def _deformed(template: Template, block: range, random: np.random.Generator) -> tuple[Field, Field, Field]:
    """T1, brain and tissue of a slice of a block, each [SIZE, SIZE], alike flipped, turned, scaled, shifted, warped."""
    angle = np.deg2rad(random.uniform(-10, 10))
    across, along = MM_PER_PIXEL * random.uniform(0.93, 1.07) * random.uniform(0.97, 1.03, 2)
    row, column = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    right = across * (np.cos(angle) * column + np.sin(angle) * row) * random.choice((-1, 1))
    front = along * (np.sin(angle) * column - np.cos(angle) * row)
    x, y = (CENTRE[axis] + random.uniform(-5, 5) + 2.2 * _coarse_field(random, 6) for axis in (0, 1))
    z = np.clip(random.choice(block) + 1.5 * _coarse_field(random, 3), block[0], block[-1]) - block[0]
    where = np.stack([z, x + right, y + front])
    t1, brain, tissue = (
        map_coordinates(volume[block[0] : block[-1] + 1], where, order=1, output=np.float32)
        for volume in (template.t1, template.brain, template.tissue)
    )
    return t1, brain, tissue


def _with_lesion(t1: Field, tissue: Field, bright: bool, random: np.random.Generator) -> tuple[Field, Mask]:
    """The T1 slice with one lesion in it and the lesion's mask, both [SIZE, SIZE]."""
    radius = float(np.exp(random.uniform(np.log(4.5), np.log(12))))
    possible = np.argwhere(tissue > 0.9)
    for _ in range(30):
        shape = _blob(possible[random.integers(len(possible))], radius, random)
        mask = shape * tissue > 0.5
        if mask.sum() >= 0.9 * (shape > 0.5).sum():
            break
        radius = max(4.5, 0.95 * radius)
    target = random.uniform(0.8, 0.97) if bright else random.uniform(0.08, 0.22)
    texture = 1 + 0.07 * _fine_field(random, 1.2) + 0.07 * _fine_field(random, 3)
    opacity = random.uniform(0.8, 0.97) * shape * tissue
    return (1 - opacity) * t1 + opacity * target * texture, mask


def _blob(centre: NDArray[np.int64], radius: float, random: np.random.Generator) -> Field:
    """[SIZE, SIZE] in 0..1: an ellipse of a mean radius in pixels, its outline bent by noise, its edge soft."""
    row, column = np.mgrid[:SIZE, :SIZE] - centre[:, None, None]
    angle, stretch = random.uniform(0, np.pi), np.sqrt(random.uniform(1, 1.9))
    long = np.cos(angle) * column + np.sin(angle) * row
    short = np.cos(angle) * row - np.sin(angle) * column
    distance = np.hypot(long / stretch, short * stretch) / radius
    bent = distance + 0.22 * _fine_field(random, radius / 2) + 0.08 * _fine_field(random, radius / 5)
    edge = max(random.uniform(0.12, 0.3), 0.8 / radius)
    shape: Field = 1 / (1 + np.exp(np.clip((bent - 1) / edge * 2, -30, 30)))
    return shape


def _scanned(t1: Field, brain: Field, random: np.random.Generator) -> Image:
    """The slice as an 8-bit image of a scanner: bias field, gamma, Rician noise; skull-stripped, so 0 outside."""
    image = np.clip(t1 * np.exp(0.07 * _coarse_field(random, 3)), 0, 1) ** np.exp(random.uniform(-0.2, 0.2))
    noise = random.uniform(0.01, 0.03) * np.stack([_fine_field(random, 0.5), _fine_field(random, 0.5)])
    image = np.hypot(image + noise[0], noise[1]) * _smoothstep(brain, 0.2, 0.8)
    pixels: Image = (np.round(np.clip(image, 0, 1) * 255) / 255).astype(np.float32)
    return pixels

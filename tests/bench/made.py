"""Results from given numbers: a forward pass takes a second, an explanation three, zennit's twelve."""

from __future__ import annotations

from tools.bench.results import DEFAULT, FIXED, FORWARD, OPEN, OURS, TORCH, File, Peak, Results, Row, Setting
from tools.bench.timing import Samples

ROUNDS = 4


def constant(**seconds: float) -> Samples:
    """The same in every round; a name's _ stands for a space."""
    return {name.replace("_", " "): [(r, s) for r in range(ROUNDS)] for name, s in seconds.items()}


def row(network: str = "vgg16", batch: int = 8, composite: str = DEFAULT, best: float = 2.5, **more: float) -> Row:
    """A row with both modes, torch and zennit."""
    samples = {name + mode: [(r, s) for r in range(ROUNDS)] for mode in (OPEN, FIXED)
               for name, s in ((FORWARD, 1.0), (OURS, 3.0))}  # fmt: skip
    samples |= {name: [(r, s) for r in range(ROUNDS)] for name, s in ((TORCH, 1.5), ("zennit", 12.0))}
    return Row(samples | constant(**more), Setting(network, batch, composite), best)


def results() -> Results:
    """Two networks, with files and memory."""
    files = [File(constant(convert=2.0, load_and_save=1.0), n, 1000, {DEFAULT: 1010}) for n in ("vgg16", "resnet50")]
    peaks = [
        Peak(n, 8, DEFAULT, what, above)
        for n in ("vgg16", "resnet50")
        for what, above in ((OURS, 500), (OURS + FIXED, 700), ("zennit", 1000), ("convert", 2500))
    ]
    return Results([row("vgg16"), row("resnet50"), row("resnet50", batch=1)], files, peaks)

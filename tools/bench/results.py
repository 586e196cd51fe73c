"""What was measured, and the ratios that follow."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from tools.bench.timing import Samples

NETWORKS = ("vgg16", "vgg16_bn", "resnet18", "resnet50", "resnet101")
TITLES = dict(zip(NETWORKS, ("VGG-16", "VGG-16-BN", "ResNet-18", "ResNet-50", "ResNet-101"), strict=True))
DEFAULT = "epsilon_plus_flat"
COMPOSITES = ("gradient", "epsilon_plus", DEFAULT, "epsilon_gamma_box", "epsilon_alpha2_beta1_flat")
LOW, HIGH = -2.2, 2.7  # of pixels, for the composite with the zB rule
BATCHES = (1, 8, 32)
PRECISIONS = ("float32", "tf32", "float16")

FORWARD, OURS, TORCH = "ort forward", "onnxlrp", "torch forward"
OPEN, FIXED, GRAPH = "", " fixed", " graph"  # the batch: open, fixed when the session starts, in a CUDA graph too
PEERS = {  # with the composites that each has
    "zennit": COMPOSITES[1:],
    "captum": ("epsilon_plus",),
    "autograd": ("gradient",),
    "onnx-ad": ("gradient",),
}
PACKAGES = {"zennit": "zennit", "captum": "captum", "autograd": "torch", "onnx-ad": "onnx-ad"}


def peers_of(composite: str, wanted: tuple[str, ...] = tuple(PEERS)) -> list[str]:
    """The peers that have a composite."""
    return [p for p in wanted if composite in PEERS[p]]


@dataclass(frozen=True)
class Setting:
    """One row of the benchmark."""

    network: str
    batch: int
    composite: str
    precision: str = "float32"


@dataclass(frozen=True)
class Timed:
    """Seconds by contestant and round."""

    samples: Samples

    def rounds(self, name: str) -> int:
        """In how many rounds it ran."""
        return len(self.samples.get(name, ()))

    def median(self, name: str) -> float | None:
        """Seconds; None where it was not measured."""
        return statistics.median(s for _, s in self.samples[name]) if self.rounds(name) else None

    def quartiles(self, name: str) -> tuple[float, float] | None:
        """The first and the third, in seconds."""
        if not self.rounds(name):
            return None
        seconds = sorted(s for _, s in self.samples[name])
        found = statistics.quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else [seconds[0]] * 3
        return found[0], found[2]

    def ratio(self, over: str, under: str) -> float | None:
        """The median of the ratios within the rounds that both ran in."""
        first, second = (dict(self.samples.get(n, ())) for n in (over, under))
        paired = [first[r] / second[r] for r in first if r in second]
        return statistics.median(paired) if paired else None


@dataclass(frozen=True)
class Row(Timed):
    """A setting with all its contestants."""

    setting: Setting
    best: float  # forward passes that the rules imply, counted in operations
    failed: dict[str, str] = field(default_factory=dict)
    together: bool = True  # all in one process; else ONNX Runtime's and torch's contestants in one each

    def own(self, mode: str = OPEN) -> float | None:
        """The explanation over ONNX Runtime's forward pass, both with the batch open or both fixed."""
        return self.ratio(OURS + mode, FORWARD + mode)

    def over_best(self, mode: str = OPEN) -> float | None:
        """Measured over what the rules imply."""
        own = self.own(mode)
        return None if own is None else own / self.best

    def faster(self, peer: str, mode: str = OPEN) -> float | None:
        """The peer's time over ours; the ratio of medians where they ran in two processes."""
        if self.together:
            return self.ratio(peer, OURS + mode)
        theirs, ours = self.median(peer), self.median(OURS + mode)
        return theirs / ours if theirs is not None and ours is not None else None

    def forwards(self, name: str) -> float | None:
        """A contestant's time in forward passes of ONNX Runtime."""
        if self.together or name.startswith(OURS):
            return self.ratio(name, FORWARD)
        theirs, forward = self.median(name), self.median(FORWARD)
        return theirs / forward if theirs is not None and forward is not None else None


@dataclass(frozen=True)
class File(Timed):
    """What converting with the default composite costs, beside loading and saving the model with onnx."""

    network: str
    model_bytes: int
    explainer_bytes: dict[str, int]  # by composite

    @property
    def growth(self) -> float:
        """The largest explainer over the model."""
        return max(self.explainer_bytes.values()) / self.model_bytes


@dataclass(frozen=True)
class Peak:
    """Peak memory of a process of its own, in bytes above what its imports took; None where it failed, and why."""

    network: str
    batch: int
    composite: str
    what: str
    above: int | None
    imports: int = 0
    failed: str = ""


@dataclass(frozen=True)
class Check:
    """A number about running on a GPU other than a time."""

    network: str
    composite: str
    what: str
    value: float


@dataclass
class Results:
    """All of it."""

    rows: list[Row] = field(default_factory=list)
    files: list[File] = field(default_factory=list)
    peaks: list[Peak] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)  # what else could not be measured
    cached: bool = False  # whether some of it was measured before

    def row(self, network: str, batch: int, composite: str, precision: str = "float32") -> Row | None:
        """The row of a setting."""
        setting = Setting(network, batch, composite, precision)
        return next((r for r in self.rows if r.setting == setting), None)

    def file(self, network: str) -> File | None:
        """The file of a network."""
        return next((f for f in self.files if f.network == network), None)

    def peak(self, network: str, batch: int, composite: str, what: str) -> int | None:
        """Bytes."""
        wanted = (network, batch, composite, what)
        return next((p.above for p in self.peaks if (p.network, p.batch, p.composite, p.what) == wanted), None)

    def check(self, network: str, composite: str, what: str) -> float | None:
        """The worst of a check's values."""
        wanted = (network, composite, what)
        found = [c.value for c in self.checks if (c.network, c.composite, c.what) == wanted]
        return max(found) if found else None

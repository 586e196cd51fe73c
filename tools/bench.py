"""Time explanations beside peers and write tools/reports/BENCHMARKS.md: `python -m tools.bench`.

All contestants of a row run in one process, one after the other, round after round; medians over the rounds and their
spread are reported, and ratios of medians, because machines are noisy. "×" is against the same engine's own plain
forward pass. Peak memory is that of a process of its own. Needs torch, torchvision and zennit; `--device cuda` runs the
same on a GPU.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import onnxruntime as ort
import torch

import onnxlrp
from onnxlrp.contract import PREPROCESS_PRESETS, TARGET
from onnxlrp.explain.assemble import assemble
from onnxlrp.explain.cost import costs
from onnxlrp.explain.emit import emit
from onnxlrp.explain.examine import examine
from onnxlrp.explain.options import Options
from tools import zoo

REPORT = Path(__file__).parent / "reports" / "BENCHMARKS.md"
LOW, HIGH = -2.2, 2.7
COMPOSITES = {  # zennit's name for each; for the gradient torch's own autograd is the peer
    "epsilon_plus_flat": "EpsilonPlusFlat",
    "epsilon_plus": "EpsilonPlus",
    "epsilon_gamma_box": "EpsilonGammaBox",
    "epsilon_alpha2_beta1_flat": "EpsilonAlpha2Beta1Flat",
    "gradient": "",
}
Call = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """One network, batch and composite: seconds a call, medians and quartile spreads, by contestant."""

    network: str
    batch: int
    composite: str
    seconds: dict[str, float]
    spread: dict[str, float]
    best: float  # forward passes that the rules imply, counted in operations

    @property
    def own(self) -> float:
        """Explanation over ONNX Runtime's own forward."""
        return self.seconds["onnxlrp"] / self.seconds["ort forward"]

    @property
    def peers(self) -> float:
        """The peer's explanation over torch's own forward."""
        return self.seconds["peer"] / self.seconds["torch forward"]

    @property
    def faster(self) -> float:
        """The peer's time over ours."""
        return self.seconds["peer"] / self.seconds["onnxlrp"]


@dataclass(frozen=True)
class File:
    """What converting costs: seconds and bytes beside loading and saving the model with onnx."""

    network: str
    convert: float
    load_and_save: float
    session: float
    model_bytes: int
    explainer_bytes: int


def interleaved(calls: dict[str, Call], rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """Median seconds and the spread between quartiles of each call, over rounds in which each runs once."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for round_ in range(rounds + 1):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if round_:  # the first is for warming up
                taken[name].append(time.perf_counter() - started)
    quartiles = {n: statistics.quantiles(t, n=4) if len(t) > 1 else [t[0]] * 3 for n, t in taken.items()}
    return {n: statistics.median(t) for n, t in taken.items()}, {n: q[2] - q[0] for n, q in quartiles.items()}


def session(path: Path, device: str, threads: int) -> ort.InferenceSession:
    """A session on the device, with as many threads as torch has."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    providers = ["CUDAExecutionProvider"] if device == "cuda" else ["CPUExecutionProvider"]
    opened = ort.InferenceSession(str(path), options, providers=providers)
    if opened.get_providers()[0] != providers[0]:
        raise click.ClickException(f"{providers[0]} is not there; ONNX Runtime offers {opened.get_providers()}")
    return opened


def contestants(network: str, batch: int, composite: str, folder: Path, device: str) -> dict[str, Call]:
    """Everything to time for one row, as calls without arguments."""
    threads = torch.get_num_threads()
    model, explainer = folder / f"{network}.onnx", folder / f"{network}.{composite}.onnx"
    images = np.random.default_rng(0).standard_normal((batch, 3, zoo.SIZE, zoo.SIZE)).astype(np.float32)
    plain, explaining = session(model, device, threads), session(explainer, device, threads)
    fed = {zoo.INPUT: images}
    calls: dict[str, Call] = {
        "ort forward": lambda: plain.run(None, fed),
        "onnxlrp": lambda: explaining.run(["relevance"], {**fed, TARGET: np.full(batch, -1)}),
    }
    return calls | torch_calls(network, images, composite, device)


def torch_calls(network: str, images: np.ndarray, composite: str, device: str) -> dict[str, Call]:
    """torch's forward pass, and zennit's explanation (autograd's for the gradient)."""
    net = zoo.build(network).to(device).eval()
    x = torch.from_numpy(images).to(device)

    def finish() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    def forward() -> None:
        with torch.no_grad():
            net(x)
        finish()

    def explain() -> None:
        given = x.clone().requires_grad_()
        with _zennit(network, composite, x).context(net) if COMPOSITES[composite] else nullcontext(net) as modified:
            _relevance(modified, given)
        finish()

    return {"torch forward": forward, "peer": explain}


def _zennit(network: str, composite: str, x: torch.Tensor) -> Any:
    """zennit's composite, with the canonizer for the network. Imported late: tools.zoo readies torchvision for it."""
    from zennit import composites, torchvision

    canonizer = torchvision.ResNetCanonizer if network.startswith("resnet") else torchvision.VGGCanonizer
    box = {"low": torch.full_like(x, LOW), "high": torch.full_like(x, HIGH)} if composite == "epsilon_gamma_box" else {}
    return getattr(composites, COMPOSITES[composite])(canonizers=[canonizer()], **box)


def _relevance(net: torch.nn.Module, x: torch.Tensor) -> None:
    scores = net(x)
    start = torch.zeros_like(scores)
    best = scores.argmax(1, keepdim=True)
    start.scatter_(1, best, scores.detach().gather(1, best))
    torch.autograd.grad(scores, x, start)


def prepare(network: str, composites: Sequence[str], folder: Path) -> dict[str, float]:
    """Export and convert; the best ratio by composite."""
    path = folder / f"{network}.onnx"
    net = zoo.build(network)
    zoo.legacy(net, zoo.images(1), path)
    best = {}
    for composite in composites:
        options = _options(composite)
        onnxlrp.convert(path, **options).save(folder / f"{network}.{composite}.onnx", force=True)
        study = examine(path, Options(**options))
        counted = costs(study, assemble(study, emit(study)))
        forward = sum(c.forward.flops for c in counted)
        best[composite] = 1 + sum(c.relevance.flops for c in counted) / forward
    return best


def _options(composite: str) -> dict[str, Any]:
    text = f"epsilon_gamma_box(low={LOW}, high={HIGH})" if composite == "epsilon_gamma_box" else composite
    return {"composite": text, "preprocess": PREPROCESS_PRESETS["imagenet"]}


def file_costs(network: str, folder: Path, rounds: int) -> File:
    """Converting against loading and saving with onnx, interleaved."""
    model, made, copy = folder / f"{network}.onnx", folder / "made.onnx", folder / "copy.onnx"
    calls: dict[str, Call] = {
        "convert": lambda: onnxlrp.convert(model).save(made, force=True),
        "copy": lambda: onnx.save(onnx.load(model), copy),
        "session": lambda: session(made, "cpu", torch.get_num_threads()),
    }
    seconds, _ = interleaved(calls, rounds)
    sizes = model.stat().st_size, made.stat().st_size
    return File(network, seconds["convert"], seconds["copy"], seconds["session"], *sizes)


def peak(what: str, network: str, batch: int, composite: str, folder: Path) -> float:
    """Peak resident memory in MB of a process of its own that does `what` once: ours, peer or convert."""
    command = [sys.executable, "-m", "tools.bench", "--peak-of", what, "--networks", network]
    command += ["--batches", str(batch), "--composites", composite, "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def _peak_of(what: str, network: str, batch: int, composite: str, folder: Path) -> None:
    """Do it, and print this process's peak memory."""
    if what == "convert":
        onnxlrp.convert(folder / f"{network}.onnx").save(folder / "peak.onnx", force=True)
    elif what == "ours":
        images = np.zeros((batch, 3, zoo.SIZE, zoo.SIZE), np.float32)
        opened = session(folder / f"{network}.{composite}.onnx", "cpu", torch.get_num_threads())
        opened.run(["relevance"], {zoo.INPUT: images, TARGET: np.full(batch, -1)})
    else:
        images = np.zeros((batch, 3, zoo.SIZE, zoo.SIZE), np.float32)
        torch_calls(network, images, composite, "cpu")["peer"]()
    # Not getrusage: its maximum is inherited from the process that started this one.
    high = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    click.echo(json.dumps(int(high.split()[1]) / 1e3))


def report(rows: Sequence[Row], files: Sequence[File], peaks: Sequence[tuple[str, ...]], device: str) -> str:
    """The Markdown page."""
    versions = ", ".join(f"{p} {importlib.metadata.version(p)}" for p in ("onnxruntime-gpu", "torch", "zennit"))
    lines = [
        "# Benchmarks",
        "",
        f"{datetime.date.today()}, {device}, {torch.get_num_threads()} threads of {platform.machine()}; {versions}; "
        f"onnxlrp {onnxlrp.__version__}. Written by `python -m tools.bench`; medians of interleaved rounds.",
        "",
        "“×” is against the same engine's plain forward pass; “best” what the rules imply, counted in operations.",
        "",
        "| network | batch | composite | onnxlrp | × | best | peer | × | faster by | spread |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        spread = max(r.spread[n] / r.seconds[n] for n in ("onnxlrp", "peer"))
        lines.append(
            f"| {r.network} | {r.batch} | {r.composite} | {r.seconds['onnxlrp']:.3f} s | {r.own:.2f} | {r.best:.2f} | "
            f"{r.seconds['peer']:.3f} s | {r.peers:.2f} | **{r.faster:.2f}** | {spread:.0%} |"
        )
    lines += ["", "The peer is zennit, for `gradient` torch's autograd.", "", "## Files", ""]
    lines += [
        "| network | convert | load and save with onnx | × | session start | explainer over model |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {f.network} | {f.convert:.2f} s | {f.load_and_save:.2f} s | {f.convert / f.load_and_save:.2f} | "
        f"{f.session:.2f} s | {f.explainer_bytes / f.model_bytes:.4f} |"
        for f in files
    ]
    lines += ["", "## Peak memory", "", "| network | what | MB | beside |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(p)} |" for p in peaks]
    return "\n".join(lines) + "\n"


def _listed(ctx: click.Context, parameter: click.Parameter, text: str) -> list[str]:
    return [t.strip() for t in text.split(",")]


@click.command()
@click.option("--networks", default="vgg16,vgg16_bn,resnet18,resnet50,resnet101", callback=_listed, show_default=True)
@click.option("--batches", default="1,8", callback=_listed, show_default=True)
@click.option("--composites", default=",".join(COMPOSITES), callback=_listed, show_default=True)
@click.option("--rounds", default=5, show_default=True)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Where models are kept.  [default: a temporary folder]")
@click.option("-o", "output", type=click.Path(path_type=Path), default=REPORT)
@click.option("--peak-of", hidden=True)
def main(
    networks: list[str], batches: list[str], composites: list[str], rounds: int, device: str, folder: Path | None,
    output: Path, peak_of: str | None,
) -> None:  # fmt: skip
    """Time onnxlrp beside zennit and torch."""
    if peak_of and folder:
        _peak_of(peak_of, networks[0], int(batches[0]), composites[0], folder)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = folder or Path(temporary)
        rows, files, peaks = [], [], []
        for network in networks:
            best = prepare(network, composites, folder)
            for batch in map(int, batches):
                for composite in composites:
                    seconds, spread = interleaved(contestants(network, batch, composite, folder, device), rounds)
                    rows.append(Row(network, batch, composite, seconds, spread, best[composite]))
                    r = rows[-1]
                    click.echo(
                        f"{network} {batch} {composite}: {r.own:.2f}× (best {r.best:.2f}), {r.faster:.2f} faster"
                    )
            if device == "cpu":
                files.append(file_costs(network, folder, rounds))
                peaks += _peaks(network, max(map(int, batches)), composites[0], folder)
        output.write_text(report(rows, files, peaks, device))
    click.echo(f"Wrote {output}")


def _peaks(network: str, batch: int, composite: str, folder: Path) -> list[tuple[str, ...]]:
    """Peak memory of running beside zennit's, and of converting beside the model's file."""
    ours, theirs = (peak(w, network, batch, composite, folder) for w in ("ours", "peer"))
    convert, size = peak("convert", network, 1, composite, folder), (folder / f"{network}.onnx").stat().st_size / 1e6
    return [
        (network, f"{composite}, batch {batch}", f"{ours:.0f}", f"{ours / theirs:.2f} of zennit's {theirs:.0f}"),
        (network, "convert", f"{convert:.0f}", f"{convert / size:.2f} of the model's {size:.0f}"),
    ]


if __name__ == "__main__":
    main()

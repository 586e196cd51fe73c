"""The limits that the project has set itself, each beside what was measured. The numbers are those of CPUs with two
cores; ratios carry over to others, roughly."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tools.bench.results import DEFAULT, FIXED, GRAPH, OPEN, TITLES, Results

Measure = Callable[[Results, str, str], float | None]  # of a network, with the batch open or fixed
PAIR = ("vgg16", "resnet50")
GAMMA, ALPHA_BETA = "epsilon_gamma_box", "epsilon_alpha2_beta1_flat"


@dataclass(frozen=True)
class Limit:
    """A measure, with what it may be at most (or must be at least) for some networks."""

    what: str
    measure: Measure
    bounds: Mapping[str, float]
    at_least: bool = False
    modes: tuple[str, ...] = (OPEN, FIXED)

    def bound(self, network: str) -> str:
        """As a reader writes it."""
        return f"{'≥' if self.at_least else '≤'} {self.bounds[network]:g}"

    def holds(self, network: str, value: float) -> bool:
        """Whether a value is within the limit."""
        return (operator.ge if self.at_least else operator.le)(value, self.bounds[network])


def _own(composite: str, batch: int, precision: str = "float32") -> Measure:
    def measure(results: Results, network: str, mode: str) -> float | None:
        row = results.row(network, batch, composite, precision)
        return row.own(mode) if row else None

    return measure


def _faster(composite: str, batch: int) -> Measure:
    def measure(results: Results, network: str, mode: str) -> float | None:
        row = results.row(network, batch, composite)
        return row.faster("zennit", mode) if row else None

    return measure


def _growth(results: Results, network: str, mode: str) -> float | None:
    file = results.file(network)
    return file.growth if file else None


def _converting(results: Results, network: str, mode: str) -> float | None:
    file = results.file(network)
    return file.ratio("convert", "load and save") if file else None


def _convert_memory(results: Results, network: str, mode: str) -> float | None:
    file = results.file(network)
    peak = next((p.above for p in results.peaks if p.network == network and p.what == "convert"), None)
    return peak / file.model_bytes if file and peak is not None else None


def _run_memory(results: Results, network: str, mode: str) -> float | None:
    ours, theirs = (results.peak(network, 8, DEFAULT, what) for what in (f"onnxlrp{mode}", "zennit"))
    return ours / theirs if ours is not None and theirs is not None else None


def _check(what: str, composite: str = DEFAULT) -> Measure:
    return lambda results, network, mode: results.check(network, composite, what)


def _half_over_single(results: Results, network: str, mode: str) -> float | None:
    half, single = (results.row(network, 32, DEFAULT, p) for p in ("float16", "float32"))
    seconds = [r.median(f"onnxlrp{mode}") if r else None for r in (half, single)]
    return seconds[0] / seconds[1] if seconds[0] is not None and seconds[1] is not None else None


def _of(vgg: float, resnet: float) -> dict[str, float]:
    return dict(zip(PAIR, (vgg, resnet), strict=True))


def _both(bound: float) -> dict[str, float]:
    return _of(bound, bound)


LIMITS: tuple[Limit, ...] = (
    Limit(f"{DEFAULT} over own forward, batch 8", _own(DEFAULT, 8), _of(3.15, 3.4)),
    Limit(f"{DEFAULT} over own forward, batch 1", _own(DEFAULT, 1), _of(3.2, 3.6)),
    Limit(f"{GAMMA} over own forward, batch 8", _own(GAMMA, 8), _of(3.3, 4.4)),
    Limit(f"{ALPHA_BETA} over own forward, batch 8", _own(ALPHA_BETA, 8), _of(5.2, 5.6)),
    Limit("gradient over own forward, batch 8", _own("gradient", 8), _of(2.1, 2.3)),
    Limit(f"zennit over onnxlrp, {DEFAULT}, batch 1", _faster(DEFAULT, 1), _of(2.3, 4.5), at_least=True),
    Limit(f"zennit over onnxlrp, {DEFAULT}, batch 8", _faster(DEFAULT, 8), _of(3.3, 4), at_least=True),
    Limit(f"zennit over onnxlrp, {GAMMA}, batch 1", _faster(GAMMA, 1), _of(5, 5), at_least=True),
    Limit(f"zennit over onnxlrp, {GAMMA}, batch 8", _faster(GAMMA, 8), _of(5, 5), at_least=True),
    Limit(f"zennit over onnxlrp, {ALPHA_BETA}, batch 1", _faster(ALPHA_BETA, 1), _of(3, 4), at_least=True),
    Limit(f"zennit over onnxlrp, {ALPHA_BETA}, batch 8", _faster(ALPHA_BETA, 8), _of(3, 4), at_least=True),
    Limit("explainer file over model file, the largest", _growth, _of(1.02, 1.03), modes=(OPEN,)),
    Limit("convert, over loading and saving the model with onnx", _converting, _of(3, 6), modes=(OPEN,)),
    Limit("peak memory of convert over the model file", _convert_memory, _of(3, 6), modes=(OPEN,)),
    Limit("peak memory of running over zennit's, batch 8", _run_memory, _both(0.6)),
)

GPU_MODES = (OPEN, FIXED, GRAPH)
GPU_LIMITS: tuple[Limit, ...] = (
    Limit("nodes that are not on CUDA, worst composite measured", _check("not on CUDA", ""), _both(0), modes=(OPEN,)),
    Limit("Memcpy nodes, worst composite measured", _check("Memcpy", ""), _both(0), modes=(OPEN,)),
    Limit("CUDA graph replayed, relative L2 to a plain run", _check("replay"), _both(1e-6), modes=(GRAPH,)),
    Limit("to the CPU, relative L2, TF32 off", _check("to the CPU"), _both(5e-4), modes=(FIXED,)),
    Limit("float16 to float32, relative L2", _check("float16"), _both(1e-2), modes=(FIXED,)),
    Limit("… with the same weights", _check("float16, same weights"), _both(1e-2), modes=(FIXED,)),
    Limit("float16 over float32, seconds, batch 32", _half_over_single, _both(1), modes=GPU_MODES),
    Limit(f"{DEFAULT} over own forward, batch 32", _own(DEFAULT, 32), _both(3.3), modes=GPU_MODES),
    Limit(f"zennit over onnxlrp, {DEFAULT}, batch 1", _faster(DEFAULT, 1), _both(3), at_least=True, modes=GPU_MODES),
    Limit(f"zennit over onnxlrp, {DEFAULT}, batch 32", _faster(DEFAULT, 32), _both(2), at_least=True, modes=GPU_MODES),
)


def limits_table(results: Results, device: str = "cpu") -> list[str]:
    """Every limit of the networks that were measured, with its value and ✓ or ✗; "–" where there is no value."""
    limits, modes = (LIMITS, (OPEN, FIXED)) if device == "cpu" else (GPU_LIMITS, GPU_MODES)
    head = ["", "", "limit", *("batch open", "batch fixed", "CUDA graph")[: len(modes)]]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for network in PAIR:
        rows = [(limit, [_cell(limit, network, mode, results) for mode in modes]) for limit in limits]
        if all(set(cells) <= {"–", ""} for _, cells in rows):
            continue
        for limit, cells in rows:
            lines.append(f"| {TITLES[network]} | {limit.what} | {limit.bound(network)} | {' | '.join(cells)} |")
    return lines


def missed(results: Results, device: str = "cpu") -> tuple[int, int, int]:
    """How many values are within their limits, how many are not, and how many limits were not measured."""
    counts = [0, 0, 0]
    for limit in LIMITS if device == "cpu" else GPU_LIMITS:
        for network in PAIR:
            for mode in limit.modes:
                value = limit.measure(results, network, mode)
                counts[2 if value is None else 0 if limit.holds(network, value) else 1] += 1
    return counts[0], counts[1], counts[2]


def _cell(limit: Limit, network: str, mode: str, results: Results) -> str:
    if mode not in limit.modes:
        return ""
    value = limit.measure(results, network, mode)
    if value is None:
        return "–"
    holds = limit.holds(network, value)
    text = f"{value:.1e}" if 0 < value < 5e-3 else f"{value:.2f}"
    if limit.holds(network, float(text)) != holds:
        text = f"{value:.4f}"  # what decides is not rounded away
    return f"{text} {'✓' if holds else '**✗**'}"

"""The report, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tools.bench import machine
from tools.bench.limits import limits_table, missed
from tools.bench.results import (
    DEFAULT,
    FIXED,
    FORWARD,
    GRAPH,
    OPEN,
    OURS,
    TITLES,
    TORCH,
    Results,
    Row,
    peers_of,
)

HEADLINE_BATCH = 8
SPINS = {
    "stop": "session.force_spinning_stop = 1 (threads spin within a run, as by default, but not after it, where that "
    "would take time from the next contestant)",
    "off": "session.intra_op.allow_spinning = 0 (threads never spin)",
    "default": "threads that go on spinning after a run, the default, which takes time from the next contestant",
}
PEERS = """\
- **zennit**: its composite of the same name, with the canonizers for VGG and ResNet, through torch's autograd.
- **Captum**'s `LRP` knows epsilon, alpha1-beta0, gamma and identity. Its alpha1-beta0 for convolutions and epsilon for
  dense layers come close to `epsilon_plus`: as much work, but biases keep their sign, and negative pixels are not told
  apart in the first layer. There is no counterpart of flat, zB or alpha2-beta1, nor of gamma for inputs of both signs,
  so the other composites have none. torchvision's ResNets it explains without an error, and wrongly: a residual sum
  that is no module hands all relevance to both branches (ResNet-18: a logit of 1.4 becomes 9e5). Here the networks are
  rewritten for it: sums as its `Addition_Module`, batch norms merged, no relu in place; the class is found out before.
- **autograd**: torch's gradient, started at the score of the predicted class.
- **onnx-ad** writes the vector-Jacobian product as an ONNX graph. It wants all shapes declared: a batch of open size it
  refuses ("Conv needs a declared input shape"), so its model is made for one batch size, and the class is fed to it."""


def page(results: Results, device: str, spinning: str, threads: int, command: str, pictures: Sequence[str] = ()) -> str:
    """All of it. `pictures`: files beside the report for light and for dark pages."""
    parts = [
        ["# Benchmarks" + (" on a GPU" if device == "cuda" else "")],
        headline(results),
        _picture(pictures),
        ["## Limits", "", *_limits(results, device)],
        ["## How it was measured", "", *_method(results, device, spinning, threads, command)],
        *(_network(results, network) for network in TITLES if any(r.setting.network == network for r in results.rows)),
        _files(results),
        _memory(results, device),
        ["## The peers", "", PEERS],
        _failures(results),
    ]
    return "\n\n".join("\n".join(p) for p in parts if p) + "\n"


def headline_batch(results: Results) -> int:
    """The largest batch up to 8 that was measured, else the smallest."""
    batches = {r.setting.batch for r in results.rows}
    return max((b for b in batches if b <= HEADLINE_BATCH), default=min(batches, default=HEADLINE_BATCH))


def headline(results: Results) -> list[str]:
    """The default composite in a table, for the README as well."""
    batch = headline_batch(results)
    rows = [r for n in TITLES if (r := results.row(n, batch, DEFAULT)) and r.own() is not None]
    if not rows:
        return [f"`{DEFAULT}` was not measured."]
    return [
        f"One explanation by `{DEFAULT}`, batch {batch}; “forwards” counts plain forward passes of the same engine:",
        "",
        *_table(
            ("", "plain forward", "onnxlrp", "forwards", "zennit", "forwards", "zennit over onnxlrp"),
            ([TITLES[r.setting.network], *_headline_cells(r)] for r in rows),
        ),
    ]


def _headline_cells(row: Row) -> list[str]:
    seconds = [_seconds(row.median(n)) for n in (FORWARD, OURS, "zennit")]
    faster = row.faster("zennit")
    return [
        seconds[0], seconds[1], _times(row.own()), seconds[2], _times(row.ratio("zennit", TORCH)),
        "–" if faster is None else f"**{faster:.2f}**",
    ]  # fmt: skip


def _picture(files: Sequence[str]) -> list[str]:
    if not files:
        return []
    says = "Seconds of one explanation in plain forward passes, for onnxlrp and its peers, by network and composite"
    light, dark = files
    return [
        "<picture>",
        f'  <source media="(prefers-color-scheme: dark)" srcset="{dark}">',
        f'  <img alt="{says}" src="{light}">',
        "</picture>",
    ]


def _limits(results: Results, device: str) -> list[str]:
    within, beyond, unmeasured = missed(results, device)
    said = f"What the project has set itself, and where it stands: {within} values within their limits, {beyond} beyond"
    said += f", {unmeasured} not measured." if unmeasured else "."
    return [said, "", *limits_table(results, device)]


def _method(results: Results, device: str, spinning: str, threads: int, command: str) -> list[str]:
    counts = [row.rounds(name) for row in results.rows for name in row.samples]
    rounds = " to ".join(str(n) for n in sorted({min(counts, default=0), max(counts, default=0)}))
    lines = [
        machine.described(device),
        "",
        "```sh",
        command,
        "```",
        "",
        "- Networks of torchvision with random weights and calibrated batch norms, 224 × 224 images of noise; the "
        "predicted class is explained.",
        "- The contestants of a row (network, batch, composite) run in one process, in turn, round after round, after "
        f"one or two rounds to warm up; {rounds} rounds, fewer for what is slow; the tables of the peers say how many.",
        "- Times are medians, with the quartiles in brackets; ratios are **medians of the ratios within a round**.",
        "- “Over best”: the measured multiple of a forward pass over the one that the rules imply, counted in "
        "operations, as `onnxlrp plan --cost` prints it.",
        "- “Batch open”: the file as it is. “Batch fixed”: the open axis gets its size when the session starts "
        "(`SessionOptions.add_free_dimension_override_by_name`), which lets ONNX Runtime's layout optimiser do more; "
        "the plain forward pass beside it gets the same.",
        f"- Torch and ONNX Runtime have {threads} threads each. All sessions have {SPINS[spinning]}; on the CPU, as in "
        "`onnxlrp run`, also enable_mem_pattern = False, which saves memory.",
    ]
    if results.cached:
        lines.append(
            "- From several runs: a row may have been measured before, on files of the same bytes that an earlier "
            "commit made, with the versions above."
        )
    if device == "cuda":
        lines.append(
            "- Inputs and outputs stay on the GPU; clocks are read after it has finished. CUDA graphs are ONNX "
            "Runtime's; torch's contestants run without. TF32 and float16 apply to all contestants of a row."
        )
    return lines


# -- details ----------------------------------------------------------------------------------------------------------


def _network(results: Results, network: str) -> list[str]:
    """Two tables: against the forward pass, and against the peers."""
    rows = [r for r in results.rows if r.setting.network == network]
    modes = [m for m in (OPEN, FIXED, GRAPH) if any(r.rounds(OURS + m) for r in rows)]
    head = ["batch", "composite", "best"]
    for mode in modes:
        head += [f"forward{mode}", f"onnxlrp{mode}", "forwards", "over best"]
    lines = [f"## {TITLES[network]}", "", *_table(head, (_own_cells(r, modes) for r in rows))]
    peers = [cells for r in rows for cells in _peer_cells(r, modes)]
    if peers:
        over = [f"over onnxlrp{m}" for m in modes]
        lines += ["", *_table(["batch", "composite", "peer", "time", "over torch's forward", *over, "rounds"], peers)]
    if any(not r.together for r in rows):
        lines += ["", "* In two processes, as memory did not last for one: ratios to peers are those of medians."]
    return lines


def _own_cells(row: Row, modes: Iterable[str]) -> list[str]:
    cells = [*_setting(row), f"{row.best:.2f}"]
    for mode in modes:
        cells += [_spread(row, FORWARD + mode), _spread(row, OURS + mode)]
        cells += [_times(row.own(mode)), _times(row.over_best(mode))]
    return cells


def _peer_cells(row: Row, modes: Sequence[str]) -> Iterable[list[str]]:
    for peer in (TORCH, *peers_of(row.setting.composite)):
        if not row.rounds(peer):
            continue
        forwards = "" if peer == TORCH else _times(row.ratio(peer, TORCH))
        over = ["" if peer == TORCH else _times(row.faster(peer, m)) for m in modes]
        yield [*_setting(row), peer, _spread(row, peer), forwards, *over, str(row.rounds(peer))]


def _setting(row: Row) -> list[str]:
    setting = row.setting
    precision = "" if setting.precision == "float32" else f", {setting.precision}"
    return [f"{setting.batch}{precision}{'' if row.together else ' *'}", setting.composite]


def _files(results: Results) -> list[str]:
    if not results.files:
        return []
    names = ("convert", "load and save", "start of the explainer", "start of the model")
    head = ("", "model", "explainer", "over model", "convert", "load and save with onnx", "ratio", *names[2:])
    lines = []
    for f in results.files:
        times = [_seconds(f.median(n)) for n in names]
        largest = max(f.explainer_bytes.values())
        sizes = [f"{f.model_bytes / 1e6:.1f} MB", f"{largest / 1e6:.1f} MB", f"{f.growth:.4f}"]
        ratio = _times(f.ratio("convert", "load and save"))
        lines.append([TITLES[f.network], *sizes, times[0], times[1], ratio, *times[2:]])
    said = f"The largest of the explainers measured; times are those of `{DEFAULT}`, batch open, on the CPU."
    return ["## Files", "", said, "", *_table(head, lines)]


def _memory(results: Results, device: str) -> list[str]:
    if not results.peaks:
        return []
    whats = list(dict.fromkeys(p.what for p in results.peaks))
    rows = list(dict.fromkeys((p.network, p.batch, p.composite) for p in results.peaks))
    lines = []
    for row in rows:
        sizes = [_megabytes(results.peak(*row, what)) for what in whats]
        theirs = results.peak(*row, "zennit")
        for what in (OURS, OURS + FIXED):
            ours = results.peak(*row, what)
            sizes.append(_times(ours / theirs if ours is not None and theirs else None))
        lines.append([TITLES[row[0]], str(row[1]), row[2], *sizes])
    said = (
        "Each in a process of its own: load, run twice, and take the most memory that was ever resident (VmHWM, which "
        "is getrusage's ru_maxrss without what Linux carries over from the process that started this one), less what "
        "was resident after the imports. In MB; the model's weights are in it. Converting is measured once a network."
    )
    if device == "cuda":
        said = "Of the GPU: what is taken after two runs, less what was taken before; in MB, the weights are in it."
    head = ("", "batch", "composite", *whats, *(f"{OURS}{m} over zennit" for m in (OPEN, FIXED)))
    return ["## Peak memory", "", said, "", *_table(head, lines)]


def _failures(results: Results) -> list[str]:
    """What has no number, and why."""
    lines = [f"- {problem}" for problem in results.problems]
    for row in results.rows:
        setting = row.setting
        where = f"{TITLES[setting.network]}, batch {setting.batch}, {setting.composite}, {setting.precision}"
        lines += [f"- {where}: {name}: {why}" for name, why in row.failed.items()]
    for p in results.peaks:
        where = f"{TITLES[p.network]}, batch {p.batch}, {p.composite}"
        lines += [f"- {where}: memory of {p.what}: {p.failed}"] if p.failed else []
    return ["## Not measured", "", *lines] if lines else []


# -- cells ------------------------------------------------------------------------------------------------------------


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def _times(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _megabytes(value: int | None) -> str:
    return "" if value is None else f"{value / 1e6:.0f}"


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{_figures(value * 1e3)} ms" if value < 0.9995 else f"{_figures(value)} s"


def _figures(value: float) -> str:
    """Three figures, and what is larger in full."""
    return f"{value:.3g}" if value < 999.5 else f"{value:.0f}"


def _spread(row: Row, name: str) -> str:
    """A median with its quartiles, in the median's unit."""
    median, quartiles = row.median(name), row.quartiles(name)
    if median is None or quartiles is None:
        return "–"
    scale = 1e3 if median < 0.9995 else 1
    return f"{_seconds(median)} ({'–'.join(_figures(q * scale) for q in quartiles)})"

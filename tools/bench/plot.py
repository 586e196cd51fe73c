"""The headline as a picture, for light and for dark pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from tools.bench.report import headline_batch
from tools.bench.results import COMPOSITES, OURS, TITLES, Results, Row


@dataclass(frozen=True)
class Theme:
    """Colours of a page; those of the marks are Okabe and Ito's, which colour-blind readers tell apart."""

    name: str
    page: str
    ink: str
    faint: str
    marks: dict[str, str]


THEMES = (
    Theme("light", "#ffffff", "#1f2328", "#d1d9e0", {
        OURS: "#0072b2", "zennit": "#c75000", "captum": "#8a6d00", "autograd": "#9c4f7d", "onnx-ad": "#00795a",
    }),
    Theme("dark", "#0d1117", "#e6edf3", "#30363d", {
        OURS: "#56b4e9", "zennit": "#ff9a56", "captum": "#f0e442", "autograd": "#e7a3cc", "onnx-ad": "#2fd0a5",
    }),
)  # fmt: skip
SHAPES = {OURS: "o", "zennit": "s", "captum": "^", "autograd": "D", "onnx-ad": "v"}
WIDTH, ROW, GAP = 8.6, 0.21, 1.6  # inches; the gap between networks in rows
ROOM = 0.07  # of the scale, for a number
MARK, LANE = 0.02, 0.6  # of the scale, for a mark; of a row, between marks that would cover one another
DPI = 150
COLOURS = 128


def draw(results: Results, report: Path) -> list[str]:
    """Write a picture a theme beside the report; their names, or none where there is nothing to draw."""
    rows = chosen(results)
    if not rows:
        return []
    names = []
    for theme in THEMES:
        path = report.with_name(f"{report.stem.lower()}-{theme.name}.png")
        _picture(rows, theme, path)
        names.append(path.name)
    return names


def chosen(results: Results) -> list[Row]:
    """The rows of the headline's batch, network by network, composites in their usual order."""
    batch = headline_batch(results)
    found = (results.row(n, batch, c) for n in TITLES for c in COMPOSITES)
    return [r for r in found if r and r.forwards(OURS) is not None]


def heights(rows: Sequence[Row]) -> list[float]:
    """Where each row lies, from the top down; between two networks is a gap."""
    at, places, before = 0.0, [], ""
    for row in rows:
        at += (GAP if before and row.setting.network != before else 0) + 1
        places.append(at)
        before = row.setting.network
    return places


def _picture(rows: Sequence[Row], theme: Theme, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    places = heights(rows)
    inches = ROW * (places[-1] + 2.4) + 1.0
    figure, axes = pyplot.subplots(figsize=(WIDTH, inches), facecolor=theme.page)
    _frame(axes, rows, places, theme)
    for row, at in zip(rows, places, strict=True):
        _row(axes, row, at, theme)
    _legend(axes, rows, theme)
    batch = rows[0].setting.batch
    title = f"Time of one explanation, in plain forward passes (batch {batch})"
    figure.text(0.02, 1 - 0.28 / inches, title, color=theme.ink, fontsize=12, fontweight="bold", va="center")
    note = (
        "A forward pass is ONNX Runtime's, of the same network. Dotted: the classifier alone. Further left is faster."
    )
    figure.text(0.02, 1 - 0.52 / inches, note, color=theme.ink, fontsize=9, alpha=0.85, va="center")
    figure.subplots_adjust(left=0.265, right=0.975, top=1 - 0.78 / inches, bottom=0.35 / inches)
    figure.savefig(path, dpi=DPI, facecolor=theme.page)
    pyplot.close(figure)
    with Image.open(path) as drawn:  # a quarter of the size, without a difference that can be seen
        drawn.convert("RGB").quantize(COLOURS).save(path, optimize=True)


def _frame(axes: Any, rows: Sequence[Row], places: Sequence[float], theme: Theme) -> None:
    """Names at the left, a scale of forward passes, no box."""
    most = max(v for r in rows for n in SHAPES if (v := r.forwards(n)) is not None)
    axes.set_facecolor(theme.page)
    axes.set_xlim(0, most * 1.08)
    axes.set_ylim(places[-1] + 0.8, places[0] - 2.6)
    axes.set_yticks(places, [r.setting.composite for r in rows], color=theme.ink, fontsize=8.5)
    axes.tick_params(length=0, colors=theme.ink, labelsize=8.5)
    axes.grid(axis="x", color=theme.faint, linewidth=0.7)
    axes.plot(
        [1, 1], [places[0] - 0.6, places[-1] + 0.8], color=theme.ink, linewidth=1, linestyle=(0, (2, 2)), zorder=1
    )
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_visible(False)
    for row, at in zip(rows, places, strict=True):
        if row is next(r for r in rows if r.setting.network == row.setting.network):
            axes.text(
                -0.012, at - 0.95, TITLES[row.setting.network], color=theme.ink, fontsize=9.5, fontweight="bold",
                ha="right", va="center", transform=axes.get_yaxis_transform(),
            )  # fmt: skip


def _row(axes: Any, row: Row, at: float, theme: Theme) -> None:
    """A line from the fastest to the slowest, a mark for each contestant, numbers at both ends."""
    found = {n: v for n in SHAPES if (v := row.forwards(n)) is not None}
    places = {name: at + LANE * lane for name, lane in lanes(found, MARK * axes.get_xlim()[1]).items()}
    axes.plot([min(found.values()), max(found.values())], [at, at], color=theme.faint, linewidth=3, zorder=1)
    for order, name in enumerate(reversed(found), start=4):  # onnxlrp on top
        edge = {"markeredgecolor": theme.page, "zorder": order}
        axes.plot(found[name], places[name], SHAPES[name], color=theme.marks[name], markersize=6.5, **edge)
    for name, side in sides(found, ROOM * axes.get_xlim()[1]).items():
        beside = (-7 if side == "right" else 7, 0)
        axes.annotate(
            f"{found[name]:.1f}", (found[name], places[name]), beside, textcoords="offset points",
            ha=side, va="center", fontsize=8, color=theme.marks[name], fontweight="bold", zorder=3,
            bbox={"facecolor": theme.page, "edgecolor": "none", "pad": 0.8},
        )  # fmt: skip


def lanes(found: Mapping[str, float], width: float) -> dict[str, float]:
    """How far each mark lies below its row: those nearer than a width to the next, by turns above and below it."""
    together: list[list[str]] = []
    for name in sorted(found, key=lambda n: found[n]):
        if together and found[name] - found[together[-1][-1]] < width:
            together[-1].append(name)
        else:
            together.append([name])
    return {name: i % 2 - 0.5 if len(group) > 1 else 0 for group in together for i, name in enumerate(group)}


def sides(found: Mapping[str, float], room: float) -> dict[str, str]:
    """Which marks have their number, and how it is aligned: left of the fastest, right of the slowest and of those
    between that have room for it."""
    order = sorted(found, key=lambda n: found[n])
    between = (n for i, n in enumerate(order[1:-1], start=2) if found[order[i]] - found[n] > room)
    return {order[-1]: "left", **dict.fromkeys(between, "left"), order[0]: "right"}


def _legend(axes: Any, rows: Sequence[Row], theme: Theme) -> None:
    """The contestants' names in a line at the top, in the colours of their marks."""
    names = [n for n in SHAPES if any(r.forwards(n) is not None for r in rows)]
    handles = [
        axes.plot([], [], SHAPES[n], color=theme.marks[n], markersize=6.5, label=n.replace("captum", "Captum"))[0]
        for n in names
    ]
    legend = axes.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(-0.005, 1.0), ncols=len(names), frameon=False, fontsize=9,
        handletextpad=0.1, columnspacing=1.4, borderpad=0, labelcolor=[theme.marks[n] for n in names],
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_fontweight("bold")

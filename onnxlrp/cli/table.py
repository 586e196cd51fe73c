"""Plain tables for the terminal."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

import click


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns under a rule; a first column too wide for the terminal keeps its end."""
    widths = [max(len(r[i]) for r in (head, *rows)) for i in range(len(head))]
    room = shutil.get_terminal_size((160, 24)).columns - sum(widths[1:]) - 2 * (len(head) - 1)
    widths[0] = min(widths[0], max(room, 24))

    def line(cells: Sequence[str]) -> str:
        first = cells[0] if len(cells[0]) <= widths[0] else "…" + cells[0][1 - widths[0] :]
        return "  ".join(c.ljust(w) for c, w in zip((first, *cells[1:]), widths, strict=True)).rstrip()

    return "\n".join([click.style(line(head), bold=True), "  ".join("─" * w for w in widths), *map(line, rows)])

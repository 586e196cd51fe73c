"""Plain tables for the terminal, and the sizes of files."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import click

from onnxlrp.run.terminal import columns, cut, padded, printable

Keep = Literal["start", "end"]
NARROW = 10  # characters that a column keeps at least
GAP = "  "


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], give: Mapping[str, Keep], width: int | None = None
) -> str:
    """Left-aligned columns under a rule, within `width` (by default the terminal's).

    Where it is too narrow, the columns in `give` lose what lies beyond their start or end, the widest ones first.
    """
    cells = [[printable(cell) for cell in row] for row in (head, *rows)]
    widths = [max(columns(row[i]) for row in cells) for i in range(len(head))]
    room = (width or terminal_width()) - len(GAP) * (len(head) - 1)
    able = [i for i, name in enumerate(head) if name in give]
    while sum(widths) > room and any(widths[i] > NARROW for i in able):
        widths[max(able, key=lambda i: widths[i])] -= 1

    def line(row: Sequence[str]) -> str:
        fitted = [cut(c, w, give.get(name) == "end") for c, w, name in zip(row, widths, head, strict=True)]
        return GAP.join(padded(c, w) for c, w in zip(fitted, widths, strict=True)).rstrip()

    first, *others = map(line, cells)
    return "\n".join([click.style(first, bold=True), GAP.join("─" * w for w in widths), *others])


def terminal_width() -> int:
    """The terminal's columns; without end where the output goes into a file or another program."""
    if sys.stdout.isatty() or "COLUMNS" in os.environ:
        return shutil.get_terminal_size().columns
    return sys.maxsize


def file_size(path: Path) -> str:
    """A file's size as a person reads it: 87 kB, 3.1 MB, 553 MB, 2.2 GB."""
    size = float(path.stat().st_size)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if size >= 10 or unit == "bytes" else f"{size:.1f} {unit}"

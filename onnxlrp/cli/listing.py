"""`onnxlrp rules` and `onnxlrp composites`: what there is."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Mapping

import click

from onnxlrp.explain.presets import DEFAULT, PRESETS
from onnxlrp.rules.catalogue import CATALOGUE


@click.command()
def rules() -> None:
    """List the rules: formula, parameters, paper."""
    click.echo("z = A(w)x + b, R the relevance of z, s = R ⊘ stab(z); v⁺ = max(v, 0), v⁻ = min(v, 0).\n")
    for entry in CATALOGUE.values():
        _show(entry.name, entry.parameters, f"[{entry.fits}] {entry.description}")


@click.command()
def composites() -> None:
    """List the composites: which layer gets which rule."""
    for name, function in PRESETS.items():
        parameters = {k: p.default for k, p in inspect.signature(function).parameters.items()}
        default = " (default)" if name == DEFAULT else ""
        _show(name, parameters, (inspect.getdoc(function) or "") + default)


def _show(name: str, parameters: Mapping[str, object], text: str) -> None:
    inner = ", ".join(f"{k}={v}" for k, v in parameters.items())
    click.echo(click.style(name, bold=True) + (f"({inner})" if inner else ""))
    click.echo(textwrap.fill(" ".join(text.split()), 100, initial_indent="    ", subsequent_indent="    "))

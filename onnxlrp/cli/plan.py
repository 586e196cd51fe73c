"""`onnxlrp plan`: what convert would do, and every problem; nothing is written."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from onnxlrp.cli.options import how_pictures_enter, read_options, what_to_explain
from onnxlrp.cli.table import table
from onnxlrp.errors import OnnxLrpError
from onnxlrp.explain.composite_file import write
from onnxlrp.explain.examine import examine
from onnxlrp.explain.options import Options
from onnxlrp.explain.plan import Step
from onnxlrp.graph.facts import Facts


@click.command()
@click.argument("model", type=click.Path())
@what_to_explain
@how_pictures_enter
@click.option("--as-toml", is_flag=True, help="Print the composite as a TOML file to edit and use with --composite.")
def plan(model: str, as_toml: bool, **given: Any) -> None:
    """Show every layer of MODEL between image and scores, its rule and why, and every problem with its remedy."""
    options = Options(**read_options(given))
    study = examine(model, options)
    if as_toml:
        chosen = replace(study.composite, cases=(*options.overrides(), *study.composite.cases), start=study.start)
        click.echo(write(chosen), nl=False)
        return
    facts = study.facts
    click.echo(
        f"{facts.image} {_shape(facts, facts.image)} → {study.scores.tensor} {_shape(facts, study.scores.tensor)}\n"
    )
    click.echo(table(("layer", "nodes", "output", "rule", "why"), [_row(s, facts) for s in study.plan.steps]))
    if study.plan.problems:
        raise OnnxLrpError(*study.plan.problems)
    click.echo(f"\n{len(study.plan.rules)} of {len(study.plan.steps)} layers have a rule; nothing stands in the way.")


def _row(step: Step, facts: Facts) -> tuple[str, ...]:
    layer = step.layer
    return layer.name, "+".join(layer.op_types), _shape(facts, layer.output), str(step.rule or "–"), step.why


def _shape(facts: Facts, name: str) -> str:
    return "×".join(str(d) for d in facts.shape(name)) if facts.known(name) else "?"

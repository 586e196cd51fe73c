"""`onnxlrp plan`: what convert would do, and every problem; nothing is written."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click
from onnx import ModelProto

from onnxlrp.cli.options import Place, how_pictures_enter, read_options, what_to_explain, what_to_return
from onnxlrp.cli.table import table
from onnxlrp.errors import raise_if_any
from onnxlrp.explain.assemble import assemble
from onnxlrp.explain.composite_file import write
from onnxlrp.explain.cost import Cost, LayerCost, costs
from onnxlrp.explain.emit import emit
from onnxlrp.explain.examine import Study, examine
from onnxlrp.explain.options import Options
from onnxlrp.explain.plan import Step
from onnxlrp.explain.runtimes import PORTABLE
from onnxlrp.graph.facts import Facts
from onnxlrp.layers.registry import Routing
from onnxlrp.run.terminal import printable

HEAD = ("layer", "nodes", "output", "rule", "why")


@click.command()
@click.argument("model", type=Place())
@what_to_explain
@what_to_return
@how_pictures_enter
@click.option("--as-toml", is_flag=True, help="Print the composite as a TOML file to edit and use with --composite.")
@click.option("--cost", is_flag=True, help="Also show operations and memory traffic per layer, forward and relevance.")
def plan(model: str, as_toml: bool, cost: bool, **given: Any) -> None:
    """Show every layer of MODEL between image and scores, its rule and why, and every problem with its remedy."""
    options = Options.of(**read_options(given))
    study = examine(model, options)
    if as_toml:
        chosen = replace(study.composite, cases=(*options.overrides(), *study.composite.cases), start=study.start)
        click.echo(write(chosen), nl=False)
        return
    show(study)
    if study.plan.problems:
        click.echo()
        raise_if_any(study.plan.problems)
    explainer = assemble(study, emit(study))
    if cost:
        click.echo()
        show_cost(study, explainer)
    show_runtime(study, explainer)


def show(study: Study) -> None:
    """Print the way from the image to the scores, the table of layers, and how many of what there are."""
    facts, steps, composite = study.facts, study.plan.steps, study.plan.composite
    ends = [f"{name} {_shape(facts, name)}" for name in (facts.image, study.scores.tensor)]
    click.echo(printable(f"{' → '.join(ends)}, explained by {composite}") + "\n")
    if steps:
        rows = [_row(step, facts, composite) for step in steps]
        click.echo(table(HEAD, rows, {"layer": "end", "nodes": "start", "rule": "start", "why": "start"}))
    if study.plan.problems:
        return
    ruled = len(study.plan.rules)
    moving = len(steps) - ruled
    others = f" {moving} only move{'s' if moving == 1 else ''} values." if moving else ""
    layers = "layer gets its" if ruled == 1 else "layers get their"
    click.echo(f"\n{ruled} {layers} rule.{others} Nothing stands in the way.")


def show_runtime(study: Study, explainer: ModelProto) -> None:
    """Print how the explainer is written for its runtime and what to know there; nothing where that is any runtime, and
    all can run it.

    Raises `OnnxLrpError` with what cannot run.
    """
    runtime = study.runtime
    stops, known = (f(explainer, study.model.name) for f in (runtime.refusals, runtime.known))
    if runtime.name == PORTABLE and not known:
        return
    click.echo()
    tried = f"tried with {runtime.tried}" if runtime.tried else "read of, not tried"
    click.echo(f"For {runtime.title} ({tried}):")
    lines = [f"{line[0].upper()}{line[1:]}." for line in runtime.because] + [str(p) for p in known]
    for line in lines or ["Nothing to know." if not stops else "It cannot run."]:
        click.echo(printable(f"- {line}"))
    raise_if_any(stops)


def show_cost(study: Study, explainer: ModelProto) -> None:
    """Print what each layer costs for one sample, and the ratio that the rules imply."""
    rows = [c for c in costs(study, explainer) if c.forward.flops or c.relevance.flops]
    total = LayerCost("all", sum((c.forward for c in rows), Cost()), sum((c.relevance for c in rows), Cost()))
    head = ("layer", "forward MFLOP", "forward MB", "relevance MFLOP", "relevance MB", "× forward")
    click.echo(table(head, [_cost_row(c) for c in (*rows, total)], {"layer": "end"}))
    ratio = 1 + total.relevance.flops / max(total.forward.flops, 1)
    click.echo(f"\nOne explanation is at best {ratio:.2f} forward passes, counted in operations.")


def _cost_row(cost: LayerCost) -> tuple[str, ...]:
    """One layer's line; the last column is relevance and forward over forward, where there is a forward."""
    numbers = [v / 1e6 for c in (cost.forward, cost.relevance) for v in (c.flops, c.moved)]
    ratio = f"{1 + cost.relevance.flops / cost.forward.flops:.2f}" if cost.forward.flops else "–"
    return cost.name, *(f"{v:,.1f}" for v in numbers), ratio


def _row(step: Step, facts: Facts, composite: str) -> tuple[str, ...]:
    """A line of the table. Reasons that the composite gives need not name it: the line above the table does."""
    layer, why = step.layer, step.why.removeprefix(f"{composite}: ")
    why = "only moves values" if isinstance(layer, Routing) else why
    return layer.name, "+".join(layer.op_types), _shape(facts, layer.output), step.rule.brief if step.rule else "–", why


def _shape(facts: Facts, name: str) -> str:
    return "×".join(str(d) for d in facts.shape(name)) if facts.known(name) else "?"

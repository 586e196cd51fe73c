"""Composites as TOML, to be printed from any preset, edited and used.

name = "mine"
start = "logit"

[[case]]            # the first case that matches a layer gives it its rule
kind = ["convolution"]
first = true
rule = "flat"
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

from onnxlrp.errors import OnnxLrpError, Problem, raise_if_any
from onnxlrp.explain.composite import Case, Composite
from onnxlrp.explain.target import STARTS
from onnxlrp.layers.registry import Kind
from onnxlrp.rules.catalogue import parse, suggest

CONDITIONS = [f.name for f in fields(Case) if f.name != "rule"]
KINDS = get_args(Kind)


def write(composite: Composite) -> str:
    """The composite as TOML."""
    lines = [f"name = {json.dumps(composite.name)}", f"start = {json.dumps(composite.start)}"]
    if composite.times_input:
        lines.append("times_input = true")
    for case in composite.cases:
        lines += ["", "[[case]]"]
        for name in CONDITIONS:
            value = getattr(case, name)
            if value not in ((), "", None):
                lines.append(f"{name} = {json.dumps(value)}")
        lines.append(f"rule = {json.dumps(str(case.rule))}")
    return "\n".join(lines) + "\n"


def read(path: Path) -> Composite:
    """The composite in a TOML file; raises `OnnxLrpError` with every mistake in it."""
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OnnxLrpError(Problem(str(path), f"cannot be read ({error.strerror})", "check the path")) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        remedy = "start from a preset: onnxlrp plan MODEL --composite NAME --as-toml"
        raise OnnxLrpError(Problem(str(path), f"is not TOML: {error}", remedy)) from None
    problems = [
        Problem(str(path), f"has an unknown entry '{key}'", suggest(key, ("name", "start", "times_input", "case")))
        for key in given
        if key not in ("name", "start", "times_input", "case")
    ]
    start = given.get("start", "logit")
    if start not in STARTS:
        problems.append(Problem(str(path), f"start '{start}' is none of the choices", suggest(str(start), STARTS)))
    cases = []
    for number, entry in enumerate(given.get("case", []), 1):
        try:
            cases.append(_case(entry))
        except OnnxLrpError as error:
            problems += [Problem(f"{path}, case {number}: {p.node}", p.reason, p.remedy) for p in error.problems]
    if not cases and not problems:
        problems.append(Problem(str(path), "has no [[case]]", "add at least one, with a rule"))
    raise_if_any(problems)
    return Composite(str(given.get("name", path.stem)), tuple(cases), str(start), bool(given.get("times_input", False)))


def _case(entry: dict[str, Any]) -> Case:
    """One [[case]]."""
    for key in entry:
        if key not in (*CONDITIONS, "rule"):
            raise OnnxLrpError(Problem(f"entry '{key}'", "is unknown", suggest(key, [*CONDITIONS, "rule"])))
    if "rule" not in entry:
        raise OnnxLrpError(Problem("rule", "is missing", 'for example rule = "zplus"'))
    kind = entry.get("kind", [])
    kinds = (kind,) if isinstance(kind, str) else tuple(kind)
    for word in kinds:
        if word not in KINDS:
            raise OnnxLrpError(Problem(f"kind '{word}'", "is none of the kinds of layer", suggest(str(word), KINDS)))
    depth = entry.get("depth")
    if depth is not None and not (
        isinstance(depth, list) and len(depth) == 2 and all(isinstance(d, (int, float)) for d in depth)
    ):
        raise OnnxLrpError(Problem(f"depth {depth}", "is not a pair of fractions", "for example depth = [0.0, 0.5]"))
    for key in ("first", "last", "identity_skip"):
        if not isinstance(entry.get(key, True), bool):
            raise OnnxLrpError(Problem(f"{key} {entry[key]}", "is neither true nor false", f"write {key} = true"))
    flags = {key: entry.get(key) for key in ("first", "last", "identity_skip")}
    pair = None if depth is None else (float(depth[0]), float(depth[1]))
    return Case(parse(str(entry["rule"])), kinds, str(entry.get("pattern", "")), depth=pair, **flags)

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
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

from onnxlrp.errors import OnnxLrpError, Problem, raise_if_any, suggest
from onnxlrp.explain.composite import Case, Composite
from onnxlrp.explain.target import STARTS
from onnxlrp.layers.registry import Kind
from onnxlrp.rules.catalogue import parse

CONDITIONS = [f.name for f in fields(Case) if f.name != "rule"]
KINDS = get_args(Kind)


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_range(value: Any) -> bool:
    numbers = isinstance(value, list) and len(value) == 2 and all(type(v) in (int, float) for v in value)
    return numbers and 0 <= value[0] < value[1] <= 1


def _are_kinds(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(v, str) for v in value))


def _are_tables(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(v, dict) for v in value)


Check = Callable[[object], bool]
TOP: Mapping[str, tuple[Check, str]] = {
    "name": (_is_text, 'a text, for example "mine"'),
    "start": (_is_text, 'a text, for example "logit"'),
    "times_input": (_is_flag, "true or false"),
    "case": (_are_tables, "written as [[case]]"),
}
ENTRIES: Mapping[str, tuple[Check, str]] = {
    "rule": (_is_text, 'a text, for example "zplus"'),
    "kind": (_are_kinds, 'a list of texts, for example ["convolution", "dense"]'),
    "pattern": (_is_text, 'a text, for example "layer4*"'),
    "first": (_is_flag, "true or false"),
    "last": (_is_flag, "true or false"),
    "depth": (_is_range, "a pair of fractions, the lower one first, for example [0.0, 0.5]"),
    "identity_skip": (_is_flag, "true or false"),
    "relu": (_is_flag, "true or false"),
}


def write(composite: Composite) -> str:
    """The composite as TOML."""
    lines = [f"name = {_written(composite.name)}", f"start = {_written(composite.start)}"]
    if composite.times_input:
        lines.append("times_input = true")
    for case in composite.cases:
        lines += ["", "[[case]]"]
        for name in CONDITIONS:
            value = getattr(case, name)
            if value not in ((), "", None):
                lines.append(f"{name} = {_written(value)}")
        lines.append(f"rule = {_written(str(case.rule))}")
    return "\n".join(lines) + "\n"


def _written(value: object) -> str:
    """A value as TOML has it, in ASCII. JSON has the same form, but for letters beyond the 16 bits of its escapes."""
    return re.sub("[^ -~]", lambda letter: f"\\U{ord(letter[0]):08X}", json.dumps(value, ensure_ascii=False))


def read(path: Path) -> Composite:
    """The composite in a TOML file; raises `OnnxLrpError` with every mistake in it."""
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OnnxLrpError(Problem(str(path), f"cannot be read ({error.strerror})", "check the path")) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        remedy = "start from a preset: onnxlrp plan MODEL --composite NAME --as-toml"
        raise OnnxLrpError(Problem(str(path), f"is not TOML: {error}", remedy)) from None
    problems = _wrong(str(path), given, TOP)
    raise_if_any(problems)
    start = given.get("start", "logit")
    if start not in STARTS:
        problems.append(Problem(str(path), f"start '{start}' is none of the choices", suggest(start, STARTS)))
    cases = []
    for number, entry in enumerate(given.get("case", []), 1):
        try:
            cases.append(_case(f"{path}, case {number}", entry))
        except OnnxLrpError as error:
            problems += error.problems
    if not cases and not problems:
        problems.append(Problem(str(path), "has no [[case]]", "add at least one, with a rule"))
    raise_if_any(problems)
    return Composite(given.get("name", path.stem), tuple(cases), start, given.get("times_input", False))


def _wrong(where: str, given: Mapping[str, object], expected: Mapping[str, tuple[Check, str]]) -> list[Problem]:
    """Entries that are unknown, or not of their form."""
    found = []
    for key, value in given.items():
        if key not in expected:
            found.append(Problem(where, f"has an unknown entry '{key}'", suggest(key, expected)))
        elif not expected[key][0](value):
            found.append(Problem(where, f"{key} = {value!r} has the wrong form", f"{key} is {expected[key][1]}"))
    return found


def _case(where: str, entry: dict[str, Any]) -> Case:
    """One [[case]]; raises `OnnxLrpError` with all that is wrong in it."""
    problems = _wrong(where, entry, ENTRIES)
    if "rule" not in entry:
        problems.append(Problem(where, "has no rule", 'add one, for example rule = "zplus"'))
    raise_if_any(problems)
    kind = entry.get("kind", [])
    kinds = (kind,) if isinstance(kind, str) else tuple(kind)
    problems += [
        Problem(where, f"kind '{word}' is no kind of layer", suggest(word, KINDS))
        for word in kinds
        if word not in KINDS
    ]
    try:
        rule = parse(entry["rule"])
    except OnnxLrpError as error:
        raise OnnxLrpError(
            *problems, *(Problem(f"{where}, {p.node}", p.reason, p.remedy) for p in error.problems)
        ) from None
    raise_if_any(problems)
    low, high = entry.get("depth", (0.0, 0.0))
    depth = (float(low), float(high)) if "depth" in entry else None
    flags = {key: entry.get(key) for key in ("first", "last", "identity_skip", "relu")}
    return Case(rule, kinds, entry.get("pattern", ""), depth=depth, **flags)

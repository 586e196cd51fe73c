"""The house's layers: a file imports only from rooms below its own. This is the one place that states their order."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import onnx.defs
import pytest

from onnxlrp.layers.registry import DEFINITIONS, defines

PACKAGE = Path(__file__).parents[1] / "onnxlrp"

# From the ground up. `onnxlrp` is the public front door (see FRONT_DOORS): what users import.
ROOMS = (
    "errors",
    "files",
    "look",
    "contract",
    "graph",
    "rules",
    "layers",
    "explain",
    "run",
    "measure",
    "deploy",
    "onnxlrp",
    "cli",
)
FRONT_DOOR = "onnxlrp"
FRONT_DOORS = ("__init__.py", "attributors.py", "heatmap.py")
BACK_DOORS = {"__main__.py": "cli"}  # `python -m onnxlrp`
STRANGERS = {"graph": ("rules",), "rules": ("graph",)}  # below, and still none of its business

MOST_LINES_A_FILE = 400
MOST_LINES_A_FUNCTION = 50

FILES = sorted(PACKAGE.rglob("*.py"))


def relative(path: Path) -> str:
    """A file's name in the package, as tests are named after it."""
    return path.relative_to(PACKAGE).as_posix()


def room(path: Path) -> str:
    """The room that a file of the package is in."""
    name = path.relative_to(PACKAGE).parts[0]
    return FRONT_DOOR if name in FRONT_DOORS else BACK_DOORS.get(name, name.removesuffix(".py"))


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything of the package's that a file imports, at any depth."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import hides which room it reaches into"
            # `from onnxlrp import contract` reaches into the room contract, not into the front door.
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def rooms_reached(path: Path) -> Iterator[tuple[int, str]]:
    """Line and room of what a file imports from the package; what is in no room is had through the front door."""
    for line, name in imported(ast.parse(path.read_text(encoding="utf-8"))):
        package, _, rest = name.partition(".")
        if package == "onnxlrp":
            below = rest.partition(".")[0]
            yield line, below if below in ROOMS else FRONT_DOOR


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_imports_come_from_below(path: Path) -> None:
    """No file imports from a room above its own, or from one that is a stranger to it."""
    own = room(path)
    assert own in ROOMS, f"{relative(path)} is in no room: add it to ROOMS at its height"
    wrong = [
        f"line {line}: from {reached}"
        for line, reached in rooms_reached(path)
        if ROOMS.index(reached) > ROOMS.index(own) or reached in STRANGERS.get(own, ())
    ]
    assert not wrong, f"{own} may not import {wrong}"


@pytest.mark.parametrize("module", ["onnxlrp", "onnxlrp.attributors", "onnxlrp.heatmap", "onnxlrp.layers"])
def test_what_is_public_is_a_module_that_is_cheap_to_import(module: str) -> None:
    """By its own name and by its names, and without the runtime, which takes longer to load than all the rest."""
    script = f"import sys; import {module}; from {module} import *; sys.exit('onnxruntime' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_files_and_functions_stay_short(path: Path) -> None:
    """A file that has outgrown its page is two files; a function likewise."""
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= MOST_LINES_A_FILE
    functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    lengths = {f.name: (f.end_lineno or f.lineno) - f.lineno + 1 for f in functions}
    assert not {name: length for name, length in lengths.items() if length > MOST_LINES_A_FUNCTION}


def test_an_operator_is_defined_once() -> None:
    """Defining an operator again is an error when the module is imported, and every one defined is ONNX's."""
    for op_type in DEFINITIONS:
        assert onnx.defs.has(op_type), f"ONNX has no operator {op_type}"
        with pytest.raises(ValueError, match=f"{op_type} is defined twice"):
            defines(op_type)(DEFINITIONS[op_type])


def test_the_layers_name_no_rule_and_the_rules_name_no_operator() -> None:
    """What keeps the cost at rules + operators: neither side knows the other's names."""
    reached = {r for path in FILES if relative(path).startswith("layers/") for _, r in rooms_reached(path)}
    assert reached <= {"errors", "graph", "layers", "rules"}
    catalogue = [n for path in (PACKAGE / "layers").glob("*.py") for _, n in imported(ast.parse(path.read_text()))]
    assert not [n for n in catalogue if n.startswith("onnxlrp.rules.catalogue")]
    for path in (PACKAGE / "rules").glob("*.py"):
        words = {n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant)}
        assert not words & set(DEFINITIONS)

"""What a conversion can be asked for, with every default.

`Keywords` is what callers may write, `Options` what the pipeline reads: every option in its one form (see `forms`) and
every word one that there is. Whether they fit the model is seen where the model is known.
"""

from __future__ import annotations

import os
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypedDict, Unpack

from onnxlrp import contract, look
from onnxlrp.errors import Problem, raise_if_any, suggest
from onnxlrp.explain import forms
from onnxlrp.explain.composite import Case, Composite
from onnxlrp.explain.edits import INPUT, Conditions
from onnxlrp.explain.presets import DEFAULT
from onnxlrp.explain.render import RENDER
from onnxlrp.explain.runtimes import PORTABLE, RUNTIMES
from onnxlrp.explain.target import STARTS, Target
from onnxlrp.rules import catalogue
from onnxlrp.rules.rule import Rule

SUM, MAX_POOLING = ("sum",), ("max pooling",)
MAIN = Case(catalogue.main(), SUM, identity_skip=True)

# How a residual sum shares relevance; the last four are combinations under the names of the seed project.
RESIDUAL: Mapping[str, tuple[Case, ...]] = {
    "epsilon": (Case(catalogue.norm(), SUM),),
    "ratio": (Case(catalogue.ratio(), SUM),),
    "equal": (Case(catalogue.equal(), SUM),),
    "main": (MAIN, Case(catalogue.norm(), SUM)),
    "latest": (MAIN, Case(catalogue.ratio(), SUM)),
    "simple": (MAIN, Case(catalogue.equal(), SUM)),
    "flows_skip": (Case(catalogue.ratio(), SUM),),
    "flows_skip_simple": (Case(catalogue.equal(), SUM),),
}
MAX_POOL: Mapping[str, tuple[Case, ...]] = {
    "winner": (Case(catalogue.winner(), MAX_POOLING),),
    "average": (Case(catalogue.average(), MAX_POOLING),),
}

OPTIMIZE: Mapping[str, str] = {
    "exact": "leave out what is known to be zero, and choose the cheapest form of equal ones",
    "none": "emit every term as the formula has it, for finding faults",
}


class Keywords(TypedDict, total=False):
    """The keyword arguments of `onnxlrp.convert`, in every form that each may have."""

    composite: str | os.PathLike[str] | Composite
    rules: Mapping[str, str | Rule]
    residual: str | None
    max_pool: str | None
    start: str | None
    keep: float | None
    conditions: Conditions
    input: str | None
    output: str | None
    input_shape: Sequence[int | None] | None
    taps: str | Sequence[str]
    activations: str | Sequence[str]
    target: Target
    targets_per_input: int | None
    heatmap: bool
    render: str | None
    cmap: str
    embed_preprocessing: bool
    optimize: str
    target_runtime: str
    preprocess: contract.Preprocessing | str | None
    labels: Sequence[str] | None


@dataclass(frozen=True)
class Form:
    """What brings an option to its one form, that form in words, and the words there are, where one is to be chosen."""

    read: Callable[[object], object]
    said: str
    words: tuple[str, ...] = ()


def _one_of(words: Iterable[str]) -> Form:
    words = tuple(words)
    return Form(forms.text, f"choose among: {', '.join(words)}", words)


TENSOR, TRUTH = Form(forms.text, "give a tensor's name"), Form(forms.flag, "give True or False")
PATTERNS = Form(forms.patterns, 'give a pattern or a list of them, for example ["layer4*"]')
CHANNELS = f'{{"layer4": [3, 17]}} or {{"layer4": "{INPUT}"}}'
FORMS: Mapping[str, Form] = {
    "composite": Form(forms.composite, "give a name, a TOML file or a Composite"),
    "rules": Form(forms.rules, 'give {pattern: rule}, for example {"Conv": "zplus"}'),
    "residual": _one_of(RESIDUAL),
    "max_pool": _one_of(MAX_POOL),
    "start": _one_of(STARTS),
    "keep": Form(forms.number, "give a fraction, for example 0.1"),
    "conditions": Form(forms.conditions, f"give {{pattern: channels}}, for example {CHANNELS}"),
    "input": TENSOR,
    "output": TENSOR,
    "input_shape": Form(forms.shape, "give a list of sizes, for example [None, 3, 224, 224]"),
    "taps": PATTERNS,
    "activations": PATTERNS,
    "target": Form(forms.target, 'give "input", "predicted" or a class number'),
    "targets_per_input": Form(forms.whole, "give a whole number"),
    "heatmap": TRUTH,
    "render": _one_of(RENDER),
    "cmap": _one_of(look.NAMES),
    "embed_preprocessing": TRUTH,
    "optimize": _one_of(OPTIMIZE),
    "target_runtime": _one_of(RUNTIMES),
    "preprocess": Form(forms.preprocess, f"give a Preprocessing, or one of {', '.join(contract.PREPROCESS_PRESETS)}"),
    "labels": Form(forms.texts, 'give a list of class names, for example ["cat", "dog"]'),
}


@dataclass(frozen=True)
class Options:
    """What `convert` takes; see there. Raises `OnnxLrpError` with every option that has a wrong form or word."""

    composite: str | Path | Composite = DEFAULT
    rules: Mapping[str, str | Rule] = field(default_factory=dict)
    residual: str | None = None
    max_pool: str | None = None
    start: str | None = None
    keep: float | None = None
    conditions: Conditions = field(default_factory=dict)
    input: str | None = None
    output: str | None = None
    input_shape: Sequence[int | None] | None = None
    taps: Sequence[str] = ()
    activations: Sequence[str] = ()
    target: Target = "input"
    targets_per_input: int | None = None
    heatmap: bool = False
    render: str | None = None
    cmap: str = look.DEFAULT
    embed_preprocessing: bool = False
    optimize: str = "exact"
    target_runtime: str = PORTABLE
    preprocess: contract.Preprocessing | None = None
    labels: Sequence[str] | None = None

    @classmethod
    def of(cls, **given: Unpack[Keywords]) -> Options:
        """The options that a caller's keywords mean; raises `OnnxLrpError` as the class does, and for unknown ones."""
        unknown = [name for name in given if name not in FORMS]
        raise_if_any([Problem(f"option {name}", "there is no such option", suggest(name, FORMS)) for name in unknown])
        values: dict[str, Any] = {**given}
        return cls(**values)

    def __post_init__(self) -> None:
        problems = []
        for option in fields(self):
            given, form = getattr(self, option.name), FORMS[option.name]
            if given is None and option.default is None:
                continue
            try:
                object.__setattr__(self, option.name, form.read(given))
            except (TypeError, ValueError, KeyError):
                problems.append(Problem(f"{option.name}={reprlib.repr(given)}", "has the wrong form", form.said))
                continue
            if form.words and given not in form.words:
                said = f"--{option.name.replace('_', '-')} {given}"
                problems.append(Problem(said, "is none of the choices", suggest(given, form.words)))
        raise_if_any(problems or self._clashes())

    def _clashes(self) -> list[Problem]:
        """Options that exclude each other, or that mean nothing without another."""
        found = []
        many, fed = self.targets_per_input, self.start == "fed"
        if many is not None and many < 1:
            found.append(Problem(f"--targets-per-input {many}", "is not a positive number", "leave it out for one"))
        if many is not None and (self.target != "input" or fed):
            reason = "needs the target as an input"
            found.append(Problem(f"--targets-per-input {many}", reason, "leave out --target and --start fed"))
        if fed and self.target != "input":
            reason = "relevance is fed, so there is no target to choose"
            found.append(Problem(f"--target {self.target}", reason, "leave out --target or --start fed"))
        if self.cmap != look.DEFAULT and self.render is None:
            reason = "colours what --render draws, and nothing is to be drawn"
            found.append(Problem(f"--cmap {self.cmap}", reason, "add --render, or leave it out"))
        return found

    def overrides(self) -> list[Case]:
        """The cases that come before the composite's: --rule first, then --residual and --max-pool."""
        own = [Case(catalogue.parse(r) if isinstance(r, str) else r, pattern=p) for p, r in self.rules.items()]
        residual = RESIDUAL[self.residual] if self.residual else ()
        return [*own, *residual, *(MAX_POOL[self.max_pool] if self.max_pool else ())]

"""Every rule by name, a line or two each. The formulas are those of the papers named."""

from __future__ import annotations

import ast
import difflib
import inspect
from collections.abc import Callable, Mapping

from onnxlrp.errors import OnnxLrpError, Problem
from onnxlrp.rules.rule import (
    ALL,
    NEGATIVE,
    NOTHING,
    ONES,
    POSITIVE,
    LinearRule,
    PassRule,
    PoolingRule,
    Rule,
    Share,
    Stabilizer,
    Term,
)


def epsilon(epsilon: float = 1e-6) -> LinearRule:
    """R_x = x ⊙ A(w)ᵀ[R ⊘ stab(z)]; ε = 0 is LRP-0. Bach et al. 2015, eq. 58."""
    return LinearRule(
        "epsilon", (Share((Term(ALL, ALL, ALL),)),), Stabilizer(epsilon), parameters=(("epsilon", epsilon),)
    )


def zplus(epsilon: float = 1e-6) -> LinearRule:
    """Positive contributions only, x⁺w⁺ and x⁻w⁻; = alpha_beta(1, 0). Montavon et al. 2017, eq. 13."""
    share = Share((Term(POSITIVE, POSITIVE, POSITIVE), Term(NEGATIVE, NEGATIVE, NOTHING)))
    return LinearRule("zplus", (share,), Stabilizer(epsilon), parameters=(("epsilon", epsilon),))


def flat(epsilon: float = 1e-6) -> LinearRule:
    """Every input of an output unit gets the same share. Lapuschkin et al. 2019."""
    return LinearRule("flat", (Share((Term(ONES, ONES),)),), Stabilizer(epsilon), parameters=(("epsilon", epsilon),))


def norm(epsilon: float = 1e-6) -> LinearRule:
    """The epsilon rule of a map without parameters: residual sums and average pooling."""
    return LinearRule(
        "norm", (Share((Term(ALL, ALL, ALL),)),), Stabilizer(epsilon), parameters=(("epsilon", epsilon),)
    )


def pass_() -> PassRule:
    """R_x = R: relevance goes through unchanged."""
    return PassRule("pass")


def winner() -> PoolingRule:
    """Max pooling: all relevance to the largest input, the first one where several tie."""
    return PoolingRule("winner")


def average() -> PoolingRule:
    """Max pooling: as if it were the average pooling of the same geometry, under norm. Montavon et al. 2019."""
    return PoolingRule("average", average=True)


CATALOGUE: Mapping[str, Callable[..., Rule]] = {
    function.__name__.rstrip("_"): function for function in (epsilon, zplus, flat, norm, pass_, winner, average)
}


def parse(text: str) -> Rule:
    """The rule that a user writes: `zplus`, `epsilon(1e-4)`, `epsilon(epsilon=1e-4)`.

    Raises `OnnxLrpError` for an unknown name (with the closest one) or parameters that do not fit.
    """
    try:
        tree = ast.parse(text.strip().replace("pass", "pass_", 1), mode="eval").body
        call = tree if isinstance(tree, ast.Call) else ast.Call(tree, [], [])
        assert isinstance(call.func, ast.Name)
        name = call.func.id.rstrip("_")
        positional = [ast.literal_eval(a) for a in call.args]
        named = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    except (SyntaxError, ValueError, AssertionError):
        remedy = "write NAME or NAME(PARAMETER=VALUE), for example epsilon(epsilon=1e-4)"
        raise OnnxLrpError(Problem(f"rule '{text}'", "cannot be read", remedy)) from None
    if name not in CATALOGUE:
        raise OnnxLrpError(Problem(f"rule '{text}'", "there is no such rule", suggest(name, CATALOGUE)))
    try:
        return CATALOGUE[name](*positional, **named)
    except (TypeError, ValueError) as error:
        form = f"{name}{inspect.signature(CATALOGUE[name])}".split(" ->")[0]
        raise OnnxLrpError(Problem(f"rule '{text}'", f"its parameters do not fit ({error})", f"use {form}")) from None


def suggest(word: str, valid: Mapping[str, object]) -> str:
    """A remedy that names the closest valid word and all of them."""
    close = difflib.get_close_matches(word, valid, 1)
    start = f"did you mean {close[0]}? " if close else ""
    return f"{start}choose among: {', '.join(valid)}"

"""The table names what runtimes get wrong or refuse, and keeps quiet of the form beside it that they do not."""

from __future__ import annotations

import pytest

from onnxlrp.explain.runtimes import PORTABLE, RUNTIMES

from .limited import LIMITED


@pytest.mark.parametrize("name", LIMITED)
def test_a_limit_is_where_the_runtime_is_wrong_and_nowhere_else(name: str) -> None:
    case = LIMITED[name]
    wrong, right = case.models()
    for runtime in case.runtimes:
        (said,) = RUNTIMES[runtime].refusals(wrong, "model")
        assert case.words in str(said) and said.remedy
        assert not RUNTIMES[runtime].refusals(right, "model")


@pytest.mark.parametrize("name", LIMITED)
def test_any_runtime_knows_the_stops_of_all(name: str) -> None:
    """From the table itself, in one line for each reason, and none of them a stop."""
    case = LIMITED[name]
    wrong, _ = case.models()
    assert not RUNTIMES[PORTABLE].refusals(wrong, "model")
    said = [str(p) for p in RUNTIMES[PORTABLE].known(wrong, "model")]
    for runtime in case.runtimes:
        assert any("not for" in s and RUNTIMES[runtime].title in s for s in said), said
    stopping = [r for r in RUNTIMES.values() if r.refusals(wrong, "model")]
    assert all(any(r.title in s for s in said) for r in stopping)
    assert set(case.runtimes) <= {r.name for r in stopping}

"""What `--method` says, and what it cannot say."""

from __future__ import annotations

import pytest

from onnxlrp.errors import OnnxLrpError
from onnxlrp.run.methods import parse_method


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("smoothgrad(noise=1e400)", "noise is inf, and must be a finite number"),
        ("smoothgrad(noise=True)", "noise is True, and must be a number"),
        ("smoothgrad(noise=[1])", "must be a number"),
        ("smoothgrad(sample=3)", "has no parameter 'sample'. Did you mean samples?"),
        ("smooth", "Did you mean smoothgrad"),
        ("integrated-gradients(baseline=white)", "baseline is 'white', and must be a number"),
        ("occlusion(fill=1e400)", "fill is inf"),
        ("occlusion(window=8, stride=16)", "stride 16: is more than the window's 8 pixels"),
    ],
)
def test_methods_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(OnnxLrpError) as error:
        parse_method(text)
    assert message in str(error.value)

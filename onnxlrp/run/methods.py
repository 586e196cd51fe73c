"""Where a run's relevance comes from: the explainer itself, or an attributor that runs it many times."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from onnxlrp.errors import OnnxLrpError, Problem, suggest
from onnxlrp.rules.catalogue import call, number, read_call
from onnxlrp.run.attributors import (
    Progress,
    check_noise,
    check_stride,
    integrated_gradients,
    occlusion,
    refuse_pixels,
    refuse_rules,
    refuse_small_pictures,
    require_whole,
    smoothgrad,
)
from onnxlrp.run.feeding import Conditions
from onnxlrp.run.preparing import Fitted
from onnxlrp.run.session import Explainer, Explanation

DEFAULT = "lrp"
Attribute = Callable[[Explainer, npt.NDArray[Any], Any], Explanation]


@dataclass(frozen=True)
class Method:
    """A way to relevance, with its options.

    `described` is for people, "" where the composite's name says it all; `composite` is what a plain classifier is
    converted with, None for the default; pixels in options (`baseline`, `fill`) are 0 (black) to 255 (white).
    """

    name: str = DEFAULT
    described: str = ""
    composite: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def attribute(
        self,
        fitted: Fitted,
        conditions: Conditions | None = None,
        batch_size: int = 16,
        progress: Progress | None = None,
    ) -> Attribute:
        """The function (explainer, batch, target) -> Explanation."""
        options = {k: fitted.level(v) if k in ("baseline", "fill") else v for k, v in self.options.items()}
        if self.name == DEFAULT:
            return lambda explainer, batch, target: explainer.explain(batch, target, conditions=conditions)
        given = {"batch_size": batch_size, "progress": progress} | options
        if self.name != "occlusion":
            given["conditions"] = conditions
        function = _FUNCTIONS[self.name]
        return lambda explainer, batch, target: function(explainer, batch, target, **given)

    def check(self, explainer: Explainer) -> None:
        """Raise `OnnxLrpError` where the explainer is not what the method needs."""
        if self.name != DEFAULT:
            refuse_pixels(explainer)
        if self.name == "integrated-gradients":
            refuse_rules(explainer)
        if self.name == "occlusion":
            refuse_small_pictures(explainer, self.options["window"])


def lrp() -> Method:
    """The explainer's own relevance."""
    return Method()


def smooth(samples: int = 20, noise: float = 0.1, seed: int = 0) -> Method:
    """Its mean over `samples` inputs under noise, a fraction of the input's range."""
    noise = float(number("noise", noise))
    check_noise(samples, noise, seed)
    described = f"SmoothGrad, {samples} samples, noise {noise:g}"
    return Method("smoothgrad", described, "gradient", {"samples": samples, "noise": noise, "seed": seed})


def integrated(steps: int = 32, baseline: float = 0.0) -> Method:
    """(x - baseline) times the mean gradient on the way from a picture of pixels `baseline`."""
    require_whole("steps", steps, 1)
    baseline = float(number("baseline", baseline))
    described = f"integrated gradients, {steps} steps from {_grey(baseline)}"
    return Method("integrated-gradients", described, "gradient", {"steps": steps, "baseline": baseline})


def occluded(window: int = 16, stride: int | None = None, fill: float = 127.5) -> Method:
    """How much the score falls where a window of pixels `fill` hides the picture; half a window apart unless given."""
    require_whole("window", window, 1)
    stride = max(window // 2, 1) if stride is None else stride
    require_whole("stride", stride, 1)
    check_stride(window, stride)
    fill = float(number("fill", fill))
    described = f"occlusion, {window} px windows of {_grey(fill)}, stride {stride}"
    return Method("occlusion", described, "gradient", {"window": window, "stride": stride, "fill": fill})


_MAKERS: Mapping[str, Callable[..., Method]] = {
    DEFAULT: lrp,
    "smoothgrad": smooth,
    "integrated-gradients": integrated,
    "occlusion": occluded,
}
_FUNCTIONS: Mapping[str, Callable[..., Explanation]] = {
    "smoothgrad": smoothgrad,
    "integrated-gradients": integrated_gradients,
    "occlusion": occlusion,
}
NAMES = tuple(_MAKERS)


def parse_method(text: str) -> Method:
    """NAME, or NAME(OPTION=VALUE); raises `OnnxLrpError` for an unknown name or options that do not fit."""
    opening = text.find("(")
    name, rest = (text, "") if opening < 0 else (text[:opening], text[opening:])
    word, positional, keywords = read_call(name.strip().replace("-", "_") + rest, "method", "smoothgrad(samples=50)")
    name = word.replace("_", "-")
    if name not in _MAKERS:
        raise OnnxLrpError(Problem(f"method '{text}'", "there is no such method", suggest(name, NAMES)))
    parameters = {k: p.default for k, p in inspect.signature(_MAKERS[name]).parameters.items()}
    return call(f"method '{text}'", name, _MAKERS[name], parameters, positional, keywords)


def _grey(pixel: float) -> str:
    return {0.0: "black", 127.5: "grey", 255.0: "white"}.get(float(pixel), f"grey {pixel:g}")

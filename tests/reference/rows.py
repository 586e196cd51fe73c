"""The rules and composites to compare: what onnxlrp is asked for, and who says what relevance should be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from onnx import ModelProto
from torch import Tensor, nn
from zennit import rules
from zennit.core import Stabilizer

import onnxlrp
from onnxlrp.contract import Preprocessing

from . import zennit_side

Measure = Callable[[nn.Module, Tensor, Sequence[int], torch.dtype], np.ndarray]


@dataclass(frozen=True)
class Row:
    """A rule or composite: the options of `onnxlrp.convert`, and who says what it should be. The pattern "first" in
    `rules` stands for the first convolution."""

    name: str
    options: dict[str, Any]
    measure: Measure

    def explainer(self, proto: ModelProto, preprocess: Preprocessing) -> ModelProto:
        """The explainer that is asked for."""
        options = dict(self.options)
        first = next(n.output[0] for n in proto.graph.node if n.op_type == "Conv")
        options["rules"] = {first if k == "first" else k: v for k, v in options.get("rules", {}).items()}
        return onnxlrp.convert(proto, preprocess=preprocess, **options).model


def hooked(made: zennit_side.Made, start: str = "logit") -> Measure:
    """zennit's relevance under a composite."""
    return lambda network, x, targets, dtype: zennit_side.relevance(network, x, targets, made, dtype, start)


def times_input(network: nn.Module, x: Tensor, targets: Sequence[int], dtype: torch.dtype) -> np.ndarray:
    """Input times gradient, by torch."""
    return np.asarray(zennit_side.gradient(network, x, targets, dtype) * x.double().numpy())


def composites(preprocess: Preprocessing) -> Iterator[Row]:
    """All composites that zennit has, and those that torch can tell."""
    low, high = (torch.tensor(v, dtype=torch.float64).reshape(1, -1, 1, 1) for v in preprocess.bounds())
    plain = ("epsilon_plus", "epsilon_plus_flat", "epsilon_alpha2_beta1", "epsilon_alpha2_beta1_flat")
    for name in (*plain, "excitation_backprop"):
        yield Row(name, {"composite": name}, hooked(zennit_side.preset(name)))
    box = zennit_side.preset("epsilon_gamma_box", low=low, high=high)
    yield Row("epsilon_gamma_box", {"composite": "epsilon_gamma_box"}, hooked(box))
    for name in ("guided_backprop", "deconvnet"):
        yield Row(name, {"composite": name}, hooked(zennit_side.preset(name), "one-hot"))
    yield Row("beta_smooth", {"composite": "beta_smooth"}, zennit_side.smooth_gradient)
    yield Row("gradient", {"composite": "gradient"}, zennit_side.gradient)
    yield Row("input_x_gradient", {"composite": "input_x_gradient"}, times_input)
    zero = zennit_side.convolutions(lambda: rules.Epsilon(0.0), lambda: rules.Epsilon(0.0))
    yield Row("lrp_0", {"composite": "lrp_0"}, hooked(zero))


def single_rules(preprocess: Preprocessing) -> Iterator[Row]:
    """One rule for all convolutions, for the first, or for the dense layers; epsilon for the others."""
    low, high = (torch.tensor(v, dtype=torch.float64).reshape(1, -1, 1, 1) for v in preprocess.bounds())
    bare = {"zero_params": ["bias"]}
    clip, norm = Stabilizer(0.01, clip=True), Stabilizer(0.25, norm_scale=True)
    everywhere: dict[str, Callable[[], Any]] = {
        "epsilon": rules.Epsilon,
        "epsilon(0.25)": lambda: rules.Epsilon(0.25),
        "epsilon(0.01, stabilizer='clip')": lambda: rules.Epsilon(clip),
        "epsilon(0.25, stabilizer='norm')": lambda: rules.Epsilon(norm),
        "epsilon(bias='zero')": lambda: rules.Epsilon(**bare),
        "zplus(bias='zero')": lambda: rules.ZPlus(**bare),
        "zplus(epsilon=0.25, stabilizer='norm')": lambda: rules.ZPlus(norm),
        "alpha_beta(3.0, 2.0)": lambda: rules.AlphaBeta(3.0, 2.0),
        "alpha_beta(2.0, 1.0, bias='zero')": lambda: rules.AlphaBeta(2.0, 1.0, **bare),
        "gamma(0.1)": lambda: rules.Gamma(0.1),
        "gamma(0.25)": lambda: rules.Gamma(0.25),
        "gamma(0.25, bias='zero')": lambda: rules.Gamma(0.25, **bare),
        "wsquare": rules.WSquare,
        "flat": rules.Flat,
    }
    for name, rule in everywhere.items():
        options = {"composite": "epsilon", "rules": {"Conv": name}}
        yield Row(f"convolutions {name}", options, hooked(zennit_side.convolutions(rule)))
    first = {"zbox": lambda: rules.ZBox(low, high), "wsquare": rules.WSquare, "gamma(0.25)": lambda: rules.Gamma(0.25)}
    for name, rule in first.items():
        made = zennit_side.convolutions(rules.ZPlus, first=rule)
        yield Row(f"first {name}", {"composite": "epsilon_plus", "rules": {"first": name}}, hooked(made))
    dense = {"gamma(0.25)": rules.Gamma, "alpha_beta(2.0, 1.0)": rules.AlphaBeta, "wsquare": rules.WSquare}
    for name, rule in dense.items():
        made = zennit_side.convolutions(rules.ZPlus, rule)
        yield Row(f"dense {name}", {"composite": "epsilon_plus", "rules": {"Gemm": name}}, hooked(made))

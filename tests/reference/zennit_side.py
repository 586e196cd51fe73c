"""What zennit and torch say of a network: relevance in float32 or float64, as float64 numpy arrays.

Two traps. zennit merges batch norms but leaves their eps behind, so that every merged one still scales by
(1 + 1e-5)^-1/2: it is set to zero once the merge is done, in a copy, as it stays so. And zennit keeps one input for a
module: where a ResNet block uses its relu several times, or in place, `beta_smooth` reads the wrong one. Hence
`smooth_gradient`, which needs no hook.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from zennit.composites import COMPOSITES, LayerMapComposite, SpecialFirstLayerMapComposite, layer_map_base
from zennit.core import Composite
from zennit.rules import Epsilon, Norm
from zennit.torchvision import ResNetCanonizer
from zennit.types import Convolution, Linear

from tools.zoo import Sum

SUMS = [(Sum, Norm())]  # the residual sums of the trained models' twins
Made = Callable[[], Composite]


def preset(name: str, **options: Any) -> Made:
    """A composite of zennit's by its name."""
    sums = SUMS if name.startswith("epsilon") or name == "excitation_backprop" else []
    return lambda: COMPOSITES[name](layer_map=list(sums), canonizers=[ResNetCanonizer()], **options)


def convolutions(rule: Callable[[], Any], dense: Callable[[], Any] = Epsilon, first: Any = None) -> Made:
    """A composite that gives all convolutions one rule, and perhaps the first layer another; the rest as in zennit's
    own composites."""

    def make() -> Composite:
        layers = [*SUMS, *layer_map_base(), (Convolution, rule()), (nn.Linear, dense())]
        canonizers = [ResNetCanonizer()]
        if first is None:
            return LayerMapComposite(layer_map=layers, canonizers=canonizers)
        return SpecialFirstLayerMapComposite(layer_map=layers, first_map=[(Linear, first())], canonizers=canonizers)

    return make


def relevance(
    network: nn.Module, x: Tensor, targets: Sequence[int], made: Made, dtype: torch.dtype, start: str = "logit"
) -> np.ndarray:
    """zennit's relevance of the images x, as float64. `start` is "logit" or "one-hot"."""
    prepared = _copied(network, dtype)
    with made().context(prepared) as hooked:
        for module in hooked.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = 0.0
        return _backward(hooked, x.to(dtype), targets, start)


def gradient(network: nn.Module, x: Tensor, targets: Sequence[int], dtype: torch.dtype) -> np.ndarray:
    """The derivative of the targets' logits by torch, as float64."""
    return _backward(_copied(network, dtype), x.to(dtype), targets, "one-hot")


def smooth_gradient(
    network: nn.Module, x: Tensor, targets: Sequence[int], dtype: torch.dtype, beta: float = 10.0
) -> np.ndarray:
    """The derivative with each relu's replaced by sigmoid(βx), as float64."""

    class Smooth(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, v: Tensor) -> Tensor:
            ctx.save_for_backward(v)
            return v.clamp(min=0)

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:  # type: ignore[override]
            return g * torch.sigmoid(beta * ctx.saved_tensors[0])

    prepared = _copied(network, dtype)
    for module in prepared.modules():
        if isinstance(module, nn.ReLU):
            module.forward = Smooth.apply  # type: ignore[method-assign]
    return _backward(prepared, x.to(dtype), targets, "one-hot")


def logits(network: nn.Module, x: Tensor, dtype: torch.dtype = torch.float64) -> np.ndarray:
    """What the network answers."""
    with torch.no_grad():
        return _copied(network, dtype)(x.to(dtype)).double().numpy()


def _copied(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    prepared = copy.deepcopy(network).to(dtype).eval()
    for module in prepared.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return prepared


def _backward(network: nn.Module, x: Tensor, targets: Sequence[int], start: str) -> np.ndarray:
    x = x.clone().requires_grad_()
    scores = network(x)
    chosen = (torch.arange(len(x)), torch.as_tensor(targets))
    seed = torch.zeros_like(scores)
    seed[chosen] = scores.detach()[chosen] if start == "logit" else 1.0
    (found,) = torch.autograd.grad(scores, x, seed)
    return found.detach().double().numpy()

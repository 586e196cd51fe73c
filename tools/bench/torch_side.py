"""The contestants that run in torch: the plain forward pass, autograd, zennit and Captum's LRP."""

from __future__ import annotations

import operator
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tools import zoo
from tools.bench.onnx_side import Place
from tools.bench.results import HIGH, LOW, TORCH
from tools.bench.timing import Call

ZENNIT = {
    "epsilon_plus": "EpsilonPlus",
    "epsilon_plus_flat": "EpsilonPlusFlat",
    "epsilon_gamma_box": "EpsilonGammaBox",
    "epsilon_alpha2_beta1_flat": "EpsilonAlpha2Beta1Flat",
}


def weights_path(folder: Path, network: str) -> Path:
    """Where the network's weights are, as torch keeps them."""
    return folder / f"{network}.pt"


def load(network: str, folder: Path, place: Place) -> nn.Module:
    """The exported network, in torch, without a second copy of its weights."""
    with torch.device("meta"):
        net: nn.Module = getattr(zoo.torchvision.models, network)(weights=None)
    net.load_state_dict(torch.load(weights_path(folder, network), weights_only=True), assign=True)
    net = net.to(place.device).eval()
    return net.half() if place.precision == "float16" else net


def settle(place: Place) -> None:
    """As many threads as ONNX Runtime has, and TF32 as it has it."""
    torch.set_num_threads(place.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = place.precision == "tf32"


def contestant(name: str, network: str, composite: str, folder: Path, place: Place, images: np.ndarray) -> Call:
    """A contestant by its name: it explains the predicted class, or only runs the network."""
    settle(place)
    net, x = load(network, folder, place), torch.from_numpy(images).to(place.device)
    calls = {
        TORCH: lambda: _forward(net, x),
        "autograd": lambda: _relevance(net, x.clone().requires_grad_()),
        "zennit": lambda: _zennit(net, network, composite, x),
    }
    call = _captum(net, x) if name == "captum" else calls[name]

    def finished() -> object:
        result = call()
        if place.device == "cuda":
            torch.cuda.synchronize()
        return result

    return finished


def _forward(net: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return net(x)


def _relevance(net: nn.Module, x: Tensor) -> Tensor:
    """The gradient, modified or not, that starts from the score of the predicted class."""
    scores = net(x)
    start = torch.zeros_like(scores)
    best = scores.argmax(1, keepdim=True)
    start.scatter_(1, best, scores.detach().gather(1, best))
    return torch.autograd.grad(scores, x, start)[0]


def _zennit(net: nn.Module, network: str, composite: str, x: Tensor) -> Tensor:
    from zennit import composites, torchvision

    canonizer = torchvision.ResNetCanonizer if network.startswith("resnet") else torchvision.VGGCanonizer
    box = {"low": torch.full_like(x, LOW), "high": torch.full_like(x, HIGH)} if composite == "epsilon_gamma_box" else {}
    chosen = getattr(composites, ZENNIT[composite])(canonizers=[canonizer()], **box)
    with chosen.context(net) as modified:
        return _relevance(modified, x.clone().requires_grad_())


# -- Captum -----------------------------------------------------------------------------------------------------------


def _captum(net: nn.Module, x: Tensor) -> Call:
    """alpha1-beta0 for convolutions and epsilon for dense layers. Captum takes the rules off after each explanation, so
    that setting them is part of it; the class to explain is found out before."""
    from captum.attr import LRP
    from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule

    ready = for_captum(net)
    target = _forward(ready, x).argmax(1)

    def call() -> Tensor:
        for module in ready.modules():
            if isinstance(module, nn.Conv2d):
                module.rule = Alpha1_Beta0_Rule()
            elif isinstance(module, nn.Linear):
                module.rule = EpsilonRule(1e-6)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found: Tensor = LRP(ready).attribute(x.clone().requires_grad_(), target=target).detach()
        return found

    return call


def for_captum(net: nn.Module) -> Any:
    """The network as Captum's LRP needs it: batch norms merged, residual sums as modules, no relu in place."""
    from captum.attr._utils.custom_modules import Addition_Module
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    traced = torch.fx.symbolic_trace(net)
    modules: dict[str, Any] = dict(traced.named_modules())
    for node in list(traced.graph.nodes):
        if node.op == "call_module" and isinstance(modules[node.target], nn.BatchNorm2d):
            before = node.args[0]
            traced.add_submodule(before.target, fuse_conv_bn_eval(modules[before.target], modules[node.target]))
            node.replace_all_uses_with(before)
            traced.graph.erase_node(node)
        elif node.op == "call_function" and node.target in (operator.add, operator.iadd):
            traced.add_submodule(f"sum_{node.name}", Addition_Module())
            with traced.graph.inserting_after(node):
                total = traced.graph.call_module(f"sum_{node.name}", node.args)
            node.replace_all_uses_with(total)
            traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    for module in traced.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return traced

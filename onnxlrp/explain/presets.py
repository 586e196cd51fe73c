"""The composites of the field, by the names zennit gives them where it has them."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from onnxlrp.errors import OnnxLrpError, Problem, suggest
from onnxlrp.explain.composite import WEIGHTED, Case, Composite
from onnxlrp.rules import catalogue
from onnxlrp.rules.catalogue import Bounds
from onnxlrp.rules.rule import Rule

CONVOLUTION, DENSE = ("convolution",), ("dense",)
DIFFERENTIABLE = ("convolution", "dense", "normalisation", "sum", "pooling", "activation")
POOLING = Case(catalogue.winner(), ("max pooling",))
COMMON = (
    Case(catalogue.pass_(), ("activation", "normalisation")),
    Case(catalogue.norm(), ("sum", "pooling")),
    POOLING,
)
GRADIENT = (Case(catalogue.gradient(), DIFFERENTIABLE), POOLING)

PRESETS: dict[str, Callable[..., Composite]] = {}
DEFAULT = "epsilon_plus_flat"


def preset(function: Callable[..., Composite]) -> Callable[..., Composite]:
    """Register a composite under its function's name."""
    PRESETS[function.__name__] = function
    return function


def _lrp(name: str, convolution: Rule, dense: Rule, *first: Case) -> Composite:
    return Composite(name, (*first, Case(convolution, CONVOLUTION), Case(dense, DENSE), *COMMON))


def _first(rule: Rule, kinds: tuple[str, ...] = WEIGHTED) -> Case:
    return Case(rule, kinds, first=True)


@preset
def epsilon_plus_flat() -> Composite:
    """flat at the first layer, zplus for convolutions, epsilon for dense layers. A good start for VGG and ResNet."""
    return _lrp("epsilon_plus_flat", catalogue.zplus(), catalogue.epsilon(), _first(catalogue.flat()))


@preset
def epsilon_plus() -> Composite:
    """zplus for convolutions, epsilon for dense layers."""
    return _lrp("epsilon_plus", catalogue.zplus(), catalogue.epsilon())


@preset
def epsilon_alpha2_beta1_flat() -> Composite:
    """flat at the first layer, alpha_beta(2, 1) for convolutions, epsilon for dense layers."""
    rule = catalogue.alpha_beta(2.0, 1.0)
    return _lrp("epsilon_alpha2_beta1_flat", rule, catalogue.epsilon(), _first(catalogue.flat()))


@preset
def epsilon_alpha2_beta1() -> Composite:
    """alpha_beta(2, 1) for convolutions, epsilon for dense layers."""
    return _lrp("epsilon_alpha2_beta1", catalogue.alpha_beta(2.0, 1.0), catalogue.epsilon())


@preset
def epsilon_gamma_box(low: Bounds = None, high: Bounds = None, gamma: float = 0.25) -> Composite:
    """zbox at the first convolution, gamma for convolutions, epsilon for dense layers. Best-looking on a VGG; on a
    ResNet prefer epsilon_plus."""
    first = _first(catalogue.zbox(low, high), CONVOLUTION)
    return _lrp("epsilon_gamma_box", catalogue.gamma(gamma), catalogue.epsilon(), first)


@preset
def excitation_backprop() -> Composite:
    """zplus for convolutions and dense layers, activations by gradient. Zhang et al. 2016."""
    rest = (
        Case(catalogue.norm(), ("sum", "pooling")),
        Case(catalogue.gradient(), ("activation", "normalisation")),
        POOLING,
    )
    return Composite("excitation_backprop", (Case(catalogue.zplus(), WEIGHTED), *rest))


@preset
def lrp_0() -> Composite:
    """epsilon with ε = 0 everywhere: on a relu network without biases, gradient × input."""
    return _lrp("lrp_0", catalogue.epsilon(0.0), catalogue.epsilon(0.0))


@preset
def epsilon(epsilon: float = 1e-6) -> Composite:
    """epsilon for convolutions and dense layers."""
    return _lrp("epsilon", catalogue.epsilon(epsilon), catalogue.epsilon(epsilon))


@preset
def montavon_vgg(low: Bounds = None, high: Bounds = None) -> Composite:
    """zbox first, gamma in the lower half, epsilon with ε = 0.25·rms in the upper half, LRP-0 for dense layers.
    Montavon et al. 2019."""
    upper = catalogue.epsilon(0.25, stabilizer="norm")
    cases = (
        _first(catalogue.zbox(low, high), CONVOLUTION),
        Case(catalogue.gamma(0.25), CONVOLUTION, depth=(0.0, 0.5)),
        Case(upper, CONVOLUTION),
        Case(catalogue.epsilon(0.0), DENSE),
    )
    return Composite("montavon_vgg", (*cases, *COMMON))


@preset
def seed() -> Composite:
    """zplus everywhere with the input taken as ones, dense layers without bias, max pooling as average."""
    cases = (
        _first(catalogue.zplus_ones()),
        Case(catalogue.zplus(), CONVOLUTION),
        Case(catalogue.zplus(bias="zero"), DENSE),
        Case(catalogue.average(), ("max pooling",)),
    )
    return Composite("seed", (*cases, *COMMON))


@preset
def gradient() -> Composite:
    """The plain derivative of the target's logit by the input."""
    return Composite("gradient", GRADIENT, start="one-hot")


@preset
def input_x_gradient() -> Composite:
    """The input times the derivative of the target's logit. Shrikumar et al. 2016."""
    return Composite("input_x_gradient", gradient().cases, start="one-hot", times_input=True)


@preset
def guided_backprop() -> Composite:
    """The derivative, with only positive relevance going back through a relu. Springenberg et al. 2015."""
    return Composite("guided_backprop", (Case(catalogue.guided(), relu=True), *GRADIENT), start="one-hot")


@preset
def deconvnet() -> Composite:
    """The derivative, with [R]⁺ at each relu. Zeiler and Fergus 2014."""
    return Composite("deconvnet", (Case(catalogue.deconvnet(), relu=True), *GRADIENT), start="one-hot")


@preset
def beta_smooth(beta: float = 10.0) -> Composite:
    """The derivative, with each relu's smoothed. Dombrowski et al. 2019."""
    return Composite("beta_smooth", (Case(catalogue.beta_smooth(beta), relu=True), *GRADIENT), start="one-hot")


def named(text: str) -> Composite:
    """The preset a user writes: NAME, or NAME(PARAMETER=VALUE).

    Raises `OnnxLrpError` for an unknown name (with the closest one) or parameters that do not fit.
    """
    what = f"composite '{text}'"
    name, positional, keywords = catalogue.read_call(text, "composite", "epsilon_gamma_box(low=-2.1, high=2.6)")
    if name not in PRESETS:
        raise OnnxLrpError(Problem(what, "there is no such composite", suggest(name, PRESETS)))
    parameters = {k: p.default for k, p in inspect.signature(PRESETS[name]).parameters.items()}
    return catalogue.call(what, name, PRESETS[name], parameters, positional, keywords)

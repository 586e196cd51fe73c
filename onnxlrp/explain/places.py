"""Where each layer stands: first, last, how deep; which inputs of a sum are identity skips."""

from __future__ import annotations

from collections.abc import Sequence

from onnxlrp.explain.composite import WEIGHTED, Place
from onnxlrp.graph.facts import Facts
from onnxlrp.layers.registry import Layer


def places(layers: Sequence[Layer], facts: Facts) -> list[Place]:
    """Every layer, in order, with where it stands among the weighted ones."""
    leading, followed, skips = _leading(layers, facts.image), _followed(layers), _identity_skips(layers)
    weighted = sum(layer.kind in WEIGHTED for layer in layers)
    found, passed = [], 0
    for layer in layers:
        own = layer.kind in WEIGHTED
        first, last = own and layer.output in leading, own and layer.output not in followed
        found.append(Place(layer, first, last, passed / max(weighted, 1), skips.get(layer.output, ())))
        passed += own
    return found


def _leading(layers: Sequence[Layer], image: str) -> set[str]:
    """Outputs of the weighted layers that some path from the image reaches before any other."""
    reached, found = {image}, set()
    for layer in layers:
        if not reached.isdisjoint(layer.inputs):
            if layer.kind in WEIGHTED:
                found.add(layer.output)
            else:
                reached.add(layer.output)
    return found


def _followed(layers: Sequence[Layer]) -> set[str]:
    """Outputs of the layers that have a weighted one behind them."""
    feeding: set[str] = set()
    found = set()
    for layer in reversed(layers):
        if layer.output in feeding:
            found.add(layer.output)
        if layer.kind in WEIGHTED or layer.output in feeding:
            feeding.update(layer.inputs)
    return found


def _identity_skips(layers: Sequence[Layer]) -> dict[str, tuple[bool, ...]]:
    """For each sum, which of its inputs another of its inputs is computed from."""
    ancestors: dict[str, set[str]] = {}
    found = {}
    for layer in layers:
        above = [ancestors.get(i, set()) for i in layer.inputs]
        if layer.kind == "sum":
            found[layer.output] = tuple(
                any(name in other for k, other in enumerate(above) if k != i) for i, name in enumerate(layer.inputs)
            )
        ancestors[layer.output] = set(layer.inputs).union(*above)
    return found

"""Relevance once more, slowly: a network's graph walked backward in float64, every linear layer as its dense matrix.

The formulas for one linear layer are those of the oracle tests (`oracle.restatement`); here is what joins them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper
from onnx.reference import ReferenceEvaluator
from oracle.restatement import RESTATEMENTS, Stabilizer

from .networks import of_type

Array = np.ndarray
LINEAR = ("Conv", "Gemm", "MatMul", "BatchNormalization", "GlobalAveragePool", "AveragePool")


@dataclass(frozen=True)
class Seen:
    """What a rule may look at: a node's inputs, output and arriving relevance, each [N, elements]; for a linear node
    its matrix [outputs, inputs] and bias; for a sum which inputs are identity skips."""

    node: NodeProto
    xs: list[Array]
    y: Array
    r: Array
    w: Array | None = None
    b: Array | None = None
    skips: tuple[bool, ...] = ()


Rule = Callable[[Seen], list[Array]]


def linear(
    name: str, epsilon: float = 1e-6, stabilizer: str = "sign", bias: str = "keep", **parameters: object
) -> Rule:
    """A linear layer's rule of the catalogue."""

    def rule(seen: Seen) -> list[Array]:
        assert seen.w is not None and seen.b is not None
        b = seen.b if bias == "keep" else np.zeros_like(seen.b)
        if epsilon == 0:  # LRP-0 says nothing where z = 0
            z = seen.xs[0] @ seen.w.T + b
            return [seen.xs[0] * (np.divide(seen.r, z, out=np.zeros_like(z), where=z != 0) @ seen.w)]
        return [
            RESTATEMENTS[name](seen.xs[0], seen.w, b, seen.r, Stabilizer(epsilon, stabilizer), **parameters).relevance
        ]

    return rule


def summed(name: str, epsilon: float = 1e-6) -> Rule:
    """A residual sum z = a + b as a linear layer of both at once: epsilon, ratio or equal."""

    def rule(seen: Seen) -> list[Array]:
        size = seen.y.shape[1]
        w = np.concatenate([np.eye(size)] * len(seen.xs), axis=1)
        x = np.concatenate(seen.xs, axis=1)
        whole = RESTATEMENTS[name](x, w, np.zeros(size), seen.r, Stabilizer(epsilon)).relevance
        return list(np.split(whole, len(seen.xs), axis=1))

    return rule


def main_else(otherwise: Rule) -> Rule:
    """Identity skips get nothing, the branches beside them share evenly; a sum without any falls to another rule."""

    def rule(seen: Seen) -> list[Array]:
        if not any(seen.skips):
            return otherwise(seen)
        others = seen.skips.count(False)
        return [np.zeros_like(seen.r) if skip else seen.r / others for skip in seen.skips]

    return rule


def passing(seen: Seen) -> list[Array]:
    """R."""
    return [seen.r]


def gradient(seen: Seen) -> list[Array]:
    """R f'(x) of a relu."""
    return [seen.r * (seen.xs[0] > 0)]


def guided(seen: Seen) -> list[Array]:
    """Springenberg et al. 2015."""
    return [np.maximum(seen.r, 0) * (seen.xs[0] > 0)]


def deconvnet(seen: Seen) -> list[Array]:
    """Zeiler and Fergus 2014."""
    return [np.maximum(seen.r, 0)]


def smooth(seen: Seen, beta: float = 10.0) -> list[Array]:
    """Dombrowski et al. 2019."""
    return [seen.r / (1 + np.exp(-beta * seen.xs[0]))]


def winner(seen: Seen) -> list[Array]:
    """All to the first largest element of each window. The matrix of a max pooling says which elements a window has."""
    assert seen.w is not None
    result = np.zeros_like(seen.xs[0])
    for window, r in zip(seen.w, seen.r.T, strict=True):
        elements = np.flatnonzero(window)
        first = elements[np.argmax(seen.xs[0][:, elements], axis=1)]
        result[np.arange(len(r)), first] += r
    return [result]


def average(seen: Seen) -> list[Array]:
    """As the average pooling of the same geometry, under the epsilon rule."""
    assert seen.w is not None
    mean = seen.w / seen.w.sum(1, keepdims=True)
    return [RESTATEMENTS["epsilon"](seen.xs[0], mean, np.zeros(len(mean)), seen.r, Stabilizer()).relevance]


NORM = linear("epsilon")
DEFAULTS: dict[str, Rule] = {
    "Add": summed("epsilon"),
    "GlobalAveragePool": NORM,
    "AveragePool": NORM,
    "MaxPool": winner,
    **dict.fromkeys(("Relu", "Flatten", "BatchNormalization"), passing),
}
SUMS: dict[str, Rule] = {name: summed(name) for name in ("epsilon", "ratio", "equal")}
MODES: dict[str, Rule] = {
    **SUMS,
    "main": main_else(SUMS["epsilon"]),
    "latest": main_else(SUMS["ratio"]),
    "simple": main_else(SUMS["equal"]),
    "flows_skip": SUMS["ratio"],
    "flows_skip_simple": SUMS["equal"],
}
SMOOTH = {beta: partial(smooth, beta=beta) for beta in (3.0, 10.0)}


class Network:
    """A network in float64, and the way back through it."""

    def __init__(self, proto: ModelProto) -> None:
        self.proto = of_type(proto, TensorProto.DOUBLE)
        self.image = self.proto.graph.input[0].name
        self._matrices: dict[str, tuple[Array, Array]] = {}

    def tensors(self, x: Array) -> dict[str, Array]:
        """Every tensor of the network for a batch."""
        shown = ModelProto()
        shown.CopyFrom(self.proto)
        names = [n.output[0] for n in shown.graph.node]
        del shown.graph.output[:]
        shown.graph.output.extend(helper.make_empty_tensor_value_info(n) for n in names)
        x = np.asarray(x, np.float64)
        return {self.image: x, **dict(zip(names, ReferenceEvaluator(shown).run(names, {self.image: x}), strict=True))}

    def logits(self, x: Array) -> Array:
        """The network's answer."""
        return self.tensors(x)[self.proto.graph.output[0].name]

    def relevance(
        self,
        x: Array,
        start: Array,
        rules: Mapping[str, Rule],
        edits: Mapping[str, Callable[[Array], Array]] | None = None,
        at: str | None = None,
    ) -> dict[str, Array]:
        """The relevance of every tensor, from `start` at the output (or at the tensor `at`). `rules` go by a node's
        name or else its operator; `edits` change what arrives at a tensor before it goes on."""
        tensors = self.tensors(x)
        found = {at or self.proto.graph.output[0].name: np.asarray(start, np.float64)}
        for node in reversed(self.proto.graph.node):
            name = node.output[0]
            if name not in found:
                continue
            found[name] = (edits or {}).get(name, lambda r: r)(found[name])
            rule = rules.get(node.name) or {**DEFAULTS, **rules}[node.op_type]
            carriers = [i for i in node.input if i in tensors]
            parts = rule(self._seen(node, carriers, tensors, found[name]))
            for carrier, part in zip(carriers, parts, strict=True):
                shaped = part.reshape(tensors[carrier].shape)
                found[carrier] = found[carrier] + shaped if carrier in found else shaped
        return found

    def _seen(self, node: NodeProto, carriers: list[str], tensors: Mapping[str, Array], r: Array) -> Seen:
        flat = [tensors[c].reshape(len(r), -1) for c in carriers]
        known = (
            self.matrix(node, tensors[carriers[0]].shape[1:]) if node.op_type in (*LINEAR, "MaxPool") else (None, None)
        )
        skips = tuple(any(c in self._ancestors(o) for o in carriers if o != c) for c in carriers)
        return Seen(node, flat, tensors[node.output[0]].reshape(len(r), -1), r.reshape(len(r), -1), *known, skips)

    def _ancestors(self, tensor: str) -> set[str]:
        node = next((n for n in self.proto.graph.node if n.output[0] == tensor), None)
        return set() if node is None else set(node.input).union(*(self._ancestors(i) for i in node.input))

    def matrix(self, node: NodeProto, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """W [outputs, inputs] and b [outputs] of a node by unit vectors; of a max pooling, 1 where a window reads."""
        if node.output[0] not in self._matrices:
            size = int(np.prod(shape))
            source = helper.make_tensor_value_info(node.input[0], TensorProto.DOUBLE, [None, *shape])
            result = helper.make_empty_tensor_value_info(node.output[0])
            graph = helper.make_graph([node], "one", [source], [result], self.proto.graph.initializer)
            model = helper.make_model(graph, opset_imports=list(self.proto.opset_import))
            probes = np.concatenate([np.zeros([1, size]), np.eye(size)]).reshape(-1, *shape)
            (y,) = ReferenceEvaluator(model).run(None, {node.input[0]: probes})
            rows = np.asarray(y).reshape(size + 1, -1)
            self._matrices[node.output[0]] = (rows[1:] - rows[0]).T, rows[0]
        return self._matrices[node.output[0]]


def one_hot(targets: list[int], classes: int) -> Array:
    """[N, K], 1 at each sample's target."""
    return np.eye(classes)[np.asarray(targets)]

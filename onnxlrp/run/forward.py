"""The classifier inside an explainer: only the nodes behind its output, for callers who want scores alone."""

from __future__ import annotations

from collections.abc import Iterator

import onnx


def forward_only(model: onnx.ModelProto, output: str) -> onnx.ModelProto:
    """`model` cut down to what computes `output`; `model` itself is left as it is."""
    graph = model.graph
    needed, nodes = {output}, []
    for node in reversed(graph.node):  # ONNX lists them in the order of computation
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(_read_by(node))
    small = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    small.graph.name = graph.name
    small.graph.node.extend(reversed(nodes))
    small.graph.initializer.extend(t for t in graph.initializer if t.name in needed)
    small.graph.sparse_initializer.extend(t for t in graph.sparse_initializer if t.values.name in needed)
    small.graph.input.extend(v for v in graph.input if v.name in needed)
    small.graph.output.extend(v for v in graph.output if v.name == output)
    return small


def _read_by(node: onnx.NodeProto) -> Iterator[str]:
    """The tensors that a node reads, also inside the branches of control flow."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from _read_by(inner)

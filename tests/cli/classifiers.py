"""Small classifiers for the commands, and everything that can be wrong with one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

CLASSES = 5
Dim = int | str


def weight(name: str, *shape: int) -> TensorProto:
    """Normal values from a fixed seed."""
    values = np.random.default_rng(len(name)).normal(size=shape)
    return numpy_helper.from_array(values.astype(np.float32), name)


def image(*shape: Dim, name: str = "x", kind: int = TensorProto.FLOAT) -> ValueInfoProto:
    """A graph input or output."""
    return helper.make_tensor_value_info(name, kind, shape)


def node(op_type: str, inputs: Sequence[str], output: str, name: str = "", **attributes: object) -> NodeProto:
    """A node with one output, named like its operator."""
    return helper.make_node(op_type, inputs, [output], name or op_type.lower(), **attributes)


def classifier(
    *between: NodeProto, inputs: Sequence[ValueInfoProto] = (), more: Sequence[TensorProto] = (), opset: int = 17,
    ir: int = 8, domains: Sequence[str] = (), shape: Sequence[Dim] = ("N", 3, 8, 8),
) -> ModelProto:  # fmt: skip
    """Conv, Relu, what is `between` (from the tensor r to the tensor b), pooling, Gemm."""
    tail = between[-1].output[0] if between else "r"
    nodes = [
        node("Conv", ["x", "w"], "c"),
        node("Relu", ["c"], "r"),
        *between,
        node("GlobalAveragePool", [tail], "p"),
        node("Flatten", ["p"], "f"),
        node("Gemm", ["f", "g"], "y"),
    ]
    tensors = [weight("w", 4, 3, 3, 3), weight("g", 4, CLASSES), *more]
    graph = helper.make_graph(
        nodes, "classifier", [*(inputs or [image(*shape)])], [image("N", CLASSES, name="y")], tensors
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir)


def changed(change: Callable[[ModelProto], object]) -> ModelProto:
    """The plain classifier after a change in place."""
    proto = classifier()
    change(proto)
    return proto


def of_channels(channels: int) -> ModelProto:
    """The plain classifier for images with so many channels."""
    proto = classifier(shape=("N", channels, 8, 8))
    proto.graph.initializer[0].CopyFrom(weight("w", 4, channels, 3, 3))
    return proto


def renamed(**names: str) -> ModelProto:
    """The plain classifier with tensors renamed."""
    proto = classifier()
    for each in proto.graph.node:
        for tensors in (each.input, each.output):
            tensors[:] = [names.get(t, t) for t in tensors]
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        value.name = names.get(value.name, value.name)
    return proto


def branch(source: str, result: str) -> NodeProto:
    """An If that takes one of two ways from a tensor of the graph around it."""
    one = helper.make_graph([node("Relu", [source], "one")], "one", [], [image("a", "b", "c", "d", name="one")])
    two = helper.make_graph([node("Identity", [source], "two")], "two", [], [image("a", "b", "c", "d", name="two")])
    return node("If", ["condition"], result, then_branch=one, else_branch=two)


def loop(source: str, result: str) -> NodeProto:
    """A Loop that rectifies a tensor again and again."""
    scalar = helper.make_tensor_value_info
    body = helper.make_graph(
        [node("Relu", ["v"], "v_next"), node("Identity", ["go"], "go_next")],
        "body",
        [scalar("i", TensorProto.INT64, []), scalar("go", TensorProto.BOOL, []), image(*"abcd", name="v")],
        [scalar("go_next", TensorProto.BOOL, []), image(*"abcd", name="v_next")],
    )
    return node("Loop", ["trips", "condition", source], result, body=body)


CONDITION = numpy_helper.from_array(np.array(True), "condition")
TRIPS = numpy_helper.from_array(np.array(3), "trips")

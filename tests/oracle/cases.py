"""The cases of graphs/ops: read, filled with weights, and measured.

A case is a graph in textual ONNX without weights. The graph's name is its family (linear, max_pooling, activation,
routing); what is measured lies between the tensors `x` and `y`; all inputs but the image are weights, drawn from a
seed.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import ModelProto, helper, numpy_helper

FOLDER = Path(__file__).resolve().parents[2] / "graphs" / "ops"
IMAGES = ("x", "image")
SCALE = 1024.0  # unit vectors are this long, so that subtracting the bias costs no digits


@functools.cache
def _texts() -> dict[str, ModelProto]:
    return {p.stem: onnx.parser.parse_model(p.read_text()) for p in sorted(FOLDER.glob("*.onnxtxt"))}


def names(family: str) -> list[str]:
    """The names of a family's cases."""
    return [name for name, proto in _texts().items() if proto.graph.name == family]


def draw(name: str, shape: list[int]) -> np.ndarray:
    """Weights for a graph input: v… are variances, above zero; w… and b… of both signs, none close to zero."""
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    sizes = generator.uniform(0.25, 1.0, shape)
    if name.split("/")[-1].startswith("v"):
        return sizes.astype(np.float32)
    return (sizes * generator.choice([-1.0, 1.0], shape)).astype(np.float32)


def filled(proto: ModelProto, seed: str) -> ModelProto:
    """The model with its weight inputs turned into initializers."""
    result = ModelProto()
    result.CopyFrom(proto)
    graph = result.graph
    weights = [v for v in graph.input if v.name not in IMAGES]
    kept = [v for v in graph.input if v.name in IMAGES]
    del graph.input[:]
    graph.input.extend(kept)
    for value in weights:
        assert value.name[0] in "wbv", f"{seed}: what is the input {value.name}?"
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        graph.initializer.append(numpy_helper.from_array(draw(f"{seed}/{value.name}", shape), value.name))
    return result


@functools.cache
def case(name: str, variant: str = "mixed", batch: int | None = None) -> ModelProto:
    """A case as a model. Variants: `mixed` as it is; `nonnegative` with a Relu before x; `gated` with one more behind
    y, whose output is `z`. `batch` fixes the size that the file leaves open."""
    proto = filled(_texts()[name], name)
    if variant in ("nonnegative", "gated"):
        rectified(proto)
    if variant == "gated":
        proto.graph.node.append(helper.make_node("Relu", ["y"], ["z"]))
        proto.graph.output[0].name = "z"
    if batch is not None:
        for value in (proto.graph.input[0], proto.graph.output[0]):
            for dim in value.type.tensor_type.shape.dim:
                if dim.dim_param == "N":
                    dim.dim_value = batch
    onnx.checker.check_model(proto, full_check=True)
    return proto


def rectified(proto: ModelProto) -> None:
    """Put a Relu before x."""
    nodes = list(proto.graph.node)
    if proto.graph.input[0].name == "x":
        proto.graph.input[0].name = "image"
        before, at = "image", 0
    else:
        at = next(i for i, n in enumerate(nodes) if n.output[0] == "x") + 1
        before = nodes[at - 1].output[0] = "before_x"
    nodes.insert(at, helper.make_node("Relu", [before], ["x"]))
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def image_shape(proto: ModelProto, batch: int) -> list[int]:
    """The image's shape for a batch of this size."""
    dims = proto.graph.input[0].type.tensor_type.shape.dim
    return [batch, *(d.dim_value for d in list(dims)[1:])]


def session(proto: ModelProto, plain: bool = False) -> ort.InferenceSession:
    """ONNX Runtime on one thread of the CPU; `plain` without optimisations."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if plain:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(proto: ModelProto, feeds: Mapping[str, np.ndarray], plain: bool = False) -> dict[str, np.ndarray]:
    """The model's outputs by name."""
    runner = session(proto, plain)
    wanted = [o.name for o in runner.get_outputs()]
    return dict(zip(wanted, runner.run(wanted, dict(feeds)), strict=True))


def tensors(proto: ModelProto, image: np.ndarray, wanted: tuple[str, ...] = ("x", "y")) -> dict[str, np.ndarray]:
    """What the tensors named are for an image."""
    shown = ModelProto()
    shown.CopyFrom(proto)
    own = {v.name for v in shown.graph.input}
    del shown.graph.output[:]
    shown.graph.output.extend(helper.make_empty_tensor_value_info(t) for t in wanted if t not in own)
    name = proto.graph.input[0].name
    return {name: image, **run(shown, {name: image}, plain=True)}


def between(proto: ModelProto, x: np.ndarray) -> ModelProto:
    """The part of a model from the tensor x to the tensor y, with x of open batch as its input."""
    reached, nodes = {"x"}, []
    for node in proto.graph.node:
        if reached.intersection(node.input) and "y" not in reached:
            nodes.append(node)
            reached.update(node.output)
    source = helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(x.dtype), [None, *x.shape[1:]])
    graph = helper.make_graph(
        nodes, "part", [source], [helper.make_empty_tensor_value_info("y")], proto.graph.initializer
    )
    return helper.make_model(graph, opset_imports=list(proto.opset_import), ir_version=proto.ir_version)


def dense(proto: ModelProto, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """W [outputs, inputs] and b [outputs] of the map from x to y, from unit vectors pushed through the nodes."""
    size = int(np.prod(x.shape[1:]))
    probes = np.concatenate([np.zeros([1, size]), SCALE * np.eye(size)]).astype(x.dtype)
    y = run(between(proto, x), {"x": probes.reshape(-1, *x.shape[1:])}, plain=True)["y"]
    rows = y.reshape(len(probes), -1).astype(np.float64)
    return (rows[1:] - rows[0]).T / SCALE, rows[0]

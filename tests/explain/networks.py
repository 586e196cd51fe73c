"""Small classifiers in textual ONNX, filled with weights from a seed, and ONNX Runtime to run them.

Graph inputs named w… and b… are weights and biases, v… variances; all others are the network's own.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
from onnx import ModelProto, TensorProto, helper, numpy_helper

import onnxlrp

HEADER = '<ir_version: 8, opset_import: ["" : 17]>\n'

# Convolutions, max pooling, dense layers: a VGG in small.
PLAIN = """
plain (float[N, 3, 6, 6] image, float[4, 3, 3, 3] w1, float[4] b1, float[5, 4, 3, 3] w2, float[5] b2,
       float[45, 16] w3, float[16] b3, float[16, 4] w4, float[4] b4) => (float[N, 4] logits) {
  [conv1] z1 = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(image, w1, b1)
  [relu1] a1 = Relu(z1)
  [pool] p1 = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(a1)
  [conv2] z2 = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(p1, w2, b2)
  [relu2] a2 = Relu(z2)
  [flatten] f = Flatten(a2)
  [dense1] z3 = Gemm(f, w3, b3)
  [relu3] a3 = Relu(z3)
  [dense2] logits = Gemm(a3, w4, b4)
}"""

# A block with an identity skip, one whose skip has a convolution, average pooling: a ResNet in small.
RESIDUAL = """
residual (float[N, 3, 6, 6] image, float[4, 3, 3, 3] w0, float[4] b0, float[4, 4, 3, 3] w1, float[4] b1,
          float[4, 4, 3, 3] w2, float[4] b2, float[6, 4, 3, 3] w3, float[6] b3, float[6, 6, 3, 3] w4, float[6] b4,
          float[6, 4, 1, 1] w5, float[6] b5, float[6, 4] w6, float[4] b6) => (float[N, 4] logits) {
  [stem] z0 = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(image, w0, b0)
  [relu0] a0 = Relu(z0)
  [conv1] z1 = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(a0, w1, b1)
  [relu1] a1 = Relu(z1)
  [conv2] z2 = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(a1, w2, b2)
  [identity_skip] s2 = Add(z2, a0)
  [relu2] a2 = Relu(s2)
  [conv3] z3 = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2]>(a2, w3, b3)
  [relu3] a3 = Relu(z3)
  [conv4] z4 = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(a3, w4, b4)
  [conv_skip] z5 = Conv<kernel_shape = [1, 1], strides = [2, 2]>(a2, w5, b5)
  [projected_skip] s4 = Add(z4, z5)
  [relu4] a4 = Relu(s4)
  [average] g = GlobalAveragePool(a4)
  [flatten] f = Flatten(g)
  [dense] logits = Gemm(f, w6, b6)
}"""


def draw(name: str, shape: list[int], seed: int) -> np.ndarray:
    """Weights of both signs, none near zero (flat counts a zero as absent), of a size that keeps activations at 1."""
    generator = np.random.default_rng([zlib.crc32(name.encode()), seed])
    sizes = generator.uniform(0.25, 1.0, shape)
    if name.startswith("v"):
        return sizes.astype(np.float32)
    fan = math.prod(shape[1:]) if len(shape) == 4 else shape[0] if len(shape) == 2 else 4.0
    return (2 * sizes * generator.choice([-1.0, 1.0], shape) / math.sqrt(fan)).astype(np.float32)


def network(text: str, seed: int = 0, bias: bool = True, opset: int = 17) -> ModelProto:
    """The network in `text` with weights; without `bias` all of its biases are zero."""
    proto = onnx.parser.parse_model(HEADER.replace("17", str(opset)) + text)
    weights = [v for v in proto.graph.input if v.name[0] in "wbv"]
    own = [v for v in proto.graph.input if v.name[0] not in "wbv"]
    del proto.graph.input[:]
    proto.graph.input.extend(own)
    for value in weights:
        array = draw(value.name, [d.dim_value for d in value.type.tensor_type.shape.dim], seed)
        array = array if bias or not value.name.startswith("b") else np.zeros_like(array)
        proto.graph.initializer.append(numpy_helper.from_array(array, value.name))
    onnx.checker.check_model(proto, full_check=True)
    return proto


def images(count: int = 3, shape: tuple[int, ...] = (3, 6, 6), nonnegative: bool = False) -> np.ndarray:
    """A batch of noise."""
    noise = np.random.default_rng(7).normal(size=(count, *shape)).astype(np.float32)
    return np.abs(noise) if nonnegative else noise


def run(proto: ModelProto, feeds: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Every output of a model by name, from ONNX Runtime on one thread of the CPU."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def explain(proto: ModelProto, x: np.ndarray, targets: Any = None, **options: Any) -> dict[str, np.ndarray]:
    """Everything that the network's explainer answers. Without `targets` the explainer has no such input."""
    fed = {k: options.pop(k) for k in list(options) if k == "fed_start" or k.startswith("condition/")}
    feeds = {proto.graph.input[0].name: x, **{k.replace("fed_start", "start"): v for k, v in fed.items()}}
    if targets is not None:
        feeds["target"] = np.asarray(targets, np.int64)
    return run(onnxlrp.convert(proto, **options).model, feeds)


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    """The relative L2 distance, that of the worst sample."""
    assert found.shape == expected.shape, f"{found.shape} is not {expected.shape}"
    a, b = (np.asarray(v, np.float64).reshape(len(v), -1) for v in (found, expected))
    return float((np.linalg.norm(a - b, axis=1) / (np.linalg.norm(b, axis=1) + 1e-30)).max())


CLOSE = 1e-4  # float32 against float64 over a whole network; a wrong formula is off by more than 0.01


def of_type(proto: ModelProto, element_type: int) -> ModelProto:
    """The model with its weights, inputs and outputs in another type than float32."""
    result = ModelProto()
    result.CopyFrom(proto)
    dtype = helper.tensor_dtype_to_np_dtype(element_type)
    for tensor in result.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(dtype), tensor.name))
    for value in (*result.graph.input, *result.graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = element_type
    del result.graph.value_info[:]
    onnx.checker.check_model(result)
    return result

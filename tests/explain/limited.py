"""For each limit that was found by running: the smallest model that a runtime gets wrong or refuses, and a near one
that it does not. tests/explain/test_limits.py asks the table, tests/conformance/test_limits.py the runtimes.

Where both are equal by the standard, the second is what the remedy says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onnx import ModelProto

from .networks import network


@dataclass(frozen=True)
class Limited:
    """`wrong` and `right` are the bodies of graphs from `image` to `y`; `words` is in what is said of the first."""

    runtimes: tuple[str, ...]
    words: str
    wrong: str
    right: str
    image: str = "float[1, 3, 8, 8]"
    given: str = ""  # further inputs: weights
    opset: int = 17

    def models(self) -> tuple[ModelProto, ModelProto]:
        """The model of which the table must say something, and the one of which it must not."""
        given = f", {self.given}" if self.given else ""
        element, sizes = self.image.rstrip("]").split("[")
        out = f"{element}[{', '.join('nchwd'[: len(sizes.split(','))])}]"
        wrong, right = (
            network(f"limited ({self.image} image{given}) => ({out} y) {body}", opset=self.opset)
            for body in (self.wrong, self.right)
        )
        return wrong, right


KERNEL = "float[4, 3, 3, 3] w"
AVERAGE = "AveragePool<kernel_shape = [3, 3], strides = [2, 2]"
LIMITED: Mapping[str, Limited] = {
    "conv.same_upper": Limited(
        ("opencv",),
        "y (Conv): auto_pad puts 0 before and 1 behind 8 elements, and OpenCV starts half a window early",
        '{ y = Conv<auto_pad = "SAME_UPPER", strides = [2, 2]>(image, w) }',
        "{ y = Conv<pads = [0, 0, 1, 1], strides = [2, 2]>(image, w) }",
        given=KERNEL,
    ),
    "conv.same_upper.odd": Limited(
        ("opencv",),
        "y (Conv): auto_pad puts 0 before and 1 behind 8 elements",
        '{ y = Conv<auto_pad = "SAME_UPPER", strides = [2, 2]>(image, w) }',
        '{ y = Conv<auto_pad = "SAME_LOWER", strides = [2, 2]>(image, w) }',
        given=KERNEL,
    ),
    "conv.same_lower": Limited(
        ("opencv",),
        "y (Conv): auto_pad puts 1 before and 0 behind 8 elements",
        '{ y = Conv<auto_pad = "SAME_LOWER">(image, w) }',
        '{ y = Conv<auto_pad = "SAME_UPPER">(image, w) }',
        given="float[4, 3, 2, 2] w",
    ),
    "maxpool.same_upper": Limited(
        ("opencv",),
        "y (MaxPool): auto_pad puts 0 before and 1 behind 8 elements",
        '{ y = MaxPool<kernel_shape = [3, 3], strides = [2, 2], auto_pad = "SAME_UPPER">(image) }',
        '{ y = MaxPool<kernel_shape = [2, 2], strides = [2, 2], auto_pad = "SAME_UPPER">(image) }',
    ),
    "averagepool.same_upper": Limited(
        ("opencv",),
        "y (AveragePool): auto_pad puts 0 before and 1 behind 8 elements",
        f'{{ y = {AVERAGE}, auto_pad = "SAME_UPPER">(image) }}',
        f"{{ y = {AVERAGE}, pads = [0, 0, 1, 1]>(image) }}",
    ),
    "averagepool.hanging": Limited(
        ("opencv", "openvino"),
        "y (AveragePool): counts padding, and its last window hangs over",
        f"{{ y = {AVERAGE}, pads = [1, 1, 1, 1], ceil_mode = 1, count_include_pad = 1>(image) }}",
        f"{{ y = {AVERAGE}, pads = [1, 1, 1, 1], ceil_mode = 1>(image) }}",
    ),
    "averagepool.not_hanging": Limited(
        ("opencv", "openvino"),
        "y (AveragePool): counts padding, and its last window hangs over",
        f"{{ y = {AVERAGE}, pads = [1, 1, 1, 1], ceil_mode = 1, count_include_pad = 1>(image) }}",
        f"{{ y = {AVERAGE}, pads = [1, 1, 2, 2], ceil_mode = 1, count_include_pad = 1>(image) }}",
    ),
    "averagepool.hanging.unpadded": Limited(
        ("opencv",),
        "y (AveragePool): counts padding, and its last window hangs over",
        f"{{ y = {AVERAGE}, ceil_mode = 1, count_include_pad = 1>(image) }}",
        f"{{ y = {AVERAGE}, count_include_pad = 1>(image) }}",
    ),
    "maxpool.left_out": Limited(
        ("opencv", "openvino"),
        "y (MaxPool): its last window would lie in the padding",
        "{ y = MaxPool<kernel_shape = [2, 2], strides = [2, 2], pads = [0, 0, 1, 1], ceil_mode = 1>(image) }",
        "{ y = MaxPool<kernel_shape = [2, 2], strides = [2, 2], pads = [0, 0, 1, 1]>(image) }",
        opset=22,
    ),
    "averagepool.left_out": Limited(
        ("opencv",),
        "y (AveragePool): its last window would lie in the padding",
        "{ y = AveragePool<kernel_shape = [2, 2], strides = [2, 2], pads = [0, 0, 1, 1], ceil_mode = 1>(image) }",
        "{ y = AveragePool<kernel_shape = [2, 2], strides = [2, 2], pads = [0, 0, 1, 1]>(image) }",
        opset=22,
    ),
    "mul.like_weight": Limited(
        ("openvino",),
        "m (Mul): scales what y (Conv) reads by a constant of 1×1×3×3, which OpenVINO folds into the weight",
        "{ m = Mul(image, w1)  y = Conv<pads = [1, 1, 1, 1]>(m, w) }",
        "{ m = Mul(image, w1)  r = Relu(m)  s = Sub(m, r)  y = Conv<pads = [1, 1, 1, 1]>(s, w) }",
        image="float[1, 3, 3, 3]",
        given=f"{KERNEL}, float[1, 1, 3, 3] w1",
    ),
    "mul.like_weight.whole": Limited(
        ("openvino",),
        "m (Mul): scales what y (Conv) reads by a constant of 1×1×3×3",
        "{ m = Mul(image, w1)  y = Conv<pads = [1, 1, 1, 1]>(m, w) }",
        "{ m = Mul(image, w2)  y = Conv<pads = [1, 1, 1, 1]>(m, w) }",
        image="float[1, 3, 3, 3]",
        given=f"{KERNEL}, float[1, 1, 3, 3] w1, float[1, 3, 3, 3] w2",
    ),
    "div.like_weight.columns": Limited(
        ("openvino",),
        "d (Div): scales what y (Conv) reads by a constant of 3, which OpenVINO folds into the weight",
        "{ d = Div(image, w1)  n = Neg(d)  y = Conv<pads = [1, 1, 1, 1]>(n, w) }",
        "{ d = Div(image, w1)  y = Conv(d, w2) }",
        image="float[1, 3, 8, 3]",
        given=f"{KERNEL}, float[3] w1, float[4, 3, 2, 2] w2",
    ),
    "mul.like_weight.twice": Limited(
        ("openvino",),
        "m (Mul): scales what y (Conv) reads by a constant of 3×3",
        "{ m = Mul(image, w1)  y = Conv<pads = [1, 1, 1, 1]>(m, w) }",
        "{ r = Relu(image)  m = Mul(image, w1)  p = Mul(m, r)  y = Conv<pads = [1, 1, 1, 1]>(p, w) }",
        image="float[1, 3, 3, 3]",
        given=f"{KERNEL}, float[3, 3] w1",
    ),
    "conv.single_column": Limited(
        ("openvino",),
        "y (Conv): a single column of results, by steps of 2 from one channel, which OpenVINO gets wrong",
        "{ y = Conv<strides = [1, 2]>(image, w) }",
        "{ y = Conv<strides = [2, 2]>(image, w) }",
        image="float[1, 1, 8, 3]",
        given="float[4, 1, 3, 3] w",
    ),
    "conv.single_column.width": Limited(
        ("openvino",),
        "y (Conv): a single column of results, by steps of 4 from one channel",
        "{ y = Conv<strides = [1, 4]>(image, w) }",
        "{ y = Conv<strides = [1, 3]>(image, w) }",
        image="float[1, 1, 8, 3]",
        given="float[4, 1, 3, 3] w",
    ),
    "globalaveragepool.3d": Limited(
        ("opencv",),
        "y (GlobalAveragePool): pools along three axes, which OpenCV refuses",
        "{ y = GlobalAveragePool(image) }",
        "{ y = ReduceMean<axes = [2, 3, 4]>(image) }",
        image="float[1, 3, 4, 4, 4]",
    ),
    "globalmaxpool.3d": Limited(
        ("opencv",),
        "y (GlobalMaxPool): pools along three axes, which OpenCV refuses",
        "{ y = GlobalMaxPool(image) }",
        "{ y = MaxPool<kernel_shape = [4, 4, 4]>(image) }",
        image="float[1, 3, 4, 4, 4]",
    ),
    "conv.same.gap": Limited(
        ("onnxruntime",),
        "y (Conv): auto_pad, with 3 of 8 elements left over: ONNX Runtime takes padding for negative",
        '{ y = Conv<auto_pad = "SAME_UPPER", strides = [4, 4]>(image, w) }',
        "{ y = Conv<strides = [4, 4]>(image, w) }",
        given="float[4, 3, 1, 1] w",
    ),
    "maxpool.same.gap": Limited(
        ("onnxruntime",),
        "y (MaxPool): auto_pad, with 1 of 8 elements left over",
        '{ y = MaxPool<kernel_shape = [1, 1], strides = [2, 2], auto_pad = "SAME_UPPER">(image) }',
        "{ y = MaxPool<kernel_shape = [1, 1], strides = [2, 2]>(image) }",
    ),
    "sub.conv": Limited(
        ("tract",),
        "y (Sub): a vector minus the result of z (Conv), which tract gets wrong",
        "{ z = Conv(image, w)  y = Sub(b, z) }",
        "{ z = Conv(image, w)  n = Neg(z)  y = Add(n, b) }",
        given=f"{KERNEL}, float[4, 1, 1] b",
    ),
    "sub.conv.folded": Limited(
        ("tract",),
        "y (Sub): a vector minus the result of z (Conv)",
        "{ z = Conv(image, w)  n = BatchNormalization(z, v, b1, b2, v)  y = Sub(b, n) }",
        "{ z = Conv(image, w)  n = BatchNormalization(z, v, b1, b2, v)  y = Sub(n, b) }",
        given=f"{KERNEL}, float[4, 1, 1] b, float[4] v, float[4] b1, float[4] b2",
    ),
    "sub.conv.read_twice": Limited(
        ("tract",),
        "y (Sub): a vector minus the result of z (Conv)",
        "{ z = Conv(image, w)  y = Sub(b, z) }",
        "{ z = Conv(image, w)  r = Relu(z)  s = Sub(b, z)  y = Mul(r, s) }",
        given=f"{KERNEL}, float[4, 1, 1] b",
    ),
    "sub.conv.scalar": Limited(
        ("tract",),
        "y (Sub): a vector minus the result of z (Conv)",
        "{ z = Conv(image, w)  y = Sub(b, z) }",
        "{ z = Conv(image, w)  y = Sub(b0, z) }",
        given=f"{KERNEL}, float[4, 1, 1] b, float[1, 1, 1] b0",
    ),
    "pad.negative": Limited(
        ("tract",),
        "y (Pad): pads by [0, 0, -1, 0, 0, 0, 0, 0], on which tract aborts",
        "<int64[8] p = {0, 0, -1, 0, 0, 0, 0, 0}> { y = Pad(image, p) }",
        "<int64[1] s = {1}, int64[1] e = {8}, int64[1] a = {2}> { y = Slice(image, s, e, a) }",
    ),
    "gemm.double": Limited(
        ("tract",),
        "y (Gemm): adds or scales in double, which tract cannot load",
        "{ k = Cast<to = 11>(w)  c = Cast<to = 11>(b)  y = Gemm(image, k, c) }",
        "{ k = Cast<to = 11>(w)  c = Cast<to = 11>(b)  z = MatMul(image, k)  y = Add(z, c) }",
        image="double[1, 5]",
        given="float[5, 4] w, float[4] b",
    ),
    "gemm.half": Limited(
        ("tract",),
        "y (Gemm): adds or scales in float16, which tract cannot load",
        "{ k = Cast<to = 10>(w)  y = Gemm<alpha = 2.0>(image, k) }",
        "{ k = Cast<to = 10>(w)  y = Gemm(image, k) }",
        image="float16[1, 5]",
        given="float[5, 4] w",
    ),
    "bools": Limited(
        ("opencv",),
        "constant c: booleans stored in int32_data, on which OpenCV crashes",
        "<bool[8] c = {0, 1, 0, 1, 1, 1, 0, 0}> { z = Relu(image)  y = Where(c, image, z) }",
        "<float[8] c = {0, 1, 0, 1, 1, 1, 0, 0}> { k = Cast<to = 9>(c)  z = Relu(image)  y = Where(k, image, z) }",
    ),
}

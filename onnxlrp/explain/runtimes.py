"""The runtimes that explainers can be written for: the forms that each wants, what it cannot do, and why. One table.

Three things that have several forms are written in one for all. A mask is a product: Where by itself took 1.4 to 4.6
times as long on ONNX Runtime's CPU, and 1.5 to 1.9 times in max pooling's backward on OpenCV. That backward is slices,
Equal and a running remainder: MaxPool's indices with ScatterElements took 1.4 to 2.2 times as long on ONNX Runtime's
CPU, and others refuse them or get them wrong. The one-hot of the target is Equal against 0, 1, 2, …: it has as many
elements as there are classes, so no form of it is faster, and OneHot is no better placed.

Quotients are guarded for OpenCV, which adds channels of zeros up to a multiple of 8: 0 ÷ 0 would spread from there. The
classifier's nodes and its operator set are never changed: a model that is too new for a runtime is refused.

A stop is what does not load in a runtime, or gives other numbers there, for the classifier by itself too. An explainer
for any runtime has none: those of the others should be known, one by one.

Measured with ONNX Runtime 1.31 and 1.32, onnxruntime-web 1.30 (wasm), OpenVINO 2026.4.1, OpenCV 5.0.0 and tract 0.23.9;
see tools/reports/PORTABILITY.md. Of TensorRT (onnx-tensorrt's operators.md, NVIDIA's opset guide) and of CoreML (the
list of operators in ONNX Runtime's package) only the documentation was read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from onnx import ModelProto, TensorProto

from onnxlrp.errors import Problem
from onnxlrp.explain import limits, window_limits
from onnxlrp.explain.limits import Limit, Seen
from onnxlrp.graph import dialect
from onnxlrp.graph.dialect import Dialect
from onnxlrp.graph.save import LIMIT
from onnxlrp.graph.upgrade import HIGHEST

PORTABLE = "portable"


@dataclass(frozen=True)
class Runtime:
    """One row of the table. `opset` and `ir` are the newest that it reads, `tried` what explainers were run with (""
    where only documentation was read), `because` the reason for each form that is not the portable one."""

    name: str
    title: str
    tried: str
    opset: int = HIGHEST
    ir: int = 13
    dialect: Dialect = dialect.PORTABLE
    because: tuple[str, ...] = ()
    limits: tuple[Limit, ...] = ()

    @property
    def stops(self) -> list[Limit]:
        """What keeps a model from running there, or from being right."""
        return [limit for limit in self.limits if not limit.runs]

    def refusals(self, proto: ModelProto, name: str) -> list[Problem]:
        """What of a classifier or an explainer cannot run there."""
        seen = Seen(proto, name)
        return [*self.too_new(seen), *(p for limit in self.stops for p in limit.problems(seen))]

    def known(self, proto: ModelProto, name: str) -> list[Problem]:
        """What of it runs there, and should be known; of any runtime, those where it does not run."""
        if self.name == PORTABLE:
            return elsewhere(proto, name)
        seen = Seen(proto, name)
        return [p for limit in self.limits if limit.runs for p in limit.problems(seen)]

    def too_new(self, seen: Seen) -> list[Problem]:
        found = []
        if seen.opset > self.opset:
            reason = f"uses opset {seen.opset}, and {self.title} reads up to {self.opset}"
            found.append(Problem(seen.name, reason, f"export it with opset 17 to {min(self.opset, 21)}"))
        if seen.proto.ir_version > self.ir:
            reason = f"is of IR version {seen.proto.ir_version}, and {self.title} reads up to {self.ir}"
            found.append(Problem(seen.name, reason, f"export it for IR version {self.ir} or lower"))
        return found


_HALVES = "no large factors: where it computes in float16, 2⁹⁶ is infinite"
_FLOAT32 = "export the model in float32"
_NO_CEIL = "export it without ceil_mode"
_NO_CEIL_OR_COUNT = "export it without ceil_mode, or without count_include_pad"
_PADS = "export it with pads in place of auto_pad"
_ONNXRUNTIME = (
    Limit(limits.wide, ", for which ONNX Runtime's CPU has no convolution", _FLOAT32),
    Limit(
        window_limits.same_gaps,
        ": ONNX Runtime takes padding for negative, refuses such poolings and shifts such convolutions",
        _PADS,
    ),
)
# ONNX Runtime's tools/mobile_helpers/coreml_supported_mlprogram_ops.md: every other operator runs on the CPU.
_COREML = (
    *("Add", "And", "ArgMax", "AveragePool", "Cast", "Clip", "Concat", "Conv", "ConvTranspose", "Div", "Elu", "Erf"),
    *("Exp", "Gelu", "Gemm", "GlobalAveragePool", "GlobalMaxPool", "HardSigmoid", "Identity", "LeakyRelu", "MatMul"),
    *("MaxPool", "Max", "Mul", "Pow", "ReduceSum", "ReduceMean", "Relu", "Reshape", "Round", "Shape", "Slice"),
    *("Softplus", "Split", "Sub", "Sigmoid", "Softmax", "Sqrt", "Squeeze", "Tanh", "Transpose", "Unsqueeze", "Where"),
)

RUNTIMES: Mapping[str, Runtime] = {
    r.name: r
    for r in (
        Runtime(PORTABLE, "any runtime", "all of the others that could be run"),
        Runtime(
            "onnxruntime",
            "ONNX Runtime",
            "1.31 and 1.32, CPU",
            dialect=Dialect(quotient="plain"),
            because=("quotients are plain: it fills up no channels",),
            limits=(
                *_ONNXRUNTIME,
                Limit(
                    limits.from_opset(22, "MaxPool"),
                    ", for which the CUDA provider has no MaxPool: it runs on the CPU there",
                    "export the model with opset 17 to 21",
                    runs=True,
                ),
            ),
        ),
        Runtime(
            "web",
            "ONNX Runtime Web",
            "1.30, wasm",
            dialect=Dialect(quotient="plain", sign="comparisons", steps="plain"),
            because=(
                "quotients are plain: it fills up no channels",
                "signs are comparisons: WebGPU has no Sign, which would run on the CPU",
                "no large factors: WebAssembly and WebGPU have no layout to keep to, and masks are one operator less",
            ),
            limits=(
                *_ONNXRUNTIME,
                Limit(
                    limits.indices,
                    ", on which WebGPU throws; WebAssembly does not",
                    "choose the wasm provider, or export the model without them",
                    runs=True,
                ),
                Limit(
                    limits.operators("Sign", "Sum", "OneHot"),
                    "unknown to WebGPU: on the CPU beside it",
                    "it costs time only; in the model, Add can stand for Sum",
                    runs=True,
                ),
                Limit(
                    limits.operators("Equal", element_type=TensorProto.INT64),
                    "int64, unknown to WebGPU: on the CPU beside it",
                    "it costs little, for the class to explain is one number a picture",
                    runs=True,
                ),
                Limit(
                    limits.two_files(LIMIT),
                    ", which a page does not find by itself",
                    "pass it to InferenceSession.create as externalData",
                    runs=True,
                ),
            ),
        ),
        Runtime(
            "openvino",
            "OpenVINO",
            "2026.4.1, CPU",
            dialect=Dialect(steps="plain"),
            because=(_HALVES,),
            limits=(
                Limit(
                    window_limits.hanging_averages(padded=True),
                    ": OpenVINO divides by the whole window",
                    _NO_CEIL_OR_COUNT,
                ),
                Limit(window_limits.windows_left_out("MaxPool"), ", and OpenVINO counts it", _NO_CEIL),
                Limit(
                    limits.factors_like_weights,
                    ", which OpenVINO folds into the weight, as it has the size of one",
                    "export the model for images of another size, or choose another rule for the layer",
                ),
                Limit(
                    window_limits.single_columns,
                    ", which OpenVINO gets wrong",
                    "export the model for wider images",
                ),
            ),
        ),
        Runtime(
            "opencv",
            "OpenCV",
            "5.0.0, CPU",
            limits=(
                Limit(limits.wide, ", for which OpenCV has no convolution", _FLOAT32),
                Limit(
                    limits.of_constants,
                    ", which OpenCV refuses",
                    "choose another rule for the layer: zbox, and x taken as ones, need the result of a constant",
                ),
                Limit(
                    window_limits.same_pads,
                    ", and OpenCV starts half a window early, (window - 1) ÷ 2: it reads other elements",
                    _PADS,
                ),
                Limit(
                    window_limits.hanging_averages(padded=False),
                    ": OpenCV divides by the whole window",
                    _NO_CEIL_OR_COUNT,
                ),
                Limit(
                    window_limits.windows_left_out(*window_limits.POOLS),
                    ", and OpenCV counts it",
                    _NO_CEIL,
                ),
                Limit(
                    limits.deep_global_pools,
                    ", which OpenCV refuses",
                    "export it as ReduceMean, or as MaxPool with a kernel of the input's size",
                ),
                Limit(
                    limits.unpacked_bools,
                    ", on which OpenCV crashes",
                    "store them in raw_data, as onnx.numpy_helper.from_array does",
                ),
                Limit(limits.half, ", which OpenCV returns as float32", "read it as such", runs=True),
                Limit(
                    limits.several_outputs,
                    "to be named all together in net.forward(names)",
                    "take net.getUnconnectedOutLayersNames()",
                    runs=True,
                ),
            ),
        ),
        Runtime(
            "tract",
            "tract",
            "0.23.9, CPU",
            limits=(
                Limit(
                    limits.vectors_less_convolutions,
                    ", which tract gets wrong",
                    "export it as Neg and Add, a quotient as Reciprocal and Mul",
                ),
                Limit(limits.negative_pads, ", on which tract aborts", "export it as Slice"),
                Limit(limits.half_or_double_gemms, ", which tract cannot load", f"{_FLOAT32}, or it as MatMul and Add"),
            ),
        ),
        Runtime(
            "tensorrt",
            "TensorRT",
            "",
            dialect=Dialect(steps="plain"),
            because=(_HALVES,),
            limits=(
                Limit(
                    limits.long_top_k(3839),
                    ", and TensorRT gives up to 3839",
                    "leave out --keep, or keep less where layers are small",
                ),
                Limit(limits.dilated_pools, ", and TensorRT pools without", "export it without dilations"),
                Limit(
                    limits.flat_pools, ", and TensorRT pools along two or three", "add an axis of size 1 in the model"
                ),
                Limit(limits.indices, ", which TensorRT does not give", "export the model without them"),
                Limit(
                    limits.from_opset(21, "Conv"),
                    ", and TensorRT 10.0 reads up to 20; TensorRT 11 up to 25",
                    "export the model with opset 17 to 20 for the older",
                    runs=True,
                ),
                Limit(
                    limits.bytes_within,
                    ", and TensorRT knows bytes as inputs and outputs of the network only",
                    "where it refuses, leave out --render or --targets-per-input",
                    runs=True,
                ),
                Limit(
                    limits.open_batch,
                    ", for which TensorRT wants the smallest, the usual and the largest",
                    "give an optimisation profile, or fix it with --input-shape",
                    runs=True,
                ),
            ),
        ),
        Runtime(
            "coreml",
            "CoreML through ONNX Runtime",
            "",
            dialect=Dialect(steps="plain"),
            because=(_HALVES,),
            limits=(
                *_ONNXRUNTIME,
                Limit(
                    limits.operators(*_COREML, but=True),
                    "left to the CPU by ONNX Runtime's CoreML provider",
                    "it costs time only",
                    runs=True,
                ),
                Limit(
                    limits.open_batch,
                    ", and CoreML may be slow where sizes are open",
                    "fix it with --input-shape 1,…",
                    runs=True,
                ),
            ),
        ),
    )
}


def elsewhere(proto: ModelProto, name: str, *runtimes: Runtime) -> list[Problem]:
    """In which of these, or else of all, a model cannot run: a line for each reason."""
    seen, found, whom = Seen(proto, name), [], dict[Limit, list[str]]()
    for runtime in runtimes or RUNTIMES.values():
        for problem in runtime.too_new(seen):
            found.append(replace(problem, reason=f"not for {runtime.title}: it {problem.reason}"))
        for limit in runtime.stops:
            whom.setdefault(limit, []).append(runtime.title)
    for limit, titles in whom.items():
        for problem in replace(limit, runs=True).problems(seen):
            found.append(replace(problem, reason=f"not for {', '.join(titles)}: {problem.reason}"))
    return found

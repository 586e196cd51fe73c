"""Valid files with models that cannot be explained, and odd ones that can."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import onnxlrp
from onnxlrp.errors import OnnxLrpError
from tests.explain.networks import of_type

from . import classifiers
from .classifiers import changed, classifier, image, node, of_channels, renamed, weight
from .conftest import Refused, invoke

Written = Callable[[ModelProto | bytes], Path]


def several(inputs: bool, outputs: bool) -> ModelProto:
    """A classifier with two images added, or two outputs."""
    proto = classifier()
    if inputs:
        proto.graph.input.append(image("N", 3, 8, 8, name="second"))
        proto.graph.node.insert(0, node("Add", ["x", "second"], "both"))
        proto.graph.node[1].input[0] = "both"
    if outputs:
        proto.graph.node.append(node("Gemm", ["f", "g"], "other", name="head"))
        proto.graph.output.append(image("N", classifiers.CLASSES, name="other"))
    return proto


def only(
    *nodes: onnx.NodeProto, out: onnx.ValueInfoProto, source: onnx.ValueInfoProto | None = None,
    more: Sequence[TensorProto] = (),
) -> ModelProto:  # fmt: skip
    """A graph of these nodes alone, from x to y."""
    tensors = [weight("w", 4, 3, 3, 3), weight("g", 4, 5), *more]
    graph = helper.make_graph(list(nodes), "graph", [source or image("N", 3, 8, 8)], [out], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def quantised(static: bool) -> ModelProto:
    """A classifier whose activations are rounded before it pools them: by a scale that is stored, or by their own."""
    quantise, zero = ("QuantizeLinear", "zero") if static else ("DynamicQuantizeLinear", "own_zero")
    rounded = ["q"] if static else ["q", "own_scale", "own_zero"]
    scale = "scale" if static else "own_scale"
    return classifier(
        helper.make_node(quantise, ["r", "scale", "zero"] if static else ["r"], rounded, "round"),
        node("DequantizeLinear", ["q", scale, zero], "b"),
        more=STORED,
    )


def reshaped(batch: int) -> ModelProto:
    """A classifier of an open batch that says within how many there are."""
    shape = numpy_helper.from_array(np.array([batch, 4, 6, 6]), "shape")
    return classifier(node("Reshape", ["r", "shape"], "b"), more=[shape])


def spoilt(value: float, kind: int = TensorProto.FLOAT) -> ModelProto:
    """A classifier with one weight, the last of its convolution, of this value."""
    proto = classifier()
    values = numpy_helper.to_array(proto.graph.initializer[0]).copy()
    values.flat[-1] = value
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, "w"))
    return of_type(proto, kind)


STORED = [
    numpy_helper.from_array(np.float32(0.1), "scale"),
    numpy_helper.from_array(np.uint8(128), "zero"),
    numpy_helper.from_array(np.arange(4, dtype=np.uint8).reshape(1, 4, 1, 1), "bytes"),
]
SCORES = image("N", 5, name="y")
REFUSED: dict[str, tuple[ModelProto, list[str], str]] = {
    "no image": (only(node("Gemm", ["x", "g"], "y"), out=SCORES, source=image("N", 4)), [], "has no image input"),
    "no input": (
        changed(lambda m: (m.graph.ClearField("input"), m.graph.initializer.append(weight("x", 1, 3, 8, 8)))),
        [], "no input at all",
    ),
    "two images": (several(True, False), [], "Choose one with --input NAME"),
    "two outputs": (several(False, True), [], "Choose one with --output NAME"),
    "an input that is not there": (several(True, False), ["--input", "secnd"], "Did you mean second?"),
    "an output that is not there": (several(False, True), ["--output", "othr"], "Did you mean other?"),
    "a weight for an input": (classifier(), ["--input", "w"], "--input w: the model has no such input"),
    "an operator without rule": (
        classifier(node("Sin", ["r"], "b")), [],
        "sin (Sin): the operator Sin has no relevance rule. Export the model without it",
    ),
    "no path": (
        only(node("Relu", ["x"], "r"), node("Identity", ["g"], "y"), out=image(4, 5, name="y")), [],
        "there is no path from input x to any output",
    ),
    "a quantised model": (
        quantised(True), [],
        "round (QuantizeLinear): the model is quantised, here and in 1 more of its nodes, and what rounds has no "
        "relevance rule. Convert the float model that it was made from.",
    ),
    "a model that is quantised as it runs": (
        quantised(False), [], "round (DynamicQuantizeLinear): the model is quantised, here and in 1 more",
    ),
    "a class number for an output": (
        only(node("Flatten", ["x"], "f"), node("ArgMax", ["f"], "y", axis=1),
             out=image("N", 1, name="y", kind=TensorProto.INT64)),
        [], "there is no path from input x",
    ),
    "a map for an output": (
        only(node("Conv", ["x", "w"], "y"), out=image("N", 4, 6, 6, name="y")), [], "class scores are [N, classes]",
    ),
    "open sizes": (classifier(shape=("N", 3, "H", "W")), [], "Fix them with --input-shape N,3,224,224"),
    "negative sizes": (classifier(shape=(1, 3, -1, 8)), [], "Fix them with --input-shape 1,3,224,8"),
    "open channels": (classifier(shape=("N", "C", "H", "W")), [], "Fix them with --input-shape N,3,224,224"),
    "open channels that are one": (
        only(node("Conv", ["x", "grey"], "c"), node("Flatten", ["c"], "y"), source=image("N", "C", "H", "W"),
             out=SCORES, more=[weight("grey", 5, 1, 3, 3)]),
        [], "Fix them with --input-shape N,1,224,224",
    ),
    "a fixed batch that is to be open": (
        classifier(shape=(2, 3, 8, 8)), ["--input-shape", "N,3,8,8"],
        "--input-shape N,3,8,8: does not fit input x, which is [2, 3, 8, 8].",
    ),
    "an image of bytes": (
        classifier(inputs=[image("N", 3, 8, 8, kind=TensorProto.UINT8)]), [],
        "input x: is uint8 [?, 3, 8, 8], and only floats have relevance. Export the model with a float image;",
    ),
    "an image of bytes that is chosen": (
        classifier(inputs=[image("N", 3, 8, 8, kind=TensorProto.INT64)]), ["--input", "x"], "input x: is int64",
    ),
    "no shape": (
        changed(lambda m: m.graph.input[0].type.tensor_type.ClearField("shape")), [], "input x: declares no shape",
    ),
    "a new operator set": (classifier(opset=99), [], "uses opset 99; up to 25 is known"),
    "an old operator": (classifier(opset=9), [], "is not valid ONNX: Node(gemm)"),
    "a new IR version": (classifier(ir=99), [], "is of IR version 99"),
    "no operator set": (changed(lambda m: m.ClearField("opset_import")), [], "must specify opset_import"),
    "an unknown operator": (classifier(node("Foo", ["r"], "b")), [], "No Op registered for Foo"),
    "a foreign operator that is not imported": (
        classifier(node("Magic", ["r"], "b", domain="com.acme")), [], "No opset import for domain 'com.acme'",
    ),
    "nodes out of order": (changed(lambda m: m.graph.node.insert(0, m.graph.node.pop())), [], "topologically sorted"),
    "a tensor that is nowhere": (
        changed(lambda m: m.graph.node[0].input.__setitem__(0, "nowhere")), [], "input 'nowhere'",
    ),
    "one name for all nodes": (
        changed(lambda m: [setattr(n, "name", "same") for n in m.graph.node]), [],
        "uses the node name 'same' more than once",
    ),
    "an output declared twice": (
        changed(lambda m: m.graph.output.append(m.graph.output[0])), [], "uses the output 'y' more than once",
    ),
    "sparse weights": (changed(lambda m: m.graph.sparse_initializer.add()), [], "keeps 1 weights as sparse tensors"),
    "its own target": (renamed(r="target"), [], "tensor target: the model has a tensor of that name"),
    "its own relevance": (renamed(y="relevance"), [], "tensor relevance: the model has a tensor of that name"),
    "its own explained": (renamed(c="explained"), [], "tensor explained: the model has a tensor of that name"),
    "damaged pre-processing": (
        changed(lambda m: m.metadata_props.add(key="onnxlrp.preprocess", value="{")), [],
        "model.onnx: the metadata onnxlrp.preprocess cannot be read",
    ),
}  # fmt: skip

MISTAKEN: dict[str, tuple[ModelProto, list[str], str]] = {
    "a foreign operator": (
        classifier(node("Magic", ["r"], "b", domain="com.acme"), domains=["com.acme"]), [],
        "magic (Magic): the operator com.acme.Magic has no relevance rule",
    ),
    "a branch": (
        classifier(classifiers.branch("r", "b"), more=[classifiers.CONDITION]), [], "if (If): is control flow",
    ),
    "a loop": (
        classifier(classifiers.loop("r", "b"), more=[classifiers.CONDITION, classifiers.TRIPS]), [],
        "loop (Loop): is control flow",
    ),
    "a kernel larger than the image": (classifier(shape=("N", 3, 2, 2)), [], "conv (Conv)"),
    "a reshape to a batch of one": (
        reshaped(1), [],
        "reshape (Reshape): makes [1, 4, 6, 6] of [N, 4, 6, 6], so the model takes one size of the batch only. Export "
        "it with an open batch, or fix the batch with --input-shape 1,3,8,8.",
    ),
    "a reshape to a batch of two": (reshaped(2), [], "fix the batch with --input-shape 2,3,8,8"),
    "a weight that is no number": (
        spoilt(np.nan), [], "tensor w: holds values that are NaN or infinite, and conv (Conv) computes with them.",
    ),
    "a weight without end": (spoilt(-np.inf), [], "tensor w: holds values that are NaN or infinite"),
    "a half weight that is no number": (spoilt(np.nan, TensorProto.FLOAT16), [], "tensor w: holds values"),
    "channels that do not fit": (classifier(shape=("N", "C", 8, 8)), ["--input-shape", "N,4,8,8"], "conv (Conv)"),
    "damaged class names": (
        changed(lambda m: m.metadata_props.add(key="onnxlrp.labels", value="{")), [], "onnxlrp.labels",
    ),
}  # fmt: skip


@pytest.mark.parametrize("command", ["convert", "plan"])
@pytest.mark.parametrize("name", [*REFUSED, *MISTAKEN])
def test_what_cannot_be_explained(command: str, name: str, written: Written, refused: Refused) -> None:
    proto, options, words = {**REFUSED, **MISTAKEN}[name]
    refused(command, written(proto), *options, words=words)


WIDE = (
    "conv (Conv) and another one: not for ONNX Runtime: computes in float64, for which ONNX Runtime's CPU has no "
    "convolution. Export the model in float32."
)
DAMAGED = "model.onnx: the metadata onnxlrp.preprocess cannot be read"


@pytest.mark.parametrize(
    ("proto", "words"),
    [(of_type(classifier(), TensorProto.DOUBLE), WIDE), (REFUSED["damaged pre-processing"][0], DAMAGED)],
    ids=["double", "damaged"],
)
def test_run_knows_what_convert_knows_of_a_model(
    proto: ModelProto, words: str, picture: Path, written: Written, refused: Refused
) -> None:
    """Of the classifier, and where it can be converted, of the explainer."""
    model = written(proto)
    refused("run", model, picture, "--device=cpu", words=words)
    if invoke("convert", model, "-o", "explainer.onnx").exit_code == 0:
        refused("run", "explainer.onnx", picture, "--device=cpu", words=words)


FIRST = "Convert it first with onnxlrp convert model.onnx: "


@pytest.mark.parametrize(
    ("name", "words", "options"),
    [
        ("two images", "choose one with --input NAME.", ["--input=x"]),
        ("two outputs", "choose one with --output NAME.", ["--output=y"]),
        ("open sizes", "fix them with --input-shape N,3,224,224.", ["--input-shape=N,3,8,8"]),
        ("damaged class names", "give them with --labels.", ["--labels=names.txt"]),
    ],
)
def test_run_says_what_only_convert_can_be_told(
    name: str, words: str, options: list[str], picture: Path, written: Written, refused: Refused
) -> None:
    """Its own --output is a folder, and the others it does not have."""
    model = written({**REFUSED, **MISTAKEN}[name][0])
    refused("run", model, picture, "--device=cpu", words=FIRST + words)
    Path("names.txt").write_text("\n".join("abcde"))
    assert invoke("convert", model, *options).exit_code == 0


def test_run_keeps_a_remedy_that_it_has(model: Path, picture: Path, refused: Refused) -> None:
    box = ("--composite", "epsilon_gamma_box")
    words = "Give both, zbox(low=…, high=…), in the units of x, or --preprocess."
    assert FIRST not in refused("run", model, picture, "--device=cpu", *box, words=words)
    refused("run", model, picture, "--device=cpu", "--condition=con=1", words="Did you mean Conv?")


def test_run_converts_with_the_preprocessing_that_it_is_given(model: Path, picture: Path, written: Written) -> None:
    """Rules that need the range of the input get it, as they do from convert."""
    asked = ("--preprocess", "imagenet", "--composite", "epsilon_gamma_box")
    assert invoke("convert", model, *asked).exit_code == 0
    for out, words in {"memory": [model, *asked], "file": ["model.lrp.onnx"]}.items():
        done = invoke("run", *words, picture, "-o", out, "--format=npy", "--target=1", "--device=cpu")
        assert (done.exit_code, done.stderr) == (0, "")
    np.testing.assert_array_equal(np.load("memory/picture.1.npy"), np.load("file/picture.1.npy"))


SEEN: dict[str, tuple[ModelProto, list[str]]] = {
    "a picture": (classifier(), []),
    "a grey picture": (of_channels(1), []),
    "pixels": (classifier(), ["--preprocess=unit", "--embed-preprocessing"]),
    "several targets": (classifier(), ["--targets-per-input=2"]),
    "channels to choose": (classifier(), ["--condition=Conv=input"]),
    "half": (of_type(classifier(), TensorProto.FLOAT16), []),
}
UNSEEN: dict[str, tuple[ModelProto, list[str]]] = {
    "two channels": (of_channels(2), []),
    "four channels": (of_channels(4), []),
    "float64": (of_type(classifier(), TensorProto.DOUBLE), []),
    "float64 for another": (of_type(classifier(), TensorProto.DOUBLE), ["--target-runtime=openvino"]),
    "a further input": (several(True, False), ["--input=x"]),
    "relevance that is fed": (classifier(), ["--start=fed"]),
}


@pytest.mark.parametrize("name", [*SEEN, *UNSEEN])
def test_convert_shows_the_way_to_run_where_it_works(name: str, picture: Path, written: Written) -> None:
    proto, options = {**SEEN, **UNSEEN}[name]
    done = invoke("convert", written(proto), *options)
    assert done.exit_code == 0
    assert ("See it:  onnxlrp run model.lrp.onnx IMAGE" in done.stdout) == (name in SEEN)
    assert (invoke("run", "model.lrp.onnx", picture, "--device=cpu").exit_code == 0) == (name in SEEN)


def test_every_problem_is_named(written: Written, refused: Refused) -> None:
    said = refused("convert", written(classifier(node("Sin", ["r"], "s"), node("Cos", ["s"], "b"))))
    assert "sin (Sin)" in said
    assert "cos (Cos)" in said


def test_what_many_nodes_share_is_said_once(written: Written, refused: Refused) -> None:
    gates = [node("Sigmoid", ["r"], "s")]
    gates += [node("Mul", [f"m{k}" if k else "s", "r"], f"m{k + 1}", name=f"gate{k}") for k in range(3)]
    path = written(classifier(*gates, node("Sin", ["m3"], "b")))
    said = refused("convert", path).splitlines()
    assert len(said) == 2
    assert "gate0 (Mul): is a product of two activations" in said[0]
    assert said[0].endswith("or choose another model. The same goes for 2 others.")
    with pytest.raises(OnnxLrpError) as error:
        onnxlrp.convert(path)
    assert len(error.value.problems) == 4


def behind(*nodes: onnx.NodeProto, shape: tuple[int | str, ...] = ("N", classifiers.CLASSES)) -> ModelProto:
    """The classifier with nodes that make z of its scores y."""
    proto = changed(lambda m: m.graph.node.extend(nodes))
    proto.graph.initializer.append(numpy_helper.from_array(np.array(0), "first"))
    proto.graph.output[0].CopyFrom(image(*shape, name="z"))
    return proto


@pytest.mark.parametrize(
    "proto",
    [
        behind(node("Sin", ["y"], "z")),
        behind(node("Exp", ["y"], "e"), node("Mul", ["e", "y"], "z")),
        behind(node("Gather", ["y", "first"], "z", axis=1), shape=("N",)),
        behind(node("Gather", ["y", "first"], "one", axis=1), node("Sigmoid", ["one"], "z"), shape=("N",)),
    ],
)
def test_scores_that_lie_before_are_named(proto: ModelProto, written: Written, refused: Refused) -> None:
    path = written(proto)
    refused("convert", path, words="--output y.")
    assert invoke("convert", path, "--output", "y").exit_code == 0


def test_a_name_of_the_contract_is_free_where_the_explainer_does_not_need_it(written: Written) -> None:
    assert invoke("convert", written(renamed(x="target")), "--target", "predicted").exit_code == 0
    assert invoke("convert", written(renamed(y="heatmap")), "--force").exit_code == 0


# -- odd, and explained all the same ----------------------------------------------------------------------------------


def unused(name: str, *shape: int | str, kind: int = TensorProto.FLOAT) -> ModelProto:
    return changed(lambda m: m.graph.input.append(image(*shape, name=name, kind=kind)))


def named(*names: str) -> ModelProto:
    return changed(lambda m: [setattr(n, "name", to) for n, to in zip(m.graph.node, names, strict=True)])


def beside_the_path(output: bool) -> ModelProto:
    """An If that no score depends on, and that the model may return or not."""
    proto = classifier(more=[classifiers.CONDITION])
    proto.graph.node.append(classifiers.branch("r", "aside"))
    if output:
        proto.graph.output.append(image("a", "b", "c", "d", name="aside"))
    return proto


ODD: dict[str, tuple[ModelProto, list[str]]] = {
    "empty node names": (named(*[""] * 5), []),
    "names of all kinds": (named("/a b/c", "ü€😀", "a\nb\x1b[31m", "../..", "x" * 500), ["--tap", "all"]),
    "tensors of all kinds": (renamed(x="in put/ü:0", y="out\tput", c="%s {}", r="…"), ["--tap", "all"]),
    "tensors named as ours": (renamed(c="lrp/conv/relevance", r="lrp/conv/constant"), ["--tap", "all"]),
    "a node named as ours": (named("lrp/start/relevance", "lrp/relevance", "lrp", "a", "b"), []),
    "a tensor like a tap": (renamed(r="relevance/r"), []),
    "a batch of zero": (classifier(shape=(0, 3, 8, 8)), []),
    "a negative batch": (classifier(shape=(-1, 3, 8, 8)), []),
    "a fixed batch": (classifier(shape=(2, 3, 8, 8)), []),
    "a reshape to a batch that is given": (reshaped(2), ["--input-shape", "2,3,8,8"]),
    "open sizes that are given": (classifier(shape=("N", 3, "H", "W")), ["--input-shape", "N,3,9,12"]),
    "everything open": (classifier(shape=("N", "C", "H", "W")), ["--input-shape", "Nx3x9x12"]),
    "an input that nobody reads": (unused("idle", "N", 7), []),
    "a flag that nobody reads": (unused("idle", kind=TensorProto.BOOL), []),
    "control flow beside the path": (beside_the_path(False), []),
    "control flow beside the path, returned": (beside_the_path(True), ["--output", "y"]),
    "an empty weight": (
        changed(lambda m: m.graph.initializer.append(numpy_helper.from_array(np.zeros(0, np.float32), "empty"))), [],
    ),
    "an empty part of a sum": (
        classifier(node("Concat", ["r", "none"], "b", axis=1), shape=(1, 3, 8, 8),
                   more=[numpy_helper.from_array(np.zeros((1, 0, 6, 6), np.float32), "none")]),
        [],
    ),
    "a weight that is stored in bytes": (
        classifier(node("DequantizeLinear", ["bytes", "scale", "zero"], "d"), node("Add", ["r", "d"], "b"),
                   more=STORED),
        [],
    ),
    "a bound without end": (
        classifier(node("Clip", ["r", "low", "high"], "b"),
                   more=[numpy_helper.from_array(np.float32(v), n) for n, v in (("low", 0.5), ("high", np.inf))]),
        [],
    ),
    "a graph without a name": (changed(lambda m: m.graph.ClearField("name")), []),
    "a weight that is returned": (changed(lambda m: m.graph.output.append(image(4, 5, name="g"))), []),
    "an IR version that runtimes refuse": (classifier(ir=onnx.IR_VERSION), []),
    **{f"operator set {n}": (classifier(opset=n), []) for n in (11, 13, 16, 18, 21, 22, 25)},
}  # fmt: skip
MISTYPES = {
    "half": (of_type(classifier(), TensorProto.FLOAT16), []),
    "double": (of_type(classifier(), TensorProto.DOUBLE), []),
}


@pytest.mark.parametrize("name", [*ODD, *MISTYPES])
def test_odd_but_explained(name: str, folder: Path, written: Written) -> None:
    proto, options = {**ODD, **MISTYPES}[name]
    result = invoke("convert", written(proto), *options)
    assert result.exit_code == 0, result.output
    assert result.stdout.replace("\n", "").isprintable()
    onnx.checker.check_model("model.lrp.onnx", full_check=True)
    feeds, explained = {}, proto.graph.input[0].name
    explainer = onnx.load("model.lrp.onnx")
    if name == "double":  # ONNX Runtime has no Conv of this type on the CPU
        session = ReferenceEvaluator(explainer)
    else:
        session = ort.InferenceSession("model.lrp.onnx", providers=["CPUExecutionProvider"])
    for value in explainer.graph.input:
        kind = value.type.tensor_type
        shape = [d.dim_value or 2 for d in kind.shape.dim]
        random = np.random.default_rng(0).random(shape)
        feeds[value.name] = random.astype(helper.tensor_dtype_to_np_dtype(kind.elem_type))
    feeds["target"] = np.full_like(feeds["target"], -1)
    (relevance,) = session.run(["relevance"], feeds)
    assert relevance.shape == feeds[explained].shape
    assert np.isfinite(relevance).all()
    assert np.abs(relevance).max() > 0
    assert invoke("plan", "model.onnx", *(o for o in options if o not in ("--tap", "all"))).exit_code == 0

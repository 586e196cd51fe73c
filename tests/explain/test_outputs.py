"""What an explainer has beyond relevance, and what it leaves alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto

import onnxlrp
from onnxlrp import contract

from .conftest import Subject
from .networks import CLOSE, RESIDUAL, distance, explain, images, network, run
from .restated import Rule

Rules = dict[str, Rule]
NHWC = """
nhwc (float[N, 6, 6, 3] image, float[4, 3, 3, 3] w1, float[4] b1, float[64, 3] w2, float[3] b2)
  => (float[N, 3] logits) {
  [turn] x = Transpose<perm = [0, 3, 1, 2]>(image)
  [conv1] z = Conv<kernel_shape = [3, 3]>(x, w1, b1)
  [relu1] a = Relu(z)
  [flatten] f = Flatten(a)
  [dense] logits = Gemm(f, w2, b2)
}"""


def test_taps_at_every_layer(residual: Subject, residual_rules: Rules) -> None:
    """`relevance/<tensor>` of each layer's output, of that tensor's shape."""
    found = explain(residual.proto, residual.x, residual.targets, taps=["all"])
    expected = residual.restated.relevance(residual.x, residual.start, residual_rules)
    tapped = {name.removeprefix("relevance/") for name in found if name.startswith("relevance/")}
    assert tapped == {n.output[0] for n in residual.proto.graph.node}
    for tensor in tapped:
        assert distance(found[f"relevance/{tensor}"], expected[tensor]) < CLOSE, tensor


@pytest.mark.parametrize(
    ("pattern", "tensors"),
    [("conv2", {"z2"}), ("relu*", {"a0", "a1", "a2", "a3", "a4"}), ("Add", {"s2", "s4"}), ("z5", {"z5"})],
)
def test_tap_patterns(residual: Subject, pattern: str, tensors: set[str]) -> None:
    """A pattern is a layer's name, an operator or a tensor, shell-style."""
    outputs = {o.name for o in onnxlrp.convert(residual.proto, taps=[pattern]).model.graph.output}
    assert outputs == {"logits", "relevance", "explained", *(f"relevance/{t}" for t in tensors)}


def test_taps_change_nothing_else(residual: Subject) -> None:
    """Looking does not disturb."""
    plain, tapped = (explain(residual.proto, residual.x, residual.targets, **o) for o in ({}, {"taps": ["all"]}))
    assert distance(tapped["relevance"], plain["relevance"].astype(np.float64)) < 1e-6


def test_activations(residual: Subject) -> None:
    """Intermediate tensors as outputs, under their own names."""
    found = explain(residual.proto, residual.x, residual.targets, activations=["relu2", "GlobalAveragePool"])
    tensors = residual.restated.tensors(residual.x)
    assert set(found) == {"logits", "relevance", "explained", "a2", "g"}
    for name in ("a2", "g"):
        assert distance(found[name], tensors[name]) < 1e-5


def test_heatmap_is_the_sum_over_channels(residual: Subject) -> None:
    """[N, H, W]."""
    found = explain(residual.proto, residual.x, residual.targets, heatmap=True)
    assert found["heatmap"].shape == (3, 6, 6)
    assert np.allclose(found["heatmap"], found["relevance"].sum(1), rtol=1e-5, atol=1e-7)


def test_channels_last() -> None:
    """Relevance comes in the input's own shape, and the heatmap sums over its last axis."""
    proto, x = network(NHWC), images().transpose(0, 2, 3, 1).copy()
    found = explain(proto, x, [0, 1, 2], heatmap=True)
    assert found["relevance"].shape == x.shape
    assert np.allclose(found["heatmap"], found["relevance"].sum(3), rtol=1e-5, atol=1e-7)
    model = onnxlrp.convert(proto, preprocess=onnxlrp.Preprocessing()).model
    assert json.loads(metadata(model)["onnxlrp.preprocess"])["layout"] == "NHWC"


@pytest.mark.parametrize(
    "options", [{"taps": ["nothing"]}, {"activations": ["nothing"]}, {"rules": {"nothing": "zplus"}}], ids=str
)
def test_a_pattern_that_matches_nothing_is_refused(residual: Subject, options: dict[str, object]) -> None:
    """With the way to see what there is."""
    with pytest.raises(onnxlrp.OnnxLrpError, match=r"nothing.*matches no (layer|tensor).*onnxlrp plan"):
        onnxlrp.convert(residual.proto, **options)


# -- what is left alone -----------------------------------------------------------------------------------------------

OPTIONS = [
    {},
    {"composite": "epsilon_alpha2_beta1", "taps": ["all"], "heatmap": True, "activations": ["all"]},
    {"start": "contrastive", "targets_per_input": 2, "keep": 0.5, "conditions": {"conv2": "input"}},
]


@pytest.mark.parametrize("options", OPTIONS, ids=["default", "everything", "options"])
def test_the_classifier_is_left_alone(residual: Subject, options: dict[str, object]) -> None:
    """Its nodes, weights, inputs and outputs are in the explainer byte for byte, in order and before all else."""
    before = residual.proto.SerializeToString(deterministic=True)
    graph, own = onnxlrp.convert(residual.proto, **options).model.graph, residual.proto.graph
    assert residual.proto.SerializeToString(deterministic=True) == before, "the model passed in was changed"
    for part in ("node", "initializer", "input", "output"):
        kept = [v.SerializeToString(deterministic=True) for v in getattr(graph, part)[: len(getattr(own, part))]]
        assert kept == [v.SerializeToString(deterministic=True) for v in getattr(own, part)], part
    names = [n.name for n in graph.node]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("options", OPTIONS)
def test_every_node_added_says_what_it_is_for(residual: Subject, options: dict[str, object]) -> None:
    """Its name its layer and step, its doc_string the rule."""
    added = onnxlrp.convert(residual.proto, **options).model.graph.node[len(residual.proto.graph.node) :]
    assert not [n.name for n in added if not n.name.startswith("lrp/") or not n.doc_string]


@pytest.mark.parametrize("options", OPTIONS, ids=["default", "everything", "options"])
def test_the_logits_are_the_classifier_s(residual: Subject, options: dict[str, object]) -> None:
    """As the untouched model answers."""
    model = onnxlrp.convert(residual.proto, **options).model
    feeds = {"image": residual.x, "target": np.zeros([3, 2] if "targets_per_input" in options else [3], np.int64)}
    if "conditions" in options:
        feeds["condition/conv2"] = np.ones([3, 4], np.float32)
    untouched = run(residual.proto, {"image": residual.x})["logits"]
    assert np.allclose(run(model, feeds)["logits"], untouched, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", OPTIONS, ids=["default", "everything", "options"])
def test_converting_twice_gives_the_same_bytes(residual: Subject, tmp_path: Path, options: dict[str, object]) -> None:
    """From memory or from a file."""
    source = tmp_path / "model.onnx"
    onnx.save(residual.proto, source)
    for name, given in (("one", residual.proto), ("two", residual.proto), ("three", source)):
        onnxlrp.convert(given, **options).save(tmp_path / name)
    one, two, three = ((tmp_path / name).read_bytes() for name in ("one", "two", "three"))
    assert one == two == three


def test_opset_and_ir(residual: Subject) -> None:
    """Opset 17, IR 8, the default domain only, no control flow, no functions: what every runtime reads."""
    model = onnxlrp.convert(residual.proto).model
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]
    assert model.ir_version == 8
    assert not model.functions
    assert not {n.op_type for n in model.graph.node} & {"If", "Loop", "Scan", "MaxUnpool", "Shape", "ConstantOfShape"}


@pytest.mark.parametrize("opset", [18, 19, 20, 21])
def test_a_newer_opset_is_kept(opset: int) -> None:
    """And gives the same map."""
    newer, older = network(RESIDUAL, opset=opset), network(RESIDUAL)
    assert onnxlrp.convert(newer).model.opset_import[0].version == opset
    found, expected = (explain(p, images(), [0, 1, 2])["relevance"] for p in (newer, older))
    assert distance(found, expected.astype(np.float64)) < 1e-6


# -- metadata ---------------------------------------------------------------------------------------------------------


def metadata(model: ModelProto) -> dict[str, str]:
    """metadata_props as a dict."""
    return {p.key: p.value for p in model.metadata_props}


def test_metadata_is_complete(residual: Subject) -> None:
    """A host program needs no side file."""
    preprocess = contract.PREPROCESS_PRESETS["imagenet"]
    conversion = onnxlrp.convert(residual.proto, preprocess=preprocess, labels=["a", "b", "ç", "d"])
    found = metadata(conversion.model)
    assert found["onnxlrp.contract"] == "1"
    assert found["onnxlrp.version"] == onnxlrp.__version__
    assert found["onnxlrp.composite"] == "epsilon_plus_flat"
    assert json.loads(found["onnxlrp.rules"]) == conversion.plan.rules
    assert json.loads(found["onnxlrp.rules"])["stem"] == "flat"
    assert (found["onnxlrp.input"], found["onnxlrp.output"]) == ("image", "logits")
    assert (found["onnxlrp.scores"], found["onnxlrp.target"], found["onnxlrp.start"]) == ("logits", "input", "logit")
    assert json.loads(found["onnxlrp.labels"]) == ["a", "b", "ç", "d"]
    stored = onnxlrp.Preprocessing.from_json(found["onnxlrp.preprocess"])
    assert (stored.size, stored.mean, stored.layout) == ((6, 6), preprocess.mean, "NCHW")


def test_metadata_of_the_classifier_is_kept(residual: Subject) -> None:
    """What was there stays; pre-processing and labels there are taken over."""
    proto = ModelProto()
    proto.CopyFrom(residual.proto)
    labels = ["w", "x", "y", "z"]
    onnx.helper.set_model_props(proto, {"author": "somebody", "onnxlrp.labels": json.dumps(labels)})
    found = metadata(onnxlrp.convert(proto, target="predicted", start="one-hot").model)
    assert (found["author"], json.loads(found["onnxlrp.labels"])) == ("somebody", labels)
    assert (found["onnxlrp.target"], found["onnxlrp.start"]) == ("predicted", "one-hot")


def test_an_explainer_is_not_converted_again(residual: Subject) -> None:
    """It says so."""
    with pytest.raises(onnxlrp.OnnxLrpError, match="is an explainer already"):
        onnxlrp.convert(onnxlrp.convert(residual.proto).model)


def test_a_batch_has_one_name(plain: Subject) -> None:
    """The classifier's, wherever the explainer speaks of it."""
    proto = onnx.ModelProto()
    proto.CopyFrom(plain.proto)
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "images"
    made = onnxlrp.convert(proto, heatmap=True, activations=["relu2"], taps=["conv2"]).model
    values = (*made.graph.input, *made.graph.output)
    assert {v.name: v.type.tensor_type.shape.dim[0].dim_param for v in values} == {v.name: "images" for v in values}

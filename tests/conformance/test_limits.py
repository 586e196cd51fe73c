"""What the table calls a stop is one in the runtime itself, so that a limit which a later version lifts is noticed; and
no runtime is wrong or refuses where the table is silent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper, numpy_helper

import onnxlrp
from onnxlrp.errors import OnnxLrpError
from onnxlrp.explain.runtimes import RUNTIMES
from tests.conformance import hosts, kits
from tests.explain.limited import LIMITED
from tests.explain.networks import run
from tests.oracle import cases

HOSTS = ("onnxruntime", "openvino", "opencv", "tract")  # rows of the table, and the hosts that are their runtimes
COMPOSITES = {"plus": "epsilon_plus_flat", "box": "epsilon_gamma_box(-2,2)"}
CLASSES = 3


def holds(host: str, folder: Path, asked: dict[str, tuple[ModelProto, kits.Tensors, kits.Tensors]]) -> bool:
    """Whether a runtime answers all of this; it may crash."""
    done = hosts.run(host, "check", kits.write(folder, asked, "relevance"))
    return done.returncode == 0 and f"{len(asked)} of {len(asked)} cases within tolerance" in done.stdout


@pytest.mark.parametrize(("host", "name"), [(h, n) for n, case in LIMITED.items() for h in case.runtimes])
def test_the_runtime_is_wrong_there_and_right_beside_it(host: str, name: str, tmp_path: Path) -> None:
    hosts.command(host)
    wrong, right = LIMITED[name].models()
    element = wrong.graph.input[0].type.tensor_type
    image = np.random.default_rng(0).normal(size=[d.dim_value for d in element.shape.dim])
    feeds = {"image": image.astype(helper.tensor_dtype_to_np_dtype(element.elem_type))}
    beside = run(right, feeds)
    expected = beside if host == "onnxruntime" else run(wrong, feeds)  # which is the judge everywhere else
    assert not holds(host, tmp_path / "wrong", {name: (wrong, feeds, expected)}), "the limit can be dropped"
    assert holds(host, tmp_path / "right", {name: (right, feeds, beside)})


def classifier(name: str) -> ModelProto:
    """A case of graphs/ops between two Relus, with a dense layer behind."""
    model = ModelProto()
    model.CopyFrom(cases.case(name, "gated"))
    output = onnx.shape_inference.infer_shapes(model).graph.output[0]
    size = int(np.prod([d.dim_value for d in output.type.tensor_type.shape.dim][1:]))
    weight = np.random.default_rng(1).normal(size=(size, CLASSES)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w_last"))
    model.graph.node.append(helper.make_node("Flatten", ["z"], ["flat"], "flat"))
    model.graph.node.append(helper.make_node("Gemm", ["flat", "w_last"], ["logits"], "last"))
    del model.graph.output[:]
    model.graph.output.append(
        helper.make_tensor_value_info("logits", output.type.tensor_type.elem_type, ["N", CLASSES])
    )
    return model


def explained() -> dict[str, tuple[ModelProto, kits.Tensors, kits.Tensors]]:
    """Every case of graphs/ops that becomes an image classifier, explained by both composites for any runtime."""
    found: dict[str, tuple[ModelProto, kits.Tensors, kits.Tensors]] = {}
    for name in (n for family in ("linear", "max_pooling", "routing") for n in cases.names(family)):
        for short, composite in COMPOSITES.items():
            try:
                model = onnxlrp.convert(classifier(name), composite=composite).model
            except OnnxLrpError:  # its input is no image
                continue
            image = np.random.default_rng(0).normal(size=cases.image_shape(model, 1)).astype(np.float32)
            feeds = {"image" if model.graph.input[0].name == "image" else "x": image, "target": np.array([1])}
            found[f"{name}.{short}"] = model, feeds, run(model, feeds)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("host", [h for h in HOSTS if h != "onnxruntime"])  # the judge
def test_what_is_wrong_anywhere_is_announced(host: str, tmp_path: Path) -> None:
    hosts.command(host)
    everything = explained()
    assert len(everything) > 250
    announced = {n for n, (model, *_) in everything.items() if RUNTIMES[host].refusals(model, n)}
    assert 0 < len(announced) < 50
    assert holds(host, tmp_path / "all", {n: asked for n, asked in everything.items() if n not in announced})
    for name in sorted(announced):
        assert not holds(host, tmp_path / name, {name: everything[name]}), f"{name}: announced, and right"

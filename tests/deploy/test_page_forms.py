"""Every form that an explainer can have, run by the page's engine, against `Explainer.explain` on the same input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from chromium import Browser
from onnx import numpy_helper

from onnxlrp.deploy.page_export import export_page
from onnxlrp.explain.convert import convert
from onnxlrp.run.images import read_picture
from onnxlrp.run.session import Explainer

from .conftest import MODELS, SAMPLES, opened

FORMS: dict[str, dict[str, Any]] = {
    "class 1 always": {"target": 1},
    "the predicted class always": {"target": "predicted"},
    "two targets": {"targets_per_input": 2},
    "a fixed batch of two": {"input_shape": [2, 1, 128, 128]},
    "channels to choose": {"conditions": {"/body/body.0/0/Conv": "input"}},
    "pixels": {"embed_preprocessing": True},
}
RESNET = MODELS / "mri_resnet.onnx"
TOLERANCE = 1e-3  # of the largest relevance: sums in another order, divided where a denominator is small


def convolution() -> str:
    """The name of one of the network's inner convolutions."""
    nodes = [n.name for n in onnx.load(RESNET).graph.node if n.op_type == "Conv"]
    return nodes[2]


def asked(explainer: Explainer, target: int) -> Any:
    """What the page gives the explainer for a class, in Explainer.explain's terms."""
    if explainer.fixed_target is not None:
        return None
    return [target] * explainer.targets_per_input if explainer.targets_per_input else target


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_fed(form: str, browser: Browser, runtime: str, tmp_path: Path) -> None:
    """Scores, the class that was explained, and its relevance."""
    options = {**FORMS[form]}
    if "conditions" in options:
        options["conditions"] = {convolution(): "input"}
    path = tmp_path / "form.lrp.onnx"
    convert(RESNET, **options).save(path)
    export_page(str(path), tmp_path / "page", runtime=runtime, webgpu=False)
    page = opened(browser, (tmp_path / "page" / "index.html").as_uri())
    explainer = Explainer(path, "cpu")
    values = explainer.fit()(read_picture(SAMPLES[2])).values
    batch = np.rint(values)[None].astype(explainer.dtype) if explainer.dtype.kind != "f" else values[None]
    expected = explainer.explain(batch, asked(explainer, 1))
    numbers = json.dumps(values.astype(np.float64).reshape(-1).tolist())
    made = page.run(
        f"onnxlrp.engine.explain(Float32Array.from({numbers}), 1).then((a) =>"
        " ({ scores: [...a.scores], target: a.target, relevance: [...a.relevance] }))"
    )
    relevance = expected.relevance[0, 0] if explainer.targets_per_input else expected.relevance[0]
    assert made["target"] == int(np.ravel(expected.target)[0])
    assert np.allclose(made["scores"], expected.logits[0], rtol=1e-4, atol=1e-4)
    assert len(made["relevance"]) == relevance.size
    assert np.abs(np.array(made["relevance"]) - relevance.reshape(-1)).max() <= TOLERANCE * np.abs(relevance).max()
    page.choose_file("#file", SAMPLES[2])
    page.wait("!document.getElementById('panel').hidden")
    fixed = "fixed_target" if explainer.fixed_target is not None else ""
    assert page.run("!document.getElementById('fixed').hidden") == bool(fixed)
    assert page.run("document.querySelectorAll('#best input:disabled').length") == (2 if fixed else 0)


def test_other_numbers_and_a_single_class(browser: Browser, runtime: str, tmp_path: Path) -> None:
    """A model of one class: its probability is a sigmoid, and relevance is explained for it."""
    proto = onnx.load(RESNET)
    last = next(n for n in reversed(proto.graph.node) if n.op_type == "Gemm")
    for tensor in proto.graph.initializer:
        if tensor.name in last.input[1:]:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor)[1:2], tensor.name))
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 1
    kept = [p for p in proto.metadata_props if "labels" not in p.key]
    del proto.metadata_props[:]
    proto.metadata_props.extend(kept)
    path = tmp_path / "one.lrp.onnx"
    convert(proto).save(path)
    export_page(str(path), tmp_path / "page", runtime=runtime, webgpu=False, preprocess="unit")
    page = opened(browser, (tmp_path / "page" / "index.html").as_uri())
    page.choose_file("#file", SAMPLES[0])
    page.wait("!document.getElementById('panel').hidden")
    explainer = Explainer(path, "cpu")
    values = explainer.fit("unit")(read_picture(SAMPLES[0])).values
    chance = explainer.explain(values[None]).probabilities[0, 0]
    said = page.run("document.querySelector('#best .chance').textContent").replace("\xa0", " ")
    assert said == (f"{100 * chance:.1f} %" if 0.001 <= chance <= 0.999 else said)
    assert page.run("document.querySelector('#best .name').textContent") == "class 0"
    assert (said[0] in "<>") == (not 0.001 <= chance <= 0.999)

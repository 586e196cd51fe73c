"""What `--target-runtime` chooses for a runtime is right in that runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxlrp
from tests.conformance import hosts, kits
from tests.explain.networks import PLAIN, RESIDUAL, images, network
from tools import conformance

# The hosts that are the runtime; the portable form is for all.
HOSTS: Mapping[str, tuple[str, ...]] = {
    "portable": hosts.NAMES,
    "onnxruntime": ("onnxruntime", "node", "cpp"),
    "web": ("web",),
    "openvino": ("openvino",),
    "opencv": ("opencv",),
    "tract": ("tract",),
}
PIXELS: Mapping[str, Any] = {"preprocess": "unit", "embed_preprocessing": True}
CASES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "plain.gradient": (PLAIN, {"composite": "gradient"}),
    "plain.keep": (PLAIN, {"keep": 0.3}),
    "plain.overlay": (PLAIN, {"render": "overlay", **PIXELS}),
    "residual.default": (RESIDUAL, {}),  # 4 and 6 channels: no multiple of 8
    "residual.epsilon": (RESIDUAL, {"composite": "epsilon(0.1)"}),
    "residual.alpha_beta": (RESIDUAL, {"composite": "epsilon_alpha2_beta1"}),
}


def explainers(folder: Path, runtime: str) -> Path:
    """A conformance kit of explainers written for a runtime."""
    asked = {}
    for name, (text, options) in CASES.items():
        model = onnxlrp.convert(network(text), target_runtime=runtime, **options).model
        pixels = np.random.default_rng(0).integers(0, 256, (2, 6, 6, 3), np.uint8)
        known = {"image": images(2), "pixels": pixels, "target": np.array([-1, 1])}
        feeds = {i.name: known[i.name] for i in model.graph.input}
        asked[name] = model, feeds, conformance.answers(model, feeds)
    return kits.write(folder, asked)


@pytest.mark.parametrize(("runtime", "host"), [(r, h) for r, names in HOSTS.items() for h in names])
def test_the_form_chosen_for_a_runtime_is_right_there(runtime: str, host: str, tmp_path: Path) -> None:
    done = hosts.run(host, "check", explainers(tmp_path, runtime))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(CASES)} of {len(CASES)} cases within tolerance" in done.stdout

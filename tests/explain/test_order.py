"""Memory of a run: denominators are computed when the relevance reaches them, not kept from the forward pass; but those
that read what a sum overwrites come before it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import ModelProto

import onnxlrp
from tests.explain.networks import distance, explain, images, network

# Channels by sixteen, which ONNX Runtime keeps in a layout of its own, adding nodes; and by five, which it does not.
WIDE = """
plain (float[N, 3, 8, 8] image, float[C, 3, 3, 3] w1, float[C] b1, float[C, C, 3, 3] w2, float[C] b2,
       float[C, C, 3, 3] w3, float[C] b3, float[C, 4] w4, float[4] b4) => (float[N, 4] logits) {
  [conv1] z1 = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(image, w1, b1)
  [relu1] a1 = Relu(z1)
  [conv2] z2 = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(a1, w2, b2)
  [relu2] a2 = Relu(z2)
  [pool] p2 = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(a2)
  [conv3] z3 = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(p2, w3, b3)
  [relu3] a3 = Relu(z3)
  [average] g = GlobalAveragePool(a3)
  [flatten] f = Flatten(g)
  [dense] logits = Gemm(f, w4, b4)
}"""

# An identity skip around a block of that width.
SKIP = """
skip (float[N, 3, 8, 8] image, float[16, 3, 3, 3] w1, float[16] b1, float[C, 16, 3, 3] w2, float[C] b2,
      float[16, C, 3, 3] w3, float[16] b3, float[16, 4] w4, float[4] b4) => (float[N, 4] logits) {
  [conv1] z1 = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(image, w1, b1)
  [relu1] a1 = Relu(z1)
  [conv2] z2 = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(a1, w2, b2)
  [relu2] a2 = Relu(z2)
  [conv3] z3 = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(a2, w3, b3)
  [add] s = Add(z3, a1)
  [relu3] a3 = Relu(s)
  [average] g = GlobalAveragePool(a3)
  [flatten] f = Flatten(g)
  [dense] logits = Gemm(f, w4, b4)
}"""


def of_width(text: str, channels: int) -> str:
    """A network's text with a number for C."""
    return text.replace("C]", f"{channels}]").replace("C,", f"{channels},")


def executed(proto: ModelProto, folder: Path) -> list[tuple[str, str]]:
    """The nodes that ONNX Runtime runs, operator and name, in its order."""
    options = ort.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(folder / "profile")
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    session.run(None, {"image": images(2, (3, 8, 8)), "target": np.full(2, -1)})
    events = json.loads(Path(session.end_profiling()).read_text())
    ran = [e for e in events if e["name"].endswith("_kernel_time")]
    return [(e["args"]["op_name"], e["name"].removesuffix("_kernel_time")) for e in ran]


@pytest.mark.parametrize("composite", ["epsilon_plus", "epsilon_gamma_box", "epsilon_alpha2_beta1_flat"])
@pytest.mark.parametrize("channels", [16, 5])
def test_denominators_wait_for_their_relevance(channels: int, composite: str, tmp_path: Path) -> None:
    """Each of conv2 and conv3 has one; that of conv2 comes after conv3's adjoint, which comes after the start."""
    proto = network(of_width(WIDE, channels))
    order = executed(onnxlrp.convert(proto, composite=composite, preprocess="imagenet").model, tmp_path)

    def convolutions(layer: str, adjoint: bool) -> list[int]:
        """When those of a layer's relevance run: the adjoint's, which are called c, or the denominator's."""
        own = [(i, name) for i, (operator, name) in enumerate(order)
               if operator in ("Conv", "FusedConv") and name.startswith(f"lrp/{layer}/")]  # fmt: skip
        return [i for i, name in own if (name.removeprefix(f"lrp/{layer}/")[:2] in ("c", "c_")) == adjoint]

    (start,) = (i for i, (_, name) in enumerate(order) if name == "lrp/target/predicted")
    assert start < min(convolutions("conv3", adjoint=False))
    assert max(convolutions("conv3", adjoint=True)) < min(convolutions("conv2", adjoint=False))


@pytest.mark.parametrize(
    ("channels", "rule", "before"),
    [
        (16, "zplus", True),
        (16, "alpha_beta(2, 1)", True),  # z⁻; z⁺ is made of it
        (16, "alpha_beta(2, 1, bias=zero)", False),  # two denominators
        (32, "zplus", False),  # one that is larger than what it would be kept for
        (32, "alpha_beta(2, 1)", False),
    ],
)
def test_what_reads_a_summand_comes_before_the_sum_that_overwrites_it(
    channels: int, rule: str, before: bool, tmp_path: Path
) -> None:
    """The block is summed within conv3, into the memory of the skip's tensor; conv2 reads that one, too, and so does
    its denominator."""
    proto = network(of_width(SKIP, channels))
    order = executed(onnxlrp.convert(proto, composite="epsilon_plus_flat", rules={"conv2": rule}).model, tmp_path)
    ran = [name for operator, name in order if operator in ("Conv", "FusedConv")]
    summed = [name for name in ran if not name.startswith("lrp/")][2]
    denominators = [name for name in ran if name.startswith("lrp/conv2/") and not name.startswith("lrp/conv2/c")]
    assert denominators
    assert all((ran.index(name) < ran.index(summed)) is before for name in denominators)


def test_an_early_layer_of_any_rule_is_right() -> None:
    """That of flat does not depend on the image, and has one channel."""
    proto, image = network(of_width(SKIP, 16)), images(2, (3, 8, 8))
    for rule in ("flat", "wsquare", "zplus", "epsilon", "gamma", "alpha_beta"):
        own = {"composite": "epsilon_plus", "preprocess": "imagenet", "rules": {"conv2": rule}}
        exact, none = (explain(proto, image, [1, 2], optimize=o, **own)["relevance"] for o in ("exact", "none"))
        assert distance(exact, none) < 1e-6, rule

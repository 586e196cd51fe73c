"""Reference classifiers and their ONNX exports, made again from a seed: `python -m tools.zoo resnet50 -o DIR`.

The VGGs and ResNets of torchvision get random weights, and batch norms whose running statistics are those of seeded
images, so that activations have the sizes of a trained network's. `mri_vgg` and `mri_resnet` are the trained models of
this repository, rebuilt in torch from their ONNX files. Needs torch and torchvision.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import torch
from onnx import ModelProto, NodeProto, helper, numpy_helper
from PIL import Image
from torch import Tensor, nn

try:
    import torchvision
except RuntimeError:  # without its compiled operators; none is needed, but two must have been declared
    for _operator in ("nms", "qnms"):
        torch.library.define(f"torchvision::{_operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision

MODELS = Path(__file__).parents[1] / "graphs" / "models"
TRAINED = ("mri_vgg", "mri_resnet")
RANDOM = (
    *("vgg11", "vgg13", "vgg16", "vgg19", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn"),
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
)
NAMES = (*RANDOM, *TRAINED)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZE = 224
OPSET = 17
INPUT, OUTPUT = "image", "logits"


# -- networks ---------------------------------------------------------------------------------------------------------


def build(name: str, size: int = SIZE, seed: int = 0) -> nn.Module:
    """A classifier by name, ready for inference. `size` is the side of its images; the trained ones have their own."""
    return twin(load(name)) if name in TRAINED else _random(name, size, seed)


def load(name: str) -> ModelProto:
    """The ONNX file of a trained model."""
    return onnx.load(MODELS / f"{name}.onnx")


def _random(name: str, size: int, seed: int) -> nn.Module:
    """Random weights, small random biases, batch norms calibrated on two batches of images."""
    torch.manual_seed(seed)
    network: nn.Module = getattr(torchvision.models, name)(weights=None)
    if name.startswith("vgg") and size != SIZE:
        _fit_head(network, size // 32)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # running statistics are plain averages
            nn.init.uniform_(module.weight, 0.5, 1.5)
        bias = getattr(module, "bias", None)
        if isinstance(bias, Tensor):
            nn.init.normal_(bias, 0.0, 0.1)
    network.train()
    with torch.no_grad():
        for batch in images(16, size, seed + 1).split(8):
            network(batch)
    return network.eval()


def _fit_head(network: nn.Module, rest: int, width: int = 512) -> None:
    """A VGG's head for rest x rest in place of 7 x 7, which cannot be exported for other sizes; narrower too."""
    network.avgpool = nn.AdaptiveAvgPool2d(rest)
    first, between, last = nn.Linear(512 * rest**2, width), nn.Linear(width, width), nn.Linear(width, 1000)
    for layer in (first, between, last):
        nn.init.kaiming_normal_(layer.weight)
    network.classifier = nn.Sequential(first, nn.ReLU(), nn.Dropout(), between, nn.ReLU(), nn.Dropout(), last)


def without_bias(network: nn.Module) -> nn.Module:
    """A copy in which no layer adds a constant: biases, and what batch norms shift by, are zero."""
    bare = copy.deepcopy(network)
    for module in bare.modules():
        for attribute in ("bias", "running_mean"):
            value = getattr(module, attribute, None)
            if isinstance(value, Tensor):
                value.data.zero_()
    return bare


class Sum(nn.Module):
    """The sum over the last axis: a residual sum as a module of its own, which hooks can see."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., terms] -> [...]."""
        return x.sum(-1)


class Twin(nn.Module):
    """A small ONNX classifier in torch, one module a node, in the order of the file."""

    def __init__(self, proto: ModelProto) -> None:
        super().__init__()
        weights = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in proto.graph.initializer}
        self.source, self.result = proto.graph.input[0].name, proto.graph.output[0].name
        self.steps: list[tuple[str, list[str], str]] = []
        for index, node in enumerate(proto.graph.node):
            self.add_module(f"{index}_{node.op_type}", _module(node, weights))
            self.steps.append((f"{index}_{node.op_type}", [i for i in node.input if i not in weights], node.output[0]))

    def forward(self, x: Tensor) -> Tensor:
        """Images to logits."""
        values = {self.source: x}
        for name, inputs, output in self.steps:
            given = [values[i] for i in inputs]
            values[output] = getattr(self, name)(given[0] if len(given) == 1 else torch.stack(given, -1))
        return values[self.result]


def twin(proto: ModelProto) -> nn.Module:
    """A torch network that computes what an ONNX file of plain layers does. Raises KeyError for other operators."""
    return Twin(proto).eval()


def _module(node: NodeProto, weights: dict[str, Tensor]) -> nn.Module:
    """One node as a torch module with its weights."""
    given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    parameters = [weights[i] for i in node.input if i in weights]
    makers: dict[str, Callable[[], nn.Module]] = {
        "Conv": lambda: nn.Conv2d(
            parameters[0].shape[1], parameters[0].shape[0], given["kernel_shape"], given["strides"], given["pads"][:2]
        ),
        "Gemm": lambda: nn.Linear(parameters[0].shape[1], parameters[0].shape[0]),
        "Relu": nn.ReLU,
        "MaxPool": lambda: nn.MaxPool2d(given["kernel_shape"], given["strides"], given.get("pads", [0, 0])[:2]),
        "GlobalAveragePool": lambda: nn.AdaptiveAvgPool2d(1),
        "Flatten": nn.Flatten,
        "Add": Sum,
    }
    module = makers[node.op_type]()
    for target, value in zip(module.parameters(), parameters, strict=True):
        target.data = value
    return module


# -- images -----------------------------------------------------------------------------------------------------------


def images(count: int, size: int = SIZE, seed: int = 0) -> Tensor:
    """Clouds of colour at several scales with a little noise, normalised as ImageNet's: [count, 3, size, size]."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.full((count, 3, size, size), 0.5)
    for side, strength in ((3, 0.25), (9, 0.15), (27, 0.1), (size, 0.05)):
        cloud = torch.randn(count, 3, side, side, generator=generator)
        pixels += strength * nn.functional.interpolate(cloud, size=(size, size), mode="bilinear")
    mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (pixels.clamp(0, 1) - mean) / std


def slices(seed: int) -> Tensor:
    """The sample slices beside the trained models, as these want them: [count, 1, H, W].

    Grey levels are spread by less than one level of noise. On a flat background max pooling meets exact ties, and
    torch's float64 convolutions, alone among all, break some of them by their rounding.
    """
    (stated,) = (p.value for p in load(TRAINED[0]).metadata_props if p.key == "onnxlrp.preprocess")
    preprocess = json.loads(stated)
    read = [np.asarray(Image.open(p).convert("L"), np.float32) for p in sorted((MODELS / "samples").glob("*.png"))]
    levels = torch.from_numpy(np.stack(read))[:, None]
    pixels = (levels + torch.rand(levels.shape, generator=torch.Generator().manual_seed(seed))) / preprocess["scale"]
    return (pixels - preprocess["mean"][0]) / preprocess["std"][0]


def inputs(name: str, count: int, size: int = SIZE, seed: int = 7) -> Tensor:
    """Images for a network; not those that its batch norms were calibrated on."""
    return slices(seed)[:count] if name in TRAINED else images(count, size, seed)


# -- exports ----------------------------------------------------------------------------------------------------------


def legacy(network: nn.Module, x: Tensor, path: Path, batch: str | int = "N", **options: Any) -> None:
    """torch's older exporter, through TorchScript. `batch` is a name for an open batch size, or a number."""
    open_axes = {INPUT: {0: batch}, OUTPUT: {0: batch}} if isinstance(batch, str) else None
    with _quiet():
        torch.onnx.export(
            network, (_of_batch(x, batch),), str(path), dynamo=False, opset_version=OPSET, input_names=[INPUT],
            output_names=[OUTPUT], dynamic_axes=open_axes, **options,
        )  # fmt: skip


def dynamo(network: nn.Module, x: Tensor, path: Path, batch: str | int = "N", **options: Any) -> None:
    """torch's present exporter."""
    shapes = ({0: torch.export.Dim(batch)},) if isinstance(batch, str) else None
    options = {"external_data": False, **options}
    with _quiet():
        torch.onnx.export(
            network, (_of_batch(x, batch),), str(path), dynamo=True, input_names=[INPUT], output_names=[OUTPUT],
            dynamic_shapes=shapes, verbose=False, **options,
        )  # fmt: skip


def dynamo_external(network: nn.Module, x: Tensor, path: Path, batch: str | int = "N") -> None:
    """The present exporter as it comes: weights in PATH.data."""
    dynamo(network, x, path, batch, external_data=True)


def unfolded(network: nn.Module, x: Tensor, path: Path, batch: str | int = "N") -> None:
    """Batch norms stay nodes, and weights that two layers share hide behind Identity nodes."""
    legacy(network, x, path, batch, do_constant_folding=False, training=torch.onnx.TrainingMode.PRESERVE)
    assert any(n.op_type == "BatchNormalization" for n in onnx.load(path).graph.node) or not _normalised(network)


def training(network: nn.Module, x: Tensor, path: Path, batch: str | int = "N") -> None:
    """In training mode: batch norms take the statistics of the batch. Dropout, which is random, is taken out."""
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    legacy(network.train(), x, path, batch, do_constant_folding=False, training=torch.onnx.TrainingMode.TRAINING)


def weights_as_inputs(network: nn.Module, x: Tensor, path: Path, batch: str | int = "N") -> None:
    """Weights are listed as graph inputs too, as all were up to IR 3."""
    legacy(network, x, path, batch, keep_initializers_as_inputs=True)


def external(network: nn.Module, x: Tensor, path: Path, batch: str | int = "N") -> None:
    """The older exporter's file with its weights moved to PATH.data."""
    legacy(network, x, path, batch)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location=f"{path.name}.data", size_threshold=256)


EXPORTS: dict[str, Callable[..., None]] = {
    f.__name__.replace("_", "-"): f
    for f in (legacy, dynamo, dynamo_external, unfolded, training, weights_as_inputs, external)
}


def _of_batch(x: Tensor, batch: str | int) -> Tensor:
    """An example of the batch size asked for; 2 where it is open, as torch takes 1 for a constant."""
    count = batch if isinstance(batch, int) else 2
    return x[torch.arange(count) % len(x)]


def _normalised(network: nn.Module) -> bool:
    return any(isinstance(m, nn.BatchNorm2d) for m in network.modules())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' progress reports and deprecation warnings."""
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
    logging.getLogger("torch.onnx").setLevel(level)


@click.command(help=__doc__)
@click.argument("names", nargs=-1, required=True, type=click.Choice(NAMES), metavar="MODEL...")
@click.option("--export", "kinds", type=click.Choice(tuple(EXPORTS)), multiple=True, default=["legacy"],
              show_default=True, help="How to export; repeatable.")  # fmt: skip
@click.option("--batch", default="N", show_default=True, help="A number, or a name for an open batch size.")
@click.option("--size", default=SIZE, show_default=True, help="Side of the images.")
@click.option("--seed", default=0, show_default=True)
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path, file_okay=False))
def main(names: tuple[str, ...], kinds: tuple[str, ...], batch: str, size: int, seed: int, out: Path) -> None:
    """Build and export; see the module."""
    out.mkdir(parents=True, exist_ok=True)
    for name in names:
        network = build(name, size, seed)
        for kind in kinds:
            path = out / f"{name}.{kind}.onnx"
            EXPORTS[kind](network, inputs(name, 2, size), path, int(batch) if batch.isdigit() else batch)
            click.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()

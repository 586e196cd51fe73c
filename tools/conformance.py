"""Make the conformance kit again: `python -m tools.conformance` writes graphs/conformance.

Small seeded networks become explainers, one or more for each composite and each form of the contract. What they must
answer is computed in float64 by onnx's own reference evaluator, so that no runtime is the judge of another: the file
itself, every float in it widened. Weights come from a generator whose stream is frozen and batch norms are rounded to
a coarse grid, so the files are the same to the byte on every machine.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from PIL import Image

import onnxlrp
from onnxlrp.contract import PREPROCESS_PRESETS, Preprocessing
from onnxlrp.explain.presets import PRESETS
from onnxlrp.run.heatmap import as_map, heatmap

KIT = Path(__file__).parents[1] / "graphs" / "conformance"
NETWORKS = KIT / "networks"
SIDE = 32
GRID = 64  # statistics of batch norms are multiples of 1/64: sums in another order cannot change them
Array = npt.NDArray[Any]

# What may differ, and how it is measured (README.md says why). One entry for each kind of output.
TOLERANCES: Mapping[str, Mapping[str, object]] = {
    "scores": {"measure": "max", "limit": 1e-5},
    "relevance": {"measure": "l2", "limit": 1e-3},
    "exact": {"measure": "different", "limit": 0},
    "pixels": {"measure": "levels", "limit": 0.005},
}
IMAGENET = PREPROCESS_PRESETS["imagenet"]
WAYS: Mapping[str, Preprocessing] = {  # how pictures become the input of each network
    "vgg": IMAGENET,
    "resnet": IMAGENET,
    "keras": Preprocessing(layout="NHWC"),
}
ONLY_ON_VGG = (  # the kit has to stay small
    "montavon_vgg", "epsilon", "epsilon_alpha2_beta1", "deconvnet", "excitation_backprop", "guided_backprop",
)  # fmt: skip
LABELS = ("circle", "square", "triangle", "star", "cross")


@dataclass(frozen=True)
class Case:
    """One explainer and what to ask it: how many pictures, which targets (None: it has no such input), what else."""

    name: str
    network: str
    options: Mapping[str, Any] = field(default_factory=dict)
    batch: int | None = None  # the batch size that the file fixes; None leaves it open
    asked: tuple[tuple[int, ...], ...] = ((-1,),)  # the targets of each run; the count of targets is that of pictures
    feeds: Mapping[str, Array] = field(default_factory=dict)  # inputs besides the picture and the target

    @property
    def has_target(self) -> bool:
        """Whether the explainer has the input `target`."""
        return self.options.get("target", "input") == "input" and self.options.get("start") != "fed"


def cases() -> Iterator[Case]:
    """Every composite on both networks, then each form that the contract allows."""
    for network in ("vgg", "resnet"):
        for composite in PRESETS:
            if network == "vgg" or composite not in ONLY_ON_VGG:
                # An epsilon of 1e-6 cannot be told from none by any tolerance that float32 allows.
                chosen = "epsilon(0.1)" if composite == "epsilon" else composite
                yield Case(f"{network}.{composite}", network, {"composite": chosen})
    fed, mask = np.array([[0.0, 1.5, 0.0, -1.0, 0.0]], np.float32), np.array([[1.0, 0.0] * 8], np.float32)
    yield Case("vgg.batch-open", "vgg", {"heatmap": True}, asked=((2,), (-1, 3, 0)))
    yield Case("vgg.batch-fixed", "vgg", {"heatmap": True}, batch=2, asked=((4, -1),))
    yield Case("resnet.batch-fixed", "resnet", {"heatmap": True}, batch=2, asked=((4, -1),))
    yield Case("resnet.taps", "resnet", {"taps": ["stem_pool", "sum2", "average"], "activations": ["sum4"]})
    yield Case("vgg.predicted", "vgg", {"target": "predicted", "composite": "epsilon_plus"}, asked=((-1, -1),))
    yield Case("vgg.start-fed", "vgg", {"start": "fed", "composite": "epsilon_plus"}, feeds={"start": fed})
    yield Case("vgg.start-contrastive", "vgg", {"start": "contrastive", "composite": "epsilon_plus"})
    yield Case("vgg.targets-per-input", "vgg", {"targets_per_input": 2}, asked=((0, -1),))
    yield Case("resnet.condition", "resnet", {"conditions": {"conv4": "input"}}, feeds={"condition/conv4": mask})
    yield Case("resnet.residual-ratio", "resnet", {"residual": "ratio", "composite": "epsilon_plus"})
    yield Case("keras.epsilon_plus_flat", "keras", {"heatmap": True}, asked=((-1,), (3, 1)))
    yield Case("keras.epsilon_gamma_box", "keras", {"composite": "epsilon_gamma_box"}, batch=1)
    drawn = {"render": "overlay", "embed_preprocessing": True}
    yield Case("vgg.overlay", "vgg", drawn, asked=((-1, 2),))
    yield Case("resnet.overlay", "resnet", drawn, batch=1)
    yield Case("keras.overlay", "keras", {**drawn, "cmap": "coldnhot"})
    yield Case("resnet.heatmap-drawn", "resnet", {"render": "heatmap", "composite": "epsilon_gamma_box"})


# -- networks ---------------------------------------------------------------------------------------------------------


def network(name: str, batch: int | None = None) -> ModelProto:
    """A classifier of the kit: networks/NAME.onnxtxt with weights from a seed, its batch open or fixed.

    Graph inputs named w, b, g, m, v and a number are weights, biases, and the scale, mean and variance of a batch norm.
    """
    proto = onnx.parser.parse_model((NETWORKS / f"{name}.onnxtxt").read_text())
    graph = proto.graph
    state = np.random.RandomState(int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little"))
    weights = [v for v in graph.input if v.name[1:].isdigit()]
    for value in weights:
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        graph.initializer.append(numpy_helper.from_array(_drawn(state, value.name[0], shape), value.name))
        graph.input.remove(value)
    _calibrate(proto, name)
    for value in (*graph.input, *graph.output):
        if batch is not None:
            value.type.tensor_type.shape.dim[0].dim_value = batch
    onnx.checker.check_model(proto, full_check=True)
    return proto


def _drawn(state: np.random.RandomState, kind: str, shape: list[int]) -> Array:
    """Weights that keep activations at the same size from layer to layer (He), small biases, plain statistics."""
    if kind == "w":
        fan = math.prod(shape[1:]) if len(shape) == 4 else shape[0]
        return (state.uniform(-1.0, 1.0, shape) * math.sqrt(6.0 / fan)).astype(np.float32)
    ranges = {"b": (-0.1, 0.1), "g": (0.5, 1.5), "m": (0.0, 0.0), "v": (1.0, 1.0)}
    return state.uniform(*ranges[kind], shape).astype(np.float32)


def _calibrate(proto: ModelProto, name: str) -> None:
    """Give every batch norm, in order, the statistics of its input over pictures that are not the kit's."""
    pictures = np.stack([prepared(picture(100 + i), WAYS[name]) for i in range(8)])
    held = {t.name: t for t in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type == "BatchNormalization":
            before = ModelProto()
            before.CopyFrom(proto)
            before.graph.output.append(helper.make_tensor_value_info(node.input[0], TensorProto.FLOAT, None))
            (values,) = ReferenceEvaluator(widened(before)).run([node.input[0]], {"image": pictures.astype(np.float64)})
            for index, statistic in ((3, values.mean((0, 2, 3))), (4, values.var((0, 2, 3)))):
                coarse = np.maximum(np.rint(statistic * GRID), 1.0 if index == 4 else -np.inf) / GRID
                held[node.input[index]].CopyFrom(numpy_helper.from_array(coarse.astype(np.float32), node.input[index]))


# -- pictures ---------------------------------------------------------------------------------------------------------


def picture(seed: int) -> npt.NDArray[np.uint8]:
    """A picture of the kit, uint8 [32, 32, 3]: blocks of colour at three scales."""
    state = np.random.RandomState(seed)
    blocks = [
        np.kron(state.randint(-r, r + 1, (SIDE // s, SIDE // s, 3)), np.ones((s, s, 1), int))
        for s, r in ((16, 60), (4, 40), (1, 25))
    ]
    return np.clip(128 + sum(blocks), 0, 255).astype(np.uint8)


def prepared(pixels: npt.NDArray[np.uint8], way: Preprocessing) -> npt.NDArray[np.float32]:
    """The picture as the network takes it, by the formula of the contract."""
    mean, std = np.array(way.mean, np.float32), np.array(way.std, np.float32)
    values = (pixels.astype(np.float32) / np.float32(way.scale) - mean) / std
    return np.ascontiguousarray(values if way.layout == "NHWC" else values.transpose(2, 0, 1))


# -- what is expected -------------------------------------------------------------------------------------------------


def widened(proto: ModelProto) -> ModelProto:
    """The same model in float64: every float32 tensor, type and cast is double."""
    wide = ModelProto()
    wide.CopyFrom(proto)
    del wide.graph.value_info[:]
    for tensor in wide.graph.initializer:
        _widen(tensor)
    for value in (*wide.graph.input, *wide.graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    for node in wide.graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                _widen(attribute.t)
            elif node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.DOUBLE
    return wide


def _widen(tensor: TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))


def answers(model: ModelProto, feeds: Mapping[str, Array], operators: Sequence[type[OpRun]] = ()) -> dict[str, Array]:
    """What an explainer answers in float64, rounded to the types that its outputs have. `operators` stand for those of
    onnx's evaluator."""
    wide = {k: v.astype(np.float64) if v.dtype == np.float32 else v for k, v in feeds.items()}
    names = [o.name for o in model.graph.output]
    types = [helper.tensor_dtype_to_np_dtype(o.type.tensor_type.elem_type) for o in model.graph.output]
    found = ReferenceEvaluator(widened(model), new_ops=list(operators)).run(names, wide)
    return {n: np.asarray(v).astype(t) for n, v, t in zip(names, found, types, strict=True)}


def kind_of(output: str, dtype: np.dtype[Any]) -> str:
    """Which entry of TOLERANCES an output falls under."""
    if dtype == np.uint8:
        return "pixels"
    if dtype.kind in "iu":
        return "exact"
    return "relevance" if output.split("/")[0] in ("relevance", "heatmap") else "scores"


# -- the folder -------------------------------------------------------------------------------------------------------


def write(root: Path) -> None:
    """Write the kit's explainers, tensors and manifest into `root`."""
    listed: list[dict[str, Any]] = []
    for case in cases():
        model = _explainer(case, root)
        for targets in case.asked:
            feeds = _feeds(case, model, targets)
            name = case.name if len(case.asked) == 1 else f"{case.name}.{len(targets)}"
            listed.append(
                {
                    "name": name,
                    "explainer": f"explainers/{case.name}.onnx",
                    "inputs": [entry(root, name, k, v) for k, v in feeds.items()],
                    "outputs": [
                        {**entry(root, name, k, v), "tolerance": kind_of(k, v.dtype)}
                        for k, v in answers(model, feeds).items()
                    ],
                }
            )
    manifest = {"kit": 1, "tolerances": TOLERANCES, "cases": listed, "drawings": list(_drawings(root, listed))}
    (root / "manifest.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")


def _explainer(case: Case, root: Path) -> ModelProto:
    """Convert the case's network and write the explainer."""
    path = root / "explainers" / f"{case.name}.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    way = WAYS[case.network]
    proto = network(case.network, case.batch)
    count = proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    made = onnxlrp.convert(proto, preprocess=way, labels=LABELS[:count], **case.options)
    made.save(path, force=True)
    return onnx.load(path)


def _feeds(case: Case, model: ModelProto, targets: tuple[int, ...]) -> dict[str, Array]:
    """The inputs of one run. With several targets per input there is one picture."""
    several = "targets_per_input" in case.options
    count = 1 if several else len(targets)
    way = WAYS[case.network]
    image = np.stack([prepared(picture(i), way) for i in range(count)])
    asked = np.array([targets] if several else targets, np.int64)
    pixels = np.stack([picture(i) for i in range(count)])
    known = {"image": image, "pixels": pixels, "target": asked, **case.feeds}
    return {i.name: known[i.name] for i in model.graph.input}


def entry(root: Path, case: str, name: str, values: Array) -> dict[str, object]:
    """Write a tensor three times, as raw little-endian bytes, .npy and TensorProto; its line in the manifest.

    What another case of the same network has written already is shared: it is the same file.
    """
    folder = root / "tensors"
    folder.mkdir(parents=True, exist_ok=True)
    values = np.ascontiguousarray(values)
    raw = values.astype(values.dtype.newbyteorder("<")).tobytes()
    leaf = name.replace("/", "-")
    shared = [p for p in sorted(folder.glob(f"{case.split('.')[0]}.*.{leaf}.bin")) if p.read_bytes() == raw]
    path = shared[0] if shared else folder / f"{case}.{leaf}.bin"
    if not shared:
        path.write_bytes(raw)
        np.save(path.with_suffix(".npy"), values, allow_pickle=False)
        proto = numpy_helper.from_array(values, name)
        path.with_suffix(".pb").write_bytes(proto.SerializeToString(deterministic=True))
    return {"name": name, "dtype": str(values.dtype), "shape": list(values.shape), "file": f"tensors/{path.name}"}


def _drawings(root: Path, listed: list[dict[str, Any]]) -> Iterator[dict[str, object]]:
    """Relevance and the picture that `onnxlrp run --style heatmap` draws of it, pixel for pixel."""
    for case in (
        c for c in listed if c["name"] in ("vgg.epsilon_plus_flat", "resnet.lrp_0", "keras.epsilon_gamma_box")
    ):
        (held,) = (o for o in case["outputs"] if o["name"] == "relevance")
        relevance = np.fromfile(root / held["file"], held["dtype"]).reshape(held["shape"])
        layout = "NHWC" if case["name"].startswith("keras") else "NCHW"
        drawn = np.asarray(heatmap(as_map(relevance[0], layout)))
        yield {
            "name": case["name"],
            "layout": layout,
            "relevance": {k: held[k] for k in ("name", "dtype", "shape", "file")},
            "pixels": entry(root, case["name"], "drawing", drawn),
        }
    folder = root / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(0)).save(folder / "picture.png")


@click.command(help=__doc__)
@click.option("-o", "--out", default=KIT, show_default=True, type=click.Path(path_type=Path, file_okay=False))
def main(out: Path) -> None:
    """Write the kit; see the module."""
    with tempfile.TemporaryDirectory() as scratch:
        write(Path(scratch))  # all of it, before anything that is there is replaced
        for part in ("explainers", "tensors", "pictures"):
            for old in (out / part).glob("*"):
                old.unlink()
        for path in sorted(p for p in Path(scratch).rglob("*") if p.is_file()):
            target = out / path.relative_to(scratch)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    files = [p for p in out.rglob("*") if p.is_file()]
    click.echo(f"{out}: {len(files)} files, {sum(p.stat().st_size for p in files) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()

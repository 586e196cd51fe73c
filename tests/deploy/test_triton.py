"""What `onnxlrp triton` writes, read by Triton's own description of a configuration and held against the model."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
import pytest
from click.testing import CliRunner, Result
from google.protobuf import text_format

from onnxlrp.cli.main import main
from onnxlrp.explain.convert import convert
from onnxlrp.graph.save import save

from .conftest import MODELS

ONNX_TYPES = {
    "TYPE_FP32": onnx.TensorProto.FLOAT,
    "TYPE_INT64": onnx.TensorProto.INT64,
    "TYPE_UINT8": onnx.TensorProto.UINT8,
}


@pytest.fixture(scope="module")
def configuration() -> ModuleType:
    """Triton's model_config.proto; without the rest of its client, which needs gRPC."""
    package = importlib.util.find_spec("tritonclient")
    if package is None or not package.submodule_search_locations:
        pytest.skip("no tritonclient: pip install --no-deps tritonclient")
    place = Path(package.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("triton_model_config_pb2", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def triton(*words: object) -> Result:
    """Run the command."""
    return CliRunner().invoke(main, ["triton", *map(str, words)])


def served(
    configuration: ModuleType, options: dict[str, Any], folder: Path, *words: str
) -> tuple[Any, onnx.ModelProto]:
    """The configuration that is written for an explainer made with `options`, and the model beside it."""
    explainer = folder / "some.lrp.onnx"
    convert(MODELS / "mri_vgg.onnx", **options).save(explainer)
    result = triton(explainer, "-o", folder / "models", "--name", "mri", *words)
    assert result.exit_code == 0, result.output
    place = folder / "models" / "mri"
    config = text_format.Parse((place / "config.pbtxt").read_text("utf-8"), configuration.ModelConfig())
    return config, onnx.load(place / "1" / "model.onnx")


def shape_at_the_model(io: Any, batch: int) -> list[int]:
    """The shape that Triton feeds, or expects, by its documentation: the batch, then `reshape` or `dims`."""
    dims = list(io.reshape.shape) if io.HasField("reshape") else list(io.dims)
    assert not io.HasField("reshape") or math.prod(io.reshape.shape) == math.prod(io.dims)
    return ([-1] if batch else []) + dims


def agree(config: Any, model: onnx.ModelProto) -> None:
    """Every tensor of the model is declared, with its type and its shape."""
    for declared, values in ((config.input, model.graph.input), (config.output, model.graph.output)):
        assert [io.name for io in declared] == [v.name for v in values]
        for io, value in zip(declared, values, strict=True):
            kind = value.type.tensor_type
            assert ONNX_TYPES[type(config).DESCRIPTOR.file.enum_types_by_name["DataType"].values_by_number[io.data_type].name] == kind.elem_type  # fmt: skip # noqa: E501
            shape = [d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim]
            assert shape_at_the_model(io, config.max_batch_size) == shape, io.name


FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "everything": {"taps": ["all"], "heatmap": True, "conditions": {"/4/Conv": "input"}},
    "several targets": {"targets_per_input": 2},
    "the predicted class": {"target": "predicted"},
    "pixels": {"embed_preprocessing": True, "render": "overlay"},
    "fed": {"start": "fed"},
}


@pytest.mark.parametrize("form", FORMS)
def test_the_configuration_is_the_models(form: str, configuration: ModuleType, tmp_path: Path) -> None:
    """Parsed by Triton's own grammar; names, types and shapes are those of the model it stands beside."""
    config, model = served(configuration, FORMS[form], tmp_path)
    assert (config.name, config.backend, config.max_batch_size) == ("mri", "onnxruntime", 8)
    assert config.default_model_filename == "model.onnx"
    assert config.dynamic_batching.max_queue_delay_microseconds > 0
    agree(config, model)
    (warmup,) = config.model_warmup
    assert warmup.batch_size == 1
    assert {k: (v.data_type, list(v.dims)) for k, v in warmup.inputs.items()} == {
        io.name: (io.data_type, list(io.dims)) for io in config.input
    }


def test_a_vector_is_declared_as_one_number_a_sample(configuration: ModuleType, tmp_path: Path) -> None:
    """`target` and `explained` are [N]: dims [1] alone would make them [N, 1]."""
    config, _ = served(configuration, {}, tmp_path, "--max-batch", "3")
    for io in (config.input[1], config.output[2]):
        assert list(io.dims) == [1]
        assert io.HasField("reshape")
        assert list(io.reshape.shape) == []
    assert config.max_batch_size == 3
    assert config.output[0].label_filename == "labels.txt"
    labels = (tmp_path / "models" / "mri" / "labels.txt").read_text("utf-8").splitlines()
    assert labels == ["no lesion", "bright lesion", "dark lesion"]


@pytest.mark.parametrize("options", [{"input_shape": [2, 1, 128, 128]}, {}], ids=["fixed", "open, as asked"])
def test_without_batching_shapes_are_whole(options: dict[str, Any], configuration: ModuleType, tmp_path: Path) -> None:
    """A fixed batch, or --max-batch 0, leaves Triton's batching off."""
    config, model = served(configuration, options, tmp_path, *([] if options else ["--max-batch", "0"]))
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")
    agree(config, model)
    assert list(config.input[0].dims) == [2 if options else -1, 1, 128, 128]


def test_external_data_comes_along(explainer: Path, tmp_path: Path) -> None:
    """A model whose weights lie in another file is served whole."""
    proto = onnx.load(explainer)
    outside = tmp_path / "outside"
    outside.mkdir()
    onnx.save_model(
        onnx.load(explainer), outside / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=100
    )
    result = triton(outside / "m.onnx", "-o", tmp_path / "models")
    assert result.exit_code == 0, result.output
    made = onnx.load(tmp_path / "models" / "m" / "1" / "model.onnx")
    assert {t.name: t.raw_data for t in made.graph.initializer} == {t.name: t.raw_data for t in proto.graph.initializer}


def test_what_cannot_be_served_is_refused(explainer: Path, tmp_path: Path) -> None:
    """A classifier, a bad name, a model that is there, batching that cannot be had: exit 2, nothing written."""
    models = tmp_path / "models"
    fixed = tmp_path / "fixed.onnx"
    convert(MODELS / "mri_vgg.onnx", input_shape=[2, 1, 128, 128]).save(fixed)
    for said, words in {
        "convert it first: onnxlrp convert": (MODELS / "mri_vgg.onnx",),
        "is no name for a model": (explainer, "--name", "../other"),
        "fixed at 2, so Triton cannot batch": (fixed, "--max-batch", "4"),
        "2147483648 is not in the range 0<=x<=2147483647": (explainer, "--max-batch", str(2**31)),
    }.items():
        result = triton(*words, "-o", models)
        assert result.exit_code == 2
        assert said in result.output.replace("Convert", "convert")
        assert not models.exists()
    assert triton(explainer, "-o", models, "--name", "a").exit_code == 0
    before = (models / "a" / "config.pbtxt").read_bytes()
    again = triton(explainer, "-o", models, "--name", "a")
    assert (again.exit_code, "is not empty" in again.output) == (2, True)
    (models / "a" / "config.pbtxt").write_text("mine")
    (models / "a" / "2").mkdir()
    (models / "a" / "2" / "model.onnx").write_text("another version")
    other = triton(explainer, "-o", models, "--name", "a", "--force")
    assert (other.exit_code, "was not written by onnxlrp" in other.output) == (2, True)
    assert (models / "a" / "config.pbtxt").read_text() == "mine"
    (models / "a" / "2" / "model.onnx").unlink()
    assert triton(explainer, "-o", models, "--name", "a", "--force").exit_code == 0
    assert (models / "a" / "config.pbtxt").read_bytes() == before
    assert sorted(p.name for p in models.iterdir()) == ["a"]


def test_names_of_any_kind_are_quoted(configuration: ModuleType, explainer: Path, tmp_path: Path) -> None:
    """A tensor's name can hold what protobuf's text format would read otherwise."""
    odd = 'a "b" \\ é\x01'
    proto = onnx.load(explainer)
    for node in proto.graph.node:
        node.input[:] = [odd if name == "image" else name for name in node.input]
    proto.graph.input[0].name = odd
    next(p for p in proto.metadata_props if p.key == "onnxlrp.input").value = odd
    save(proto, tmp_path / "odd.onnx", None)
    result = triton(tmp_path / "odd.onnx", "-o", tmp_path / "models", "--name", "m")
    assert result.exit_code == 0, result.output
    text = (tmp_path / "models" / "m" / "config.pbtxt").read_text("utf-8")
    assert text_format.Parse(text, configuration.ModelConfig()).input[0].name == odd

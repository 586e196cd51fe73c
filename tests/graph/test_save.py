"""Writing models: one file or two, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import onnxlrp
from onnxlrp.errors import OnnxLrpError, RunError
from onnxlrp.files import write_all
from onnxlrp.graph import save as saving
from onnxlrp.graph import weights
from onnxlrp.graph.model import load
from onnxlrp.graph.save import save

SIZE = 300  # values in a weight


def constants(element_type: int = TensorProto.FLOAT) -> np.ndarray:
    return np.arange(SIZE).astype(helper.tensor_dtype_to_np_dtype(element_type))


def model(*tensors: TensorProto) -> ModelProto:
    """Returns its weights: one that is raw, one in float_data, one in a node, and others."""
    typed = TensorProto(name="typed", data_type=TensorProto.FLOAT, dims=[SIZE], float_data=constants())
    held = numpy_helper.from_array(constants(), "held")
    nodes = [helper.make_node("Constant", [], ["inner"], value=held)]
    initializers = [numpy_helper.from_array(constants(), "raw"), typed, *tensors]
    initializers[0].doc_string = "a weight"
    nodes += [helper.make_node("Identity", [t.name], [f"{t.name}_out"]) for t in initializers]
    outputs = [helper.make_tensor_value_info(f"{t.name}_out", t.data_type, list(t.dims)) for t in initializers]
    outputs.append(helper.make_tensor_value_info("inner", TensorProto.FLOAT, [SIZE]))
    proto = helper.make_model(
        helper.make_graph(nodes, "weights", [], outputs, initializers),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    proto.metadata_props.add(key="who", value="we")
    return proto


def values(path: Path) -> dict[str, np.ndarray]:
    """What the model at `path` returns."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, {}), strict=True))


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files end at 2000 bytes, and every weight goes to the second one."""
    monkeypatch.setattr(saving, "LIMIT", 2000)
    monkeypatch.setattr(saving, "MOVED", 100)


def test_one_file_is_the_model_to_the_byte_of_every_field(tmp_path: Path) -> None:
    proto = model()
    assert save(proto, tmp_path / "a.onnx", None) == [tmp_path / "a.onnx"]
    assert onnx.load(tmp_path / "a.onnx") == proto
    assert names(tmp_path) == ["a.onnx"]
    assert (tmp_path / "a.onnx").stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize(
    "element_type",
    [TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT4, TensorProto.INT64, TensorProto.BOOL],
)
def test_weights_of_every_type_from_external_files(element_type: int, tmp_path: Path) -> None:
    array = (np.arange(SIZE) % 2).astype(helper.tensor_dtype_to_np_dtype(element_type))
    proto, other = (model(numpy_helper.from_array(array, "other")) for _ in range(2))  # saving empties one
    onnx.save(other, tmp_path / "a.onnx", save_as_external_data=True, location="w", size_threshold=0)
    light = onnx.load(tmp_path / "a.onnx", load_external_data=False)
    assert len(weights.external(light)) >= 2
    save(light, tmp_path / "b.onnx", tmp_path)
    whole = onnx.load(tmp_path / "b.onnx", load_external_data=False)
    assert not weights.external(whole)
    for before, after in zip(proto.graph.initializer, whole.graph.initializer, strict=True):
        np.testing.assert_array_equal(numpy_helper.to_array(before), numpy_helper.to_array(after))
        assert weights.size(after) == len(weights.values(after, None))


def test_weights_in_nodes_come_inside(tmp_path: Path) -> None:
    onnx.save(
        model(), tmp_path / "a.onnx", save_as_external_data=True, location="w", size_threshold=0,
        convert_attribute=True,
    )  # fmt: skip
    light = onnx.load(tmp_path / "a.onnx", load_external_data=False)
    assert "held" in [t.name for t in weights.external(light)]
    save(light, tmp_path / "one.onnx", tmp_path)
    np.testing.assert_array_equal(values(tmp_path / "one.onnx")["inner"], constants())


@pytest.mark.parametrize("external", [False, True])
def test_two_files(external: bool, tmp_path: Path, small_files: None) -> None:
    proto, folder = model(), None
    if external:
        (tmp_path / "in").mkdir()
        folder = tmp_path / "in"
        onnx.save(proto, folder / "a.onnx", save_as_external_data=True, location="w", size_threshold=0)
        proto = onnx.load(folder / "a.onnx", load_external_data=False)
    (tmp_path / "out").mkdir()
    path = tmp_path / "out" / "a.onnx"
    assert save(proto, path, folder) == [path, path.with_name("a.onnx.data")]
    assert names(path.parent) == ["a.onnx", "a.onnx.data"]
    onnx.checker.check_model(str(path), full_check=True)
    for array in values(path).values():
        np.testing.assert_array_equal(array, constants())
    offsets = [weights.place(t, path.parent).offset for t in weights.external(load_light(path))]
    assert offsets == [0, 4096]
    assert not weights.problems(load_light(path), path.parent)


def load_light(path: Path) -> ModelProto:
    return onnx.load(path, load_external_data=False)


def test_neither_of_two_files_replaces_another_unasked(tmp_path: Path, small_files: None) -> None:
    path = tmp_path / "a.onnx"
    data = tmp_path / "a.onnx.data"
    data.write_bytes(b"mine")
    with pytest.raises(OnnxLrpError, match=r"a\.onnx\.data: exists already"):
        save(model(), path, None)
    assert (names(tmp_path), data.read_bytes()) == (["a.onnx.data"], b"mine")
    save(model(), path, None, force=True)
    assert len(values(path)) == 3


@pytest.mark.parametrize("failing", [1, 2])
def test_of_two_files_both_are_written_or_none(
    failing: int, tmp_path: Path, small_files: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(b"older")
    path.with_name("a.onnx.data").write_bytes(b"older data")
    synced: list[int] = []

    def full(handle: int) -> None:
        synced.append(handle)
        if len(synced) == failing:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left"):
        save(model(), path, None, force=True)
    assert names(tmp_path) == ["a.onnx", "a.onnx.data"]
    assert path.read_bytes() == b"older"
    assert path.with_name("a.onnx.data").read_bytes() == b"older data"


def test_weights_that_end_early_leave_nothing(tmp_path: Path) -> None:
    onnx.save(model(), tmp_path / "a.onnx", save_as_external_data=True, location="w", size_threshold=0)
    loaded = load(tmp_path / "a.onnx")
    (tmp_path / "w").write_bytes(b"short")
    with pytest.raises(RunError, match="ended early"):
        save(loaded.proto, tmp_path / "b.onnx", tmp_path)
    assert names(tmp_path) == ["a.onnx", "w"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, MemoryError])
def test_whatever_is_raised_leaves_nothing(error: type[BaseException], tmp_path: Path) -> None:
    def broken(file: IO[bytes]) -> None:
        file.write(b"some")
        raise error

    whole: Callable[[IO[bytes]], object] = lambda file: file.write(b"whole")  # noqa: E731
    with pytest.raises(error):
        write_all([(tmp_path / "a", whole), (tmp_path / "b", broken)])
    assert names(tmp_path) == []


def test_a_proto_in_memory_whose_weights_are_elsewhere(tmp_path: Path) -> None:
    onnx.save(model(), tmp_path / "a.onnx", save_as_external_data=True, location="w", size_threshold=0)
    with pytest.raises(OnnxLrpError, match="a ModelProto does not say where that is"):
        onnxlrp.convert(load_light(tmp_path / "a.onnx"))

"""What must hold of any explainer, whatever classifier it was made from."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from google.protobuf.message import Message

import onnxlrp
from onnxlrp.contract import EXPLAINED, KEY_INPUT, KEY_OUTPUT, PREDICTED, RELEVANCE, TARGET
from onnxlrp.graph.model import load
from onnxlrp.graph.save import save
from onnxlrp.graph.upgrade import LOWEST, upgrade

Outputs = dict[str, np.ndarray]


def holds(classifier: Path, explainer: Path, image: np.ndarray, growth: float | None = None) -> Outputs:
    """Convert `classifier` to `explainer`, check the contract on a batch of images, and return the explainer's outputs.

    `growth` is how many times the classifier's size the explainer's file may have at most.
    """
    made = onnxlrp.convert(classifier)
    files = made.save(explainer)
    assert files == [explainer], "one file, wherever the classifier's weights were"
    again = onnxlrp.convert(classifier).model
    assert frozen([again]) == frozen([made.model]), "the same bytes when converted twice"
    onnx.checker.check_model(str(explainer), full_check=True)
    proto = onnx.load(explainer)
    plain = comparable(classifier, explainer.parent)
    before = onnx.load(plain, load_external_data=False).graph.node
    assert frozen(proto.graph.node[: len(before)]) == frozen(before), "the classifier's nodes come first, untouched"
    metadata = {p.key: p.value for p in proto.metadata_props}
    outputs = run(explainer, {metadata[KEY_INPUT]: image, TARGET: np.full(len(image), PREDICTED)})
    feeds = {metadata[KEY_INPUT]: image}
    check_outputs(outputs, run(plain, feeds), image, metadata[KEY_OUTPUT])
    for name, values in run(classifier, feeds).items():
        np.testing.assert_allclose(outputs[name], values, rtol=1e-4, atol=1e-5 * np.abs(values).max())
    if growth is not None:
        assert explainer.stat().st_size <= growth * size_on_disk(classifier)
    return outputs


def check_outputs(outputs: Outputs, alone: Outputs, image: np.ndarray, explained: str) -> None:
    """The classifier's outputs are what they were, to the bit; relevance is finite, there, and of the image's shape."""
    for name, values in alone.items():
        np.testing.assert_array_equal(outputs[name], values, err_msg=name)
    np.testing.assert_array_equal(outputs[EXPLAINED], alone[explained].reshape(len(image), -1).argmax(1))
    relevance = outputs[RELEVANCE]
    assert relevance.shape == image.shape
    assert relevance.dtype == image.dtype
    assert np.isfinite(relevance).all()
    assert (np.abs(relevance).reshape(len(image), -1).max(1) > 0).all()


def comparable(classifier: Path, folder: Path) -> Path:
    """The classifier that the explainer must equal to the bit: itself, unless ONNX Runtime sees another one.

    It fuses more where weights are no inputs that could be fed, and in newer operator sets, so one that is converted to
    a newer one is compared with the result of that.
    """
    proto = onnx.load(classifier, load_external_data=False)
    weights = {t.name for t in proto.graph.initializer}
    old = any(o.domain in ("", "ai.onnx") and o.version < LOWEST for o in proto.opset_import)
    if not old and weights.isdisjoint(v.name for v in proto.graph.input):
        return classifier
    changed = upgrade(load(classifier)).proto
    inputs = [v for v in changed.graph.input if v.name not in weights]
    del changed.graph.input[:]
    changed.graph.input.extend(inputs)
    path = folder / "comparable.onnx"
    save(changed, path, classifier.parent)
    return path


def frozen(messages: Iterable[Message]) -> list[bytes]:
    """Nodes or models as bytes, to be compared."""
    return [m.SerializeToString(deterministic=True) for m in messages]


def run(path: Path, feeds: dict[str, np.ndarray]) -> Outputs:
    """Every output of a model by name, with all optimisations but the CPU's layout changes, which regroup sums."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def size_on_disk(classifier: Path) -> int:
    """The bytes of a classifier with all files of external data."""
    return sum(p.stat().st_size for p in classifier.parent.glob(f"{classifier.name}*"))

"""What an explainer takes and gives, read once from its metadata and from the inputs and outputs of its session."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from onnxlrp import contract
from onnxlrp.errors import OnnxLrpError, Problem
from onnxlrp.graph.facts import declared_shape, declared_type
from onnxlrp.run.reading import metadata_of

DTYPES: Mapping[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,  # pixels
}
Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class Declared:
    """An input or output as a session lists it."""

    name: str
    type: str
    shape: Sequence[int | None]


@dataclass(frozen=True)
class Signature:
    """An explainer's inputs and outputs, in the contract's terms.

    name               what to call the model in messages
    image, shape       the explained input and its shape, batch first, None where an axis is free
    dtype              of that input
    output, outputs    the explained output; all outputs in the model's order
    classes            K, where the model declares it
    labels             the names of the classes, where the model carries them
    takes_target       whether the class is an input; else `fixed_target` is the choice baked in, -1 the predicted one
    targets_per_input  how many classes of each input are explained in one run; None for one, without an axis of its own
    start_dtype        of the input `start`, None where relevance starts from a class
    conditions         {layer: its channels}, for layers whose channels an input `condition/<layer>` chooses
    condition_dtypes   likewise
    """

    name: str
    image: str
    shape: Shape
    dtype: np.dtype[Any]
    output: str
    outputs: tuple[str, ...]
    classes: int | None
    labels: tuple[str, ...] | None
    takes_target: bool
    fixed_target: int | None
    targets_per_input: int | None
    start_dtype: np.dtype[Any] | None
    conditions: Mapping[str, int]
    condition_dtypes: Mapping[str, np.dtype[Any]]

    @property
    def fed(self) -> bool:
        """Whether relevance starts from an input `start`."""
        return self.start_dtype is not None

    @property
    def taps(self) -> list[str]:
        """The outputs that hold relevance of inner tensors."""
        return [name for name in self.outputs if name.startswith(contract.tap_name(""))]


def read_signature(name: str, metadata: Mapping[str, str], inputs: Sequence[Any], outputs: Sequence[Any]) -> Signature:
    """Find the contract's names among a session's inputs and outputs.

    Raises `OnnxLrpError` for another version of the contract, for what is missing, and for inputs that the contract
    does not know.
    """
    _check_version(name, metadata)
    taken, given = {v.name: v for v in inputs}, {v.name: v for v in outputs}
    image, output = metadata.get(contract.KEY_INPUT, ""), metadata.get(contract.KEY_OUTPUT, "")
    _check_names(name, image, output, taken, given)
    prefix = contract.condition_name("")
    masks = {n.removeprefix(prefix): v for n, v in taken.items() if n.startswith(prefix)}
    _refuse_others(name, image, sorted(set(taken) - {image, contract.TARGET, contract.START} - _names_of(masks)))
    target, start = taken.get(contract.TARGET), taken.get(contract.START)
    classes = _sizes(given[output].shape)[1] if len(given[output].shape) >= 2 else None
    return Signature(
        name=name,
        image=image,
        shape=_sizes(taken[image].shape),
        dtype=_dtype(name, taken[image]),
        output=output,
        outputs=tuple(given),
        classes=classes,
        labels=_labels(name, metadata.get(contract.KEY_LABELS, "")),
        takes_target=target is not None,
        fixed_target=None if target or start else _fixed_target(name, metadata),
        targets_per_input=_sizes(target.shape)[1] if target and len(target.shape) == 2 else None,
        start_dtype=_dtype(name, start) if start else None,
        conditions={layer: _channels(name, v) for layer, v in masks.items()},
        condition_dtypes={layer: _dtype(name, v) for layer, v in masks.items()},
    )


def declared_signature(name: str, model: onnx.ModelProto) -> Signature:
    """The signature that a session of an explainer would have, without opening one; raises as `read_signature`."""
    graph, metadata = model.graph, metadata_of(model)
    return read_signature(name, metadata, [_declared(v) for v in graph.input], [_declared(v) for v in graph.output])


def _declared(value: onnx.ValueInfoProto) -> Declared:
    return Declared(value.name, f"tensor({declared_type(value.type)})", declared_shape(value.type))


def _check_version(name: str, metadata: Mapping[str, str]) -> None:
    version = metadata.get(contract.KEY_CONTRACT)
    if version != str(contract.VERSION):
        reason = f"was written for contract {version}, this onnxlrp knows {contract.VERSION}"
        raise OnnxLrpError(Problem(name, reason, "upgrade onnxlrp, or convert the classifier again"))


def _check_names(name: str, image: str, output: str, taken: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    wanted = [(image, taken, "input", contract.KEY_INPUT), (output, given, "output", contract.KEY_OUTPUT)]
    wanted += [(n, given, "output", n) for n in (contract.RELEVANCE, contract.EXPLAINED)]
    for one, held, kind, key in wanted:
        if one not in held:
            reason = f"claims to be an explainer, but its {kind} {one!r} ({key}) is missing"
            raise OnnxLrpError(Problem(name, reason, "convert the classifier again"))


def _names_of(masks: Mapping[str, Any]) -> set[str]:
    return {contract.condition_name(layer) for layer in masks}


def _refuse_others(name: str, image: str, others: Sequence[str]) -> None:
    if others:
        what = f"a further input ({others[0]})" if len(others) == 1 else f"further inputs ({', '.join(others)})"
        reason = f"needs {what}, and only {image} can be fed here"
        raise OnnxLrpError(Problem(name, reason, "run it with onnxruntime directly"))


def _sizes(shape: Sequence[int | str | None]) -> Shape:
    return tuple(axis if isinstance(axis, int) else None for axis in shape)


def _dtype(name: str, value: Any) -> np.dtype[Any]:
    if value.type not in DTYPES:
        reason = f"its input {value.name} is {value.type}"
        raise OnnxLrpError(Problem(name, reason, f"only {', '.join(DTYPES)} can be explained"))
    return np.dtype(DTYPES[value.type])


def _channels(name: str, value: Any) -> int:
    shape = _sizes(value.shape)
    if len(shape) != 2 or shape[1] is None:
        reason = f"its input {value.name} has the shape {list(value.shape)}, not [N, channels]"
        raise OnnxLrpError(Problem(name, reason, "convert the classifier again"))
    return shape[1]


def _fixed_target(name: str, metadata: Mapping[str, str]) -> int:
    choice = metadata.get(contract.KEY_TARGET, "")
    if choice == "predicted":
        return contract.PREDICTED
    if not choice.isdecimal():
        reason = f"has no input {contract.TARGET!r}, and its {contract.KEY_TARGET} is {choice!r}"
        raise OnnxLrpError(Problem(name, reason, "convert the classifier again"))
    return int(choice)


def _labels(name: str, text: str) -> tuple[str, ...] | None:
    """The class names in the metadata, None where there are none."""
    if not text:
        return None
    try:
        labels = json.loads(text)
    except ValueError:
        labels = None
    if not isinstance(labels, list):
        reason = f"the metadata {contract.KEY_LABELS} is no JSON list"
        raise OnnxLrpError(Problem(name, reason, "convert the classifier again with --labels"))
    return tuple(str(label) for label in labels)

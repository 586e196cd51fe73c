"""An explainer in ONNX Runtime: a batch goes in, logits and relevance come out.

Everything the session needs to know it reads from the model itself: the contract's metadata and the declared shapes. A
plain classifier is converted in memory first.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from onnxlrp import contract
from onnxlrp.errors import OnnxLrpError, Problem, RunError
from onnxlrp.run.reading import metadata_of, read_model
from onnxlrp.run.runtime import ModelLike, open_session, run_session

_DTYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
}


@dataclass(frozen=True)
class Explanation:
    """What an explainer says of a batch of N inputs, K classes.

    `logits` [N, K] is the explained output (log-odds or, where `scores` says so, probabilities), `target` int64 [N] the
    class that was explained, `relevance` has the shape of the input, `outputs` holds every output of the model by name.
    """

    logits: npt.NDArray[Any]
    target: npt.NDArray[np.int64]
    relevance: npt.NDArray[Any]
    outputs: dict[str, npt.NDArray[Any]]
    scores: str = "logits"

    @property
    def probabilities(self) -> npt.NDArray[np.float64]:
        """[N, K] in 0..1: softmax of the logits (sigmoid where K is 1), or the output itself if it is probabilities."""
        scores = self.logits.astype(np.float64)
        if self.scores == "probabilities":
            return scores
        if scores.shape[1] == 1:
            return np.asarray(1.0 / (1.0 + np.exp(-np.clip(scores, -700.0, 700.0))))
        shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
        return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


class Explainer:
    """An explainer opened in ONNX Runtime.

    `path_or_model` is a file, its bytes or a ModelProto; a plain classifier is converted in memory, with
    `convert_options` for `onnxlrp.convert` (`composite="epsilon_plus"`, …). `device` is "auto" (CUDA where it really
    runs, else the CPU), "cpu" or "cuda". Raises `OnnxLrpError` where the model is no classifier that can be explained,
    breaks the contract, or the device is not there.
    """

    def __init__(self, path_or_model: ModelLike, device: str = "auto", **convert_options: Any) -> None:
        proto, name = read_model(path_or_model)
        metadata = metadata_of(proto)
        self._name = name
        self._converted = contract.KEY_CONTRACT not in metadata
        folder = Path(name).resolve().parent if isinstance(path_or_model, (str, Path)) else None
        source: ModelLike = path_or_model
        if self._converted:
            source = proto = _convert(path_or_model, proto, convert_options)
            metadata = metadata_of(proto)
        elif convert_options:
            given = ", ".join(sorted(convert_options))
            reason = f"is an explainer already, so {given} cannot be chosen any more"
            raise OnnxLrpError(Problem(name, reason, "convert the original classifier again"))
        self._metadata = metadata
        opened = open_session(source, device, folder)
        self._session, self._provider, self._reason = opened.session, opened.provider, opened.reason
        self._read_contract()

    def __repr__(self) -> str:
        return f"Explainer({self._name!r}, provider={self.provider!r}, input_shape={self.input_shape})"

    @property
    def provider(self) -> str:
        """What runs the model: "CUDA" or "CPU"."""
        return self._provider

    @property
    def provider_reason(self) -> str:
        """Why the model does not run on CUDA and what would change that; "" where it does or was not asked to."""
        return self._reason

    @property
    def name(self) -> str:
        """The model's path, or "model" where it came from memory."""
        return self._name

    @property
    def converted(self) -> bool:
        """Whether a plain classifier was given, and converted in memory."""
        return self._converted

    @property
    def input_name(self) -> str:
        """The name of the input that is explained."""
        return self._input_name

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """The declared shape of that input, batch first; None where an axis is free."""
        return self._input_shape

    @property
    def preprocessing(self) -> contract.Preprocessing | None:
        """How a picture becomes the input, or None where the model does not say."""
        text = self._metadata.get(contract.KEY_PREPROCESS)
        return contract.Preprocessing.from_json(text) if text else None

    @property
    def labels(self) -> list[str] | None:
        """The names of the K classes, or None where the model does not carry them."""
        return None if self._labels is None else list(self._labels)

    @property
    def classes(self) -> int | None:
        """K, the number of classes, where the model declares it."""
        return self._classes

    @property
    def scores(self) -> str:
        """What the explained output holds: "logits" or "probabilities"."""
        return self._metadata.get(contract.KEY_SCORES, "logits")

    @property
    def composite(self) -> str:
        """The name of the composite (which rule for which layer) behind the relevance."""
        return self._metadata.get(contract.KEY_COMPOSITE, "")

    @property
    def taps(self) -> list[str]:
        """The outputs that hold relevance of inner tensors, in the model's order."""
        return [name for name in self._outputs if name.startswith(contract.tap_name(""))]

    @property
    def fixed_target(self) -> int | None:
        """The choice baked into the model (-1 for the predicted class); None where `target` is an input."""
        return self._fixed_target

    def explain(self, batch: npt.NDArray[Any], target: int | npt.ArrayLike | None = None) -> Explanation:
        """Explain `batch` [N, …], already pre-processed, for `target`: None for the predicted class, one class, or [N].

        A model whose batch size is fixed gets the batch in pieces, the last one filled up. Raises `OnnxLrpError` where
        shape, dtype or target do not fit the model, and `RunError` where the runtime gives up.
        """
        array = self._checked(np.asarray(batch))
        targets = self._targets(target, len(array))
        size = self._input_shape[0] or len(array)
        pieces = []
        for start in range(0, len(array), size):
            pieces.append(self._run_piece(array[start : start + size], targets[start : start + size], size))
        outputs = {name: np.concatenate([piece[name] for piece in pieces]) for name in self._outputs}
        logits = outputs[self._output_name].reshape(len(array), -1)
        self._check_range(targets, logits.shape[1])
        explained = outputs[contract.EXPLAINED].astype(np.int64).reshape(-1)
        return Explanation(logits, explained, outputs[contract.RELEVANCE], outputs, self.scores)

    def _run_piece(
        self, batch: npt.NDArray[Any], targets: npt.NDArray[np.int64], size: int
    ) -> dict[str, npt.NDArray[Any]]:
        """Every output for at most `size` inputs, padded to `size` for the run and cut again after it."""
        missing = size - len(batch)
        feeds: dict[str, Any] = {self._input_name: np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)])}
        if self._fixed_target is None:
            feeds[contract.TARGET] = np.concatenate([targets, np.repeat(targets[-1:], missing)])
        outputs = {name: np.atleast_1d(output) for name, output in run_session(self._session, feeds).items()}
        # A tap behind a reshape may hold several rows a sample.
        return {name: output[: len(batch) * max(1, len(output) // size)] for name, output in outputs.items()}

    def _checked(self, batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """`batch`, contiguous, if it is what the model's input takes."""
        expected = tuple("N" if i == 0 else s for i, s in enumerate(self._input_shape))
        wanted = f"[{', '.join('any' if s is None else str(s) for s in expected)}]"
        got = f"[{', '.join(map(str, batch.shape))}]"
        if batch.ndim != len(expected):
            reason = f"has {batch.ndim} axes {got}, the model takes {len(expected)} {wanted}"
            raise OnnxLrpError(Problem("batch", reason, "a single input needs a batch axis: batch[None]"))
        if any(isinstance(e, int) and e != s for e, s in zip(expected, batch.shape, strict=True)):
            raise OnnxLrpError(Problem("batch", f"has the shape {got}, the model takes {wanted}", ""))
        if len(batch) == 0:
            raise OnnxLrpError(Problem("batch", f"is empty: it has the shape {got}", "pass at least one input"))
        if batch.dtype != self._dtype:
            reason = f"has the dtype {batch.dtype}, the model takes {self._dtype}"
            raise OnnxLrpError(Problem("batch", reason, f"batch.astype(np.{self._dtype}), after pre-processing"))
        return np.ascontiguousarray(batch)

    def _targets(self, target: int | npt.ArrayLike | None, count: int) -> npt.NDArray[np.int64]:
        """int64 [N], checked as far as it can be before the model has run."""
        if self._fixed_target is not None:
            if target is not None and not np.all(np.asarray(target) == self._fixed_target):
                choice = "the predicted class" if self._fixed_target < 0 else f"class {self._fixed_target}"
                reason = f"{self._name} always explains {choice}"
                raise OnnxLrpError(Problem("target", reason, "convert it without --target to choose at run time"))
            return np.full(count, self._fixed_target, np.int64)
        given = np.asarray(contract.PREDICTED if target is None else target)
        if given.dtype.kind not in "iu":
            raise OnnxLrpError(Problem("target", f"has the dtype {given.dtype}", "pass an int or int64 [N]"))
        if given.ndim > 0 and given.shape != (count,):
            reason = f"has the shape {list(given.shape)} for a batch of {count}"
            raise OnnxLrpError(Problem("target", reason, f"pass one class, or {count}"))
        targets = np.broadcast_to(given.astype(np.int64), (count,))
        if self._classes is not None:
            self._check_range(targets, self._classes)
        return targets

    def _check_range(self, targets: npt.NDArray[np.int64], classes: int) -> None:
        wrong = targets[(targets < contract.PREDICTED) | (targets >= classes)]
        if len(wrong):
            reason = f"{wrong[0]} is out of range: the model has {classes} classes"
            remedy = f"choose 0..{classes - 1}, or {contract.PREDICTED} for the predicted class"
            raise OnnxLrpError(Problem("target", reason, remedy))

    def _read_contract(self) -> None:
        """Find the contract's names in the session, or say which of them is missing."""
        version = self._metadata[contract.KEY_CONTRACT]
        if version != str(contract.VERSION):
            reason = f"was written for contract {version}, this onnxlrp knows {contract.VERSION}"
            raise OnnxLrpError(Problem(self._name, reason, "upgrade onnxlrp, or convert the classifier again"))
        inputs = {value.name: value for value in self._session.get_inputs()}
        outputs = {value.name: value for value in self._session.get_outputs()}
        self._outputs = list(outputs)
        self._input_name = self._metadata.get(contract.KEY_INPUT, "")
        self._output_name = self._metadata.get(contract.KEY_OUTPUT, "")
        wanted = [(self._input_name, inputs, "input", contract.KEY_INPUT)]
        wanted += [(self._output_name, outputs, "output", contract.KEY_OUTPUT)]
        wanted += [(name, outputs, "output", name) for name in (contract.RELEVANCE, contract.EXPLAINED)]
        for name, held, kind, key in wanted:
            if name not in held:
                reason = f"claims to be an explainer, but its {kind} {name!r} ({key}) is missing"
                raise OnnxLrpError(Problem(self._name, reason, "convert the classifier again"))
        self._labels = _labels(self._metadata.get(contract.KEY_LABELS, ""))
        self._fixed_target = self._read_fixed_target(inputs)
        others = sorted(set(inputs) - {self._input_name, contract.TARGET})
        if others:
            reason = f"needs further inputs ({', '.join(others)}), and only {self._input_name} can be fed here"
            raise OnnxLrpError(Problem(self._name, reason, "run it with onnxruntime directly"))
        value = inputs[self._input_name]
        if value.type not in _DTYPES:
            reason = f"its input {value.name} is {value.type}"
            raise OnnxLrpError(Problem(self._name, reason, f"only {', '.join(_DTYPES)} can be explained"))
        self._dtype = np.dtype(_DTYPES[value.type])
        self._input_shape = tuple(axis if isinstance(axis, int) else None for axis in value.shape)
        shape = outputs[self._output_name].shape
        self._classes = shape[1] if len(shape) == 2 and isinstance(shape[1], int) else None

    def _read_fixed_target(self, inputs: dict[str, Any]) -> int | None:
        if contract.TARGET in inputs:
            return None
        choice = self._metadata.get(contract.KEY_TARGET, "")
        if choice == "predicted":
            return contract.PREDICTED
        if not choice.isdecimal():
            reason = f"has no input {contract.TARGET!r}, and its {contract.KEY_TARGET} is {choice!r}"
            raise OnnxLrpError(Problem(self._name, reason, "convert the classifier again"))
        return int(choice)


def _labels(text: str) -> list[str] | None:
    """The class names in the metadata, None where there are none."""
    if not text:
        return None
    try:
        labels = json.loads(text)
    except ValueError:
        labels = None
    if not isinstance(labels, list):
        reason = f"the metadata {contract.KEY_LABELS} is no JSON list"
        raise OnnxLrpError(Problem("model", reason, "convert the model again with --labels"))
    return [str(label) for label in labels]


def _convert(path_or_model: ModelLike, proto: onnx.ModelProto, options: dict[str, Any]) -> onnx.ModelProto:
    """The explainer for a plain classifier."""
    from onnxlrp.explain.convert import convert  # late: running an explainer needs none of the machinery behind it

    model: onnx.ModelProto = convert(proto if isinstance(path_or_model, bytes) else path_or_model, **options).model
    if contract.KEY_CONTRACT not in metadata_of(model):
        raise RunError(Problem("model", "the conversion gave no explainer", "report this as a bug of onnxlrp"))
    return model

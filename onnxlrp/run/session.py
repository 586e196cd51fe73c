"""An explainer in ONNX Runtime: a batch goes in, logits and relevance come out.

Everything the session needs to know it reads from the model itself: the contract's metadata and the declared shapes. A
plain classifier is converted in memory first.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt
import onnx

from onnxlrp import contract
from onnxlrp.errors import OnnxLrpError, Problem, RunError, raise_if_any
from onnxlrp.explain.convert import convert
from onnxlrp.explain.options import Keywords
from onnxlrp.graph import weights
from onnxlrp.run.binding import Binding, shapes_of
from onnxlrp.run.feeding import Array, Conditions, Feeds, check_range, checked_batch, feeds_for
from onnxlrp.run.forward import forward_only
from onnxlrp.run.preparing import Fitted, fit, layout_of
from onnxlrp.run.reading import metadata_of, read_model
from onnxlrp.run.runtime import ModelLike, open_session, run_session, telling
from onnxlrp.run.signature import read_signature


@dataclass(frozen=True)
class Explanation:
    """What an explainer says of a batch of N inputs, K classes.

    `logits` [N, K] is the explained output (log-odds or, where `scores` says so, probabilities), `target` int64 [N] the
    class that was explained, `relevance` has the shape of the input, `outputs` holds every output of the model by name.
    An explainer of several targets an input has `target` [N, T] and `relevance` [N, T, …].
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
        if self.scores == "log-probabilities":
            return np.asarray(np.exp(scores))
        if scores.shape[1] == 1:
            return np.asarray(1.0 / (1.0 + np.exp(-np.clip(scores, -700.0, 700.0))))
        shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
        return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


class Explainer:
    """An explainer opened in ONNX Runtime.

    `path_or_model` is a file, its bytes or a ModelProto; a plain classifier is converted in memory, with
    `convert_options` for `onnxlrp.convert` (`composite="epsilon_plus"`, …). `device` is "auto" (CUDA where it really
    runs, else the CPU), "cpu" or "cuda". `batch_size` is how many inputs a run on CUDA takes, fewer being filled up, so
    that what was planned and allocated for one shape serves all; a model's own fixed size goes before. Raises
    `OnnxLrpError` where the model is no classifier that can be explained, breaks the contract, or the device is not
    there.
    """

    def __init__(
        self,
        path_or_model: ModelLike,
        device: str = "auto",
        batch_size: int | None = None,
        **convert_options: Unpack[Keywords],
    ) -> None:
        proto, name = read_model(path_or_model)
        metadata = metadata_of(proto)
        self._stated = metadata.get(contract.KEY_PREPROCESS)
        self._converted = contract.KEY_CONTRACT not in metadata
        self._folder = Path(name).resolve().parent if isinstance(path_or_model, (str, Path)) else None
        self._source: ModelLike = path_or_model
        if self._converted:
            self._source = proto = _convert(path_or_model, proto, convert_options)
            metadata = metadata_of(proto)
        elif convert_options:
            given = ", ".join(sorted(convert_options))
            reason = f"is an explainer already, so {given} cannot be chosen any more"
            raise OnnxLrpError(Problem(name, reason, "convert the original classifier again"))
        elif self._folder is not None:  # of a model in memory ONNX Runtime says what it misses
            raise_if_any(weights.problems(proto, self._folder))
        self._metadata = metadata
        opened = open_session(self._source, device, self._folder, name)
        self._session, self._provider, self._reason = opened.session, opened.provider, opened.reason
        self._batch_size = batch_size if opened.provider == "CUDA" else None
        self._binding: Binding | None = None
        self._signature = read_signature(name, metadata, self._session.get_inputs(), self._session.get_outputs())

    def __repr__(self) -> str:
        return f"Explainer({self.name!r}, provider={self.provider!r}, input_shape={self.input_shape})"

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
        return self._signature.name

    @property
    def converted(self) -> bool:
        """Whether a plain classifier was given, and converted in memory."""
        return self._converted

    @property
    def input_name(self) -> str:
        """The name of the input that is explained."""
        return self._signature.image

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """The declared shape of that input, batch first; None where an axis is free."""
        return self._signature.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of that input: a float, or uint8 where it takes pixels (`--embed-preprocessing`)."""
        return self._signature.dtype

    @property
    def takes_pixels(self) -> bool:
        """Whether that input is whole pixels, uint8, and the pre-processing is in the graph."""
        return self.dtype.kind != "f"

    @property
    def output_name(self) -> str:
        """The name of the output that is explained."""
        return self._signature.output

    @property
    def preprocessing(self) -> contract.Preprocessing | None:
        """How a picture becomes the input, or None where the model does not say."""
        text = self._metadata.get(contract.KEY_PREPROCESS)
        return contract.Preprocessing.from_json(text, self.name) if text else None

    @property
    def layout(self) -> contract.Layout:
        """Where the input's channels are: as its shape gives away, else as the pre-processing says, else "NCHW"."""
        return layout_of(self.input_shape, self.preprocessing)

    def fit(self, preprocess: str | None = None) -> Fitted:
        """How pictures become the input; `preprocess` names a preset (`--preprocess`) to go before what the model says.

        Raises `OnnxLrpError` where the input is no picture's, the preset does not fit it, or there is none to choose.
        """
        if preprocess is None:
            return fit(self.input_shape, self.preprocessing)
        if self.takes_pixels:
            reason = f"{self.name} takes whole pixels, for its pre-processing is in the graph"
            raise OnnxLrpError(Problem(f"--preprocess {preprocess}", reason, "leave --preprocess out"))
        # As the file has it: what a conversion in memory states is the preset itself.
        stated = contract.Preprocessing.from_json(self._stated, self.name) if self._stated else None
        return fit(self.input_shape, stated, preprocess)

    @property
    def labels(self) -> list[str] | None:
        """The names of the K classes, or None where the model does not carry them."""
        return None if self._signature.labels is None else list(self._signature.labels)

    @property
    def classes(self) -> int | None:
        """K, the number of classes, where the model declares it."""
        return self._signature.classes

    @property
    def scores(self) -> str:
        """What the explained output holds: "logits", "probabilities" or "log-probabilities"."""
        return self._metadata.get(contract.KEY_SCORES, "logits")

    @property
    def composite(self) -> str:
        """The name of the composite (which rule for which layer) behind the relevance."""
        return self._metadata.get(contract.KEY_COMPOSITE, "")

    @property
    def start(self) -> str:
        """Where relevance starts: "logit", "one-hot", "contrastive", "softmax-gradient" or "fed"."""
        return self._metadata.get(contract.KEY_START, "logit")

    @property
    def rules(self) -> dict[str, str]:
        """The rule of every layer on the way, as the model's metadata has it; {} where it does not say."""
        rules: dict[str, str] = json.loads(self._metadata.get(contract.KEY_RULES) or "{}")
        return rules

    @property
    def taps(self) -> list[str]:
        """The outputs that hold relevance of inner tensors, in the model's order."""
        return self._signature.taps

    @property
    def fixed_target(self) -> int | None:
        """The choice baked into the model (-1 for the predicted class); None where the caller chooses."""
        return self._signature.fixed_target

    @property
    def targets_per_input(self) -> int | None:
        """How many classes of each input one run explains (`--targets-per-input`); None for one."""
        return self._signature.targets_per_input

    @property
    def fed(self) -> bool:
        """Whether relevance starts from an input of its own (`--start fed`) rather than from a class."""
        return self._signature.fed

    @property
    def conditions(self) -> dict[str, int]:
        """{layer: its number of channels} for the layers whose channels can be chosen (`--condition LAYER=input`)."""
        return dict(self._signature.conditions)

    def explain(
        self,
        batch: npt.NDArray[Any],
        target: int | npt.ArrayLike | None = None,
        *,
        start: npt.ArrayLike | None = None,
        conditions: Conditions | None = None,
    ) -> Explanation:
        """Explain `batch` [N, …], already pre-processed, for `target`: None for the predicted class, one class, or [N].

        An explainer of several targets an input (`targets_per_input`) takes [N, T], or [T] for all inputs alike; one
        that is `fed` takes, instead of a target, `start` [N, K] or [K]: the relevance of each class score to begin
        with. `conditions` {layer: mask [N, C] or [C]} says how much of each channel's relevance passes (0 none, 1 all)
        at the layers of `.conditions`; at those not mentioned everything passes.

        A model whose batch size is fixed gets the batch in pieces, the last one filled up. Raises `OnnxLrpError` where
        something does not fit the model, and `RunError` where the runtime gives up.
        """
        feeds = feeds_for(self._signature, batch, target, start, conditions)
        outputs = self._run(self._all_outputs, feeds)
        count = len(feeds[self.input_name])
        logits = outputs[self.output_name].reshape(count, -1)
        if contract.TARGET in feeds:
            check_range(feeds[contract.TARGET], logits.shape[1])
        many = self.targets_per_input
        explained = outputs[contract.EXPLAINED].astype(np.int64).reshape((count,) if many is None else (count, many))
        return Explanation(logits, explained, outputs[contract.RELEVANCE], outputs, self.scores)

    def predict(self, batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The explained output [N, K] for `batch`, without relevance: as fast as the classifier alone.

        The first call opens a second session, with the classifier's nodes only. Raises as `explain`.
        """
        images = checked_batch(self._signature, np.asarray(batch))
        classifier = functools.partial(run_session, self._classifier)
        scores = self._run(classifier, {self.input_name: images})[self.output_name]
        return scores.reshape(len(images), -1)

    @functools.cached_property
    def _classifier(self) -> Any:
        """A session of the classifier alone, on the device of the explainer."""
        proto = forward_only(read_model(self._source)[0], self.output_name)
        return open_session(proto, self.provider.lower(), self._folder, self.name).session

    def _all_outputs(self, feeds: Feeds) -> dict[str, Array]:
        """One run of the explainer: on CUDA through buffers that are kept for feeds of the same shape."""
        if self._batch_size is None:
            return run_session(self._session, feeds)
        if self._binding is None or self._binding.shapes != shapes_of(feeds):
            self._binding = Binding(self._session, self.provider.lower(), feeds, self._signature.outputs)
        with telling():
            return self._binding.run(feeds)

    def _run(self, run: Callable[[Feeds], dict[str, Array]], feeds: Feeds) -> dict[str, Array]:
        """Every output for all rows of `feeds`, in pieces where the batch size is fixed."""
        count = len(feeds[self.input_name])
        size = self.input_shape[0] or self._batch_size or count
        pieces = [
            _run_piece(run, {name: rows[first : first + size] for name, rows in feeds.items()}, size)
            for first in range(0, count, size)
        ]
        return pieces[0] if len(pieces) == 1 else _joined(pieces)


def _run_piece(run: Callable[[Feeds], dict[str, Array]], feeds: Feeds, size: int) -> dict[str, Array]:
    """Every output for at most `size` rows, filled up to `size` for the run and cut again after it."""
    count = len(next(iter(feeds.values())))
    filled = {
        name: np.concatenate([rows, np.repeat(rows[-1:], size - count, axis=0)]) if count < size else rows
        for name, rows in feeds.items()
    }
    outputs = {name: np.atleast_1d(output) for name, output in run(filled).items()}
    # A tap behind a reshape may hold several rows a sample.
    return {name: output[: count * max(1, len(output) // size)] for name, output in outputs.items()}


def _joined(pieces: Sequence[dict[str, Array]]) -> dict[str, Array]:
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def _convert(path_or_model: ModelLike, proto: onnx.ModelProto, options: Keywords) -> onnx.ModelProto:
    """The explainer for a plain classifier."""
    model: onnx.ModelProto = convert(proto if isinstance(path_or_model, bytes) else path_or_model, **options).model
    if contract.KEY_CONTRACT not in metadata_of(model):
        raise RunError(Problem("model", "the conversion gave no explainer", "report this as a bug of onnxlrp"))
    return model

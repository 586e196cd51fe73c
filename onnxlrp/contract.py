"""The explainer's contract: the names and the metadata on which other stacks depend. Version 1.

An explainer is a classifier with one more input (`target`) and more outputs (`relevance`, `explained`, …). What a host
program must know beyond tensors (pre-processing, class names, the rules used) travels in the model's metadata, as JSON
where it is not a plain word.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any, Literal

from onnxlrp.errors import OnnxLrpError, Problem

VERSION = 1

TARGET = "target"  # in:  int64 [N], the class to explain per sample, -1 = the predicted one
RELEVANCE = "relevance"  # out: as the image input, relevance of each of its elements
START = "start"  # in:  float [N, K], the relevance of each class score to start from (only with --start fed)
CONDITION = "condition"  # in:  float [N, C], condition/<layer>, the channels that relevance may pass (optional)
EXPLAINED = "explained"  # out: int64 [N], the class that was explained
HEATMAP = "heatmap"  # out: [N, H, W], relevance summed over channels (optional)
RENDER = "render"  # out: uint8 [N, H, W, 3], relevance as an RGB picture (optional)
PIXELS = "pixels"  # in:  uint8 [N, H, W, 3] in RGB, in place of the image input (with --embed-preprocessing)
PREDICTED = -1  # the value of `target` that asks for the predicted class


def package_version() -> str:
    """The version of onnxlrp that is running."""
    try:
        return metadata.version("onnxlrp")
    except metadata.PackageNotFoundError:  # a checkout that is not installed
        return "0+checkout"


def condition_name(layer: str) -> str:
    """The name of the input that masks the channels of `layer`."""
    return f"{CONDITION}/{layer}"


def tap_name(tensor: str) -> str:
    """The name of the output that holds the relevance of the inner tensor `tensor`."""
    return f"{RELEVANCE}/{tensor}"


# Keys of the model's metadata_props.
KEY_CONTRACT = "onnxlrp.contract"  # "1": only explainers carry it
KEY_VERSION = "onnxlrp.version"  # the onnxlrp that wrote the file
KEY_COMPOSITE = "onnxlrp.composite"  # the composite's name
KEY_RULES = "onnxlrp.rules"  # JSON {layer: rule}
KEY_INPUT = "onnxlrp.input"  # name of the input explained
KEY_OUTPUT = "onnxlrp.output"  # name of the output explained
KEY_SCORES = "onnxlrp.scores"  # "logits" | "probabilities" | "log-probabilities": what that output holds
KEY_TARGET = "onnxlrp.target"  # "input" | "predicted" | "3" | "fed": where the explained class comes from
KEY_START = "onnxlrp.start"  # "logit", "one-hot", …: the relevance of the class to start from
KEY_PREPROCESS = "onnxlrp.preprocess"  # JSON of `Preprocessing`
KEY_LABELS = "onnxlrp.labels"  # JSON list of class names
KEY_RUNTIME = "onnxlrp.runtime"  # "opencv", …: what the graph is written for; not there where it is written for any

# Rec. 601, which Pillow's own grey conversion uses: a colour picture of a grey scan gives the scan back.
LUMINANCE = (0.299, 0.587, 0.114)

Layout = Literal["NCHW", "NHWC"]
ColorOrder = Literal["RGB", "BGR", "L"]


CHANNELS = (1, 3, 4)  # how many a picture can have


def told_layout(shape: Sequence[object]) -> Layout | None:
    """Where the channels of an input [N, …] are, as its shape gives away: at that end, first or last, which has as few
    as a picture; None where both or neither have."""
    if len(shape) < 3:
        return None
    first, last = shape[1] in CHANNELS, shape[-1] in CHANNELS
    if first == last:
        return None
    return "NCHW" if first else "NHWC"


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the classifier's input: resize, order the colours, then (pixel / scale - mean) / std.

    `size` is (H, W) in pixels, or None to keep the picture's own. Pixels are 0..255; `scale` divides them first. `mean`
    and `std` are per channel in the order of `color_order`, in units of pixel / scale. "L" is a single grey channel.
    """

    size: tuple[int, int] | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    color_order: ColorOrder = "RGB"
    layout: Layout = "NCHW"
    scale: float = 255.0

    def bounds(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The lowest and highest value an input can have, per channel: black and white pixels after normalisation."""
        low = tuple((0.0 - m) / s for m, s in zip(self.mean, self.std, strict=True))
        return low, tuple((255.0 / self.scale - m) / s for m, s in zip(self.mean, self.std, strict=True))

    def to_json(self) -> str:
        """The value stored under `KEY_PREPROCESS`."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str, name: str = "model") -> Preprocessing:
        """Read what `to_json` wrote; raises `OnnxLrpError` about the model `name` where a field is unknown or of the
        wrong form."""
        try:
            fields: dict[str, Any] = json.loads(text)
            size = fields.get("size")
            fields["size"] = (int(size[0]), int(size[1])) if size else None
            for key in ("mean", "std"):
                if key in fields:
                    fields[key] = tuple(float(v) for v in fields[key])
            return cls(**fields)
        except (ValueError, TypeError, KeyError, IndexError) as error:
            reason = f"the metadata {KEY_PREPROCESS} cannot be read ({error})"
            raise OnnxLrpError(Problem(name, reason, "convert the classifier with --preprocess")) from error


PREPROCESS_PRESETS: Mapping[str, Preprocessing] = {
    "imagenet": Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    "unit": Preprocessing(),
    "caffe": Preprocessing(mean=(103.939, 116.779, 123.68), std=(1.0, 1.0, 1.0), color_order="BGR", scale=1.0),
    "none": Preprocessing(scale=1.0),
}

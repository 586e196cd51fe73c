"""What `convert` and `plan` ask in the same words, and how the words are read."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from onnxlrp.contract import PREPROCESS_PRESETS, Preprocessing
from onnxlrp.errors import OnnxLrpError, Problem, closest
from onnxlrp.explain.edits import INPUT
from onnxlrp.explain.options import MAX_POOL, RESIDUAL
from onnxlrp.explain.presets import DEFAULT
from onnxlrp.explain.render import RENDER
from onnxlrp.explain.runtimes import PORTABLE, RUNTIMES
from onnxlrp.explain.target import STARTS, Target
from onnxlrp.look import DEFAULT as COLOURS
from onnxlrp.look import NAMES, ONE_SIDED

Command = Callable[..., Any]
ONE_SIDED_SAID = f"{' and '.join(ONE_SIDED)} do not show negative relevance"
PRESETS_SAID = (
    "imagenet: 0..1, then ImageNet's mean and std; unit: 0..1; caffe: BGR in 0..255, less ImageNet's mean; "
    "none: 0..255 as they are."
)
PICTURE_OPTIONS = ("preprocess", "mean", "std", "scale", "size", "layout", "color_order")


class Word(click.Choice):
    """One of several words; another is refused with the closest of them."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The word; raises `click.BadParameter`."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            remedy = closest(str(value), [str(c) for c in self.choices])
            raise click.BadParameter(f"{error.message} {remedy[:1].upper()}{remedy[1:]}".strip(), ctx, param) from None


class Place(click.Path):
    """A file or folder. The empty path, which would be the folder one is in, is refused: a variable was not set."""

    def __init__(self) -> None:
        super().__init__(readable=False)  # whether it can be read, whoever reads it says

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path; raises `OnnxLrpError`."""
        if value == "" and param is not None:
            name = param.human_readable_name if isinstance(param, click.Argument) else param.opts[0]
            reason = "names no file or folder"
            raise OnnxLrpError(Problem(f"{name} ''", reason, "check that the variable is set"))
        return super().convert(value, param, ctx)


def _all(*options: Command) -> Callable[[Command], Command]:
    """One decorator of several, in the order in which --help shows them."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


what_to_explain = _all(
    click.option(
        "--composite", default=DEFAULT, show_default=True, metavar="NAME|FILE",
        help="Which layer gets which rule: a name that `onnxlrp composites` lists, or a TOML file.",
    ),
    click.option(
        "--rule", "rules", multiple=True, metavar="PATTERN=RULE",
        help="Rule for layers whose name or operator matches; may be repeated, wins over the composite.",
    ),
    click.option(
        "--residual", metavar="MODE",
        help=f"How a residual sum shares relevance: {', '.join(RESIDUAL)}.  [default: as the composite says]",
    ),
    click.option("--max-pool", metavar="MODE", help=f"Relevance at max pooling: {' or '.join(MAX_POOL)}."),
    click.option("--start", metavar="KIND", help=f"Where relevance starts: {', '.join(STARTS)}."),
    click.option(
        "--keep", type=float, metavar="FRACTION",
        help="Keep only this fraction of relevance, the largest values, at each weighted layer.",
    ),
    click.option(
        "--optimize", metavar="LEVEL", default="exact", show_default=True,
        help="exact: leave out what is known to vanish; none: emit every term, for finding faults.",
    ),
    click.option(
        "--condition", "conditions", multiple=True, metavar="LAYER=CHANNELS",
        help="Relevance passes only these channels of a layer (3,17,42), or those that an input chooses (input).",
    ),
    click.option("--input", metavar="NAME", help="The image input, where the model has several."),
    click.option("--output", "output", metavar="NAME", help="The class scores, where the model has several outputs."),
    click.option(
        "--input-shape", metavar="N,C,H,W", callback=lambda c, p, v: read_shape(v),
        help="Sizes for an input that leaves them open; N stands for a batch of any size.",
    ),
)  # fmt: skip

what_to_return = _all(
    click.option(
        "--target-runtime", type=Word(list(RUNTIMES)), default=PORTABLE, show_default=True,
        help="What will run the explainer: it is written as that one likes it best.",
    ),
    click.option(
        "--tap", "taps", multiple=True, metavar="PATTERN",
        help="Also return relevance at matching layers; `all` for every one.",
    ),
    click.option("--activations", multiple=True, metavar="PATTERN", help="Also return matching intermediate tensors."),
    click.option(
        "--target", default="input", metavar="input|predicted|N", show_default=True,
        help="Where the class to explain comes from: an input of the explainer, the prediction, or always class N.",
    ),
    click.option("--targets-per-input", type=int, metavar="K", help="Explain K classes of each input in one run."),
    click.option("--heatmap", is_flag=True, help="Also return relevance summed over channels."),
    click.option("--render", metavar="STYLE", help=f"Also draw a picture, uint8 [N, H, W, 3]: {' or '.join(RENDER)}."),
    click.option(
        "--cmap", metavar="NAME", default=COLOURS, show_default=True,
        help=f"Its colours: {', '.join(NAMES)}; {ONE_SIDED_SAID}.",
    ),
    click.option("--embed-preprocessing", is_flag=True, help="Take pixels, uint8 [N, H, W, 3] in RGB, as the input."),
)  # fmt: skip

how_pictures_enter = _all(
    click.option(
        "--preprocess", type=Word(list(PREPROCESS_PRESETS)),
        help=f"How pixels become the input; the options below change parts. {PRESETS_SAID}",
    ),
    click.option("--mean", metavar="R,G,B", help="Subtracted from pixel / scale, one value or one a channel."),
    click.option("--std", metavar="R,G,B", help="Divides what is left, one value or one a channel."),
    click.option("--scale", type=float, help="Divides pixels (0 to 255) first."),
    click.option("--size", metavar="H,W", help="Height and width in pixels."),
    click.option("--layout", type=Word(["NCHW", "NHWC"]), help="Channels first or last."),
    click.option("--color-order", type=Word(["RGB", "BGR", "L"]), help="Order of the channels; L is grey."),
)  # fmt: skip


def read_options(given: dict[str, Any]) -> dict[str, Any]:
    """The words of all groups of options as keyword arguments of `onnxlrp.convert`."""
    named = {k: given.pop(k) for k in PICTURE_OPTIONS}
    rules, conditions = read_rules(given.pop("rules")), read_conditions(given.pop("conditions"))
    read = {"rules": rules, "conditions": conditions, "target": read_target(given.pop("target"))}
    return {**given, **read, "preprocess": read_preprocessing(**named)}


def read_target(text: str) -> Target:
    """input, predicted or a class number; other words are left for `convert` to refuse."""
    return int(text) if is_number(text.removeprefix("-")) else text  # type: ignore[return-value]


def read_conditions(conditions: Sequence[str]) -> dict[str, list[int] | str]:
    """--condition LAYER=CHANNELS, as {layer: channels}."""
    found: dict[str, list[int] | str] = {}
    for text in conditions:
        layer, _, channels = text.rpartition("=")
        numbers = [c.strip() for c in channels.split(",")]
        if not layer or not (channels == INPUT or all(is_number(c) for c in numbers)):
            reason = "is not of the form LAYER=CHANNELS"
            raise OnnxLrpError(
                Problem(f"--condition {text}", reason, "for example --condition 'layer4=3,17' or layer4=input")
            )
        _refuse_again(f"--condition {text}", layer, found)
        found[layer] = INPUT if channels == INPUT else [int(c) for c in numbers]
    return found


def _refuse_again(option: str, pattern: str, found: Mapping[str, object]) -> None:
    """Raise `OnnxLrpError` where a pattern was given before: of two wishes for the same layers one would be lost."""
    if pattern in found:
        raise OnnxLrpError(Problem(option, f"'{pattern}' was given before", "give it once"))


def read_rules(rules: Sequence[str]) -> dict[str, str]:
    """--rule PATTERN=RULE, as {pattern: rule}."""
    found: dict[str, str] = {}
    for text in rules:
        pattern, equals, rule = text.partition("=")
        if not equals or not pattern or not rule:
            reason = "is not of the form PATTERN=RULE"
            raise OnnxLrpError(Problem(f"--rule {text}", reason, "for example --rule 'Conv=gamma(0.1)'"))
        _refuse_again(f"--rule {text}", pattern, found)
        found[pattern] = rule
    return found


def read_shape(text: str | None) -> list[int | None] | None:
    """N,3,224,224 as [None, 3, 224, 224]."""
    if text is None:
        return None
    parts = [p.strip() for p in text.replace("x", ",").split(",")]
    if not all(is_number(p) or (i == 0 and p in ("N", "n", "-1")) for i, p in enumerate(parts)):
        raise OnnxLrpError(Problem(f"--input-shape {text}", "is not of the form N,C,H,W", "for example N,3,224,224"))
    return [int(p) if is_number(p) and int(p) else None for p in parts]


def is_number(text: str) -> bool:
    """Whether the text is a whole number in plain digits; `str.isdigit` takes superscripts too, which int() refuses."""
    return re.fullmatch("[0-9]+", text) is not None


def read_preprocessing(
    preprocess: str | None, mean: str | None, std: str | None, scale: float | None, size: str | None,
    layout: str | None, color_order: str | None,
) -> Preprocessing | None:  # fmt: skip
    """What the options say of how a picture becomes the input; None where they say nothing."""
    given: dict[str, Any] = {"layout": layout, "color_order": color_order}
    given["mean"] = _numbers("--mean", mean)
    given["std"] = _numbers("--std", std, positive=True)
    given["scale"] = None if scale is None else _checked("--scale", str(scale), [scale], positive=True)[0]
    given["size"] = _size(size)
    changes = {k: v for k, v in given.items() if v is not None}
    if preprocess is None and not changes:
        return None
    return dataclasses.replace(PREPROCESS_PRESETS[preprocess or "unit"], **changes)


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    parts = [p.strip() for p in text.replace("x", ",").split(",")]
    if len(parts) > 2 or not all(is_number(p) and int(p) for p in parts):
        raise OnnxLrpError(Problem(f"--size {text}", "is not a height and width in pixels", "for example 224,224"))
    return int(parts[0]), int(parts[-1])


def _numbers(option: str, text: str | None, positive: bool = False) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        values = [float(v) for v in text.split(",")]
    except ValueError:
        remedy = "give numbers separated by commas, for example 0.485,0.456,0.406"
        raise OnnxLrpError(Problem(f"{option} {text}", "is not a list of numbers", remedy)) from None
    return _checked(option, text, values, positive)


def _checked(option: str, text: str, values: Sequence[float], positive: bool) -> tuple[float, ...]:
    """The values as a tuple; raises `OnnxLrpError` where pixels cannot be shifted or divided by them."""
    if not all(map(math.isfinite, values)):
        raise OnnxLrpError(Problem(f"{option} {text}", "is not a finite number", "give the model's own value"))
    if positive and min(values) <= 0:
        reason = "is not above 0, and pixels are divided by it"
        raise OnnxLrpError(Problem(f"{option} {text}", reason, "give the model's own value"))
    return tuple(values)


def read_labels(path: str | None) -> list[str] | None:
    """Class names from a file: one a line, a JSON list, or a JSON object {number: name}."""
    if path is None:
        return None
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        remedy = "give a text file with one class name a line"
        raise OnnxLrpError(Problem(f"--labels {path}", f"cannot be read ({error.strerror})", remedy)) from None
    except UnicodeDecodeError:
        reason = "cannot be read (it is not UTF-8 text)"
        raise OnnxLrpError(Problem(f"--labels {path}", reason, "save it as text in UTF-8")) from None
    if text.lstrip().startswith(("[", "{")):
        return _json_labels(path, text)
    return [line.strip() for line in text.splitlines() if line.strip()]


def _json_labels(path: str, text: str) -> list[str]:
    remedy = 'write a list ["cat", "dog"] or an object {"0": "cat", "1": "dog"}'
    try:
        given = json.loads(text, parse_constant=lambda word: None)  # NaN and the like are no names
        if isinstance(given, dict):
            given = [given[str(i)] for i in range(len(given))]
    except (ValueError, KeyError, RecursionError):
        raise OnnxLrpError(Problem(f"--labels {path}", "is not JSON with one name for every class", remedy)) from None
    names = [entry if isinstance(entry, list) else [entry] for entry in given]  # Keras has [identifier, name]
    for number, words in enumerate(names):
        if not words or not all(type(word) in (str, int, float) for word in words):
            reason = f"class {number} is {json.dumps(given[number])[:40]}, which is no name"
            raise OnnxLrpError(Problem(f"--labels {path}", reason, remedy))
    return [" ".join(map(str, words)) for words in names]

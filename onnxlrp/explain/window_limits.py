"""Where windows lie, as some runtimes see it otherwise than onnx: finders for the table in `runtimes`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from onnx import NodeProto

from onnxlrp.explain.limits import Finder, Found, Seen
from onnxlrp.graph.facts import attributes, describe
from onnxlrp.layers.window import Axis, same

POOLS = ("MaxPool", "AveragePool")


def same_pads(seen: Seen) -> Iterator[Found]:
    """auto_pad where what onnx puts before the input is not half of what a window reaches beyond its first element."""
    for node, axes in _automatic(seen, "Conv", *POOLS):
        for a in axes:
            if a.before != (a.extent - 1) // 2:
                yield describe(node), f"auto_pad puts {a.before} before and {a.after} behind {a.size} elements"
                break


def same_gaps(seen: Seen) -> Iterator[Found]:
    """auto_pad where windows end before the input does, so that there is nothing to pad: any such pooling, and
    convolutions of which so much is left over that half of it is more than one element."""
    for node, axes in _automatic(seen, "Conv", *POOLS):
        lower = attributes(node)["auto_pad"] == "SAME_LOWER"
        for a in axes:
            if (a.overhang + lower) // 2 < -1 if node.op_type == "Conv" else a.overhang < 0:
                yield describe(node), f"auto_pad, with {-a.overhang} of {a.size} elements left over"
                break


def hanging_averages(padded: bool) -> Finder:
    """Averages that count padding, with a last window that hangs over it; only where there is padding, if `padded`."""

    def find(seen: Seen) -> Iterator[Found]:
        for node in seen.running("AveragePool"):
            given = attributes(node)
            if not given.get("ceil_mode") or not given.get("count_include_pad"):
                continue
            axes = [replace(a, out=a.out - _left_out(a)) for a in _axes(seen, node)]
            if any(a.overhang > a.after for a in axes) and (not padded or any(a.before or a.after for a in axes)):
                yield describe(node), "counts padding, and its last window hangs over"

    return find


def windows_left_out(*op_types: str) -> Finder:
    """Poolings with ceil_mode whose last window would lie in the padding: onnx does not count it from opset 22 on."""

    def find(seen: Seen) -> Iterator[Found]:
        for node in seen.running(*op_types):
            if attributes(node).get("ceil_mode") and any(map(_left_out, _axes(seen, node))):
                yield describe(node), "its last window would lie in the padding"

    return find


def single_columns(seen: Seen) -> Iterator[Found]:
    """Convolutions of one channel, of several rows, by steps along the last axis alone of which only one fits; not by a
    step of the whole width, and not where there are but two results."""
    for node in seen.running("Conv"):
        axes = _axes(seen, node)
        if len(axes) == 2 and (seen.shape(node.input[1]) or [0, 0])[1] == 1 and attributes(node).get("group", 1) == 1:
            rows, columns = axes
            steps = rows.stride == 1 and columns.stride not in (1, columns.before + columns.size + columns.after)
            if steps and columns.out == 1 and rows.kernel > 1 and rows.out > 2:
                yield describe(node), f"a single column of results, by steps of {columns.stride} from one channel"


def _left_out(a: Axis) -> bool:
    return a.stride * (a.out - 1) >= a.before + a.size


def _automatic(seen: Seen, *op_types: str) -> Iterator[tuple[NodeProto, list[Axis]]]:
    """Nodes that leave padding to auto_pad, and their axes."""
    for node in seen.running(*op_types):
        if attributes(node).get("auto_pad") in ("SAME_UPPER", "SAME_LOWER"):
            yield node, _axes(seen, node)


def _axes(seen: Seen, node: NodeProto) -> list[Axis]:
    """Where a node's windows lie, with those that are left out; nothing where a size is open. An explainer has none
    open that windows slide along."""
    given, sizes = attributes(node), (seen.shape(node.input[0]) or [])[2:]
    kernel = given.get("kernel_shape") or (seen.shape(node.input[1]) or [])[2:]
    if len(sizes) != len(kernel):
        return []
    rank, mode, axes = len(sizes), given.get("auto_pad", "NOTSET"), []
    pads = (given.get("pads") if mode == "NOTSET" else None) or [0] * 2 * rank
    strides, dilations = given.get("strides") or [1] * rank, given.get("dilations") or [1] * rank
    for i, (n, k) in enumerate(zip(sizes, kernel, strict=True)):
        if n is None or k is None:
            return []
        a = Axis(n, 0, k, strides[i], dilations[i], pads[i], pads[rank + i])
        if mode in ("SAME_UPPER", "SAME_LOWER"):
            axes.append(same(replace(a, out=-(-n // a.stride)), mode))
            continue
        room = a.before + n + a.after - a.extent
        axes.append(replace(a, out=1 + (-(-room // a.stride) if given.get("ceil_mode") else room // a.stride)))
    return axes

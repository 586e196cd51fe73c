"""The explainer put together: the classifier as it was, the relevance part appended, and our own output distrusted."""

from __future__ import annotations

import json
from collections.abc import Sequence

import onnx
from onnx import ModelProto, NodeProto, helper

from onnxlrp import contract
from onnxlrp.explain import choose, pixels
from onnxlrp.explain.emit import Part, Port
from onnxlrp.explain.examine import Study
from onnxlrp.explain.pixels import Entrance
from onnxlrp.explain.runtimes import PORTABLE
from onnxlrp.graph.facts import BATCH, Facts
from onnxlrp.graph.model import skeleton

IR = 8  # the lowest that opset 17 needs; what exporters write by default is newer than runtimes read


def assemble(study: Study, part: Part) -> ModelProto:
    """The classifier's proto with the relevance part appended to it, checked.

    The forward nodes stay first, in order and byte for byte (but for what makes their image out of pixels, which goes
    before them); the checker and strict shape inference accept the whole.
    """
    proto = study.model.proto
    graph = proto.graph
    before = frozen(graph.node)
    weights = {t.name for t in graph.initializer}
    inputs = [v for v in graph.input if v.name not in weights]
    del graph.input[:]
    graph.input.extend(inputs)
    _declare_input_shape(graph, study.facts)
    batch = _batch(graph, study.facts.image)
    _enter(graph, part.entrance, study.facts.image, batch)
    graph.node.extend(part.nodes)
    graph.initializer.extend(part.constants)
    graph.input.extend(_value_info(p, batch) for p in part.inputs)
    graph.output.extend(_value_info(p, batch) for p in [*part.outputs, *_activations(study)])
    proto.ir_version = max(proto.ir_version, IR)
    helper.set_model_props(proto, {**study.model.metadata, **_metadata(study)})
    onnx.checker.check_model(skeleton(proto), full_check=True)
    first = len(part.entrance.nodes) if part.entrance else 0
    if before != frozen(graph.node[first : first + len(before)]):
        raise AssertionError("the classifier's nodes were changed")
    return proto


def frozen(nodes: Sequence[NodeProto]) -> list[bytes]:
    """Nodes as bytes, for telling whether two graphs are the same."""
    return [n.SerializeToString(deterministic=True) for n in nodes]


def signature(values: Sequence[onnx.ValueInfoProto]) -> list[str]:
    """Graph inputs or outputs as a person reads them: `relevance float32 [N, 3, 224, 224]`."""
    described = []
    for value in values:
        if not value.type.HasField("tensor_type"):
            described.append(f"{value.name} ({value.type.WhichOneof('value')})")
            continue
        kind = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name
        dims = ", ".join(d.dim_param or str(d.dim_value) for d in value.type.tensor_type.shape.dim)
        described.append(f"{value.name} {kind} [{dims}]")
    return described


def _batch(graph: onnx.GraphProto, image: str) -> str:
    """What the classifier calls a batch of open size, which the explainer's inputs and outputs call likewise."""
    value = next(v for v in graph.input if v.name == image)
    return value.type.tensor_type.shape.dim[0].dim_param or BATCH


def _enter(graph: onnx.GraphProto, entrance: Entrance | None, image: str, batch: str) -> None:
    """Make pixels the input in the image's place, and the image what the entrance's nodes compute."""
    if entrance is None:
        return
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*entrance.nodes, *nodes])
    graph.initializer.extend(entrance.constants)
    for value in graph.input:
        if value.name == image:
            value.CopyFrom(_value_info(Port(contract.PIXELS, onnx.TensorProto.UINT8, entrance.shape), batch))


def _value_info(port: Port, batch: str) -> onnx.ValueInfoProto:
    shape = [batch if d == BATCH else d for d in port.shape]
    return helper.make_tensor_value_info(port.name, port.element_type, shape)


def _activations(study: Study) -> list[Port]:
    """The intermediate tensors that the user wants to see, and the scores where they are one."""
    facts, listed = study.facts, {o.name for o in study.model.outputs}
    wanted = dict.fromkeys([study.output, *choose.activated(study.options.activations, study.model)])
    names = [n for n in wanted if n not in listed]
    return [Port(n, facts.element_type(n), facts.shape(n)) for n in names if facts.known(n)]


def _declare_input_shape(graph: onnx.GraphProto, facts: Facts) -> None:
    """Write the image input's shape where the classifier left it open and the user fixed it."""
    value = next(v for v in graph.input if v.name == facts.image)
    for dim, size in zip(value.type.tensor_type.shape.dim, facts.shape(facts.image), strict=True):
        if isinstance(size, int):
            dim.dim_value = size
        elif not dim.dim_param:
            dim.dim_param = size


def _metadata(study: Study) -> dict[str, str]:
    """What a host program must know beyond tensors."""
    options = study.options
    pairs = {
        contract.KEY_CONTRACT: str(contract.VERSION),
        contract.KEY_VERSION: contract.package_version(),
        contract.KEY_COMPOSITE: study.plan.composite,
        contract.KEY_RULES: json.dumps(study.plan.rules),
        contract.KEY_INPUT: contract.PIXELS if options.embed_preprocessing else study.facts.image,
        contract.KEY_OUTPUT: study.output,
        contract.KEY_SCORES: study.scores.shown,
        contract.KEY_TARGET: "fed" if study.start == "fed" else str(options.target),
        contract.KEY_START: study.start,
    }
    if options.preprocess is not None:
        left = pixels.after(options.preprocess) if options.embed_preprocessing else options.preprocess
        pairs[contract.KEY_PREPROCESS] = left.to_json()
    if options.labels is not None:
        pairs[contract.KEY_LABELS] = json.dumps(list(options.labels), ensure_ascii=False)
    if options.target_runtime != PORTABLE:
        pairs[contract.KEY_RUNTIME] = options.target_runtime
    return pairs

"""The product's pipeline with relevance fed where a test wants it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from unittest import mock

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper

from onnxlrp.explain.backward import propagate
from onnxlrp.explain.composite import Case, Composite
from onnxlrp.explain.plan import plan
from onnxlrp.explain.view import view
from onnxlrp.graph.build import Builder, Value, export
from onnxlrp.graph.facts import infer
from onnxlrp.graph.model import load
from onnxlrp.graph.tidy import tidy
from onnxlrp.layers.registry import Layer, Relevance
from onnxlrp.rules.catalogue import CATALOGUE
from onnxlrp.rules.rule import LinearRule, PoolingRule, Rule

from . import cases

PASS, NORM, WINNER = (CATALOGUE[name].make() for name in ("pass", "norm", "winner"))
FED = "fed"
NOTHING = "nothing"


@contextlib.contextmanager
def weights(folded: bool) -> Iterator[None]:
    """Whether weights as small as the cases' are folded when converting, or stay nodes as large ones do."""
    if folded:
        yield
        return
    limits = {"onnxlrp.graph.model.LARGE": 80, "onnxlrp.graph.build.FOLD_LIMIT": 12, "onnxlrp.graph.facts.FOLD_LIMIT": 12}
    with contextlib.ExitStack() as stack:
        for name, limit in limits.items():
            stack.enter_context(mock.patch(name, limit))
        yield


def layers_of(proto: ModelProto) -> tuple[Builder, list[Layer]]:
    """A builder for the model and its layers."""
    model = load(proto)
    build = Builder(infer(model, model.inputs[0].name))
    found, problems = view(build, model.outputs[0].name)
    assert not problems, problems
    return build, found


def extended(proto: ModelProto, build: Builder, outputs: Mapping[str, Value], fed: Sequence[Value]) -> ModelProto:
    """The model with what the builder made appended; `fed` are new inputs, `outputs` all of its outputs."""
    shown = [build.output(value, name) for name, value in outputs.items()]
    graph, constants, notes = build.finish(shown)
    graph = tidy(graph)
    nodes = export(graph, notes)
    used = {i for n in nodes for i in n.input}
    result = ModelProto()
    result.CopyFrom(proto)
    result.graph.node.extend(nodes)
    result.graph.initializer.extend(t for name, t in constants.items() if name in used)
    result.graph.input.extend(helper.make_tensor_value_info(v.name, v.element_type, None) for v in fed if v.name in used)
    del result.graph.output[:]
    result.graph.output.extend(helper.make_tensor_value_info(v.name, v.element_type, None) for v in shown)
    onnx.checker.check_model(result)
    return result


def composite(rule: Rule) -> Composite:
    """One rule for every layer of the kind it is for; activations, and diagonal layers before x, pass."""
    linear = rule if isinstance(rule, LinearRule) else NORM
    pooling = rule if isinstance(rule, PoolingRule) else WINNER
    first = Case(PASS, pattern="before_*")
    return Composite("oracle", (first, Case(PASS, ("activation",)), Case(pooling, ("max pooling",)), Case(linear)))


def explainer(proto: ModelProto, rule: Rule, folded: bool = True) -> ModelProto:
    """The model with relevance `fed` at its output and `relevance`, what reaches the tensor x. Fed at a Relu's output,
    relevance is taken to vanish where that does. Without any relevance (zero by algebra), an output `nothing`."""
    with weights(folded):
        build, found = layers_of(proto)
        output = proto.graph.output[0].name
        planned = plan(found, composite(rule), [], build.facts)
        assert not planned.problems, planned.problems
        element_type = build.facts.element_type(output)
        fed = Value(FED, element_type)
        gate = build.tensor(output) if found[-1].kind == "activation" else None
        totals = propagate(build, planned, {output: Relevance(fed, gate)})
        if "x" not in totals:
            return extended(proto, build, {NOTHING: build.tensor("x")}, [])
        return extended(proto, build, {"relevance": totals["x"].value}, [fed])


def relevance(proto: ModelProto, rule: Rule, image: np.ndarray, fed: np.ndarray, folded: bool = True) -> np.ndarray:
    """The relevance of x for an image and the relevance fed at the output."""
    model = explainer(proto, rule, folded)
    given = {v.name for v in model.graph.input}
    feeds = {k: v for k, v in ((proto.graph.input[0].name, image), (FED, fed)) if k in given}
    results = cases.run(model, feeds)
    return results["relevance"] if "relevance" in results else np.zeros_like(results[NOTHING])


def emitted(
    proto: ModelProto,
    make: Callable[[Builder, Layer], Mapping[str, Value]],
    fed: Mapping[str, np.ndarray],
    image: np.ndarray,
    folded: bool = True,
) -> dict[str, np.ndarray]:
    """What `make` has the builder compute of the model's last layer, for an image and values fed by name."""
    with weights(folded):
        build, found = layers_of(proto)
        values = make(build, found[-1])
        model = extended(proto, build, values, [Value(name, TensorProto.FLOAT) for name in fed])
    given = {v.name for v in model.graph.input}
    feeds = {k: v for k, v in {proto.graph.input[0].name: image, **fed}.items() if k in given}
    return cases.run(model, feeds)

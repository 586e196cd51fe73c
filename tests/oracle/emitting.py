"""The product's pipeline with relevance fed where a test wants it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from unittest import mock

import numpy as np
from onnx import ModelProto, TensorProto, helper

from onnxlrp.explain.backward import propagate
from onnxlrp.explain.plan import Plan, Step, unfit
from onnxlrp.explain.view import view
from onnxlrp.graph.build import Builder, Value, export
from onnxlrp.graph.facts import Facts, infer
from onnxlrp.graph.model import load
from onnxlrp.graph.tidy import tidy
from onnxlrp.layers.registry import Layer, Linear, Relevance, Routing, Special
from onnxlrp.rules.catalogue import CATALOGUE
from onnxlrp.rules.rule import LinearRule, PoolingRule, Rule

from . import cases

PASS, NORM, WINNER = (CATALOGUE[name].make() for name in ("pass", "norm", "winner"))
FED = "fed"


@contextlib.contextmanager
def mode(name: str) -> Iterator[None]:
    """How to convert. `folded`: weights as small as the cases' are folded; `nodes`: they stay nodes, as large ones do;
    `terms`: the same, and nothing that is known of signs is made use of."""
    if name == "folded":
        yield
        return
    limits = {
        "onnxlrp.graph.model.LARGE": 80,
        "onnxlrp.graph.build.FOLD_LIMIT": 12,
        "onnxlrp.graph.facts.FOLD_LIMIT": 12,
    }
    with contextlib.ExitStack() as stack:
        for target, limit in limits.items():
            stack.enter_context(mock.patch(target, limit))
        yield


def layers_of(proto: ModelProto, exact: bool = True) -> tuple[Builder, list[Layer]]:
    """A builder for the model and its layers."""
    model = load(proto)
    build = Builder(infer(model, model.inputs[0].name), exact)
    found, problems = view(build, model.outputs[0].name)
    assert not problems, problems
    return build, found


def extended(proto: ModelProto, build: Builder, outputs: Mapping[str, Value], fed: Sequence[Value]) -> ModelProto:
    """The model with what the builder made appended; `fed` are new inputs, `outputs` all of its outputs."""
    shown = [build.output(value, name) for name, value in outputs.items()]
    graph, constants, notes = build.finish([v.name for v in shown])
    graph = tidy(graph)
    nodes = export(graph, notes)
    used = {i for n in nodes for i in n.input}
    result = ModelProto()
    result.CopyFrom(proto)
    result.graph.node.extend(nodes)
    result.graph.initializer.extend(t for name, t in constants.items() if name in used)
    result.graph.input.extend(
        helper.make_tensor_value_info(v.name, v.element_type, None) for v in fed if v.name in used
    )
    del result.graph.output[:]
    result.graph.output.extend(helper.make_tensor_value_info(v.name, v.element_type, None) for v in shown)
    return result


def planned(layers: Sequence[Layer], rule: Rule, facts: Facts) -> Plan:
    """One rule for every layer of the kind it is for; activations pass, and so do the layers that lead to x."""
    steps = []
    behind_x = False
    for layer in layers:
        behind_x = behind_x or "x" in layer.inputs
        chosen: Rule | None = PASS
        if isinstance(layer, Routing):
            chosen = None
        elif isinstance(layer, Special):
            chosen = rule if isinstance(rule, PoolingRule) else WINNER
        elif isinstance(layer, Linear) and behind_x:
            chosen = rule if isinstance(rule, LinearRule) else NORM
        assert not unfit(layer, chosen, facts)
        steps.append(Step(layer, chosen, "the test says so"))
    return Plan("oracle", tuple(steps), ())


def relevances(
    proto: ModelProto, rules: Mapping[str, Rule], image: np.ndarray, fed: np.ndarray, how: str = "folded"
) -> dict[str, np.ndarray | Exception]:
    """The relevance of the tensor x under each rule, for an image and the relevance fed at the output; what a rule
    raised where it did. Fed at a Relu's output, relevance is taken to vanish where that does."""
    results: dict[str, np.ndarray | Exception] = {}
    reached: dict[str, Value] = {}
    with mode(how):
        build, found = layers_of(proto, exact=how != "terms")
        output = proto.graph.output[0].name
        source = Value(FED, build.facts.element_type(output))
        gate = build.tensor(output) if found[-1].kind == "activation" else None
        for name, rule in rules.items():
            try:
                totals = propagate(build, planned(found, rule, build.facts), {output: Relevance(source, gate)})
            except Exception as error:  # reported by the test of that rule
                results[name] = error
                continue
            reached[name] = (
                totals["x"].value if "x" in totals else build.op("Sub", build.tensor("x"), build.tensor("x"))
            )
        model = extended(proto, build, {f"relevance/{name}": value for name, value in reached.items()}, [source])
    try:
        outputs = cases.run(model, fitting(model, {proto.graph.input[0].name: image, FED: fed}))
    except Exception as error:  # one rule makes an invalid graph: which?
        if len(rules) == 1:
            return dict.fromkeys(rules, error)
        return {name: relevances(proto, {name: rule}, image, fed, how)[name] for name, rule in rules.items()}
    return results | {name: outputs[f"relevance/{name}"] for name in reached}


def relevance(proto: ModelProto, rule: Rule, image: np.ndarray, fed: np.ndarray, how: str = "folded") -> np.ndarray:
    """The same for one rule."""
    result = relevances(proto, {"alone": rule}, image, fed, how)["alone"]
    if isinstance(result, Exception):
        raise result
    return result


def fitting(model: ModelProto, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The feeds that the model has inputs for: what vanishes by algebra reads nothing."""
    return {v.name: feeds[v.name] for v in model.graph.input}


def emitted(
    proto: ModelProto,
    make: Callable[[Builder, Layer], Mapping[str, Value]],
    fed: Mapping[str, np.ndarray],
    image: np.ndarray,
    how: str = "folded",
) -> dict[str, np.ndarray]:
    """What `make` has the builder compute of the model's last layer, for an image and values fed by name."""
    with mode(how):
        build, found = layers_of(proto, exact=how != "terms")
        values = make(build, found[-1])
        model = extended(proto, build, values, [Value(name, TensorProto.FLOAT) for name in fed])
    return cases.run(model, fitting(model, {proto.graph.input[0].name: image, **fed}))

"""Let the hosts check folders, and keep what they say."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from onnx import ModelProto

import onnxlrp
from onnxlrp.contract import PREPROCESS_PRESETS
from onnxlrp.run.runtime import import_onnxruntime
from tools import conformance
from tools.portability import BESIDE, CLASSIFIER, KIT, MODELS, NUDGED
from tools.portability.hosts import HOSTS, Host, hosts

TIMED, ROUNDS = 2, 3  # runs a turn, after a first one; turns
NUDGES, NUDGE = 8, 1e-6


def measure(key: str, host: Host, folder: Path, result: Path, repeat: int = 0) -> None:
    """Let a host check a folder, and time it over `repeat` runs, and write its JSON to `result`; a host that dies is a
    result too."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1", **host.environment}
    command = [*host.command, "check", str(folder), "--json", str(result), "--repeat", str(repeat)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800)
    if not result.exists():
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:] or [f"exit code {done.returncode}"]
        names = [c["name"] for c in json.loads((folder / "manifest.json").read_text())["cases"]]
        result.write_text(json.dumps({"runtime": host.name, "cases": {n: {"failed": last[0][:300]} for n in names}}))
    click.echo(f"  {key}: {(done.stdout.strip().splitlines() or ['died'])[-1]}")


def nudged(folder: Path, result: Path) -> None:
    """How far ONNX Runtime is from the float64 answers where every pixel changes by a millionth: the worst of a few.

    It is what rounding in another order does to the inner layers. Where relevance changes by far more than that, the
    explanation itself jumps there (a maximum or a zero crossing is nearly tied), and no runtime is to blame.
    """
    runtime = import_onnxruntime()
    sys.path.insert(0, str(HOSTS / "python"))
    import kit

    manifest = json.loads((folder / "manifest.json").read_text())
    cases: dict[str, Any] = {}
    for case in manifest["cases"]:
        session = runtime.InferenceSession(str(folder / case["explainer"]), providers=["CPUExecutionProvider"])
        feeds = {e["name"]: kit.read(folder, e) for e in case["inputs"]}
        expected = {e["name"]: kit.read(folder, e) for e in case["outputs"]}
        errors = dict.fromkeys(expected, 0.0)
        for seed in range(NUDGES):
            state = np.random.RandomState(seed)
            fed = {k: _nudge(v, state) for k, v in feeds.items()}
            if all(np.array_equal(fed[k], v) for k, v in feeds.items()):  # bytes have no millionths
                errors = {}
                break
            for entry, found in zip(case["outputs"], session.run(list(expected), fed), strict=True):
                name, measure = entry["name"], manifest["tolerances"][entry["tolerance"]]["measure"]
                errors[name] = max(errors[name], kit.difference(measure, found, expected[name]))
        cases[case["name"]] = {"errors": errors, "missed": [], "seconds": None}
    title = f"ONNX Runtime {runtime.__version__}, every pixel nudged by 1e-6"
    result.write_text(json.dumps({"runtime": title, "cases": cases}))


def _nudge(values: np.ndarray, state: np.random.RandomState) -> np.ndarray:
    """An image input, every value changed by up to a millionth of itself; other inputs as they are."""
    image = values.ndim == 4 and values.dtype == np.float32
    return (values * (1 + NUDGE * state.uniform(-1, 1, values.shape))).astype(np.float32) if image else values


Feeds = Mapping[str, np.ndarray]
Answer = Callable[[ModelProto, Feeds], dict[str, np.ndarray]]


def in_float64(model: ModelProto, feeds: Feeds) -> dict[str, np.ndarray]:
    """What an explainer answers in float64, with torch's convolutions in onnx's evaluator: its own take hours."""
    import torch

    from tests.reference.onnx_side import Conv, ConvTranspose

    torch.set_num_threads(1)
    return conformance.answers(model, feeds, (Conv, ConvTranspose))


def on_this_cpu(model: ModelProto, feeds: Feeds) -> dict[str, np.ndarray]:
    """What ONNX Runtime answers here, on the CPU."""
    session = import_onnxruntime().InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [o.name for o in model.graph.output]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def prepare(model: str, composite: str, answer: Answer, folder: Path, work: Path) -> None:
    """Write one large explainer (or classifier), its pictures and what it answers, in the form of the kit."""
    from tools import zoo

    folder.mkdir(parents=True)
    path = work / f"{model}.onnx"
    if not path.exists():
        zoo.legacy(zoo.build(model), zoo.images(2), path)
    if composite == CLASSIFIER:
        proto = onnx.load(path)
    else:
        proto = onnxlrp.convert(path, composite=composite, preprocess=PREPROCESS_PRESETS["imagenet"]).model
    onnx.save(proto, folder / "model.onnx")
    listed = []
    for number in range(MODELS[model]):
        given = {zoo.INPUT: zoo.inputs(model, 1, seed=7 + number).numpy(), "target": np.array([-1])}
        feeds = {i.name: given[i.name] for i in proto.graph.input}
        name = f"{model}.{composite}.{number}"
        listed.append(
            {
                "name": name,
                "explainer": "model.onnx",
                "inputs": [conformance.entry(folder, name, k, v) for k, v in feeds.items()],
                "outputs": [
                    {**conformance.entry(folder, name, k, v), "tolerance": conformance.kind_of(k, v.dtype)}
                    for k, v in answer(proto, feeds).items()
                ],
            }
        )
    manifest = {"kit": 1, "tolerances": conformance.TOLERANCES, "cases": listed}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def measure_all(models: Sequence[str], composites: Sequence[str], python: str, work: Path) -> None:
    """Measure what has not been measured, against float64."""
    for model in models:
        for composite in composites if model != KIT else ("",):
            cell = f"{model}.{composite}".rstrip(".")
            missing = {k: h for k, h in hosts(python).items()
                       if not (work / f"{cell}.{k}.json").exists() and (model == KIT or not h.small)}  # fmt: skip
            if not missing and (work / f"{cell}.{NUDGED}.json").exists():
                continue
            click.echo(cell)
            with tempfile.TemporaryDirectory(dir=work) as scratch:
                folder = conformance.KIT if model == KIT else Path(scratch) / "folder"
                if model != KIT:
                    prepare(model, composite, in_float64, folder, work)
                nudged(folder, work / f"{cell}.{NUDGED}.json")
                for key, host in missing.items():
                    measure(key, host, folder, work / f"{cell}.{key}.json")


def measure_beside(models: Sequence[str], composites: Sequence[str], python: str, work: Path) -> None:
    """Measure errors and times against ONNX Runtime's, the hosts in turns: what else the machine does meets them all.
    A cell of which a host is missing is measured anew for all."""
    known = {k: h for k, h in hosts(python).items() if h.beside}
    (work / BESIDE).mkdir(exist_ok=True)
    for model, composite in itertools.product([m for m in models if m != KIT], composites):
        results = {k: work / BESIDE / f"{model}.{composite}.{k}.json" for k in known}
        if all(path.exists() for path in results.values()):
            continue
        click.echo(f"{model}.{composite}, beside ONNX Runtime")
        with tempfile.TemporaryDirectory(dir=work) as scratch:
            folder = Path(scratch) / "folder"
            prepare(model, composite, on_this_cpu, folder, work)
            for path, rounds in zip(results.values(), _in_turns(known, folder), strict=True):
                path.write_text(json.dumps(_together(rounds)))


def _in_turns(known: Mapping[str, Host], folder: Path) -> list[list[dict[str, Any]]]:
    """What each host said in each round."""
    said: list[list[dict[str, Any]]] = [[] for _ in known]
    for _ in range(ROUNDS):
        for (key, host), own in zip(known.items(), said, strict=True):
            turn = folder / "turn.json"
            turn.unlink(missing_ok=True)
            measure(key, host, folder, turn, TIMED)
            own.append(json.loads(turn.read_text()))
    return said


def _together(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The first round's errors and the seconds a picture of each; or a round in which something failed."""
    for said in rounds:
        if any("failed" in case for case in said["cases"].values()):
            return dict(said)
    seconds = [[case["seconds"] for case in said["cases"].values()] for said in rounds]
    return {**rounds[0], "rounds": [sum(own) / len(own) for own in seconds]}

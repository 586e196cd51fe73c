"""Check a runtime against a conformance kit, or draw one heatmap with it: what all the hosts in this folder share.

A host says how its runtime opens an explainer and runs it; this file reads the manifest, compares, and prints one line
a case. Only numpy (and Pillow, to draw) is needed: onnxlrp is not there, as on the machine of a user.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import picture
from picture import Refusal

Feeds = Mapping[str, np.ndarray]
Run = Callable[[Feeds], Mapping[str, np.ndarray]]
# Opens an explainer for inputs of these shapes (some runtimes must know them beforehand) and names its outputs.
Open = Callable[[Path, Feeds, list[str]], Run]


def difference(measure: str, found: np.ndarray, expected: np.ndarray) -> float:
    """How far `found` is from `expected`; infinity where the type or the shape is another,
    or a value is not a number."""
    if found.dtype != expected.dtype or found.shape != expected.shape or not np.isfinite(found).all():
        return float("inf")
    a, b = found.astype(np.float64), expected.astype(np.float64)
    if measure == "max":
        return float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30))
    if measure == "l2":
        a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
        return float((np.linalg.norm(a - b, axis=1) / np.maximum(np.linalg.norm(b, axis=1), 1e-30)).max())
    if measure == "levels":
        return float((np.abs(a - b) > 1).mean())
    if measure == "different":
        return float((a != b).sum())
    raise Refusal(f"measure {measure!r}", "unknown to this checker", "take the checker that came with the kit")


def read(folder: Path, entry: Mapping[str, Any]) -> np.ndarray:
    """A tensor of the kit: raw little-endian values, row by row."""
    dtype = np.dtype(entry["dtype"]).newbyteorder("<")
    return np.fromfile(folder / entry["file"], dtype).reshape(entry["shape"]).astype(entry["dtype"])


def check_case(folder: Path, case: Mapping[str, Any], tolerances: Mapping[str, Any], opens: Open, repeat: int) -> dict:
    """Run one case: the error of each output, those that miss, and seconds a run (the median, after a first run)."""
    feeds = {entry["name"]: read(folder, entry) for entry in case["inputs"]}
    run = opens(folder / case["explainer"], feeds, [entry["name"] for entry in case["outputs"]])
    found = run(feeds)
    errors, missed = {}, []
    for entry in case["outputs"]:
        name, tolerance = entry["name"], tolerances[entry["tolerance"]]
        errors[name] = difference(tolerance["measure"], np.asarray(found[name]), read(folder, entry))
        if not errors[name] <= tolerance["limit"]:
            missed.append(name)
    times = []
    for _ in range(repeat):
        began = time.perf_counter()
        run(feeds)
        times.append(time.perf_counter() - began)
    return {"errors": errors, "missed": missed, "seconds": statistics.median(times) if times else None}


def check(folder: Path, runtime: str, opens: Open, report: Path | None, repeat: int) -> int:
    """Check every case and drawing, one line each; the exit code, 0 where all are within tolerance.

    Raises `Refusal` where the folder is no kit or the report cannot be written.
    """
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        remedy = "name the folder of a conformance kit: graphs/conformance"
        raise Refusal(path, f"cannot be read ({picture.why(error)})", remedy) from error
    results: dict[str, dict] = {}
    for case in manifest["cases"]:
        try:
            result = check_case(folder, case, manifest["tolerances"], opens, repeat)
        except Exception as error:  # whatever a runtime raises is its answer to this case
            result = {"failed": (str(error).strip().splitlines() or [""])[-1][:300] or repr(error)}
        results[case["name"]] = result
        _print(case["name"], result)
    drawings = [draws_the_same(folder, drawing) for drawing in manifest.get("drawings", ())]
    failed = [name for name, result in results.items() if "failed" in result or result["missed"]]
    print(f"{runtime}: {len(results) - len(failed)} of {len(results)} cases within tolerance")
    if report is not None:
        try:
            report.write_text(json.dumps({"runtime": runtime, "cases": results}, indent=1))
        except OSError as error:
            raise Refusal(report, f"cannot be written ({picture.why(error)})", "check the folder") from error
    return 1 if failed or not results or not all(drawings) else 0


def _print(name: str, result: Mapping[str, Any]) -> None:
    if "failed" in result:
        print(f"FAIL  {name}  {result['failed']}", flush=True)
        return
    said = ", ".join(f"{k} {v:.1e}{' (too far)' if k in result['missed'] else ''}" for k, v in result["errors"].items())
    print(f"{'MISS' if result['missed'] else 'ok  '}  {name}  {said}", flush=True)


def draws_the_same(folder: Path, drawing: Mapping[str, Any]) -> bool:
    """Whether `picture.draw` makes the kit's picture of the kit's relevance, byte for byte."""
    relevance, expected = read(folder, drawing["relevance"]), read(folder, drawing["pixels"])
    same = np.array_equal(picture.draw(relevance[0], drawing["layout"]), expected)
    print(f"{'ok  ' if same else 'MISS'}  {drawing['name']}  drawing")
    return same


def feeds_for(explainer: Path, known: Mapping[str, str], path: Path, way: dict, target: int) -> Feeds:
    """What an explainer takes, in the types and shapes that it declares: the picture in each place of a fixed batch,
    the class wherever one is asked for, and ones as masks, which let everything pass.

    Raises `Refusal` for another input, and for a class where the explainer always explains the same.
    """
    feeds: dict[str, np.ndarray] = {}
    taken, _ = picture.ports(explainer)
    image = next(port for port in taken if port.name == known["onnxlrp.input"])
    if len(image.shape) != 4:
        raise Refusal(
            explainer, f"takes {len(image.shape)} axes, a picture has 4", "feed it from a program of your own"
        )
    for name, dtype, shape in taken:
        wanted = (image.shape[0] or 1, *shape[1:])
        if name == image.name:
            values = picture.prepare(path, way, shape)
            values = values if dtype.kind == "f" else np.clip(np.rint(values), 0, 255)  # pixels
            feeds[name] = np.ascontiguousarray(np.broadcast_to(values, (wanted[0], *values.shape)), dtype)
        elif name == "target":
            feeds[name] = np.full(wanted, target, dtype)
        elif name.startswith("condition/"):
            feeds[name] = np.ones(wanted, dtype)
        else:
            remedy = "convert the classifier without --start fed, or feed it from a program of your own"
            raise Refusal(explainer, f"takes {name}, which a picture and a class do not say", remedy)
    if "target" not in feeds and str(target) not in ("-1", known["onnxlrp.target"]):
        reason = f"cannot be chosen: {explainer} always explains {known['onnxlrp.target']}"
        raise Refusal(f"class {target}", reason, "convert the classifier without --target")
    return feeds


def explain(explainer: Path, path: Path, asked: str, out: Path, opens: Open) -> str:
    """Explain one picture and write its heatmap; a line that says what was explained.

    Raises `Refusal`, before anything is written, for what cannot be explained.
    """
    known = picture.metadata(explainer)
    way = picture.stated(explainer, known, "onnxlrp.preprocess")
    if way is None:
        remedy = "make it with onnxlrp convert MODEL --preprocess NAME"
        raise Refusal(explainer, "does not store how pixels become its input", remedy)
    if not re.fullmatch(r"-1|\d{1,9}", asked):
        raise Refusal(f"class {asked}", "is no class", "give its number, or -1 for the predicted one")
    target = int(asked)
    feeds = feeds_for(explainer, known, path, way, target)
    found = opens(explainer, feeds, [known["onnxlrp.output"], "relevance", "explained"])(feeds)
    classes = np.asarray(found[known["onnxlrp.output"]]).shape[-1]
    if target >= classes:
        remedy = f"choose 0 to {classes - 1}, or -1 for the predicted one"
        raise Refusal(f"class {target}", f"is out of range: the explainer has {classes} classes", remedy)
    labels = picture.stated(explainer, known, "onnxlrp.labels") or []
    relevance = np.asarray(found["relevance"])
    picture.save(picture.draw(relevance.reshape(-1, *relevance.shape[-3:])[0], way["layout"]), out)
    number = int(np.asarray(found["explained"]).reshape(-1)[0])
    return f"class {number}{f' ({labels[number]})' if number < len(labels) else ''}: {out}"


def main(runtime: str, opens: Open) -> None:
    """The command line of every host: `check DIR`, or EXPLAINER PICTURE for a heatmap."""
    parser = argparse.ArgumentParser(description=f"{runtime}: check DIR, or EXPLAINER PICTURE -o HEATMAP.png")
    parser.add_argument("what", help="the word check, or an explainer (.onnx)")
    parser.add_argument("where", type=Path, help="a folder with a manifest.json, or a picture")
    parser.add_argument("-o", "--out", type=Path, default=Path("heatmap.png"))
    parser.add_argument("--target", default="-1", help="the class to explain; -1 is the predicted one")
    parser.add_argument("--json", type=Path, help="check: write errors and times here as well")
    parser.add_argument("--repeat", type=int, default=0, help="check: time each case over so many runs")
    given = parser.parse_args()
    try:
        if given.what == "check":
            sys.exit(check(given.where, runtime, opens, given.json, given.repeat))
        print(explain(Path(given.what), given.where, given.target, given.out, opens))
    except Exception as error:
        said = error if isinstance(error, Refusal) else _failed(given.what, runtime, error)
        print(f"error: {said}", file=sys.stderr)
        sys.exit(2)


def _failed(explainer: str, runtime: str, error: Exception) -> Refusal:
    """What to say where a runtime gave up, whatever it raised."""
    remedy = "convert the classifier again, or check the runtime: check graphs/conformance"
    return Refusal(explainer, f"{runtime} cannot run it ({picture.why(error)})", remedy)

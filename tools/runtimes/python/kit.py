"""Check a runtime against a conformance kit, or draw one heatmap with it: what all the hosts in this folder share.

A host says how its runtime opens an explainer and runs it; this file reads the manifest, compares, and prints one line
a case. Only numpy (and Pillow, to draw) is needed: onnxlrp is not there, as on the machine of a user.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import picture

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
    raise SystemExit(f"measure {measure!r}: unknown to this checker; take the checker that came with the kit")


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
    """Check every case and drawing, one line each; the exit code, 0 where all are within tolerance."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
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
        report.write_text(json.dumps({"runtime": runtime, "cases": results}, indent=1))
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


def explain(explainer: Path, path: Path, target: int, out: Path, opens: Open) -> str:
    """Explain one picture and write its heatmap; a line that says what was explained."""
    known = picture.metadata(explainer)
    way, labels = json.loads(known["onnxlrp.preprocess"]), json.loads(known.get("onnxlrp.labels", "[]"))
    feeds = {known["onnxlrp.input"]: picture.prepare(path, way), "target": np.array([target], np.int64)}
    found = opens(explainer, feeds, [known["onnxlrp.output"], "relevance", "explained"])(feeds)
    picture.save(picture.draw(np.asarray(found["relevance"])[0], way["layout"]), out)
    number = int(np.asarray(found["explained"]).reshape(-1)[0])
    return f"class {number}{f' ({labels[number]})' if labels else ''}: {out}"


def main(runtime: str, opens: Open) -> None:
    """The command line of every host: `check DIR`, or EXPLAINER PICTURE for a heatmap."""
    parser = argparse.ArgumentParser(description=f"{runtime}: check DIR, or EXPLAINER PICTURE -o HEATMAP.png")
    parser.add_argument("what", help="the word check, or an explainer (.onnx)")
    parser.add_argument("where", type=Path, help="a folder with a manifest.json, or a picture")
    parser.add_argument("-o", "--out", type=Path, default=Path("heatmap.png"))
    parser.add_argument("--target", type=int, default=-1, help="the class to explain; -1 is the predicted one")
    parser.add_argument("--json", type=Path, help="check: write errors and times here as well")
    parser.add_argument("--repeat", type=int, default=0, help="check: time each case over so many runs")
    given = parser.parse_args()
    if given.what == "check":
        sys.exit(check(given.where, runtime, opens, given.json, given.repeat))
    print(explain(Path(given.what), given.where, given.target, given.out, opens))

"""One measurement in a process of its own: `python -m tools.bench.child JOB FOLDER`, both made by `jobs`.

Prints JSON lines: {"at": …} before each step that might not survive, at last {"found": …}.
"""

from __future__ import annotations

import contextlib
import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.bench.cache import Job
from tools.bench.results import DEFAULT, FORWARD, OURS
from tools.bench.timing import Call, interleaved, reason

TORCH_SIDE = ("torch forward", "zennit", "captum", "autograd")


def _say(**what: object) -> None:
    print(json.dumps(what), flush=True)


def _place(job: Job) -> Any:
    from tools.bench.onnx_side import Place

    return Place(job["device"], job["threads"], job["spinning"], job["precision"])


def _contestant(name: str, job: Job, folder: Path) -> Call:
    from tools.bench import onnx_side

    what = job["network"], job["batch"], job["composite"], folder, _place(job)
    if name not in TORCH_SIDE:
        return onnx_side.contestant(name, *what)
    from tools.bench import torch_side

    images = onnx_side.images(job["batch"], what[-1])
    return torch_side.contestant(name, job["network"], job["composite"], folder, what[-1], images)


# -- the kinds of jobs ------------------------------------------------------------------------------------------------


def export(job: Job, folder: Path) -> dict[str, Any]:
    """Make the classifier if it is not there, and in float16 where that is asked for."""
    from tools.bench import models, onnx_side

    path = onnx_side.model_path(folder, job["network"])
    if not (path.exists() and path.with_suffix(".pt").exists()):
        models.export(job["network"], folder)
    if job["precision"] == "float16":
        models.halve(job["network"], folder)
    path = onnx_side.model_path(folder, job["network"], job["precision"])
    return {"digest": models.digest(path), "bytes": path.stat().st_size}


def convert(job: Job, folder: Path) -> dict[str, Any]:
    """Make the explainer; what its rules imply."""
    from tools.bench import models, onnx_side

    best = models.explain(job["network"], job["composite"], job["precision"], folder)
    path = onnx_side.explainer_path(folder, job["network"], job["composite"], job["precision"])
    return {"best": best, "digest": models.digest(path), "bytes": path.stat().st_size}


def times(job: Job, folder: Path) -> dict[str, Any]:
    """The contestants of a row, interleaved."""
    calls: dict[str, Call] = {}
    failed: dict[str, str] = {}
    for name in job["contestants"]:
        _say(at=name)
        try:
            if name == "onnx-ad":
                from tools.bench import models

                models.differentiate(job["network"], job["batch"], job["precision"], folder)
            calls[name] = _contestant(name, job, folder)
        except Exception as error:
            failed[name] = reason(error)
    samples, more = interleaved(calls, job["rounds"], job["seconds"], lambda name: _say(at=name))
    return {"samples": samples, "failed": {**failed, **more}}


def files(job: Job, folder: Path) -> dict[str, Any]:
    """Converting with the default composite against loading and saving with onnx, and the start of sessions."""
    import onnx

    import onnxlrp
    from tools.bench import models, onnx_side

    model, made, copy = onnx_side.model_path(folder, job["network"]), folder / "made.onnx", folder / "copy.onnx"
    options, place = models.options_of(DEFAULT), _place(job)
    calls: dict[str, Call] = {
        "convert": lambda: onnxlrp.convert(model, **options).save(made, force=True),
        "load and save": lambda: onnx.save(onnx.load(model), copy),
        "start of the explainer": lambda: onnx_side.session(made, place),
        "start of the model": lambda: onnx_side.session(model, place),
    }
    try:
        samples, failed = interleaved(calls, job["rounds"], job["seconds"], lambda name: _say(at=name))
    finally:
        made.unlink(missing_ok=True)
        copy.unlink(missing_ok=True)
    return {"samples": samples, "failed": failed}


def peak(job: Job, folder: Path) -> dict[str, Any]:
    """Peak memory of doing one thing twice, the first time from the file, above what its imports took; on CUDA that of
    the GPU, whose allocators keep what they once had."""
    name, device = job["what"], job["device"]
    work: Callable[[], object]
    if name == "convert":
        import onnxlrp
        from tools.bench import models

        options, model = models.options_of(job["composite"]), folder / f"{job['network']}.onnx"
        onnxlrp.convert  # noqa: B018  (imported late, on this access)

        def work() -> object:
            return onnxlrp.convert(model, **options).save(folder / "made.onnx", force=True)
    else:
        _import_for(name)

        def work() -> object:
            call = _contestant(name, job, folder)
            return call, call(), call()

    imports = _on_gpu() if device == "cuda" else _resident()
    try:
        held = work()
        most = _on_gpu() if device == "cuda" else _high_water()
    finally:
        (folder / "made.onnx").unlink(missing_ok=True)
    del held
    return {"above": most - imports, "imports": imports}


def check(job: Job, folder: Path) -> dict[str, Any]:
    """What must hold on a GPU beside the times."""
    from tools.bench import gpu

    return {"values": gpu.checks(job["network"], job["composite"], folder, _place(job))}


# -- memory -----------------------------------------------------------------------------------------------------------


def _import_for(name: str) -> None:
    """All that a contestant imports, before memory is measured."""
    from tools.bench import onnx_side

    assert onnx_side
    if name in TORCH_SIDE:
        import torch.fx

        from tools.bench import torch_side

        assert torch.fx and torch_side
    if name == "zennit":
        import zennit.composites
        import zennit.torchvision

        assert zennit.composites and zennit.torchvision
    if name == "captum":
        import captum.attr

        assert captum.attr
    assert name in TORCH_SIDE or name == "onnx-ad" or name.startswith((FORWARD, OURS)), name


def _on_gpu() -> int:
    """Bytes of the GPU that are taken."""
    import torch

    free, total = torch.cuda.mem_get_info()
    return int(total - free)


def _resident() -> int:
    """Bytes resident now; where Linux does not tell, the highest so far."""
    return _status("VmRSS") or _maximum()


def _high_water() -> int:
    """Most bytes that were ever resident in this process."""
    return _status("VmHWM") or _maximum()


def _maximum() -> int:
    """getrusage's maximum. On Linux that starts with the size of the process which started this one: VmHWM is the same
    number without that."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _status(field: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    return 0


KINDS = {f.__name__: f for f in (export, convert, times, files, peak, check)}


def main() -> None:
    """Do the job in the arguments."""
    with contextlib.suppress(OSError):  # if memory runs out, this process is the one to go
        Path("/proc/self/oom_score_adj").write_text("1000")
    job, folder = json.loads(sys.argv[1]), Path(sys.argv[2])
    _say(found=KINDS[job["do"]](job, folder))


if __name__ == "__main__":
    main()

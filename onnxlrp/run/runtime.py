"""ONNX Runtime, opened with care.

Whoever needs onnxruntime gets it here (`import_onnxruntime`): late, as the import takes a while and `--help` should
not, and with telemetry off. CUDA is used only where it truly runs: ONNX Runtime lists it on machines without a GPU and
falls back to the CPU with no more than a log line, so the driver is asked first and the finished session afterwards.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.metadata
import io
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx

from onnxlrp.errors import OnnxLrpError, Problem, RunError
from onnxlrp.explain.runtimes import RUNTIMES, elsewhere
from onnxlrp.graph import save as saving
from onnxlrp.run.memory import returning_memory, save_memory
from onnxlrp.run.reading import read_model

ModelLike = str | Path | bytes | onnx.ModelProto
Device = Literal["auto", "cpu", "cuda"]
DEVICES: tuple[Device, ...] = ("auto", "cpu", "cuda")
OWN = "onnxruntime"  # what this is called among the runtimes that explainers are written for
CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
INSTALL_CUDA = "install CUDA 13 and cuDNN 9 with: pip install 'onnxruntime-gpu[cuda,cudnn]'"
USE_CPU = "or choose the device cpu"

# TF32 keeps ten bits of a product: relevance would no longer add up to the logit. HEURISTIC plans a convolution at once
# instead of timing every algorithm again for each new batch size.
CUDA_OPTIONS = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}

_EXTERNAL_DATA_FOLDER = "session.model_external_initializers_file_folder_path"
_RIVALS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino")
_SILENT, _WARNING = 4, 2  # severities of ONNX Runtime's logger
_FAILURES = (
    *("EPFail", "EngineError", "Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf"),
    *("ModelRequiresCompilation", "NoModel", "NoSuchFile", "NotFound", "NotImplemented", "RuntimeException"),
)
_REMEDIES = {  # by a word of what ONNX Runtime says while running
    "memory": "try a smaller batch",
    "alloc": "try a smaller batch",
    "reshaped": "the model may be made for one size of the batch: try --batch 1, or convert its classifier again",
}


@dataclass(frozen=True)
class Opened:
    """An open session with the provider that really runs it ("CUDA" or "CPU"), and why it is not CUDA ("" if it is)."""

    session: Any
    provider: str
    reason: str = ""


def open_session(model: ModelLike, device: str = "auto", folder: Path | None = None, name: str = "model") -> Opened:
    """Open `model` on `device`: "auto" takes CUDA where it runs and else the CPU, "cuda" insists on it.

    `folder` is where the external data of a model given as bytes or ModelProto lies, if it has any; `name` is what to
    call the model in messages. Raises `OnnxLrpError` where the device is unknown or "cuda" does not run here, and where
    ONNX Runtime refuses the model. Warns where packages of ONNX Runtime that break each other are installed together.
    """
    if device not in DEVICES:
        raise OnnxLrpError(Problem(f"device {device!r}", "unknown", f"choose one of {', '.join(DEVICES)}"))
    runtime = import_onnxruntime()
    problem = None if device == "cpu" else _what_keeps_cuda_away(runtime)
    if device == "cuda" and problem is not None:
        raise OnnxLrpError(problem)
    reason = problem.reason if problem else ""
    with _loadable(model) as source:
        if device != "cpu" and problem is None:
            session, problem = _try_cuda(runtime, source, folder, name)
            if session is not None:
                return Opened(session, "CUDA")
            if device == "cuda" and problem is not None:
                raise OnnxLrpError(problem)
            # With a GPU there is something to gain, so the remedy is worth a line even where nobody asked for CUDA.
            reason = f"{problem.reason}; {problem.remedy}" if problem else ""
        return Opened(_create(runtime, source, folder, name, [CPU]), "CPU", reason)


def run_session(session: Any, feeds: dict[str, Any]) -> dict[str, Any]:
    """Run `session` and return every output by name; raises `RunError` with the runtime's reason where it gives up."""
    names = [output.name for output in session.get_outputs()]
    with telling():
        return dict(zip(names, session.run(names, feeds), strict=True))


@contextlib.contextmanager
def telling() -> Iterator[None]:
    """What ONNX Runtime raises within it while running becomes a `RunError` with its reason."""
    try:
        yield
    except failures(import_onnxruntime()) as error:
        reason = f"gave up while running the model ({readable(error)})"
        remedies = (remedy for word, remedy in _REMEDIES.items() if word in reason.lower())
        raise RunError(Problem("ONNX Runtime", reason, next(remedies, ""))) from error


def import_onnxruntime() -> Any:
    """The module onnxruntime with telemetry off; raises `OnnxLrpError` where it is not installed or does not load."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    _warn_of_rivals()
    try:
        import onnxruntime
    except ImportError as error:
        if error.__cause__ is not None and not isinstance(error.__cause__, Exception):
            raise error.__cause__ from None  # Ctrl-C while the library was loading
        remedy = "run pip install onnxruntime-gpu (or onnxruntime on a Mac or on Arm)"
        raise OnnxLrpError(Problem("ONNX Runtime", f"cannot be imported ({error})", remedy)) from error
    return onnxruntime


def installed_runtimes() -> list[str]:
    """The installed packages that all provide the module onnxruntime; more than one break each other."""
    found = []
    for name in _RIVALS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            importlib.metadata.distribution(name)
            found.append(name)
    return found


def rivals_warning(names: Sequence[str]) -> str:
    """What to tell the user when the packages `names` are installed together, "" when there is no more than one."""
    if len(names) < 2:
        return ""
    keep = "onnxruntime-gpu" if "onnxruntime-gpu" in names else names[-1]
    return (
        f"{' and '.join(names)} are installed together and overwrite each other's files. Keep one: "
        f"pip uninstall -y {' '.join(names)}, then pip install {keep}."
    )


def readable(error: Exception) -> str:
    """The sentence inside one of ONNX Runtime's messages: no error codes, source files or second paragraphs."""
    text = re.sub(r"\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error))
    text = re.sub(r"(/|[A-Z]:\\)\S*onnxruntime\S*(:\d+)?\s*", "", text)
    text = " ".join(text.split())
    return text if len(text) <= 300 else text[:297].rstrip() + "..."


def failures(runtime: Any) -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises: classes of its own with no common base, and Python's from its wrapper."""
    state = runtime.capi.onnxruntime_pybind11_state
    own = [getattr(state, name) for name in _FAILURES if hasattr(state, name)]
    return (*own, RuntimeError, ValueError, MemoryError)


@functools.cache
def _warn_of_rivals() -> None:
    """Once a process: the packages do not change while it runs."""
    message = rivals_warning(installed_runtimes())
    if message:
        warnings.warn(message, RuntimeWarning, stacklevel=2)


def _create(runtime: Any, source: str | bytes, folder: Path | None, name: str, providers: list[Any]) -> Any:
    options = runtime.SessionOptions()
    if folder is not None:
        options.add_session_config_entry(_EXTERNAL_DATA_FOLDER, str(folder))
    if providers == [CPU]:
        save_memory(options)
        options.log_severity_level = _SILENT  # warnings are of float16 constants left unfolded, and errors are raised
    try:
        with returning_memory():
            return runtime.InferenceSession(source, options, providers=providers, enable_fallback=0)
    except failures(runtime) as error:
        remedy = f"this is ONNX Runtime {runtime.__version__}: a newer one may know the model's operators"
        said = [Problem(name, f"ONNX Runtime cannot load it ({readable(error)})", remedy)]
        # Of the CPU it is known what it does not take, and what to do then.
        known = elsewhere(read_model(source)[0], name, RUNTIMES[OWN]) if providers == [CPU] else []
        raise OnnxLrpError(*(known or said)) from error


def _try_cuda(runtime: Any, source: str | bytes, folder: Path | None, name: str) -> tuple[Any | None, Problem | None]:
    """A session that runs on CUDA, or what kept it away."""
    runtime.set_default_logger_severity(_SILENT)
    try:
        if hasattr(runtime, "preload_dlls"):
            with contextlib.redirect_stdout(io.StringIO()):  # it prints each library that is missing
                runtime.preload_dlls()
        session = _create(runtime, source, folder, name, [(CUDA, CUDA_OPTIONS), CPU])
    except OnnxLrpError as error:
        # The CPU session that follows says whether it is the model's fault.
        return None, Problem("device cuda", f"CUDA does not start: {error.problems[0].reason}", USE_CPU[3:])
    finally:
        runtime.set_default_logger_severity(_WARNING)
    if CUDA in session.get_providers():
        return session, None
    reason = "there is a GPU, but ONNX Runtime cannot load CUDA's libraries"
    return None, Problem("device cuda", reason, f"{INSTALL_CUDA}, {USE_CPU}")


def _what_keeps_cuda_away(runtime: Any) -> Problem | None:
    """What is missing before CUDA is worth a try."""
    if CUDA not in runtime.get_available_providers():
        reason = f"the installed ONNX Runtime {runtime.__version__} has no CUDA provider"
        remedy = f"run pip uninstall -y onnxruntime, then {INSTALL_CUDA}, {USE_CPU}"
        return Problem("device cuda", reason, remedy)
    if _gpus() == 0:
        remedy = f"look whether nvidia-smi lists a GPU and {INSTALL_CUDA}, {USE_CPU}"
        return Problem("device cuda", "there is no NVIDIA GPU with a driver on this machine", remedy)
    return None


def _gpus() -> int:
    """How many GPUs the NVIDIA driver shows to this process; 0 without a driver."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


@contextlib.contextmanager
def _loadable(model: ModelLike) -> Iterator[str | bytes]:
    """`model` as ONNX Runtime takes it. If too large for protobuf, through files that live as long as the block."""
    if isinstance(model, (str, Path)):
        yield str(model)
    elif isinstance(model, bytes):
        yield model
    elif model.ByteSize() < saving.LIMIT:
        yield model.SerializeToString()
    else:
        with tempfile.TemporaryDirectory(prefix="onnxlrp-") as folder:
            yield str(saving.save(model, Path(folder) / "model.onnx", None)[0])

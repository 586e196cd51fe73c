"""Run explainers in every runtime at hand and write tools/reports/PORTABILITY.md: `python -m tools.portability`.

Each model and composite becomes a folder in the form of the conformance kit, and each host of tools/runtimes checks it
as it checks the kit: once against float64, and several times, in turns with the other hosts, against what ONNX Runtime
answers on this machine's CPU. The first says how far a runtime is from the truth, with ONNX Runtime's own distance
beside it: where that is large too, the explanation is ill-conditioned and no runtime is to blame. The second says what
a user sees who moves an explainer from ONNX Runtime to another host, and what time it takes there.

`hosts` are the runtimes, `measure` runs them, `report` writes. Results are kept in --work as one JSON file each and not
measured again. A host that cannot be started from here (a telephone) writes the same JSON (`--json` of any host shows
the form); put it there as CELL.RUNTIME.json.
"""

from __future__ import annotations

from collections.abc import Mapping

KIT = "kit"
BASE = "onnxruntime"
MODELS: Mapping[str, int] = {"resnet18": 2, "resnet50": 1, "vgg16": 1}  # how many pictures; float64 takes its time
CLASSIFIER = "classifier"  # beside the composites: the model alone, without relevance
COMPOSITES = ("epsilon_plus_flat", "epsilon_plus", "epsilon_gamma_box", "epsilon_alpha2_beta1_flat", "gradient")
NUDGED = "nudged"
BESIDE = "beside"  # the folder in --work for what was measured beside ONNX Runtime

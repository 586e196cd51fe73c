"""Conservation: is the relevance that a layer receives the relevance that it hands on?

    explainer = onnxlrp.Explainer("model.onnx", taps=["all"])
    print(table(conservation(explainer, explainer.explain(batch))))

LRP keeps the sum of relevance from the scores to the input, except for what biases and stabilisers absorb: the less is
missing, the fewer of the model's reasons are hidden. A tensor on one branch of a network holds only that branch's part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxlrp import contract
from onnxlrp.errors import OnnxLrpError, Problem
from onnxlrp.run.session import Explainer, Explanation

Sums = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Balance:
    """The relevance of one tensor: `total` [N], its sum for each input, and `start` [N], the sum that set out."""

    tensor: str
    total: Sums
    start: Sums

    @property
    def share(self) -> Sums:
        """[N]: the part of the start that is here, 1 where nothing was lost; NaN where nothing set out."""
        return np.divide(self.total, self.start, out=np.full(self.start.shape, np.nan), where=self.start != 0)


def conservation(explainer: Explainer, said: Explanation, start: npt.ArrayLike | None = None) -> list[Balance]:
    """The balance of the input and of every tapped tensor of what `explainer` said, from the input on.

    `start` [N] is the sum of relevance at the scores where `start_of` cannot know it. Raises `OnnxLrpError` for an
    explainer of several targets an input.
    """
    if explainer.targets_per_input is not None:
        reason = f"{explainer.name} explains several classes of each input"
        raise OnnxLrpError(Problem("conservation", reason, "convert without --targets-per-input"))
    began = start_of(explainer, said) if start is None else np.asarray(start, np.float64)
    count = len(said.target)
    tensors = {explainer.input_name: said.relevance}
    tensors |= {name.removeprefix(contract.tap_name("")): said.outputs[name] for name in explainer.taps}
    sums = {name: values.reshape(count, -1).sum(axis=1, dtype=np.float64) for name, values in tensors.items()}
    return [Balance(name, total, np.broadcast_to(began, (count,))) for name, total in sums.items()]


def start_of(explainer: Explainer, said: Explanation) -> Sums:
    """The sum of relevance [N] that set out from the scores: the target's logit, or 1 for a one-hot start.

    Raises `OnnxLrpError` where the outputs do not tell: the logits behind probabilities, relevance that was fed, and
    starts whose sum is not kept (contrastive) or is zero (softmax-gradient).
    """
    count = len(said.target)
    if explainer.start == "one-hot":
        return np.ones(count)
    if explainer.start == "logit" and said.scores == "logits":
        return said.logits[np.arange(count), said.target].astype(np.float64)
    kind = "the logits behind its probabilities" if explainer.start == "logit" else f"the start {explainer.start}"
    reason = f"the sum that sets out is not among the outputs ({kind})"
    raise OnnxLrpError(Problem(explainer.name, reason, "pass start=, the sum of relevance at the scores"))


def table(balances: Sequence[Balance]) -> str:
    """One line a tensor: the mean sum over the inputs, the mean share of the start, and the share farthest from 1."""
    width = max(len("tensor"), *(len(b.tensor) for b in balances))
    lines = [f"{'tensor':<{width}}  {'sum':>10}  {'share':>7}  {'worst':>7}"]
    for balance in balances:
        share = balance.share[np.isfinite(balance.share)]
        mean, worst = (float(share.mean()), float(share[np.abs(share - 1).argmax()])) if share.size else (np.nan,) * 2
        lines.append(f"{balance.tensor:<{width}}  {float(balance.total.mean()):>10.4g}  {mean:>7.3f}  {worst:>7.3f}")
    return "\n".join(lines)

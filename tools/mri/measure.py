"""What a trained network is worth on the held-back slices: how often it is right, whether it looks at the lesion."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tools.mri.slices import CLASSES


def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> str:
    """A printable table: share of right answers, in all and by class, and the confusion counts.

    Images are normalised float32 [count, 1, H, W], labels [count].
    """
    with torch.no_grad():
        answers = torch.cat([network(batch).argmax(1) for batch in images.split(100)])
    lines = [f"held-back accuracy {float((answers == labels).double().mean()):.4f} on {len(labels)} images"]
    for label, name in enumerate(CLASSES):
        counts = torch.bincount(answers[labels == label], minlength=len(CLASSES)).tolist()
        answered = ", ".join(f"{count} {answer}" for count, answer in zip(counts, CLASSES, strict=True))
        lines.append(f"  {name}: {counts[label] / sum(counts):.4f} (answers: {answered})")
    return "\n".join(lines)


def attribution(network: nn.Module, images: Tensor, labels: Tensor, masks: Tensor) -> str:
    """A printable line: |gradient x input| of the true class on lesion images, against the masks bool [count, H, W].

    The share is the mean part of the absolute relevance inside the mask; the pointing game counts the images whose
    largest value lies inside it. Chance, for both, is the mean area of the masks.
    """
    chosen = labels > 0
    shares, hits = [], []
    for x, label, mask in zip(
        images[chosen].split(100), labels[chosen].split(100), masks[chosen].split(100), strict=True
    ):
        variable = x.clone().requires_grad_()
        network(variable).gather(1, label[:, None]).sum().backward()
        assert variable.grad is not None
        relevance = (variable.grad * x).abs().sum(1).flatten(1)
        inside = mask.flatten(1)
        shares.append((relevance * inside).sum(1) / relevance.sum(1))
        hits.append(inside.gather(1, relevance.argmax(1, keepdim=True))[:, 0].double())
    share, hit, area = torch.cat(shares).mean(), torch.cat(hits).mean(), masks[chosen].double().mean()
    return f"|gradient x input| in the mask {share:.3f}, pointing game {hit:.3f}, mask area {area:.4f}"

"""The two classifiers: a VGG and a ResNet in small, with the building blocks that their big brothers are known for.

Both take float32 [N, 1, SIZE, SIZE], (pixel - MEAN) / STD with pixels in 0..1, and return logits [N, len(CLASSES)].
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from tools.mri.slices import CLASSES, SIZE

MEAN, STD = 0.5, 0.25


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a skip, which is the identity unless the block changes the shape."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_convolution(channels, width, 3, stride), nn.ReLU(), *_convolution(width, width, 3, stride=1)
        )
        same = stride == 1 and channels == width
        self.skip: nn.Module = nn.Identity() if same else nn.Sequential(*_convolution(channels, width, 1, stride))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """From [N, channels, H, W] to [N, width, H / stride, W / stride], never negative."""
        y: Tensor = self.relu(self.body(x) + self.skip(x))
        return y


def vgg() -> nn.Sequential:
    """Blocks of 3x3 convolutions, each ended by a 2x2 maximum; two dense layers at the end. Export folds the norms."""
    layers: list[nn.Module] = []
    channels = 1
    for widths in ((8,), (16,), (32, 32), (48, 48), (64, 64)):
        for width in widths:
            layers += [*_convolution(channels, width, 3, stride=1), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    flat = channels * (SIZE // 32) ** 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(flat, 64), nn.ReLU(), nn.Linear(64, len(CLASSES)))


def resnet() -> nn.Sequential:
    """A 7x7 stem with an overlapping maximum, three stages of two basic blocks, the global average, one dense layer."""
    widths = (16, 16, 32, 64)
    blocks: list[nn.Module] = []
    for stage, (channels, width) in enumerate(pairwise(widths)):
        blocks += [BasicBlock(channels, width, stride=2 if stage else 1), BasicBlock(width, width, stride=1)]
    stem = (*_convolution(1, widths[0], 7, stride=2), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], len(CLASSES)))


def _convolution(channels: int, width: int, kernel: int, stride: int) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    return nn.Conv2d(channels, width, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(width)

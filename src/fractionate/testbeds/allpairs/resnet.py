"""ResNet-18 and ResNet-34 (He et al., arXiv 1512.03385) for one grey channel and two answers: All-Pairs' baselines.

Written out and not taken from torchvision: that package's wheels are built against one build of torch and fail to
import beside another (the CPU build that this project installs). The layers, their order and the initialisation are
those of the paper and of torchvision's `resnet18` and `resnet34`, so the numbers of parameters agree: 11,171,266 and
21,279,426.
"""

from __future__ import annotations

from typing import Any

from torch import nn

Tensor = Any
DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
_WIDTHS = (64, 128, 256, 512)


class ResNet(nn.Module):  # type: ignore[misc]
    """A ResNet of 18 or 34 layers on (n, side, side) images of uint8; logits (n, 2)."""

    def __init__(self, depth: int = 18) -> None:
        super().__init__()
        if depth not in DEPTHS:
            raise ValueError(f"depth must be one of {sorted(DEPTHS)}")
        self.stem = nn.Sequential(*_conv(1, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        blocks: list[Any] = []
        inputs = 64
        for stage, (width, count) in enumerate(zip(_WIDTHS, DEPTHS[depth], strict=True)):
            for place in range(count):
                blocks.append(_Block(inputs, width, stride=2 if stage and not place else 1))
                inputs = width
        self.blocks = nn.Sequential(*blocks)
        self.answer = nn.Linear(inputs, 2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, (n, 2)."""
        return self.answer(self.blocks(self.stem(images[:, None].float() / 255 - 0.5)).mean((2, 3)))


class _Block(nn.Module):  # type: ignore[misc]
    """Two 3 × 3 convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.main = nn.Sequential(*_conv(inputs, outputs, 3, stride), nn.ReLU(), *_conv(outputs, outputs, 3, 1))
        changed = stride != 1 or inputs != outputs
        self.shortcut = nn.Sequential(*_conv(inputs, outputs, 1, stride)) if changed else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        return nn.functional.relu(self.main(features) + self.shortcut(features))


def _conv(inputs: int, outputs: int, kernel: int, stride: int) -> list[Any]:
    return [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs)]

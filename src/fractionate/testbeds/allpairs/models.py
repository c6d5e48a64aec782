"""The models of All-Pairs: Type-Net (arXiv 1807.00126) and ResNet-18/34 (He et al., arXiv 1512.03385), its baseline.

Type-Net: convolutions assign types to every position, a histogram counts them, and a relation is computed over it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn import functional

Tensor = Any
SOFTMAX_OVER = ("types", "rows")


class TypeNet(nn.Module):  # type: ignore[misc]
    """Type-Net on (n, side, side) images of uint8; logits (n, 2). 1,044,530 parameters at the published width.

    `softmax_over` is "types", which is meant, or "rows": the released code leaves PyTorch's `dim` unset and so
    normalises over an image's rows, which makes the plain mean of the types a constant.
    """

    def __init__(self, width: int = 128, types: int = 64, softmax_over: str = "types") -> None:
        super().__init__()
        if softmax_over not in SOFTMAX_OVER:
            raise ValueError(f"softmax_over must be one of {SOFTMAX_OVER}")
        self._axis = 1 if softmax_over == "types" else 2
        self.features = nn.Sequential(
            *_conv(1, width, 3, 1), *_conv(width, width, 5, 2), *_conv(width, width, 5, 1), *_conv(width, width, 3, 1)
        )
        self.branches = nn.ModuleList(nn.Conv2d(width, types, 1, bias=False) for _ in range(2))
        sizes = [3 * types, 3 * types, 3 * types // 2, 3 * types // 4]
        dense = [part for inner, outer in pairwise(sizes) for part in _dense(inner, outer)]
        self.relate = nn.Sequential(*dense, nn.Linear(sizes[-1], 2))
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, (n, 2)."""
        return self.relate(self.histogram(images))

    def histogram(self, images: Tensor) -> Tensor:
        """Return the pooled types, (n, 3 · types): as they are, and the largest within 5 × 5 and 3 × 3."""
        features = self.features(images[:, None].float() / 255 - 0.5)
        types = sum(branch(features).softmax(self._axis) for branch in self.branches)
        pooled = [functional.max_pool2d(types, size, stride=1, padding=size // 2) for size in (5, 3)]
        return torch.cat([part.mean((2, 3)) for part in (types, *pooled)], 1)


def _conv(inputs: int, outputs: int, kernel: int, stride: int) -> list[Any]:
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.ELU(),
        nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01, affine=False),
    ]


def _dense(inputs: int, outputs: int) -> list[Any]:
    return [nn.Linear(inputs, outputs), nn.ELU(), nn.BatchNorm1d(outputs, eps=1e-3, momentum=0.01, affine=False)]


DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
_WIDTHS = (64, 128, 256, 512)


class ResNet(nn.Module):  # type: ignore[misc]
    """A ResNet of 18 or 34 layers on (n, side, side) images of uint8; logits (n, 2)."""

    def __init__(self, depth: int = 18) -> None:
        super().__init__()
        if depth not in DEPTHS:
            raise ValueError(f"depth must be one of {sorted(DEPTHS)}")
        self.stem = nn.Sequential(*_resnet_conv(1, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
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
        self.main = nn.Sequential(
            *_resnet_conv(inputs, outputs, 3, stride), nn.ReLU(), *_resnet_conv(outputs, outputs, 3, 1)
        )
        changed = stride != 1 or inputs != outputs
        self.shortcut = nn.Sequential(*_resnet_conv(inputs, outputs, 1, stride)) if changed else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        return nn.functional.relu(self.main(features) + self.shortcut(features))


def _resnet_conv(inputs: int, outputs: int, kernel: int, stride: int) -> list[Any]:
    return [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs)]

"""Type-Net (arXiv 1807.00126): convolutions give every place types; their histogram; a relation over it."""

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

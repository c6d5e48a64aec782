"""Models of Knowledge Matters: the published two-tier network, two that divide without hints, and a plain MLP.

A block's types depend on its pixels alone, so the two block models compute every distinct block of a batch once and
look the others up. That is the same function with the same gradients as a pass over all 64 blocks of every image, for
about 80 of them instead of 16,000 (a test compares the two).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from fractionate.testbeds.pentomino.generator import BLOCK, BLOCKS, CLASSES, GRID, SIDE

BLOCK_CLASSES = len(CLASSES) + 1
"""What a block can hold: nothing, or one of the ten classes."""

_PIXELS = BLOCK * BLOCK
_GATHER = 0x0102040810204080
"""Times eight bytes of 0 or 1, this leaves their bits in the topmost byte, the first pixel in its lowest bit."""

Tensor = Any


def distinct_blocks(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return a batch's distinct blocks, (u, 64) of float, the empty one first, and which each block is, (n, 64).

    `images` are (n, 64, 64) of uint8, each 0 or 1; blocks go row by row.
    """
    rows = images.contiguous().view(torch.int64).view(-1, GRID, BLOCK, GRID)
    bits = ((rows * _GATHER) >> 56) & 255
    shifts = 8 * torch.arange(BLOCK, device=images.device)
    keys = (bits << shifts[:, None]).sum(2).view(-1, BLOCKS)
    occupied = keys != 0
    found, place = torch.unique(keys[occupied], return_inverse=True)
    which = torch.zeros_like(keys)
    which[occupied] = place + 1
    pixels = shifts[:, None] + torch.arange(BLOCK, device=images.device)
    patterns = (torch.cat([found.new_zeros(1), found])[:, None] >> pixels.flatten()) & 1
    return patterns.float(), which


class BlockTypes(nn.Module):  # type: ignore[misc]
    """The generic model: types of blocks, their histogram, a relation over it; trained end to end on the label alone.

    Built in: the image is cut into its 8 × 8 blocks; one network types every block, and nothing in a black one (it has
    no biases); the relation sees how much there is of each type, not where. Not built in: how many classes there are,
    which drawings belong together, that there are three sprites, what is asked about them.
    """

    def __init__(self, hidden: int = 512, types: int = 256, relation: int = 256) -> None:
        super().__init__()
        self.types = types
        self.perceive = nn.Sequential(
            nn.Linear(_PIXELS, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, types, bias=False)
        )
        self.relate = _relation(types, relation)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, (n, 2)."""
        patterns, which = distinct_blocks(images)
        return self.relate(_counts(which, len(patterns)) @ self.perceive(patterns).relu())

    def loss(self, images: Tensor, labels: Tensor, hints: Tensor, teach: str) -> tuple[Tensor, Tensor]:
        """Return the loss and the logits; hints teach what `teach` says.

        "divide" adds the cross-entropy of every sprite's class among the first ten types; "solve" adds that of the
        relation on the true histogram, one type per class; "both" adds both; "none" neither.
        """
        patterns, which = distinct_blocks(images)
        counts, typed = _counts(which, len(patterns)), self.perceive(patterns)
        logits = self.relate(counts @ typed.relu())
        loss = functional.cross_entropy(logits, labels)
        if teach in ("divide", "both"):
            truth, weights = _truth(which, hints, len(patterns)), counts.sum(0)[1:]
            each = functional.cross_entropy(typed[1:, : len(CLASSES)], truth[1:] - 1, reduction="none")
            loss = loss + (each * weights).sum() / weights.sum()
        if teach in ("solve", "both"):
            histogram = functional.one_hot(hints, 1 + self.types).sum(1)[:, 1:].float()
            loss = loss + functional.cross_entropy(self.relate(histogram), labels)
        return loss, logits


class ConvTypes(nn.Module):  # type: ignore[misc]
    """The more generic model: overlapping convolutions, types, their histogram over all places, a relation.

    Built in: locality, one network for every place, and that the relation sees a histogram. Nothing of blocks: the
    receptive field is 17 px and types are read every 4 px. `norm` puts batch normalisation after every layer; without
    it there are no biases below the relation, so that black has no types.
    """

    def __init__(self, width: int = 24, types: int = 128, relation: int = 256, norm: int = 1) -> None:
        super().__init__()
        self.perceive = nn.Sequential(
            *_conv(1, width, 5, 2, norm),
            *_conv(width, 2 * width, 3, 2, norm),
            *_conv(2 * width, 3 * width, 3, 1, norm),
            nn.Conv2d(3 * width, types, 1, bias=False),
            nn.ReLU(),
        )
        # Most of an image is black, so a sum over it has a large constant part, which this takes away.
        self.centre = nn.BatchNorm1d(types) if norm else nn.Identity()
        self.relate = _relation(types, relation)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, (n, 2)."""
        return self.relate(self.centre(self.perceive(images[:, None].float()).sum((2, 3))))


class TwoTier(nn.Module):  # type: ignore[misc]
    """The published structured network: P1NN types every block, P2NN reads all blocks' types in their places.

    With hints ("divide"), P1NN learns from them alone and P2NN from what P1NN says, both at the same time (the paper
    trains one after the other). Without, both learn from the label, end to end.
    """

    def __init__(self, hidden: int = 2048, relation: int = 128) -> None:
        super().__init__()
        self.perceive = nn.Sequential(nn.Linear(_PIXELS, hidden), nn.ReLU(), nn.Linear(hidden, BLOCK_CLASSES))
        self.relate = nn.Sequential(
            nn.BatchNorm1d(BLOCKS * BLOCK_CLASSES, affine=False),
            nn.Linear(BLOCKS * BLOCK_CLASSES, relation),
            nn.ReLU(),
            nn.Linear(relation, 2),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, (n, 2)."""
        patterns, which = distinct_blocks(images)
        return self.relate(self.perceive(patterns).softmax(1)[which].flatten(1))

    def loss(self, images: Tensor, labels: Tensor, hints: Tensor, teach: str) -> tuple[Tensor, Tensor]:
        """Return the loss and the logits; `teach` is "none" or "divide"."""
        patterns, which = distinct_blocks(images)
        typed = self.perceive(patterns)
        said = typed.softmax(1)[which].flatten(1)
        if teach == "none":
            logits = self.relate(said)
            return functional.cross_entropy(logits, labels), logits
        logits = self.relate(said.detach())
        loss = functional.cross_entropy(logits, labels)
        return loss + _block_loss(typed, which, _counts(which, len(patterns)), hints), logits


class PixelMLP(nn.Module):  # type: ignore[misc]
    """A fully connected network on the 4,096 pixels: nothing built in."""

    def __init__(self, hidden: int = 1024) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(SIDE * SIDE, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden // 4),
            nn.ReLU(),
            nn.Linear(hidden // 4, 2),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, (n, 2)."""
        return self.net(images.flatten(1).float())


def _conv(inputs: int, outputs: int, kernel: int, stride: int, norm: int) -> list[Any]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return [convolution, *([nn.BatchNorm2d(outputs)] if norm else []), nn.ReLU()]


def _relation(types: int, hidden: int) -> Any:
    return nn.Sequential(nn.Linear(types, hidden), nn.LayerNorm(hidden), nn.ReLU(), nn.Linear(hidden, 2))


def _counts(which: Tensor, blocks: int) -> Tensor:
    """Return how often each distinct block is in each image, (n, u) of float."""
    counts = torch.zeros(len(which), blocks, device=which.device)
    return counts.scatter_add_(1, which, torch.ones_like(which, dtype=counts.dtype))


def _truth(which: Tensor, hints: Tensor, blocks: int) -> Tensor:
    """Return each distinct block's hint: equal blocks have equal hints."""
    return torch.zeros(blocks, dtype=torch.int64, device=which.device).scatter_(0, which.flatten(), hints.flatten())


def _block_loss(typed: Tensor, which: Tensor, counts: Tensor, hints: Tensor) -> Tensor:
    """Return the mean cross-entropy of all blocks' types, each distinct block weighted by how often it is there."""
    each = functional.cross_entropy(typed, _truth(which, hints, len(typed)), reduction="none")
    return (each * counts.sum(0)).sum() / which.numel()

"""A trunk with heads that show where they look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from pipelines.heads import Head
from pipelines.training.backbones import Trunk


class HeadedNet(nn.Module):
    """One linear layer a head over the trunk's feature map, then the mean over all positions.

    The mean of a linear layer is the linear layer of the mean, so this is a classifier behind
    global average pooling, and what it averages are the class activation maps of Zhou et al.
    (2016): seed 000, section 6.
    """

    def __init__(self, arch: str, heads: Sequence[Head], dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = tuple(heads)
        self.trunk = Trunk(arch)
        # Whole channels: what dropout of the pooled features would drop.
        self.dropout = nn.Dropout2d(dropout)
        classes = sum(len(head.classes) for head in heads)
        self.classify = nn.Conv2d(self.trunk.channels, classes, 1)
        nn.init.normal_(self.classify.weight, std=0.01)
        nn.init.zeros_(cast(Tensor, self.classify.bias))
        self._frozen = False

    def freeze_trunk(self, frozen: bool = True) -> None:
        """Train the heads alone (the trunk's statistics stay too), or all of it again."""
        self._frozen = frozen
        self.trunk.requires_grad_(not frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> HeadedNet:
        """Training mode, but for a frozen trunk."""
        super().train(mode)
        if self._frozen:
            self.trunk.eval()
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, S, S) normalised float to logits (N, K) of all heads, one after the other, and
        their maps (N, K, h, w)."""
        maps = self.classify(self.dropout(self.trunk(images)))
        return maps.mean((2, 3)), maps

    def split_logits(self, logits: Tensor) -> dict[str, Tensor]:
        """Logits (N, K) to those of each head."""
        parts = torch.split(logits, [len(head.classes) for head in self.heads], dim=1)
        return {head.name: part for head, part in zip(self.heads, parts, strict=True)}

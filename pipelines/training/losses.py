"""Losses that know of rare classes and of missing labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

UNKNOWN = -1
"""The target of an image whose label for a head is not known."""


def class_alphas(counts: Sequence[int]) -> Tensor:
    """The class factors of Eq. 1 of seed 004, (K,): inversely proportional to the counts, 1 on
    average over the images, so that rare classes weigh more and the loss keeps its scale."""
    images = torch.tensor(counts, dtype=torch.float32)
    inverse = torch.where(images > 0, 1 / images.clamp(min=1), torch.zeros(()))
    present = (images > 0).sum().clamp(min=1)
    return inverse * images.sum() / present


def focal_loss(logits: Tensor, targets: Tensor, alphas: Tensor | None, gamma: float) -> Tensor:
    """FL(p_t) = -alpha_t (1 - p_t)^gamma log(p_t), the mean over the images that have a label
    (Eq. 1 of seed 004; Lin et al., 2017). With gamma 0 this is cross-entropy.

    Args:
        logits: (N, K).
        targets: (N,) int64, `UNKNOWN` where there is no label; without any the loss is 0.
        alphas: (K,), or None for 1.
        gamma: how little surely right answers count, 0 or more.
    """
    known = targets != UNKNOWN
    if not bool(known.any()):
        return logits.sum() * 0
    log_p = F.log_softmax(logits[known].float(), dim=1)
    log_pt = log_p.gather(1, targets[known, None]).squeeze(1)
    loss = -((1 - log_pt.exp()) ** gamma) * log_pt
    if alphas is not None:
        loss = loss * alphas.to(loss.device)[targets[known]]
    return loss.mean()


def multi_label_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy, the mean over the images that have labels.

    Args:
        logits: (N, K).
        targets: (N, K) of 0 and 1, `UNKNOWN` in rows without labels; without any the loss is 0.
    """
    known = (targets != UNKNOWN).all(1)
    if not bool(known.any()):
        return logits.sum() * 0
    return F.binary_cross_entropy_with_logits(logits[known].float(), targets[known].float())

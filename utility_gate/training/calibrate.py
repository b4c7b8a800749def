"""Logits to probabilities that mean what they say, and thresholds on them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from utility_gate.types import Thresholds

REJECTED_USEFUL = 0.01
PASSED_NON_USEFUL = 0.05
"""Shares of validation copies that the two thresholds accept to be on the wrong side."""


def balanced_weights(labels: Tensor) -> Tensor:
    """One weight per label in {0, 1} (N,), such that each class weighs 1/2 in all."""
    useful = labels.float().mean()
    return torch.where(labels == 1, 0.5 / useful, 0.5 / (1 - useful)) / len(labels)


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature T that minimises the class-balanced negative log-likelihood of logits / T
    (Guo et al., 2017). `logits` (N, 2), `labels` (N,) in {0, 1}; T lies in [0.05, 20].

    Both classes count the same: the utility is the probability for an image of which nothing
    is known beforehand, whatever the share of useful images in the training set.
    """
    weights = balanced_weights(labels)
    log_t = torch.zeros((), requires_grad=True)
    optimizer = torch.optim.LBFGS([log_t], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        scaled = logits / log_t.exp()
        value = (F.cross_entropy(scaled, labels, reduction="none") * weights).sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return float(log_t.detach().exp().clamp(0.05, 20.0))


def choose_thresholds(utility: Tensor, labels: Tensor) -> Thresholds:
    """Thresholds by risk on validation copies.

    `review` is the highest value that puts at most 1 % of useful copies below it; `useful` the
    lowest that leaves at most 5 % of non-useful ones at or above it. Where the classes separate
    so well that these cross, both become their middle and there is no REVIEW band.
    """
    useful, non_useful = utility[labels == 1], utility[labels == 0]
    review = float(torch.quantile(useful, REJECTED_USEFUL, interpolation="lower"))
    pass_at = float(torch.quantile(non_useful, 1 - PASSED_NON_USEFUL, interpolation="higher"))
    pass_at = min(1.0, pass_at + 1e-6)
    if review >= pass_at:
        review = pass_at = (review + pass_at) / 2
    return Thresholds(useful=round(pass_at, 6), review=round(review, 6))

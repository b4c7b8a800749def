"""Logits to probabilities that mean what they say."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


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


def fit_platt(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """Temperature T and shift b that minimise the class-balanced negative log-likelihood of
    sigmoid(margin / T + b), margin being the logit of class 1 less that of class 0 (Platt, 1999).
    Arguments as `fit_temperature`; T in [0.05, 20], b in [-5, 5].
    """
    weights = balanced_weights(labels).double()
    margin = (logits[:, 1] - logits[:, 0]).double()
    free = torch.zeros(2, dtype=torch.float64, requires_grad=True)  # log T, b
    optimizer = torch.optim.LBFGS([free], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        scaled = margin / free[0].exp() + free[1]
        entropy = F.binary_cross_entropy_with_logits(scaled, labels.double(), reduction="none")
        value = (entropy * weights).sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    log_t, shift = free.detach().tolist()
    return min(20.0, max(0.05, math.exp(min(5.0, max(-5.0, log_t))))), min(5.0, max(-5.0, shift))

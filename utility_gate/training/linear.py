"""A head for a frozen trunk, fitted exactly: logistic regression with soft targets."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utility_gate.training.module import NON_USEFUL, USEFUL, Standardize

_STEPS = 500


def fit_head(
    head: nn.Sequential,
    features: Tensor,
    targets: Tensor,
    weights: Tensor,
    decay: float,
    scale: Tensor,
) -> None:
    """Set a head (`Standardize`, dropout, linear with two outputs) to the one minimum of the
    weighted cross-entropy plus `decay` times the squared weights of the linear layer's margin.

    `features` (M, F) float32, `targets` (M,) in [0, 1], `weights` (M,) in sum 1, `scale` (F,) what
    each feature's spread becomes: the larger, the less it is held back.
    """
    standardize, linear = head[0], head[2]
    if not isinstance(standardize, Standardize) or not isinstance(linear, nn.Linear):
        raise TypeError(f"expected Standardize, dropout and a linear layer, got {head}")
    standardize.settle(features, scale)
    with torch.no_grad():
        seen = standardize(features)
    margin = torch.zeros(seen.shape[1], requires_grad=True)
    bias = torch.zeros((), requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [margin, bias], max_iter=_STEPS, tolerance_change=1e-10, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = seen @ margin + bias
        entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        value = (entropy * weights).sum() + decay * margin.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for output, sign in ((USEFUL, 0.5), (NON_USEFUL, -0.5)):
            linear.weight[output] = sign * margin.float()
            linear.bias[output] = sign * bias.float()

"""torchvision's weights, downloaded or cached."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.models import WeightsEnum

from utility_gate.errors import CheckpointError


def torchvision_state(weights: WeightsEnum, otherwise: str) -> dict[str, Tensor]:
    """The state of torchvision's own network, by its own names; `otherwise` ends the sentence that
    says what to do if it cannot be had.

    Raises:
        CheckpointError: if it cannot.
    """
    try:
        state: dict[str, Tensor] = weights.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(
            f"torchvision's weights could not be downloaded ({error}); put {weights.url} into "
            f"{torch.hub.get_dir()}/checkpoints, or {otherwise}"
        ) from error
    return state

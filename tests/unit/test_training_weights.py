"""torchvision's weights, without a download."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from utility_gate.errors import CheckpointError
from utility_gate.training.module import ARCHITECTURES
from utility_gate.training.weights import torchvision_state

URL = "https://weights.invalid/x.pth"


def weights(given: Any) -> Any:
    """torchvision's entry of weights; `given` is the state, or what is raised instead."""

    def get_state_dict(**options: Any) -> Any:
        assert options == {"progress": True, "check_hash": True}
        if isinstance(given, Exception):
            raise given
        return given

    return SimpleNamespace(url=URL, get_state_dict=get_state_dict)


def test_a_state_is_given_as_it_is() -> None:
    state = {"conv.weight": torch.ones(2)}
    assert torchvision_state(weights(state), "do without") is state


@pytest.mark.parametrize("error", [OSError("no network"), RuntimeError("invalid hash value")])
def test_what_cannot_be_had_is_told_with_what_to_do(error: Exception) -> None:
    place = f"put {URL} into {torch.hub.get_dir()}/checkpoints, or do without"
    with pytest.raises(CheckpointError) as told:
        torchvision_state(weights(error), "do without")
    message = f"torchvision's weights could not be downloaded ({error}); {place}"
    assert str(told.value) == message


def test_a_predictors_trunk_without_weights_says_which_option_to_give() -> None:
    missing = replace(ARCHITECTURES["mobilenet_v2"], weights=weights(OSError("no network")))
    with pytest.raises(CheckpointError, match=r"checkpoints, or give --init a trunk or scratch$"):
        missing.imagenet_state()

"""What a training run is asked to do; presets are TOML files beside this one."""

from __future__ import annotations

import os
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from utility_gate.errors import ConfigError
from utility_gate.sides import Targets


class TrainConfig(BaseModel):
    """One recipe.

    `arch` is the trunk: the paper's ResNet-18, or MobileNet-v2. `init` as
    `UtilityNet.initialize`.

    `targets` "unanimous" trains on decided copies alone (the paper); "votes" adds undecided
    copies on which at least one network voted, with the soft target
    1/2 + (useful - non-useful votes) / (2 networks).

    `learning_rate` is the head's; the trunk's is `trunk_rate` times it, 0 freezes it.
    `epoch_samples` copies, balanced (see `balanced_sampler`), make an epoch; with the constant
    schedule training stops after `patience` epochs without a better validation AUROC. `side` is
    the input in pixels, `scale_to` the decoder's floor, `min_side` the smallest side judged.
    `threads` 0 leaves torch's own number.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    arch: Literal["resnet18", "mobilenet_v2"] = "resnet18"
    optimizer: Literal["sgd", "adamw"] = "adamw"
    learning_rate: float = Field(default=1e-3, gt=0)
    trunk_rate: float = Field(default=0.3, ge=0, le=1)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0.02, ge=0)
    schedule: Literal["constant", "onecycle"] = "onecycle"
    epochs: int = Field(default=10, ge=1)
    epoch_samples: int = Field(default=4000, ge=1)
    patience: int = Field(default=4, ge=1)
    batch_size: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.2, ge=0, lt=1)
    targets: Targets = "votes"
    augment: bool = True
    init: str = "IMAGENET1K_V1"
    side: int = Field(default=224, ge=32, le=1024)
    scale_to: int = Field(default=256, ge=32)
    min_side: int = Field(default=32, ge=1)
    validation_fraction: float = Field(default=0.2, gt=0, lt=0.9)
    calibration_fraction: float = Field(default=0.0, ge=0, lt=0.9)
    precision: Literal["32-true", "bf16-mixed"] = "bf16-mixed"
    workers: int = Field(default_factory=lambda: min(8, max(1, (os.cpu_count() or 1) - 1)), ge=0)
    threads: int = Field(default=0, ge=0)
    seed: int = 0

    @model_validator(mode="after")
    def _decoder_leaves_enough(self) -> TrainConfig:
        if self.scale_to < self.side:
            raise ValueError(f"expected scale_to >= side, got {self.scale_to} < {self.side}")
        return self


def load_config(source: str, **overrides: Any) -> TrainConfig:
    """A recipe from a preset's name or a TOML file, with `overrides` (None: not given).

    Raises:
        ConfigError: if there is no such preset or file, or a value is unknown or out of range.
    """
    preset = files("utility_gate.training") / "presets" / f"{source}.toml"
    path = Path(source)
    try:
        text = preset.read_text() if preset.is_file() else path.read_text()
        table = tomllib.loads(text) | {k: v for k, v in overrides.items() if v is not None}
        return TrainConfig(**table)
    except OSError as error:
        raise ConfigError(f"expected the preset best or paper, or a TOML file: {error}") from error
    except (tomllib.TOMLDecodeError, ValidationError, TypeError) as error:
        raise ConfigError(f"{source}: not a training configuration: {error}") from error

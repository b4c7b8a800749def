"""What a training run of a classifier is asked to do."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from pipelines.training.backbones import BACKBONES
from pipelines.training.run_recipe import RunRecipe
from utility_gate.errors import ConfigError


class Recipe(RunRecipe):
    """One recipe: the heads first, then all layers, the earlier ones slower (seed 000, section 5).

    `arch` is one of `backbones.BACKBONES`, `init` as `Trunk.initialize`. `learning_rate` is the
    heads'; 0 lets the learning-rate finder choose. `block_rates` are the rates of the trunk's two
    halves as parts of it; 0 for the earlier one freezes it, which halves the time of a step.

    `schedule` of the second stage: "onecycle", "cyclic" (cosine with a restart after every
    `cycle_epochs`), or "plateau" (Adam's rate falls to a tenth when the validation loss stands
    still for `plateau_epochs`; training ends after `patience` epochs without a better one).

    `loss` "focal" is Eq. 1 of seed 004 with `gamma`; "cross_entropy" is the same with gamma 0.
    `class_weights` weighs classes by their rarity; `balanced` draws all classes equally often
    instead. `views` measures with test-time augmentation too.

    Random crops show things larger than they are on whole images, so a network that was trained on
    `side` pixels often sees best a little above it (Touvron et al., 2019): `serve_side`; 0 for
    `side` itself.
    """

    arch: str = "mobilenet_v2"
    init: str = "IMAGENET1K_V1"
    side: int = Field(default=224, ge=32, le=1024)
    serve_side: int = Field(default=0, ge=0, le=1024)
    head_epochs: int = Field(default=3, ge=0)
    epochs: int = Field(default=15, ge=0)
    learning_rate: float = Field(default=0.0, ge=0)
    block_rates: tuple[float, float] = (0.1, 0.3)
    weight_decay: float = Field(default=0.01, ge=0)
    dropout: float = Field(default=0.2, ge=0, lt=1)
    schedule: Literal["onecycle", "cyclic", "plateau"] = "onecycle"
    cycle_epochs: int = Field(default=5, ge=1)
    plateau_epochs: int = Field(default=2, ge=1)
    patience: int = Field(default=5, ge=1)
    loss: Literal["focal", "cross_entropy"] = "cross_entropy"
    gamma: float = Field(default=2.0, ge=0)
    class_weights: bool = False
    balanced: bool = False
    batch_size: int = Field(default=32, ge=2)
    smallest_crop: float = Field(default=0.5, gt=0, le=1)
    views: bool = True

    @property
    def served(self) -> int:
        """The side of the input that is served."""
        return self.serve_side or self.side

    @field_validator("block_rates")
    @classmethod
    def _later_learns(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] < 0 or value[1] <= 0:
            raise ValueError(f"expected rates of 0 or more, the second above 0, got {value}")
        return value

    @field_validator("arch")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in BACKBONES:
            raise ValueError(f"expected one of {', '.join(BACKBONES)}, got {value!r}")
        return value

    @model_validator(mode="after")
    def _learns(self) -> Recipe:
        if not self.head_epochs + self.epochs:
            raise ValueError("expected head_epochs or epochs above 0")
        return self


def load_recipe(path: Path, **overrides: Any) -> Recipe:
    """The `[recipe]` of a TOML file, with `overrides` (None: not given).

    Raises:
        ConfigError: if the file cannot be read, or a value is unknown or out of range.
    """
    try:
        table = tomllib.loads(path.read_text()).get("recipe", {})
        return Recipe(**table | {k: v for k, v in overrides.items() if v is not None})
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{path}: not a recipe: {error}") from error

"""What a training run of a detector is asked to do."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from pipelines.boxed import BoxSet
from pipelines.detector import STEP
from pipelines.training.run_recipe import RunRecipe
from utility_gate.errors import ConfigError


class DetectorRecipe(RunRecipe):
    """One TOML table `[detector]`: AdamW and one cycle, on random crops of `crop` pixels of images
    whose longer side was made `side` and that were then scaled by 0.6 to 1.4.

    The trunk's first `frozen` layers are left as they are; `trunk_rate` is the rate of the others
    as a part of `learning_rate`. `classes` are looked for; `rename` maps categories of the tables
    to them, what it leaves out is not looked for. An epoch shows each original `repeats` times,
    each time any of its copies. `sides` are the input sizes it is measured at, `side` is what it is
    served with. `score` is the lowest score of a box that is served, `overlap` the IoU above which
    the less sure of two boxes goes.
    """

    init: str = "IMAGENET1K_V1"
    classes: tuple[str, ...] = Field(min_length=1)
    rename: dict[str, str]
    side: int = Field(default=640, ge=64, le=2048)
    sides: tuple[int, ...] = Field(default=(640, 416), min_length=1)
    crop: int = Field(default=416, ge=64, le=2048)
    repeats: int = Field(default=1, ge=1)
    epochs: int = Field(default=36, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    trunk_rate: float = Field(default=0.3, ge=0, le=1)
    frozen: int = Field(default=4, ge=0, le=18)
    weight_decay: float = Field(default=0.02, ge=0)
    batch_size: int = Field(default=8, ge=1)
    score: float = Field(default=0.3, ge=0, le=1)
    overlap: float = Field(default=0.5, gt=0, le=1)

    @model_validator(mode="after")
    def _can_be(self) -> DetectorRecipe:
        strangers = set(self.rename.values()) - set(self.classes)
        if strangers:
            raise ValueError(f"rename: expected classes of {self.classes}, got {sorted(strangers)}")
        odd = [side for side in (self.side, *self.sides) if side % STEP]
        if odd:
            raise ValueError(f"side, sides: expected multiples of {STEP}, got {odd}")
        return self


def load_detector_config(path: Path) -> tuple[DetectorRecipe, tuple[BoxSet, ...]]:
    """The `[detector]` and the `[[boxes]]` of a TOML file.

    Raises:
        ConfigError: if the file cannot be read, or a value is unknown or out of range.
    """
    try:
        tables: dict[str, Any] = tomllib.loads(path.read_text())
        sets = tuple(BoxSet(**table) for table in tables["boxes"])
        return DetectorRecipe(**tables["detector"]), sets
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: expected [detector] and [[boxes]]: {error}") from error

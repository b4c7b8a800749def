"""What a training run is asked to do; presets are TOML files beside this one."""

from __future__ import annotations

import os
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from utility_gate.errors import ConfigError
from utility_gate.preprocess import Fit
from utility_gate.sides import Shares, Targets

Feature = Literal["confidence", "pooled", "stages"]


class TrainConfig(BaseModel):
    """One recipe.

    The network: `arch` is the trunk, the paper's ResNet-18 or MobileNet-v2; `features` what the
    head sees of it (`Trunk`), each group, standardised, times its `feature_scale`; without scales
    features stay as they are. `init` as `UtilityNet.initialize`. `side` is the input in pixels, the
    central square of the image or, with `fit` "stretch", all of it; `scale_to` the decoder's
    floor, `min_side` the smallest side judged.

    The labels: `targets` as `utility_gate.sides.target_of`; `label_smoothing` moves them towards
    1/2 by this share. `validation_fraction` of the training sources stops and calibrates,
    `calibration_fraction` more chooses thresholds with a guarantee; none is learned from.

    The looks: `augment` and `reencode` as `CopyDataset`. `on_the_fly` makes every copy anew from
    its source, also at qualities between observed ones (`FreshCopies`).

    The fit, by gradient descent ("sgd", "adamw"): `learning_rate` is the head's, the trunk's is
    `trunk_rate` times it, 0 freezes it. `epoch_samples` copies, balanced (`BalancedDraws`), make
    an epoch; `batch_size` is over all processes. With the constant schedule training stops after
    `patience` epochs without a better validation AUROC. Or, for a frozen trunk, exactly ("lbfgs"):
    logistic regression on the features of `views` looks at every copy, with `weight_decay` times
    the squared weights; the rest of these does not matter then.

    `compile` "auto" compiles the network on a GPU alone. `threads` 0 leaves torch's own number.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    arch: Literal["resnet18", "mobilenet_v2"] = "resnet18"
    features: tuple[Feature, ...] = Field(default=("pooled",), min_length=1)
    feature_scale: dict[Feature, float] = {}
    init: str = "IMAGENET1K_V1"
    side: int = Field(default=224, ge=32, le=1024)
    fit: Fit = "crop"
    scale_to: int = Field(default=256, ge=32)
    min_side: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.2, ge=0, lt=1)

    targets: Targets = "votes"
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    validation_fraction: float = Field(default=0.2, gt=0, lt=0.9)
    calibration_fraction: float = Field(default=0.0, ge=0, lt=0.9)

    augment: bool = True
    reencode: float = Field(default=0.0, ge=0, le=1)
    on_the_fly: bool = False

    optimizer: Literal["sgd", "adamw", "lbfgs"] = "adamw"
    learning_rate: float = Field(default=1e-3, gt=0)
    trunk_rate: float = Field(default=0.3, ge=0, le=1)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0.02, ge=0)
    schedule: Literal["constant", "onecycle"] = "onecycle"
    epochs: int = Field(default=10, ge=1)
    epoch_samples: int = Field(default=4000, ge=1)
    patience: int = Field(default=4, ge=1)
    batch_size: int = Field(default=32, ge=1)
    views: int = Field(default=1, ge=1, le=64)

    precision: Literal["32-true", "bf16-mixed"] = "bf16-mixed"
    compile: Literal["auto", "always", "never"] = "auto"
    workers: int = Field(default_factory=lambda: min(8, max(1, (os.cpu_count() or 1) - 1)), ge=0)
    threads: int = Field(default=0, ge=0)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _fits_together(self) -> TrainConfig:
        if self.scale_to < self.side:
            raise ValueError(f"expected scale_to >= side, got {self.scale_to} < {self.side}")
        if len(set(self.features)) != len(self.features):
            raise ValueError(f"expected distinct features, got {', '.join(self.features)}")
        if self.feature_scale and set(self.feature_scale) != set(self.features):
            raise ValueError(
                f"expected a feature_scale for each of {', '.join(self.features)}, got "
                f"{', '.join(self.feature_scale)}"
            )
        if self.optimizer == "lbfgs" and self.trunk_rate != 0:
            raise ValueError(f"expected trunk_rate = 0 with lbfgs, got {self.trunk_rate}")
        if self.optimizer == "lbfgs" and self.on_the_fly:
            raise ValueError("expected on_the_fly = false with lbfgs, which sees every copy")
        if self.validation_fraction + self.calibration_fraction > 0.9:
            raise ValueError("expected a tenth of the sources at least to learn from")
        return self

    @property
    def shares(self) -> Shares:
        """Which sources are kept from learning."""
        return Shares(self.validation_fraction, self.calibration_fraction)


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
        raise ConfigError(
            f"expected a preset (best, embedded, finetune, paper, pipeline) or a TOML file: {error}"
        ) from error
    except (tomllib.TOMLDecodeError, ValidationError, TypeError) as error:
        raise ConfigError(f"{source}: not a training configuration: {error}") from error

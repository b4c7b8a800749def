"""What every training run of a network is asked, whatever it trains."""

from __future__ import annotations

import os
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from utility_gate.errors import ConfigError


class RunRecipe(BaseModel):
    """How a run computes: `workers` are the processes that decode images, `threads` are torch's; 0
    leaves torch's own number."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    precision: Literal["32-true", "bf16-mixed"] = "bf16-mixed"
    workers: int = Field(default_factory=lambda: min(8, max(1, (os.cpu_count() or 1) - 1)), ge=0)
    threads: int = Field(default=0, ge=0)
    seed: int = 0

    def with_changes(self, **changes: Any) -> Self:
        """Another recipe.

        Raises:
            ConfigError: if a value is unknown or out of range.
        """
        try:
            return type(self)(**self.model_dump() | changes)
        except ValidationError as error:
            raise ConfigError(f"not a recipe: {error}") from error

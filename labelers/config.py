"""What is done with the images: the TOML file that a labelling run is made from."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt, ValidationError, model_validator

from labelers.decide import describe_rule, make_rule
from labelers.detectors import SCORE_FLOOR
from labelers.networks import Task
from labelers.rules import Rule
from utility_gate.degrade import DEFAULT_QUALITIES, Degradation, from_config, ladder, to_json
from utility_gate.errors import ConfigError
from utility_gate.files import digest_json
from utility_gate.split import TEST_FRACTION

Reference = Literal["truth", "pristine"]
Share = Annotated[float, Field(ge=0, le=1)]


class BalanceConfig(BaseModel):
    """Augment sources until the rarer class has `ratio` times as many copies as the other, on the
    training and on the test side, in at most `rounds` rounds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ratio: float = Field(default=1.0, gt=0, le=1)
    rounds: int = Field(default=4, ge=1, le=100)
    seed: int = 0


_SAID_APART = {"qualities", "degrade", "rule", "test_fraction"}
"""What `LabelConfig.canonical` says in another way, or a table's metadata beside it."""


class LabelConfig(BaseModel):
    """A labelling configuration.

    `networks` vote; `observe_only` are looked at in the same run but have no vote (baselines).
    Both hold names of a networks file or "torchvision:NAME[:WEIGHTS]". Copies are made at each
    JPEG quality of `qualities` (the paper's nine if neither is given) and by each table of
    `degrade`. `reference` "pristine" takes what a network says of the pristine image for the
    truth, if it is at least `reference_score` sure of it. `temperature` divides a classifier's
    logits. `rule` holds the task's thresholds. `test_fraction` of the sources are held out for
    testing (the paper's 80-20); 1 makes a table to test on alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Task = "classification"
    networks: tuple[str, ...] = Field(min_length=1)
    observe_only: tuple[str, ...] = ()
    qualities: tuple[StrictInt, ...] | None = None
    degrade: tuple[dict[str, Any], ...] = ()
    reference: Reference = "truth"
    reference_score: Share = 0.5
    temperature: dict[str, Annotated[float, Field(gt=0, le=100)]] = {}
    rule: dict[str, Any] = {}
    balance: BalanceConfig | None = None
    test_fraction: Share = TEST_FRACTION

    @model_validator(mode="after")
    def _check(self) -> LabelConfig:
        names = (*self.networks, *self.observe_only)
        if len(set(names)) != len(names):
            raise ValueError(f"expected distinct networks, got {', '.join(names)}")
        strangers = sorted(set(self.temperature) - set(names))
        if strangers or (self.temperature and self.task == "detection"):
            raise ValueError(
                f"temperature: expected classifiers of this run, got {sorted(self.temperature)}"
            )
        if self.task == "detection" and self.reference_score < SCORE_FLOOR:
            raise ValueError(f"reference_score: expected at least {SCORE_FLOOR} for detection")
        try:
            self.degradations()
            self.make_rule()
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return self

    def degradations(self) -> tuple[Degradation, ...]:
        """All copies that are made of a source, in their order.

        Raises:
            ConfigError: if an entry is none, or two are the same.
        """
        try:
            jpegs = self._qualities()
            made: list[Degradation] = [*(ladder(jpegs) if jpegs else ())]
            for table in self.degrade:
                made += from_config(table)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        keys = [(degradation.name, to_json(degradation)) for degradation in made]
        if not keys:
            raise ConfigError("expected at least one degradation, got none")
        if len(set(keys)) != len(keys):
            twice = sorted({key for key in keys if keys.count(key) > 1})
            raise ConfigError(f"expected every degradation once, got {twice} twice")
        return tuple(made)

    def make_rule(self) -> Rule:
        """The task's rule with the configured thresholds.

        Raises:
            ConfigError: for a threshold that the rule does not have or that is out of range.
        """
        return make_rule(self.task, self.rule)

    def canonical(self) -> dict[str, Any]:
        """The configuration as JSON, every default spelled out: what two runs must share to make
        the same observations and votes."""
        return {
            **self.model_dump(mode="json", exclude=_SAID_APART),
            "degradations": [
                {"name": degradation.name, **degradation.parameters}
                for degradation in self.degradations()
            ],
            "rule": describe_rule(self.task, self.make_rule()),
        }

    def digest(self) -> str:
        """SHA-256 of `canonical`, 64 hex digits."""
        return digest_json(self.canonical())

    def _qualities(self) -> tuple[int, ...]:
        if self.qualities is not None:
            return self.qualities
        return () if self.degrade else DEFAULT_QUALITIES


def load_label_config(path: Path) -> LabelConfig:
    """Read a configuration.

    Raises:
        ConfigError: if it is missing or not valid.
    """
    try:
        return make_label_config(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError, ConfigError) as error:
        raise ConfigError(f"{path}: not a labelling configuration: {error}") from error


def make_label_config(values: Mapping[str, Any]) -> LabelConfig:
    """A configuration from its values.

    Raises:
        ConfigError: if they are not valid.
    """
    try:
        return LabelConfig(**values)
    except ValidationError as error:
        problems = (
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}".removeprefix(": ")
            for problem in error.errors()
        )
        raise ConfigError("; ".join(problems)) from error

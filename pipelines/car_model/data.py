"""Which photographs the car-model pipeline is trained and measured on."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from pipelines.car_model.answer import NO_CAR
from pipelines.car_model.names import normalize
from pipelines.car_model.pipeline import HEAD
from pipelines.card import ClassifierCard
from pipelines.embedded import CLASSIFIER, model_folder
from pipelines.examples import Example, assign_sides, load_examples, open_head
from pipelines.job import Job
from pipelines.labelling import write_labelling
from utility_gate.checkpoint import load_card
from utility_gate.errors import ConfigError

LABELLING_HEAD = HEAD
"""Labels copies, and is what a gate learns on, where no head is named."""

_OTHERS = ("alike", "boxes", "detector", "recipe", "sets")


class Options(BaseModel):
    """What a TOML file says beside `[recipe]`, `[[sets]]`, `[detector]`, `[[boxes]]` and `alike`.

    Classes of fewer than `minimum` images are left out, and images without a class. With `levels`
    of a folder tree, `join` makes the class of them ("make", "model"). `normalize` makes one class
    of all years, engines and trims of a model. Models are named when at most `wrong_models` of
    those named would be wrong, makes when at most `wrong_makes`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    minimum: int = Field(default=1, ge=1)
    join: tuple[str, ...] = ()
    normalize: bool = False
    wrong_models: float = Field(default=0.1, gt=0, lt=1)
    wrong_makes: float = Field(default=0.05, gt=0, lt=1)


def load_job(config: Path, data: Path, out: Path, release: str = "1") -> tuple[Options, Job]:
    """What a TOML file asks for, with its images, each on a side.

    Raises:
        ConfigError, TableError: if the file or the images cannot be used.
    """
    try:
        tables = tomllib.loads(config.read_text())
        options = Options(**{k: v for k, v in tables.items() if k not in _OTHERS})
    except (OSError, ValueError) as error:
        raise ConfigError(f"{config}: not a configuration of car_model: {error}") from error
    examples = [_to_model(example, options) for example in load_examples(config, data)]
    named = [example for example in examples if example.labels.get(HEAD)]
    head, kept = open_head(HEAD, named, options.minimum)
    job = Job("car-model", release, (head,), tuple(assign_sides(kept)), data, out)
    return options, job


def _to_model(example: Example, options: Options) -> Example:
    labels = example.labels
    if options.join and labels.keys() >= set(options.join):
        labels = {HEAD: (" ".join(labels[level][0] for level in options.join),)}
    if options.normalize:
        names = labels.get(HEAD, ())
        labels = {HEAD: tuple(name if name == NO_CAR else normalize(name) for name in names)}
    return replace(example, labels=labels)


def write_sources(
    config: Path, data: Path, model: str, head: str | None, out: Path
) -> tuple[int, str]:
    """The labelling files; see `write_labelling`. Returns the number of sources, and the head's
    name.

    Raises:
        ConfigError, TableError, CheckpointError: if the file, the images or the network cannot be
            used.
    """
    chosen = head or LABELLING_HEAD
    _, job = load_job(config, data, out)
    held_out = job.side("validation") + job.side("test")
    with model_folder(model, "pipelines.car_model") as folder:
        card, _ = load_card(folder / CLASSIFIER, ClassifierCard)
        return write_labelling(card, folder / CLASSIFIER, chosen, held_out, data, out), chosen

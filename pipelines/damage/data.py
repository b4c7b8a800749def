"""Which photographs the damage pipeline is trained and measured on."""

from __future__ import annotations

from pathlib import Path

from pipelines.card import ClassifierCard
from pipelines.damage.heads import LOCATION, SEVERITY, TYPE
from pipelines.embedded import CLASSIFIER, model_folder
from pipelines.examples import assign_sides, load_examples
from pipelines.job import Job
from pipelines.labelling import write_labelling
from utility_gate.checkpoint import load_card

LABELLING_HEAD = TYPE.name
"""Labels copies, and is what a gate learns on, where no head is named."""


def classifier_job(config: Path, data: Path, out: Path, release: str = "1") -> Job:
    """The classifier's images and heads; location is asked for if any image has a label for it."""
    examples = tuple(assign_sides(load_examples(config, data)))
    located = any(LOCATION.name in example.labels for example in examples)
    heads = (TYPE, SEVERITY, *((LOCATION,) if located else ()))
    return Job("damage-classifier", release, heads, examples, data, out)


def write_sources(
    config: Path, data: Path, model: str, head: str | None, out: Path
) -> tuple[int, str]:
    """The labelling files of one head (by default of the type); see `write_labelling`. Returns the
    number of sources, and the head's name.

    Raises:
        ConfigError, TableError, CheckpointError: if the file, the images or the networks cannot be
            used.
    """
    chosen = head or LABELLING_HEAD
    job = classifier_job(config, data, out)
    held_out = job.side("validation") + job.side("test")
    with model_folder(model, "pipelines.damage") as folder:
        card, _ = load_card(folder / CLASSIFIER, ClassifierCard)
        return write_labelling(card, folder / CLASSIFIER, chosen, held_out, data, out), chosen

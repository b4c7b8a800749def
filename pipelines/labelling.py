"""The pipelines' networks as labelling networks: what `utility-gate label` needs of them."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

from pipelines.card import ClassifierCard
from pipelines.examples import Example, check_labels
from pipelines.heads import Head
from utility_gate.errors import ConfigError
from utility_gate.files import whole_file

NETWORKS = "networks.toml"
TRUTH = "truth.csv"


def write_labelling(
    card: ClassifierCard, model: Path, head: str, examples: Sequence[Example], data: Path, out: Path
) -> int:
    """Write `networks.toml`, an entry for one head of a classifier, and `truth.csv`, the images
    that have a label for it, paths below `data`. Returns how many.

    Give it held-out images alone: of those that it was trained on, the network knows the answer.

    Raises:
        ConfigError: if the classifier has no such head that chooses one class, or no image has a
            label for it.
        TableError: if an image has a class that the head does not know.
    """
    first, chosen = card.find_head(head)
    labelled = [example for example in examples if example.labels.get(head)]
    if not labelled:
        raise ConfigError(f"expected images with a label for {head}, got none")
    check_labels(labelled, [chosen])
    with whole_file(out / NETWORKS) as partial:
        partial.write_text(_entry(card, model / card.weights.file, chosen, first))
    with whole_file(out / TRUTH) as partial, partial.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("path", "class_index", "name"))
        for example in labelled:
            (name,) = example.labels[head]
            path = example.path.relative_to(data).as_posix()
            writer.writerow((path, chosen.index(name), name))
    return len(labelled)


def _entry(card: ClassifierCard, weights: Path, head: Head, first: int) -> str:
    preprocess = card.preprocess
    fields: dict[str, object] = {
        "file": str(weights.resolve()),
        "input": preprocess.crop,
        "resize": preprocess.resize,
        "fit": preprocess.fit,
        "resampling": str(preprocess.resampling),
        "layout": preprocess.layout,
        "order": preprocess.order,
        "mean": preprocess.mean,
        "std": preprocess.std,
        "output": "logits",
        "output_name": "logits",
        "classes": (first, len(head.classes)),
        "source": f"{card.name} {card.version}, head {head.name}",
    }
    # JSON's strings, numbers and lists are TOML's too.
    lines = [f"{name} = {json.dumps(value)}" for name, value in fields.items()]
    return f"[{card.name.replace('-', '_')}_{head.name}]\n" + "\n".join(lines) + "\n"

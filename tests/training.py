"""A small table of labels, and a recipe that is fitted to it in seconds."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import draw, encode
from utility_gate.degrade import Jpeg, to_json
from utility_gate.files import digest_bytes
from utility_gate.sides import Shares
from utility_gate.split import split_of
from utility_gate.tables import CLASSIFICATION_SCHEMA, to_table, write_labels, write_table
from utility_gate.types import Label, Observation

SOURCES = 40
SHARES = Shares(validation=0.3)
METADATA = {"voters": ["x", "y"], "networks": {"x": 1, "y": 2}, "rule": {"t_high": 0.9}}

TINY = {"init": "scratch", "side": 48, "scale_to": 64, "epochs": 2, "epoch_samples": 48,
        "batch_size": 16, "workers": 0, "precision": "32-true", "threads": 1,
        "validation_fraction": 0.3}  # fmt: skip


def label(**changes: object) -> Label:
    values = {
        "source": "a.png", "source_digest": "0" * 64, "split": "train", "degradation": "jpeg",
        "quality": 50, "image_digest": "1" * 64, "label": None, "utility": None,
        "useful_votes": 0, "non_useful_votes": 0, "networks": 3,
    }  # fmt: skip
    values |= changes
    values.setdefault("parameters", to_json(Jpeg(values["quality"])))  # type: ignore[arg-type]
    return Label(**values)  # type: ignore[arg-type]


def make_tables(folder: Path) -> Path:
    """Forty drawn sources with their labels and observations in `folder`: quality 90 is useful, 5
    is not, 30 is disputed."""
    labels, observations = [], []
    for number in range(SOURCES):
        pixels = draw(96, 72, seed=number)
        data = encode(pixels, "PNG")
        (folder / f"{number}.png").write_bytes(data)
        digest = digest_bytes(data)
        for quality, value, up, down in ((90, 1, 2, 0), (30, None, 1, 0), (5, 0, 0, 2)):
            copy = digest_bytes(Jpeg(quality).apply(pixels))
            labels.append(
                label(
                    source=f"{number}.png", source_digest=digest, split=split_of(digest),
                    quality=quality, image_digest=copy, label=value, useful_votes=up,
                    non_useful_votes=down, networks=2,
                )
            )  # fmt: skip
            observations.append(
                Observation(
                    **labels[-1].fields(), network="small", network_digest="2" * 64, true_class=1,
                    predicted_class=1, top1=quality / 100, ccsp=quality / 100,
                )
            )  # fmt: skip
    write_labels(labels, folder / "labels.parquet", METADATA)
    table = to_table(observations, CLASSIFICATION_SCHEMA)
    write_table(table, folder / "observations.parquet", {})
    return folder

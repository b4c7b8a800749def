"""Observations of networks that no labels were made of, read into arrays.

Only sources on the held-out side are kept: the others may have taught a predictor. Augmented
sources are left out too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from utility_gate.degrade import PRISTINE
from utility_gate.errors import TableError
from utility_gate.evaluation.scores import Flags
from utility_gate.split import TEST_FRACTION, split_of
from utility_gate.tables import read_metadata, read_observations
from utility_gate.types import Copy

_KEYS = ("source", "degradation", "parameters")
_COPY = ("source", "source_digest", "augmentation", "degradation", "parameters", "quality",
         "image_digest")  # fmt: skip
_SAID = {
    "classification": ("true_class", "predicted_class"),
    "detection": ("boxes", "classes", "scores"),
}


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """The degraded copies of a table, and each network's rows on them in the same order; detectors'
    `pristine` rows by source. `left_out` sources are not held out."""

    task: str
    copies: tuple[Copy, ...]
    networks: dict[str, list[dict[str, Any]]]
    pristine: dict[str, dict[str, dict[str, Any]]]
    left_out: int

    @property
    def sources(self) -> list[str]:
        """Each copy's source."""
        return [copy.source for copy in self.copies]

    def right(self, network: str) -> Flags:
        """Where a classifier decided right, (N,)."""
        rows = self.networks[network]
        return np.array([row["predicted_class"] == row["true_class"] for row in rows], np.bool_)


def read_observed(
    path: Path, networks: Sequence[str] | None, without: Sequence[str] = ()
) -> Observed:
    """What `networks` said, in their order; or all that the table has but those `without`.

    Raises:
        TableError: if the table cannot be used, a network is not in it or did not see a copy that
            another saw, or nothing is left.
    """
    whole, task = read_observations(path)
    present = sorted(pc.unique(whole["network"].cast("string")).to_pylist())
    wanted = list(networks) if networks is not None else [n for n in present if n not in without]
    missing = [name for name in wanted if name not in present]
    if missing or not wanted:
        raise TableError(
            f"{path}: expected networks of {present} that have no vote, got {missing or wanted}; "
            "name others with networks = [...]"
        )
    digests = pc.unique(whole["source_digest"].cast("string")).to_pylist()
    share = read_metadata(path).get("test_fraction", TEST_FRACTION)
    held_out = [digest for digest in digests if split_of(digest, share) == "test"]
    kept = whole.filter(
        pc.is_in(whole["source_digest"].cast("string"), pa.array(held_out, pa.string()))
    )
    kept = kept.filter(pc.equal(kept["augmentation"].cast("string"), ""))
    copies: dict[tuple[str, ...], Copy] = {}
    said: dict[str, dict[tuple[str, ...], dict[str, Any]]] = {name: {} for name in wanted}
    for name in wanted:
        its = kept.filter(pc.equal(kept["network"].cast("string"), name))
        for row in its.select([*_COPY, *_SAID[task]]).to_pylist():
            key = tuple(row[column] for column in _KEYS)
            said[name].setdefault(key, row)
            copies.setdefault(key, Copy(**{column: row[column] for column in _COPY}))
    degraded = [key for key in copies if key[1] != PRISTINE]
    if not degraded:
        raise TableError(
            f"{path}: expected degraded copies of held-out sources, got none of {len(digests)} "
            "sources; networks are measured on photographs that no predictor was trained on"
        )
    for name, rows in said.items():
        absent = next((key for key in copies if key not in rows), None)
        if absent is not None:
            raise TableError(f"{path}: {name} did not see {' '.join(absent)}, another network did")
    return Observed(
        task=task,
        copies=tuple(copies[key] for key in degraded),
        networks={name: [rows[key] for key in degraded] for name, rows in said.items()},
        pristine={
            name: {key[0]: row for key, row in rows.items() if key[1] == PRISTINE}
            for name, rows in said.items()
        },
        left_out=len(digests) - len(held_out),
    )

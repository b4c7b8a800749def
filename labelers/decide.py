"""From a table of observations to a table of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from labelers.detectors import SCORE_FLOOR
from labelers.evidence import COLUMNS, COPY_COLUMNS, Grid, arrange, gather
from labelers.rules import (
    NON_USEFUL,
    UNDECIDED,
    USEFUL,
    CcspRule,
    DetectionRule,
    Evidence,
    Rule,
    Votes,
    combine,
    mean_utility,
)
from utility_gate.errors import ConfigError, TableError
from utility_gate.split import TEST_FRACTION, split_of
from utility_gate.tables import LABEL_SCHEMA, read_metadata, read_observations

RULES: dict[str, type[Rule]] = {"classification": CcspRule, "detection": DetectionRule}
"""The rule of each task."""


def make_rule(task: str, values: Mapping[str, Any]) -> Rule:
    """The task's rule with these thresholds, the others at their defaults.

    Raises:
        ConfigError: for a threshold that the rule does not have or that is out of range.
    """
    kind = RULES[task]
    unknown = sorted(set(values) - set(kind.__dataclass_fields__))
    if unknown:
        raise ConfigError(
            f"rule: expected only {', '.join(kind.__dataclass_fields__)} for {task}, got "
            f"{', '.join(unknown)}"
        )
    floor = SCORE_FLOOR if task == "detection" else 0.0
    try:
        rule = kind(**values)
        if values.get("score", 1.0) < floor:
            raise ConfigError(f"rule: expected score >= {floor}, below which nothing is stored")
        return rule
    except (TypeError, ValueError) as error:
        raise ConfigError(f"rule: {error}") from error


def read_for_rules(path: Path) -> tuple[pa.Table, str]:
    """The columns of an observation table that the rules need, and its task.

    Raises:
        TableError: as `utility_gate.tables.read_table`.
    """
    task = read_metadata(path).get("task", "classification")
    return read_observations(path, [*COPY_COLUMNS, *COLUMNS.get(task, [])])


def vote(
    table: pa.Table,
    networks: Sequence[str],
    rule: Rule,
    reference: str = "truth",
    reference_score: float = 0.5,
) -> tuple[Grid, Evidence, Votes]:
    """Every network's vote on every degraded copy, (copies, networks), and what it rests on.

    Raises:
        TableError: if observations are missing or twice there.
    """
    grid = arrange(table, networks)
    seen = gather(table, grid, rule, reference, reference_score)
    return grid, seen, rule.vote(seen)


def decide(
    table: pa.Table,
    networks: Sequence[str],
    rule: Rule,
    reference: str = "truth",
    reference_score: float = 0.5,
    test_fraction: float = TEST_FRACTION,
) -> pa.Table:
    """Labels (`LABEL_SCHEMA`) of all degraded copies, in the order in which they first appear.

    Only observations of `networks` count; others (a baseline looked at in the same run) are
    passed over.

    Raises:
        TableError: if a copy lacks an observation by a network, has two, or its source has no
            pristine observation.
    """
    grid, seen, votes = vote(table, networks, rule, reference, reference_score)
    utilities = mean_utility(rule, seen)
    labels = combine(rule, votes, utilities)
    copies = table.take(pa.array(grid.degraded[:, 0]))
    digests = copies["source_digest"].to_pylist()
    sides = {digest: split_of(digest, test_fraction) for digest in set(digests)}
    columns = {
        "split": pa.array([sides[digest] for digest in digests], pa.string()),
        "label": pa.array(labels, pa.int8(), mask=labels == UNDECIDED),
        "utility": pa.array(utilities, mask=np.isnan(utilities)),
        "useful_votes": pa.array((votes == USEFUL).sum(axis=1), pa.int16()),
        "non_useful_votes": pa.array((votes == NON_USEFUL).sum(axis=1), pa.int16()),
        "networks": pa.array(np.full(len(votes), len(networks)), pa.int16()),
    }
    own = {name: copies[name] for name in LABEL_SCHEMA.names if name in copies.column_names}
    made: pa.Table = pa.table({**own, **columns}).select(LABEL_SCHEMA.names).cast(LABEL_SCHEMA)
    return made


def decide_as(table: pa.Table, metadata: Mapping[str, Any]) -> pa.Table:
    """Labels as the metadata of a table of observations or labels says; see `decide`.

    Raises:
        TableError, ConfigError: if the metadata or the observations do not fit.
    """
    held_out = metadata.get("test_fraction", TEST_FRACTION)
    return decide(table, *judges_of(metadata), test_fraction=held_out)


def judges_of(metadata: Mapping[str, Any]) -> tuple[list[str], Rule, str, float]:
    """Who has a vote, by which rule, reference and reference score, from a table's metadata.

    Raises:
        TableError: if the table does not say how it was made.
    """
    missing = {"voters", "networks", "rule", "task", "reference", "reference_score"} - set(metadata)
    if missing or metadata["task"] not in RULES:
        raise TableError(
            "expected a table made by `utility-gate label`; its metadata lack "
            f"{', '.join(sorted(missing)) or 'a known task'}"
        )
    values = {name: value for name, value in metadata["rule"].items() if name != "name"}
    rule = make_rule(metadata["task"], values)
    return metadata["voters"], rule, metadata["reference"], metadata["reference_score"]


def describe_rule(task: str, rule: Rule) -> dict[str, Any]:
    """The rule for a table's metadata."""
    name = {"classification": "ccsp", "detection": "iou"}[task]
    return {"name": name, **asdict(rule)}

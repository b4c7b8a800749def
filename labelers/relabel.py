"""New thresholds on stored observations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from labelers.decide import decide, describe_rule, judges_of, make_rule, read_for_rules
from labelers.store import OBSERVATIONS, refuse_run_file
from utility_gate.errors import TableError
from utility_gate.files import digest_file, digest_json
from utility_gate.split import TEST_FRACTION
from utility_gate.tables import read_metadata, write_table


def relabel(
    folder: Path, out: Path, rule: Mapping[str, Any], voters: tuple[str, ...] | None = None
) -> pa.Table:
    """Decide anew on the observations in `folder`, with the values in `rule` changed and perhaps
    other `voters`, and write the labels to `out`; returns them.

    Raises:
        TableError: if there are no observations, or none by a voter, or `out` cannot be written.
        ConfigError: for a threshold that the task's rule does not have or that is out of range.
    """
    path = folder / OBSERVATIONS
    refuse_run_file(out)
    metadata = read_metadata(path)
    _, before, reference, reference_score = judges_of(metadata)
    known = list(metadata["networks"])
    strangers = [name for name in voters or () if name not in known]
    if strangers or len(set(voters or ())) != len(voters or ()):
        raise TableError(f"{path}: expected distinct voters of {known}, got {list(voters or ())}")
    made = make_rule(metadata["task"], {**asdict(before), **rule})
    described = describe_rule(metadata["task"], made)
    # The configuration that would have made these labels in the first place.
    deciding = list(voters or metadata["voters"])
    config = metadata.get("config", {}) | {"rule": described}
    if voters is not None:
        config["networks"] = deciding
    metadata |= {
        "rule": described,
        "voters": deciding,
        "config": config,
        "config_sha256": digest_json(config),
        "observations_sha256": digest_file(path),
    }
    held_out = metadata.get("test_fraction", TEST_FRACTION)
    table = read_for_rules(path)[0]
    labels = decide(table, deciding, made, reference, reference_score, held_out)
    write_table(labels, out, metadata)
    return labels

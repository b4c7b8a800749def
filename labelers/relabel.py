"""New thresholds on stored observations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from labelers.decide import decide_as, describe_rule, make_rule, read_for_rules
from labelers.run import OBSERVATIONS
from utility_gate.errors import TableError
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
    metadata = read_metadata(path)
    if "rule" not in metadata:
        raise TableError(f"{path}: expected observations made by `utility-gate label`")
    known = list(metadata["networks"])
    strangers = [name for name in voters or () if name not in known]
    if strangers or len(set(voters or ())) != len(voters or ()):
        raise TableError(f"{path}: expected distinct voters of {known}, got {list(voters or ())}")
    kept = {name: value for name, value in metadata["rule"].items() if name != "name"}
    made = make_rule(metadata["task"], {**kept, **rule})
    metadata |= {
        "rule": describe_rule(metadata["task"], made),
        "voters": list(voters or metadata["voters"]),
    }
    labels = decide_as(read_for_rules(path)[0], metadata)
    write_table(labels, out, metadata)
    return labels

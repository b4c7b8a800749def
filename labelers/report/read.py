"""A labelling run's files as arrays: every labelled copy beside what each network saw in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from labelers.decide import judges_of, read_for_rules, vote
from labelers.evidence import COPY_KEY, Grid, flatten
from labelers.outputs import read_skipped
from labelers.rules import UNDECIDED, DetectionRule, Evidence, Rule, Votes
from labelers.store import LABELS, MANIFEST, OBSERVATIONS, SKIPPED, read_manifest
from utility_gate.degrade.base import canonical
from utility_gate.errors import TableError
from utility_gate.tables import LABEL_SCHEMA, read_metadata, read_table

Numbers = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Step:
    """One degradation of the run: its family ("jpeg"), its label ("jpeg 30"), and `short`, the
    label without the family ("30")."""

    family: str
    label: str
    short: str


@dataclass(frozen=True, slots=True)
class Run:
    """A labelling run. Arrays run over the labelled copies, in the order of the label table.

    `step` and `source` number `steps` and `sources`; an augmented source is a source of its own.
    `label` is 1, 0 or -1 (undecided), `utility` the mean of Eq. 2 or NaN. `votes`, the fields of
    `seen` and `best_iou` are (copies, networks), the voters first and then `networks[voters:]`,
    who only look on. `group` is the true class, or the number of reference objects. `best_iou`
    (detection, else None) holds the best overlap of any sure detection on the copy and on its
    pristine source, 0 to 1.
    """

    task: str
    metadata: Mapping[str, Any]
    rounds: Sequence[Mapping[str, Any]]
    skipped: tuple[tuple[str, str], ...]
    observations: int
    steps: tuple[Step, ...]
    networks: tuple[str, ...]
    voters: int
    rule: Rule
    sources: tuple[str, ...]
    labels: pa.Table
    step: Numbers
    source: Numbers
    augmented: Flags
    test: Flags
    label: Votes
    utility: Reals
    votes: Votes
    seen: Evidence
    group: Numbers
    best_iou: tuple[Reals, Reals] | None

    @property
    def families(self) -> dict[str, list[int]]:
        """The numbers of each family's steps, in the order of the configuration."""
        found: dict[str, list[int]] = {}
        for number, step in enumerate(self.steps):
            found.setdefault(step.family, []).append(number)
        return found


def read_run(folder: Path, labels: Path | None = None) -> Run:
    """The run in `folder`, with its own labels or others made of its observations.

    Raises:
        TableError: if the folder holds no finished run, a table is damaged, or the labels are not
            of these observations.
    """
    manifest = read_manifest(folder)
    if manifest is None or "outputs" not in manifest:
        raise TableError(
            f"{folder}: expected a folder that `utility-gate label` has finished, with "
            f"{MANIFEST}, {OBSERVATIONS} and {LABELS}; got "
            f"{'no manifest' if manifest is None else 'a run that is not finished'}"
        )
    path = labels or folder / LABELS
    metadata = read_metadata(path)
    voters, rule, reference, reference_score = judges_of(metadata)
    table = read_table(path, LABEL_SCHEMA)
    if not len(table):
        raise TableError(f"{path}: expected at least one labelled copy, got none")
    observations, task = read_for_rules(folder / OBSERVATIONS)
    networks = (*voters, *(name for name in _names(observations) if name not in voters))
    # Onlookers are arranged along with the voters, so that their votes can be seen as well.
    grid, seen, votes = vote(observations, networks, rule, reference, reference_score)
    rows = _find_copies(table, observations, grid, path)
    steps = _steps(metadata)
    source, sources = _number_sources(table)
    label = table["label"].fill_null(UNDECIDED).to_numpy().astype(np.int8)
    return Run(
        task=task,
        metadata=metadata,
        rounds=manifest.get("balance", []),
        skipped=tuple((path, reason) for path, reason, _ in read_skipped(folder / SKIPPED)),
        observations=len(observations),
        steps=tuple(steps.values()),
        networks=networks,
        voters=len(voters),
        rule=rule,
        sources=sources,
        labels=table,
        step=_number_steps(table, list(steps), path),
        source=source,
        augmented=np.array([bool(name) for name in table["augmentation"].to_pylist()], bool),
        test=np.array(table["split"].to_pylist(), object) == "test",
        label=label,
        utility=pc.fill_null(table["utility"], np.nan).to_numpy(),
        votes=votes[rows],
        seen=Evidence(
            seen.judged[rows],
            seen.found_pristine[rows],
            seen.found[rows],
            seen.phi_pristine[rows],
            seen.phi[rows],
        ),
        group=_groups(observations, grid, task)[rows],
        best_iou=_best_iou(observations, grid, rule, rows),
    )


def _names(observations: pa.Table) -> list[str]:
    """All networks, in the order in which they first appear."""
    names: list[str] = pc.unique(observations["network"].cast(pa.string())).to_pylist()
    return names


def _steps(metadata: Mapping[str, Any]) -> dict[tuple[str, str], Step]:
    """The run's degradations by their name and parameters as they stand in tables."""
    if "degradations" not in metadata:
        raise TableError(f"expected labels that name their degradations, got {sorted(metadata)}")
    found = {}
    for entry in metadata["degradations"]:
        name, label = entry["name"], entry["label"]
        short = label.removeprefix(f"{name} ")
        found[name, canonical(entry["parameters"])] = Step(name, label, short)
    return found


def _number_steps(table: pa.Table, keys: list[tuple[str, str]], path: Path) -> Numbers:
    number = {key: position for position, key in enumerate(keys)}
    pairs = list(zip(*(table[name].to_pylist() for name in COPY_KEY[2:]), strict=True))
    strangers = set(pairs) - set(number)
    if strangers:
        raise TableError(f"{path}: expected the degradations in its metadata, got {strangers}")
    return np.array([number[pair] for pair in pairs], np.int64)


def _number_sources(table: pa.Table) -> tuple[Numbers, tuple[str, ...]]:
    """Which source each row is of, and their paths; an augmented source is another one."""
    number: dict[tuple[str, str], int] = {}
    pairs = zip(*(table[name].to_pylist() for name in COPY_KEY[:2]), strict=True)
    source = np.array([number.setdefault(pair, len(number)) for pair in pairs], np.int64)
    return source, tuple(path for path, _ in number)


def _find_copies(labels: pa.Table, observations: pa.Table, grid: Grid, path: Path) -> Numbers:
    """The row in `grid` of each label."""
    copies = observations.take(pa.array(grid.degraded[:, 0]))
    names = (*COPY_KEY, "image_digest")
    keys = zip(*(copies[name].to_pylist() for name in names), strict=True)
    row = {key: number for number, key in enumerate(keys)}
    wanted = zip(*(labels[name].to_pylist() for name in names), strict=True)
    found = [row.get(key, -1) for key in wanted]
    if -1 in found:
        stranger = labels.slice(found.index(-1), 1).to_pylist()[0]
        raise TableError(
            f"{path}: expected labels of the observations beside the manifest, got one of "
            f"{stranger['source']} ({stranger['degradation']} {stranger['parameters']}) that was "
            "not observed there; give the folder that these labels were made from"
        )
    return np.array(found, np.int64)


def _groups(observations: pa.Table, grid: Grid, task: str) -> Numbers:
    """What the first voter's reference says of each copy's source."""
    name = {"classification": "true_class", "detection": "reference_objects"}[task]
    values = observations[name].to_numpy()[grid.pristine[:, 0]]
    return np.asarray(values, np.int64)


def _best_iou(
    observations: pa.Table, grid: Grid, rule: Rule, rows: Numbers
) -> tuple[Reals, Reals] | None:
    if not isinstance(rule, DetectionRule):
        return None
    row, scores, _, ious = flatten(observations)
    sure = scores >= np.float32(rule.score)
    best = np.zeros(len(observations))
    np.maximum.at(best, row[sure], ious[sure])
    return best[grid.degraded[rows]], best[grid.pristine[rows]]

"""What a study needs before anything can be counted: predictors opened, tables read and held
against each other, and which copies are looked at by whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from utility_gate.errors import TableError
from utility_gate.evaluation import labelled
from utility_gate.evaluation.brisque import open_brisque
from utility_gate.evaluation.copies import Ask, Plan, Scorer, Scores, predictor_scorer
from utility_gate.evaluation.gates import file_quality, reference_confidence
from utility_gate.evaluation.labelled import Gate, LabelledTable
from utility_gate.evaluation.study import PredictorPart, Study
from utility_gate.evaluation.unseen import Observed, read_observed
from utility_gate.files import digest_json
from utility_gate.predictor import UtilityPredictor


@dataclass(frozen=True, slots=True, eq=False)
class Contestant:
    """A predictor of the study; `key` stands for what it computes, the same for equal ones."""

    part: PredictorPart
    predictor: UtilityPredictor
    key: str

    @property
    def title(self) -> str:
        """Name and version of its card."""
        return f"{self.predictor.card.name} {self.predictor.card.version}"


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """Everything that was read and computed: tables by path, unseen networks by name, scores."""

    study: Study
    contestants: tuple[Contestant, ...]
    tables: Mapping[Path, LabelledTable]
    observed: Mapping[str, Observed]
    confidence: Mapping[str, float] | None
    teachers: tuple[LabelledTable, ...] = ()
    scores: Scores = field(default_factory=lambda: Scores({}))

    @property
    def own_tables(self) -> tuple[Path, ...]:
        """The tables that predictors were trained for, each once."""
        return tuple(dict.fromkeys(each.part.labels for each in self.contestants))

    @property
    def voters(self) -> set[str]:
        """Networks with a vote in some table."""
        return {name for table in self.tables.values() for name in table.networks}

    def teacher(self, path: Path) -> LabelledTable:
        """The table that thresholds for `path` are chosen on: itself, or the first of its task
        that can be learned from, or the first of any.

        Raises:
            TableError: if there is none.
        """
        table = self.tables[path]
        known = [*self.teachers, *(self.tables[each] for each in self.own_tables)]
        known = [each for each in known if each.teaches]
        if table.teaches:
            return table
        if not known:
            raise TableError(
                f"{path}: holds no training side to choose the trivial gates' thresholds on; name "
                "a table that does as `labels` of [gates]"
            )
        return next((each for each in known if each.task == table.task), known[0])

    def _reference_saw(self, path: Path) -> bool:
        """Whether the reference saw every copy of a table."""
        seen = self.confidence or {}
        return all(copy.image_digest in seen for copy in self.tables[path].held_out)

    def check_reference(self) -> None:
        """What would come out after everything was computed.

        Raises:
            TableError: if the reference saw only some copies of a predictor's table, or of the
                one that its threshold is chosen on.
        """
        if self.confidence is None or self.study.gates.reference is None:
            return
        for path in self.own_tables:
            for copies in (self.tables[path].held_out, self.teacher(path).known):
                labelled.look_up(self.confidence, copies, self.study.gates.reference)

    def trivial(self, path: Path, *, resaved: bool) -> list[Gate]:
        """The trivial gates on a table."""
        confidence = self.confidence
        if path not in self.own_tables and not self._reference_saw(path):
            confidence = None
        return labelled.trivial_gates(
            self.tables[path], self.teacher(path), self.scores, confidence,
            self.study.gates.reference, brisque=self.study.gates.brisque, resaved=resaved,
        )  # fmt: skip


def read_material(study: Study) -> Material:
    """Open predictors and tables, and hold them against each other.

    Raises:
        TableError: if they do not fit.
        CheckpointError: if a predictor cannot be used.
    """
    contestants = []
    for part in study.predictor:
        predictor = UtilityPredictor.load(part.checkpoint)
        key = digest_json(predictor.card.model_dump(mode="json", exclude={"metrics"}))
        contestants.append(Contestant(part, predictor, key))
    tables = {part.labels: labelled.read_table(part.labels, ("test",)) for part in study.predictor}
    for encodings in study.encodings:
        if encodings.labels not in tables:
            tables[encodings.labels] = labelled.read_table(encodings.labels, ())
    reference = study.gates.reference
    teachers = tuple(labelled.read_table(path, ("train",)) for path in study.gates.labels)
    known = [*tables.items(), *zip(study.gates.labels, teachers, strict=True)]
    for path, table in known:
        if reference is not None and reference in table.networks:
            raise TableError(f"expected a reference without a vote in {path}, got {reference}")
    without = {name for _, table in known for name in table.networks}
    if reference is not None:
        without.add(reference)
    return Material(
        study=study,
        contestants=tuple(contestants),
        tables=tables,
        teachers=teachers,
        observed={
            part.name: read_observed(part.observations, part.networks, sorted(without))
            for part in study.unseen
        },
        confidence=None
        if reference is None
        else reference_confidence(study.gates.reference_observations, reference),
    )


def open_scorers(
    study: Study, contestants: Sequence[Contestant], brisque: Scorer | None
) -> dict[str, Scorer]:
    """Who looks at copies, by name; `brisque` stands in for the extra's scorer.

    Raises:
        ConfigError: if BRISQUE is asked for and not installed.
    """
    scorers: dict[str, Scorer] = {"quality": file_quality}
    if study.gates.brisque:
        scorers["brisque"] = brisque or open_brisque()
    for each in contestants:
        scorers.setdefault(each.key, predictor_scorer(each.predictor))
    return scorers


def plan_copies(material: Material) -> Plan:
    """Who looks at what: everyone at every held-out and unseen copy, the trivial gates at what they
    choose their thresholds on, each predictor also at its own table's copies saved once more."""
    plan = Plan()
    everyone = [Ask(each.key) for each in material.contestants]
    trivial = [Ask("quality")] + [Ask("brisque")] * material.study.gates.brisque
    for path, table in material.tables.items():
        plan.add(table.held_out, *everyone, *trivial)
        if path in material.own_tables:
            plan.add(table.held_out, Ask("quality", resaved=True))
        teacher = material.teacher(path)
        plan.add(teacher.known, Ask("quality"))
        if material.study.gates.brisque:
            plan.add(teacher.for_brisque, Ask("brisque"))
    for each in material.contestants:
        plan.add(material.tables[each.part.labels].held_out, Ask(each.key, resaved=True))
    for observed in material.observed.values():
        plan.add(observed.copies, *everyone, *trivial)
    return plan

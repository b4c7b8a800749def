"""A study from tables to results, top to bottom: read, plan which copies are looked at, look at
each once, count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from utility_gate import __version__
from utility_gate.errors import ConfigError
from utility_gate.evaluation import labelled
from utility_gate.evaluation.classification import Front, measure_classifiers
from utility_gate.evaluation.copies import Progress, Scorer, compute
from utility_gate.evaluation.detection import ObjectTruth, measure_detectors
from utility_gate.evaluation.gates import BRISQUE, QUALITY, confidence_name
from utility_gate.evaluation.inputs import digest_inputs, short_names
from utility_gate.evaluation.labelled import Gate, LabelledTable
from utility_gate.evaluation.material import (
    Contestant,
    Material,
    open_scorers,
    plan_copies,
    read_material,
)
from utility_gate.evaluation.resample import difference
from utility_gate.evaluation.results import (
    Crossing,
    Curve,
    Encodings,
    Evaluation,
    PredictorFacts,
    Results,
    Row,
    Unseen,
)
from utility_gate.evaluation.scores import (
    Floats,
    balanced_ece,
    class_weights,
    ece,
    reliability,
    roc,
)
from utility_gate.evaluation.study import Study, UnseenPart
from utility_gate.evaluation.unseen import Observed
from utility_gate.statistics import to_interval

_ROC_POINTS = 201
"""False-useful rates at which ROC curves are kept."""


def run(
    study: Study,
    truths: Mapping[str, ObjectTruth] | None = None,
    *,
    threads: int | None = None,
    progress: Progress = lambda _, __: None,
    brisque: Scorer | None = None,
) -> Results:
    """Evaluate a study.

    Args:
        study: what on what; see `study.load_study`.
        truths: the objects for every unseen table of detectors, by the table's name.
        threads: copies looked at side by side; None: as Python thinks fit.
        progress: called with the sources done and all of them.
        brisque: in place of the extra's scorer of gate (c).

    Raises:
        ConfigError: if BRISQUE is asked for and not installed, or a detectors' table has no truth.
        TableError: if tables, images, networks and truth do not fit each other.
        CheckpointError: if a predictor cannot be used.
    """
    inputs = digest_inputs(study.inputs())
    material = read_material(study)
    material.check_reference()
    _check_truths(material.observed, truths or {})
    scorers = open_scorers(study, material.contestants, brisque)
    plan = plan_copies(material)
    scores = compute(plan, study.images, scorers, threads, progress)
    material = replace(material, scores=scores)
    return Results(
        version=__version__,
        inputs=inputs,
        predictors=tuple(_facts(each) for each in material.contestants),
        rows=tuple(_row(material, each) for each in material.contestants),
        crossings=_crossings(material),
        encodings=tuple(_encodings(material, part.labels) for part in study.encodings),
        unseen=tuple(_unseen(material, part, truths or {}) for part in study.unseen),
    )


def _check_truths(observed: Mapping[str, Observed], truths: Mapping[str, ObjectTruth]) -> None:
    for name, table in observed.items():
        if table.task == "detection" and name not in truths:
            raise ConfigError(f"unseen {name}: expected truth, a COCO file, for detectors")


def _facts(each: Contestant) -> PredictorFacts:
    card = each.predictor.card
    return PredictorFacts(
        each.part.name, each.title, card.weights.sha256, each.part.trained_on,
        card.thresholds.useful,
    )  # fmt: skip


def _row(material: Material, each: Contestant) -> Row:
    """A predictor and the trivial gates on its own table."""
    table = material.tables[each.part.labels]
    own = labelled.predictor_gate(each.title, each.key, table, material.scores, resaved=True)
    trivial = material.trivial(table.path, resaved=True)
    gates, labels = [own, *trivial], table.labels
    files = [table.path, *material.study.gates.reference_observations]
    return Row(
        predictor=each.part.name,
        trained_on=each.part.trained_on,
        task=table.task,
        networks=table.networks,
        evaluation=Evaluation(
            gates=tuple(labelled.measure(gate, table) for gate in gates),
            against=labelled.against(own, trivial, table),
            ece=ece(own.scores, labels),
            ece_balanced=balanced_ece(own.scores, labels),
            reliability=reliability(own.scores, labels, class_weights(labels)),
            sources=table.resamples.sources,
            useful=int((labels == 1).sum()),
            non_useful=int((labels == 0).sum()),
            undecided=table.undecided,
            tables=digest_inputs(files),
        ),
        roc=tuple(_roc(gate, table) for gate in gates),
    )


def _roc(gate: Gate, table: LabelledTable) -> Curve:
    """The ROC curve at even steps; at each the best true-useful rate that this false-useful rate
    allows."""
    false, true = roc(gate.scores, table.labels)
    at = np.linspace(0, 1, _ROC_POINTS)
    below = np.searchsorted(false, at, side="right") - 1
    after = np.minimum(below + 1, len(false) - 1)
    width = np.maximum(false[after] - false[below], 1e-12)
    part = np.clip((at - false[below]) / width, 0, 1)
    rates = true[below] + part * (true[after] - true[below])
    return Curve(gate.name, tuple(map(float, at)), tuple(map(float, rates)))


def _crossings(material: Material) -> tuple[Crossing, ...]:
    """Every predictor on every table that one was trained for; nothing where there is but one."""
    found = []
    own = material.own_tables
    names = short_names(own)
    for path in own if len(own) > 1 else ():
        table = material.tables[path]
        trained = next(each for each in material.contestants if each.part.labels == path)
        gates = {
            each.part.name: labelled.predictor_gate(
                each.part.name, each.key, table, material.scores, resaved=False
            )
            for each in material.contestants
        }
        best = labelled.accuracies(gates[trained.part.name], table)
        for each in material.contestants:
            its = labelled.accuracies(gates[each.part.name], table)
            found.append(
                Crossing(
                    predictor=each.part.name,
                    table=names[path],
                    task=table.task,
                    trained=trained.part.name,
                    balanced_accuracy=to_interval(*its),
                    loss=None if each.part.labels == path else difference(best, its),
                )
            )
    return tuple(found)


def _encodings(material: Material, path: Path) -> Encodings:
    table = material.tables[path]
    gates = [
        labelled.predictor_gate(each.part.name, each.key, table, material.scores, resaved=False)
        for each in material.contestants
    ]
    gates += material.trivial(path, resaved=False)
    known = (*material.tables, *(each.path for each in material.teachers))
    names = short_names(tuple(dict.fromkeys(known)))
    return Encodings(
        table=names[path],
        task=table.task,
        sources=len({copy.source for copy in table.held_out}),
        thresholds_of=names[material.teacher(path).path],
        gates={gate.name: labelled.measure_kinds(gate, table) for gate in gates},
    )


def _unseen(material: Material, part: UnseenPart, truths: Mapping[str, ObjectTruth]) -> Unseen:
    observed = material.observed[part.name]
    fronts = [
        Front(
            each.part.name,
            each.part.trained_on,
            material.scores.of(observed.copies, each.key),
            each.predictor.card.thresholds.useful,
        )
        for each in material.contestants
    ]
    rivals = _rivals(material, observed)
    voters = sorted(material.voters)
    if observed.task == "detection":
        detectors = measure_detectors(observed, truths[part.name], fronts, rivals, voters)
        return Unseen(part.name, observed.task, observed.left_out, detectors=detectors)
    classifiers = measure_classifiers(observed, fronts, rivals, voters)
    return Unseen(part.name, observed.task, observed.left_out, classifiers=classifiers)


def _rivals(material: Material, observed: Observed) -> dict[str, Floats]:
    """The trivial gates' scores of unseen copies; their thresholds do not matter here."""
    gates = material.study.gates
    rivals = {QUALITY: material.scores.of(observed.copies, "quality")}
    if material.confidence is not None and gates.reference is not None:
        known = labelled.look_up(material.confidence, observed.copies, gates.reference)
        if known is not None:
            rivals[confidence_name(gates.reference)] = known
    if gates.brisque:
        rivals[BRISQUE] = material.scores.of(observed.copies, "brisque")
    return rivals

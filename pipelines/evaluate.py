"""A classifier on labelled images, as it serves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.classifier import Classifier, Floats
from pipelines.examples import Example, check_labels, check_sides
from pipelines.heads import Head
from pipelines.measure import Scores, bootstrap, score
from pipelines.views import classify_views
from utility_gate.files import read_source
from utility_gate.statistics import Interval


@dataclass(frozen=True, slots=True)
class HeadResult:
    """One head on one side. `with_views` is the accuracy with test-time augmentation, if it was
    asked for; `confusion` (K, K) has the true classes down."""

    head: Head
    scores: Scores
    with_views: float | None
    confusion: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All heads on one side: those that choose one class, and `multi_label` as
    `evaluate_multi_label`."""

    heads: tuple[HeadResult, ...]
    multi_label: dict[str, Interval]


def classify_all(
    classifier: Classifier, examples: Sequence[Example], *, views: bool = False
) -> dict[str, Floats]:
    """Probabilities (N, K) of every head, image by image as it is served; with `views` the mean
    over test-time views."""

    def one(example: Example) -> Mapping[str, Floats]:
        pixels = classifier.decode(read_source(example.path)).pixels
        if views:
            return classify_views(classifier, pixels)
        (answers,) = classifier.classify([pixels])
        return {name: answer.probabilities for name, answer in answers.items()}

    with ThreadPoolExecutor() as pool:
        rows = list(pool.map(one, examples))
    return {head.name: np.stack([row[head.name] for row in rows]) for head in classifier.card.heads}


def known_rows(
    examples: Sequence[Example], head: Head
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Which examples have a label for a single-label head, (M,), and its class numbers, (M,)."""
    rows = [i for i, example in enumerate(examples) if example.labels.get(head.name)]
    targets = [head.index(examples[i].labels[head.name][0]) for i in rows]
    return np.array(rows, np.int64), np.array(targets, np.int64)


def evaluate(
    classifier: Classifier, train: Sequence[Example], test: Sequence[Example], *, views: bool
) -> Evaluation:
    """Every head on the `test` side; those that choose one class beside the commonest class of the
    `train` side.

    Raises:
        TableError: if a head has no labelled image on one of the sides, or does not know a class.
    """
    heads = [card.head for card in classifier.card.heads]
    check_labels([*train, *test], heads)
    check_sides(train, test, heads)
    plain = classify_all(classifier, test)
    averaged = classify_all(classifier, test, views=True) if views else None
    results = []
    for head in heads:
        if head.multi_label:
            continue
        commonest = Counter(label for e in train for label in e.labels.get(head.name, ()))
        rows, targets = known_rows(test, head)
        groups = [test[i].group for i in rows]
        majority = head.index(commonest.most_common(1)[0][0])
        scores, table = score(plain[head.name][rows], targets, groups, majority)
        with_views = None
        if averaged is not None:
            with_views = float((averaged[head.name][rows].argmax(1) == targets).mean())
        results.append(HeadResult(head, scores, with_views, table))
    return Evaluation(tuple(results), evaluate_multi_label(heads, plain, test))


def evaluate_multi_label(
    heads: Sequence[Head], probabilities: Mapping[str, Floats], test: Sequence[Example]
) -> dict[str, Interval]:
    """The binary accuracy over images and classes (seed 001), by head, of every multi-label head
    that has labels here; `probabilities` (N, K) by head are those of the N images."""
    labelled = {name for example in test for name in example.labels}
    return {
        head.name: _binary_accuracy(probabilities[head.name] >= 0.5, test, head)
        for head in heads
        if head.multi_label and head.name in labelled
    }


def _binary_accuracy(said: npt.NDArray[np.bool_], test: Sequence[Example], head: Head) -> Interval:
    rows = [i for i, example in enumerate(test) if head.name in example.labels]
    true = np.zeros((len(rows), len(head.classes)), bool)
    for row, i in enumerate(rows):
        true[row, [head.index(label) for label in test[i].labels[head.name]]] = True
    return bootstrap((said[rows] == true).mean(1), [test[i].group for i in rows])

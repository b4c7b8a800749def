"""From tables of observations to tables of labels, on small tables written by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from labelers.decide import decide, make_rule
from labelers.rules import CcspRule, DetectionRule
from utility_gate.degrade import Jpeg, to_json
from utility_gate.errors import ConfigError, TableError
from utility_gate.tables import CLASSIFICATION_SCHEMA, DETECTION_SCHEMA, to_table
from utility_gate.types import Copy, DetectionObservation, Observation

RIGHT, WRONG = 3, 4


def copy_of(source: str, quality: int | None, digest: str = "0" * 64) -> Copy:
    return Copy(
        source=source,
        source_digest=digest,
        degradation="none" if quality is None else "jpeg",
        parameters="{}" if quality is None else to_json(Jpeg(quality)),
        quality=quality,
        image_digest=f"{source}-{quality}",
    )


def seen(
    predicted: int = RIGHT,
    ccsp: float = 0.95,
    *,
    network: str = "a",
    quality: int | None = None,
    source: str = "cat.jpg",
    digest: str = "0" * 64,
) -> Observation:
    return Observation(
        **copy_of(source, quality, digest).fields(),
        network=network,
        network_digest="1" * 64,
        true_class=RIGHT,
        predicted_class=predicted,
        top1=max(ccsp, 0.5),
        ccsp=ccsp,
    )


def found(
    *detections: tuple[float, int, float],
    quality: int | None = None,
    network: str = "a",
    objects: int = 2,
) -> DetectionObservation:
    """Detections as (score, object, iou)."""
    return DetectionObservation(
        **copy_of("street.jpg", quality).fields(),
        network=network,
        network_digest="1" * 64,
        reference_objects=objects,
        boxes=[[0.0, 0.0, 1.0, 1.0]] * len(detections),
        classes=[1] * len(detections),
        scores=[score for score, _, _ in detections],
        objects=[number for _, number, _ in detections],
        ious=[iou for _, _, iou in detections],
    )


def classes(*rows: Observation) -> pa.Table:
    return to_table(rows, CLASSIFICATION_SCHEMA)


def objects(*rows: DetectionObservation) -> pa.Table:
    return to_table(rows, DETECTION_SCHEMA)


def test_a_whole_table() -> None:
    table = classes(
        seen(network="a"),
        seen(network="a", quality=90),
        seen(WRONG, 0.02, network="a", quality=5),
        seen(network="a", quality=20),
        seen(network="b"),
        seen(network="b", quality=90),
        seen(WRONG, 0.03, network="b", quality=5),
        seen(WRONG, 0.02, network="b", quality=20),
        seen(WRONG, 0.0, network="onlooker", quality=90),
    )
    labels = decide(table, ["a", "b"], CcspRule()).to_pylist()
    assert [(row["quality"], row["label"]) for row in labels] == [(90, 1), (5, 0), (20, None)]
    assert [labels[2][n] for n in ("useful_votes", "non_useful_votes", "networks")] == [1, 1, 2]
    assert labels[0]["image_digest"] == "cat.jpg-90"
    # Eq. 2 with phi' = 0.95 and rec = 0.5: 0.45 / 0.55 and -0.48 / 0.55, their mean
    assert labels[2]["utility"] == pytest.approx((0.45 - 0.48) / 2 / 0.55)


def test_votes_do_not_depend_on_the_order_of_rows() -> None:
    rows = [
        seen(p, c, network=n, quality=q, source=s)
        for s in ("x", "y")
        for n, p, c in (("a", RIGHT, 0.95), ("b", RIGHT, 0.99))
        for q in (None, 90, 5)
    ]
    rows[2] = dataclasses.replace(rows[2], predicted_class=WRONG, ccsp=0.01)
    forward = decide(classes(*rows), ["a", "b"], CcspRule()).to_pylist()
    backward = decide(classes(*rows[::-1]), ["b", "a"], CcspRule()).to_pylist()
    by_copy = lambda row: (row["source"], row["quality"])  # noqa: E731
    assert sorted(forward, key=by_copy) == sorted(backward, key=by_copy)


def test_all_copies_of_a_source_are_on_one_side() -> None:
    table = classes(
        *(
            seen(quality=quality, source=f"{number}.jpg", digest=f"{number:064x}")
            for number in range(200)
            for quality in (None, 90, 10)
        )
    )
    labels = decide(table, ["a"], CcspRule()).to_pylist()
    sides: dict[str, set[str]] = {}
    for row in labels:
        sides.setdefault(row["source"], set()).add(row["split"])
    assert all(len(side) == 1 for side in sides.values())
    test_share = sum(side == {"test"} for side in sides.values()) / len(sides)
    assert 0.12 < test_share < 0.28


@pytest.mark.parametrize(("share", "sides"), [(0.0, {"train"}), (1.0, {"test"})])
def test_all_or_none_may_be_held_out(share: float, sides: set[str]) -> None:
    rows = [
        seen(quality=quality, source=f"{number}.jpg", digest=f"{number:064x}")
        for number in range(20)
        for quality in (None, 50)
    ]
    table = to_table(rows, CLASSIFICATION_SCHEMA)
    assert set(decide(table, ["a"], CcspRule(), test_fraction=share)["split"].to_pylist()) == sides


def test_augmented_sources_are_sources_of_their_own() -> None:
    flipped = [
        dataclasses.replace(seen(WRONG, 0.01, quality=q), augmentation="flip") for q in (None, 9)
    ]
    table = classes(seen(), seen(quality=9), *flipped)
    labels = decide(table, ["a"], CcspRule()).to_pylist()
    assert [(row["augmentation"], row["label"]) for row in labels] == [("", 1), ("flip", None)]


def test_a_pristine_reference_must_be_confident() -> None:
    table = classes(seen(ccsp=0.6), seen(WRONG, 0.01, quality=9))
    assert decide(table, ["a"], CcspRule(), "pristine", 0.5)["label"].to_pylist() == [0]
    assert decide(table, ["a"], CcspRule(), "pristine", 0.7)["label"].to_pylist() == [None]


@pytest.mark.parametrize(
    ("pristine", "copy", "label"),
    [
        # one object is found on both
        (found((0.9, 0, 0.8)), found((0.6, 0, 0.5), quality=9), 1),
        # each threshold counts at its very value, and just below it does not
        (found((0.5, 0, 0.5)), found((0.5, 0, 0.5), quality=9), 1),
        (found((0.9, 0, 0.8)), found((0.49, 0, 0.9), quality=9), 0),
        (found((0.9, 0, 0.8)), found((0.9, 0, 0.49), quality=9), 0),
        # another object than on the pristine image
        (found((0.9, 0, 0.8)), found((0.9, 1, 0.8), quality=9), 0),
        # two objects on the pristine image, the second one survives
        (found((0.9, 0, 0.8), (0.8, 1, 0.7)), found((0.6, 1, 0.6), quality=9), 1),
        # sure, but of another class or place
        (found((0.9, 0, 0.8)), found((0.99, -1, 0.0), quality=9), 0),
        # nothing at all
        (found((0.9, 0, 0.8)), found(quality=9), 0),
        (found(), found(quality=9), 0),
        # nothing to be found
        (found((0.9, -1, 0.0), objects=0), found(quality=9, objects=0), None),
    ],
)
def test_one_detector(
    pristine: DetectionObservation, copy: DetectionObservation, label: int | None
) -> None:
    labels = decide(objects(pristine, copy), ["a"], DetectionRule())
    assert labels["label"].to_pylist() == [label]


def test_detectors_agree_or_do_not() -> None:
    table = objects(
        found((0.9, 0, 0.8), network="a"),
        found((0.9, 0, 0.8), network="a", quality=90),
        found((0.9, 0, 0.8), network="a", quality=5),
        found((0.9, 1, 0.8), network="b"),
        found((0.9, 1, 0.8), network="b", quality=90),
        found((0.2, 1, 0.8), network="b", quality=5),
    )
    labels = decide(table, ["a", "b"], DetectionRule())
    assert labels["label"].to_pylist() == [1, None]
    # phi is the surest detection in place, wherever the score threshold lies
    assert labels["utility"].to_pylist() == pytest.approx(
        [(0.4 / 0.6), ((0.4 / 0.6) + (-0.3 / 0.6)) / 2]
    )


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([seen(), seen(network="b"), seen(quality=9)], "jpeg .*9.* was not observed by b"),
        ([seen(quality=9), seen(network="b", quality=9)], "expected observations of the pristine"),
        ([seen(), seen()], "the pristine image was observed twice by a"),
        ([seen(), seen(quality=9), seen(quality=9)], "jpeg .*9.* was observed twice by a"),
        ([seen(network="c")], "expected observations by a, b, found none"),
    ],
)
def test_incomplete_tables_are_refused(rows: list[Observation], message: str) -> None:
    with pytest.raises(TableError, match=message):
        decide(classes(*rows), ["a", "b"], CcspRule())


def test_a_rule_for_the_other_task_is_refused() -> None:
    with pytest.raises(TableError, match="expected observations for detection"):
        decide(classes(seen(), seen(quality=9)), ["a"], DetectionRule())
    with pytest.raises(ConfigError, match="rule: "):
        make_rule("detection", {"score": "0.5"})
    with pytest.raises(ConfigError, match=r"expected only score, iou.*got t_high"):
        make_rule("detection", {"t_high": 0.9})
    with pytest.raises(ConfigError, match="t_low <= t_high"):
        make_rule("classification", {"t_high": 0.0})


def test_dictionary_columns_of_many_sources_in_any_mixture() -> None:
    sources, qualities, networks = 2_000, 9, 3
    count = sources * (qualities + 1) * networks
    number = np.arange(count)
    quality = (number // networks) % (qualities + 1)
    source = number // (networks * (qualities + 1))
    names = pa.array([f"{n}.jpg" for n in range(sources)])
    table = pa.table(
        {
            "source": pa.DictionaryArray.from_arrays(source.astype(np.int32), names),
            "source_digest": pa.DictionaryArray.from_arrays(source.astype(np.int32), names),
            "augmentation": pa.array([""]).take(pa.array(np.zeros(count, int))),
            "degradation": pa.array(["none", "jpeg"]).take(pa.array((quality > 0).astype(int))),
            "parameters": pa.array([str(q) for q in range(qualities + 1)]).take(pa.array(quality)),
            "quality": pa.array(quality.astype(np.int16)),
            "image_digest": pa.array(["d"]).take(pa.array(np.zeros(count, int))),
            "network": pa.array(["a", "b", "c"]).take(pa.array(number % networks)),
            "true_class": np.zeros(count, np.int32),
            "predicted_class": (quality > 6).astype(np.int32),
            "top1": np.full(count, 0.95),
            "ccsp": np.where(quality > 6, 0.01, 0.95),
        }
    )
    labels = decide(table, ["a", "b", "c"], CcspRule())
    assert labels["label"].to_pylist() == ([1] * 6 + [0] * 3) * sources

"""Predictors measured beside trivial gates: one on one table, and whole studies, without torch."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli.evaluate import read_objects
from cli.main import main
from tests import studies
from tests.conftest import save_brightness_predictor
from utility_gate.checkpoint import Card, load_card
from utility_gate.degrade import Chain, Crop, Jpeg, Webp
from utility_gate.errors import ConfigError, TableError
from utility_gate.evaluation import brisque, copies, job
from utility_gate.evaluation.classification import ORACLE, RANDOM
from utility_gate.evaluation.copies import Ask, Plan
from utility_gate.evaluation.gates import QUALITY
from utility_gate.evaluation.page import to_json, to_markdown
from utility_gate.evaluation.results import Evaluation, Results
from utility_gate.evaluation.study import EncodingsPart, GatesPart, PredictorPart, Study, load_study
from utility_gate.evaluation.tables import evaluation_markdown
from utility_gate.evaluation.unseen import read_observed
from utility_gate.images import decode
from utility_gate.split import split_of
from utility_gate.tables import read_labels, write_labels
from utility_gate.types import Copy, Label, Thresholds

COUNT = 60
UNSEEN = (80, 20, 7)


def by_quality(number: int, copy: Copy) -> int | None:
    """Quality 90 is useful, 5 is not, 30 is disputed."""
    return {90: 1, 30: None, 5: 0}[copy.quality or 0]


def by_red(number: int, copy: Copy) -> int:
    return int(studies.red_of(number) > 128)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs, two label tables, observations of four classifiers and two detectors, two
    predictors and the study of them all."""
    root = tmp_path_factory.mktemp("study")
    images = root / "images"
    names = studies.save_photographs(images, COUNT)
    studies.save_labels(root / "cls" / "labels.parquet", images, names, by_quality)
    studies.save_labels(
        root / "det" / "labels.parquet", images, names, by_red, task="detection",
        voters=["boxes", "more"], networks={"boxes": 3, "more": 4},
    )  # fmt: skip
    studies.save_labels(
        root / "encodings.parquet", images, names,
        lambda number, copy: 1 if copy.degradation == "webp" else by_red(number, copy),
        [Webp(30), Jpeg(20, "4:4:4"), Chain((Jpeg(8), Crop(1.0)))],
    )  # fmt: skip
    small = {"small": lambda number, copy: True}
    studies.save_classifiers(root / "small.parquet", images, names, small, (90, 30, 5))
    networks: dict[str, Callable[[int, Copy], bool]] = {
        "keen": lambda number, copy: studies.red_of(number) > 100 or (copy.quality or 100) > 50,
        "red": lambda number, copy: studies.red_of(number) > 128,
        "small": lambda number, copy: True,
        "x": lambda number, copy: True,
    }
    studies.save_classifiers(root / "unseen.parquet", images, names, networks, UNSEEN)
    finders: dict[str, Callable[[int, Copy], bool]] = {
        "finder": lambda number, copy: copy.quality is None or studies.red_of(number) > 128,
    }
    studies.save_detectors(root / "boxes.parquet", images, names, finders, UNSEEN)
    studies.save_truth(root / "truth.json", names)
    save_brightness_predictor(root / "one", name="one")
    save_brightness_predictor(root / "two", name="two", thresholds=Thresholds(0.8, 0.3))
    (root / "study.toml").write_text(STUDY)
    return root


STUDY = """
images = "images"

[gates]
reference = "small"
reference_observations = ["small.parquet", "unseen.parquet"]

[[predictor]]
name = "cls"
checkpoint = "one"
labels = "cls/labels.parquet"
trained_on = "classification"

[[predictor]]
name = "det"
checkpoint = "two"
labels = "det/labels.parquet"
trained_on = "detection"

[[unseen]]
name = "classifiers"
observations = "unseen.parquet"

[[unseen]]
name = "detectors"
observations = "boxes.parquet"
truth = "truth.json"

[[encodings]]
labels = "encodings.parquet"
"""


def brightness(data: bytes) -> float:
    """Stands for BRISQUE where the extra is not installed."""
    return float(decode(data).pixels.mean())


@pytest.fixture(scope="module")
def results(folder: Path) -> Results:
    study = load_study(folder / "study.toml")
    study = study.model_copy(update={"gates": study.gates.model_copy(update={"brisque": True})})
    truths = {"detectors": read_objects(folder / "truth.json", folder / "boxes.parquet")}
    return job.run(study, truths, threads=2, brisque=brightness)


def one_study(folder: Path, labels: str = "cls/labels.parquet", **gates: Any) -> Study:
    return Study(
        images=(folder / "images",),
        gates=GatesPart(**gates),
        predictor=(
            PredictorPart(
                name="p", checkpoint=str(folder / "one"), labels=folder / labels, trained_on="x"
            ),
        ),
    )


def measured(folder: Path, labels: str = "cls/labels.parquet", **gates: Any) -> Evaluation:
    return job.run(one_study(folder, labels, **gates), threads=2).rows[0].evaluation


def test_evaluation_puts_the_trivial_gates_beside_it(folder: Path) -> None:
    result = measured(
        folder, reference="small", reference_observations=[folder / "small.parquet"]
    )  # fmt: skip
    predictor, quality, confidence = result.gates
    # In this table the quality alone decides, so both trivial gates are perfect ...
    assert quality.balanced_accuracy.value == quality.auroc.value == 1.0
    assert confidence.balanced_accuracy.value == 1.0
    assert 5 < quality.threshold < 90
    # ... until the copies are saved again.
    assert quality.resaved_balanced_accuracy == 0.5
    for estimate in (predictor.balanced_accuracy, predictor.auroc):
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert result.useful == result.non_useful == result.undecided == result.sources
    assert list(quality.by_set) == ["even", "odd"]
    assert quality.by_set["odd"].auroc == 1.0
    assert list(quality.by_kind) == ["jpeg"]
    assert set(result.tables) == {"labels.parquet", "small.parquet"}
    text = evaluation_markdown(result)
    assert "| one 7 |" in text
    assert "| odd | " in text
    assert "(b) confidence of small" in text
    # A gate without errors leaves nothing to divide by.
    assert np.isnan(result.against.error_ratio.value)
    assert "makes no error" in text


def test_a_predictor_that_sees_more_than_the_file_errs_less(folder: Path) -> None:
    result = measured(folder, "det/labels.parquet")
    assert result.against.gate == QUALITY
    assert result.against.error_ratio.high < 1
    assert "the predictor errs less" in evaluation_markdown(result)
    assert result.gates[1].balanced_accuracy.value == pytest.approx(0.5, abs=0.1)
    assert result.gates[0].auroc.value > 0.95
    assert sum(each.share for each in result.reliability) == pytest.approx(1)


def test_the_reference_must_be_there_and_have_no_vote(folder: Path) -> None:
    seen = [folder / "small.parquet"]
    with pytest.raises(TableError, match="expected one of"):
        measured(folder, reference="absent", reference_observations=seen)
    with pytest.raises(TableError, match="without a vote"):
        measured(folder, reference="x", reference_observations=seen)
    with pytest.raises(TableError, match="expected observations of classifiers"):
        measured(folder, reference="finder", reference_observations=[folder / "boxes.parquet"])


def test_a_reference_that_saw_other_copies_is_left_out_or_refused(
    folder: Path, tmp_path: Path
) -> None:
    names = [f"{'even' if n % 2 == 0 else 'odd'}/{n}.png" for n in range(COUNT)]
    small = {"small": lambda number, copy: True}
    none = studies.save_classifiers(
        tmp_path / "none.parquet", folder / "images", names, small, (77,)
    )
    result = measured(folder, reference="small", reference_observations=[none])
    assert [gate.name for gate in result.gates] == ["one 7", QUALITY]
    some = studies.save_classifiers(
        tmp_path / "some.parquet", folder / "images", names[:30], small, (90, 5)
    )
    with pytest.raises(TableError, match="small observed no copy of"):
        measured(folder, reference="small", reference_observations=[some])


def test_encodings_that_the_reference_saw_in_part_do_without_it(
    folder: Path, tmp_path: Path
) -> None:
    names = [f"{'even' if n % 2 == 0 else 'odd'}/{n}.png" for n in range(COUNT)]
    mixed = studies.save_labels(
        tmp_path / "mixed.parquet", folder / "images", names, by_red, [Jpeg(30), Webp(30)]
    )
    seen = {"reference": "small", "reference_observations": (folder / "small.parquet",)}
    study = one_study(folder, **seen)
    study = study.model_copy(update={"encodings": (EncodingsPart(labels=mixed),)})
    results = job.run(study, threads=2)
    assert any("small" in gate.name for gate in results.rows[0].evaluation.gates)
    assert set(results.encodings[0].gates) == {"p", QUALITY}


def test_one_class_alone_cannot_be_measured_on(folder: Path, tmp_path: Path) -> None:
    names = [f"{'even' if n % 2 == 0 else 'odd'}/{n}.png" for n in range(COUNT)]
    only = studies.save_labels(tmp_path / "l.parquet", folder / "images", names, lambda *_: 1)
    with pytest.raises(TableError, match="expected useful and non-useful copies on the test side"):
        measured(folder, str(only))


def told(folder: Path, labels: Path, teacher: Path) -> Evaluation:
    study = one_study(folder, str(labels))
    gates = study.gates.model_copy(update={"labels": (teacher,)})
    return job.run(study.model_copy(update={"gates": gates}), threads=2).rows[0].evaluation


def test_tables_to_test_on_alone_take_the_gates_thresholds_of_another(
    folder: Path, tmp_path: Path
) -> None:
    rows = read_labels(folder / "cls" / "labels.parquet")
    alone = tmp_path / "alone.parquet"
    held_out = [dataclasses.replace(row, split="test") for row in rows]
    write_labels(held_out, alone, studies.METADATA | {"test_fraction": 1.0})
    with pytest.raises(TableError, match=r"name a table that does as `labels` of \[gates\]"):
        measured(folder, str(alone))
    known = folder / "cls" / "labels.parquet"
    result = told(folder, alone, known)
    expected = measured(folder)
    assert result.sources > expected.sources
    assert [g.threshold for g in result.gates] == [g.threshold for g in expected.gates]
    # One that cannot be learned from either does not help.
    with pytest.raises(TableError, match="expected useful and non-useful copies on the train side"):
        told(folder, alone, alone)


def test_copies_that_cannot_be_made_again_are_refused(folder: Path, tmp_path: Path) -> None:
    study = one_study(folder).model_copy(update={"images": (tmp_path,)})
    with pytest.raises(TableError, match="expected this source below"):
        job.run(study)


def test_sources_are_found_in_the_first_folder_that_has_them(folder: Path, tmp_path: Path) -> None:
    study = one_study(folder).model_copy(update={"images": (tmp_path, folder / "images")})
    assert job.run(study).rows[0].evaluation.useful > 0


def test_a_copy_in_several_tables_is_looked_at_once(folder: Path) -> None:
    labels = read_labels(folder / "cls" / "labels.parquet")[:6]
    plan = Plan()
    plan.add(labels, Ask("size"))
    plan.add(labels[:2], Ask("size"), Ask("size", resaved=True))
    seen: list[bytes] = []

    def size(data: bytes) -> float:
        seen.append(data)
        return float(len(data))

    scores = copies.compute(plan, [folder / "images"], {"size": size}, threads=1)
    assert len(seen) == 8
    assert scores.of(labels, "size").tolist()[0] > scores.of(labels, "size").tolist()[2]
    assert len(scores.of(labels[:2], "size", resaved=True)) == 2


def test_rows_of_tables_one_and_two(results: Results) -> None:
    assert [(row.predictor, row.task) for row in results.rows] == [
        ("cls", "classification"), ("det", "detection")
    ]  # fmt: skip
    for row in results.rows:
        names = [gate.name for gate in row.evaluation.gates]
        assert names[1:] == [QUALITY, "(b) confidence of small", "(c) BRISQUE"]
        assert [curve.name for curve in row.roc] == names
        for curve in row.roc:
            assert (curve.y[-1], len(curve.x)) == (1.0, 201)
            assert np.all(np.diff(curve.y) >= -1e-12)
    det = results.rows[1].evaluation
    # The stand-in for BRISQUE sees the red as well: brightness decides in this table.
    assert det.gates[3].auroc.value > 0.95
    assert det.against.gate == "(c) BRISQUE"


def test_from_task_to_task(results: Results) -> None:
    found = {(each.predictor, each.table): each for each in results.crossings}
    assert set(found) == {
        (name, f"{table}/labels.parquet") for name in ("cls", "det") for table in ("cls", "det")
    }
    own, other = found["det", "det/labels.parquet"], found["cls", "det/labels.parquet"]
    assert own.loss is None
    assert other.loss is not None
    # Both predictors compute the same, so nothing is lost, in any resampled set.
    assert (other.loss.value, other.loss.low, other.loss.high) == (0, 0, 0)
    assert other.balanced_accuracy == own.balanced_accuracy


def test_unseen_classifiers_behind_predictors(results: Results, folder: Path) -> None:
    unseen = results.unseen[0]
    # "x" votes and "small" is the reference: neither is unseen.
    assert [each.network for each in unseen.classifiers] == ["keen", "red"]
    observed = read_observed(folder / "unseen.parquet", ["red"])
    numbers = [int(Path(copy.source).stem) for copy in observed.copies]
    red = unseen.classifiers[1]
    assert red.copies == len(numbers) == 3 * red.sources
    right = np.array([studies.red_of(number) > 128 for number in numbers])
    assert red.top1.value == pytest.approx(right.mean())
    assert {(each.predictor, each.threshold) for each in red.passed} == {
        ("cls", 0.5), ("cls", 0.6), ("det", 0.5), ("det", 0.8)
    }  # fmt: skip
    for each in red.passed:
        # Utility rises with the red, by which this network is right: what passes is.
        assert each.top1.value > red.top1.value
        assert each.rise.value == pytest.approx(each.top1.value - red.top1.value)
        assert [rival.gate for rival in each.rivals] == [
            QUALITY, "(b) confidence of small", "(c) BRISQUE"
        ]  # fmt: skip
        assert each.rivals[0].ahead.high > each.rivals[0].ahead.value > 0
        ahead = each.top1.value - each.rivals[0].value.value
        assert each.rivals[0].ahead.value == pytest.approx(ahead)
    assert red.by_training is not None
    assert red.by_training.value == 0
    areas = {area.gate: area for area in red.areas}
    assert areas[RANDOM].gain.value == 0
    assert areas[ORACLE].gain.value == 1
    assert areas["cls"].gain.value > 0.9 > abs(areas[QUALITY].gain.value) + 0.5
    assert red.curves[0].y[0] == pytest.approx(1 - right.mean())


def test_unseen_detectors_behind_predictors(results: Results, folder: Path) -> None:
    (finder,) = results.unseen[1].detectors
    observed = read_observed(folder / "boxes.parquet", None)
    red = np.array([studies.red_of(int(Path(c.source).stem)) for c in observed.copies])
    assert finder.pristine_map == pytest.approx(1)
    assert finder.map.value < 0.9
    assert finder.ap50.value == pytest.approx(finder.map.value)  # boxes are right or far away
    for each in finder.replaced:
        assert each.share.value == pytest.approx((red <= 128).mean(), abs=0.06)
        assert each.map.value > 0.95  # what is replaced is what failed
        assert each.rise.value == pytest.approx(each.map.value - finder.map.value)
        ahead = {rival.gate: rival.ahead for rival in each.rivals}
        assert set(ahead) == {QUALITY, "(b) confidence of small", "(c) BRISQUE", RANDOM}
        assert ahead[QUALITY].value > 0
        assert ahead[RANDOM].value > 0
    assert finder.by_training is not None
    assert finder.by_training.value == 0


def test_encodings_kind_by_kind(results: Results) -> None:
    (encodings,) = results.encodings
    assert encodings.thresholds_of == "encodings.parquet"
    kinds = encodings.gates["cls"]
    assert set(kinds) == {"webp", "jpeg 4:4:4", "jpeg + crop"}
    webp = kinds["webp"]
    assert (webp.non_useful, webp.auroc, webp.balanced_accuracy) == (0, None, None)
    assert webp.useful_recall is not None
    assert webp.non_useful_recall is None
    assert kinds["jpeg + crop"].auroc is not None
    # A PNG of a JPEG and a WebP do not tell their quality.
    quality = encodings.gates[QUALITY]
    assert quality["jpeg + crop"].auroc == 0.5
    assert quality["webp"].useful_recall == 1.0


def test_the_page_shows_all_tables(results: Results) -> None:
    page = to_markdown(results, ["roc.png"])
    for heading in (
        "## Table I:", "## Table II:", "## From task to task", "## Unseen classifiers: classifiers",
        "## Unseen detectors: detectors", "## Encodings: encodings.parquet", "## Pictures",
        "## Measured on",
    ):  # fmt: skip
        assert heading in page
    for text in ("93.3%", "92.8%", "Table III", "Table IV", "recall of useful", "| cls/labels"):
        assert text in page
    assert "nan" not in page
    lengths = {
        line.count("|") - line.count("\\|")
        for line in page.splitlines()
        if line.startswith(("| network | discarded by", "| keen | random"))
    }
    assert len(lengths) == 1


def test_json_holds_everything(results: Results, folder: Path) -> None:
    content = json.loads(to_json(results))
    assert content["unseen"][0]["classifiers"][0]["curves"][0]["name"] == "cls"
    assert set(content["inputs"]) == {
        "cls/labels.parquet", "det/labels.parquet", "small.parquet", "unseen.parquet",
        "boxes.parquet", "truth.json", "encodings.parquet",
    }  # fmt: skip
    assert all(len(digest) == 64 for digest in content["inputs"].values())
    assert [each["card"] for each in content["predictors"]] == ["one 7", "two 7"]
    assert str(folder) not in to_json(results)
    # Perfect trivial gates leave a ratio without a number, and JSON has no NaN.
    assert content["rows"][0]["evaluation"]["against"]["error_ratio"]["value"] is None


def test_a_network_with_a_vote_may_be_asked_for_and_is_marked(folder: Path) -> None:
    text = STUDY.replace(
        'observations = "unseen.parquet"', 'observations = "unseen.parquet"\nnetworks = ["x"]'
    ).split('[[unseen]]\nname = "detectors"')[0]  # fmt: skip
    (folder / "voted.toml").write_text(text)
    results = job.run(load_study(folder / "voted.toml"), threads=2)
    (network,) = results.unseen[0].classifiers
    assert network.voted
    assert network.top1.value == 1
    page = to_markdown(results)
    assert "| x (has a vote) |" in page
    assert "not defined: no network errs" in page


def test_detectors_need_truth_that_fits(folder: Path, tmp_path: Path) -> None:
    study = load_study(folder / "study.toml")
    with pytest.raises(ConfigError, match="unseen detectors: expected truth"):
        job.run(study)
    truth = read_objects(folder / "truth.json", folder / "boxes.parquet")
    few = dataclasses.replace(truth, sources={})
    with pytest.raises(TableError, match="expected the objects of"):
        job.run(study, {"detectors": few}, threads=2)
    strange = dataclasses.replace(truth, classes={"finder": {1: "cube"}})
    with pytest.raises(TableError, match="finder: expected to know every class"):
        job.run(study, {"detectors": strange}, threads=2)


def test_unseen_tables_that_cannot_be_used(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"expected networks of .*, got \['absent'\]"):
        read_observed(folder / "unseen.parquet", ["absent"])
    with pytest.raises(TableError, match="that have no vote"):
        read_observed(folder / "small.parquet", None, ["small"])
    names = [f"{'even' if n % 2 == 0 else 'odd'}/{n}.png" for n in range(COUNT)]
    images = folder / "images"
    taught = [
        name for name in names
        if split_of(studies.copies(images, name, [])[0].source_digest) == "train"
    ]  # fmt: skip
    known = {"n": lambda number, copy: True}
    table = studies.save_classifiers(tmp_path / "t.parquet", images, taught, known, (50,))
    with pytest.raises(TableError, match="held-out sources, got none"):
        read_observed(table, None)


STUDIES: list[tuple[str, str]] = [
    ("images = 3", "images"),
    ('images = "images"\npredictor = []', "predictor: Tuple should have at least 1"),
    ("nothing = ", "expected a TOML file"),
    (STUDY + "\n[more]\n", "more: Extra inputs"),
    (STUDY.replace('name = "det"', 'name = "cls"'), "predictor: expected each name once"),
    (STUDY.replace('name = "det"', 'name = "../det"'), "predictor.1.name"),
    (STUDY.replace('reference = "small"\n', ""), "reference and reference_observations together"),
]


@pytest.mark.parametrize(("text", "message"), STUDIES)
def test_studies_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "study.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        load_study(path)


def test_paths_of_a_study_are_below_its_folder(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(STUDY.replace('"one"', '"embedded"'))
    study = load_study(tmp_path / "study.toml")
    assert study.images == (tmp_path / "images",)
    assert study.predictor[0].checkpoint == "embedded"
    assert study.predictor[1].checkpoint == str(tmp_path / "two")
    assert study.inputs()[0] == tmp_path / "cls" / "labels.parquet"
    with pytest.raises(TableError, match="expected a file to evaluate on"):
        job.run(study)


def test_the_example_study_is_one() -> None:
    study = load_study(Path(__file__).parents[2] / "configs" / "evaluate" / "study.toml")
    assert {part.trained_on for part in study.predictor} == {"classification", "detection"}
    assert study.unseen
    assert study.encodings


def test_a_study_from_the_command_line_is_the_same_twice(folder: Path, tmp_path: Path) -> None:
    outs = [tmp_path / name for name in ("one", "two")]
    for out, threads in zip(outs, "14", strict=True):
        study = ["--study", str(folder / "study.toml")]
        assert main(["evaluate", *study, "--out", str(out), "--threads", threads]) == 0
    names = sorted(path.name for path in outs[0].iterdir())
    assert names == [
        "discard-classifiers.png", "evaluation.json", "evaluation.md", "reliability.png", "roc.png",
        "unseen-classifiers.png", "unseen-detectors.png",
    ]  # fmt: skip
    for name in names:
        assert (outs[0] / name).read_bytes() == (outs[1] / name).read_bytes(), name
    page = (outs[0] / "evaluation.md").read_text()
    assert "![discard-classifiers.png](discard-classifiers.png)" in page
    assert (outs[0] / "roc.png").read_bytes().startswith(b"\x89PNG")


def test_one_predictor_from_the_command_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predictor = save_brightness_predictor(tmp_path / "predictor", name="mine")
    command = [
        "evaluate", "--predictor", str(predictor), "--labels", str(folder / "det/labels.parquet"),
        "--images", str(folder / "images"), "--threads", "2",
    ]  # fmt: skip
    gate_b = ["--observations", str(folder / "small.parquet"), "--reference", "small"]
    assert main([*command, *gate_b, "--record", "--out", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    assert "| mine 7 |" in text
    assert "(a) JPEG quality in the file" in text
    card, _ = load_card(predictor, Card)
    assert card.metrics["table"] == text.rstrip("\n")
    assert card.metrics["gates"][0]["name"] == "mine 7"
    assert (tmp_path / "out" / "evaluation.md").read_text().startswith("# Evaluation\n")
    assert main([*command, *gate_b, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == {key: value for key, value in card.metrics.items() if key != "table"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--labels", "l"], "expected --labels and --images, or --study"),
        (["--study", "s", "--labels", "l"], "expected --study without --labels"),
        (["--study", "s", "--brisque"], "expected --study without --brisque"),
        (["--study", "s"], "expected --out DIR with --study"),
        (["--labels", "l", "--images", "i", "--reference", "x"], "together"),
        (["--labels", "l", "--images", "i", "--record"], "with --record"),
        (["--labels", "l", "--images", "i", "--threads", "0"], "--threads of 1 or more"),
        (["--labels", "l", "--images", "i", "--out", str(Path(__file__).parent)], "empty or new"),
        (["--study", "absent.toml", "--out", "absent"], "expected a TOML file of a study"),
    ],
)
def test_options_that_do_not_go_together(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", *options]) == 1
    assert message in capsys.readouterr().err


def test_evaluating_imports_no_torch() -> None:
    program = (
        "import sys, utility_gate.evaluation.job, utility_gate.evaluation.figures, cli.evaluate; "
        "print([m for m in ('torch', 'torchmetrics', 'faster_coco_eval') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


def test_brisque_is_asked_for_by_name_where_it_is_missing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "brisque", None)
    with pytest.raises(ConfigError, match=r"pip install utility-gate\[brisque\]"):
        measured(folder, brisque=True)


def test_brisque_falls_with_the_quality() -> None:
    pytest.importorskip("brisque", reason="needs the extra brisque", exc_type=ImportError)
    score = brisque.open_brisque()
    pixels = studies.photograph(3).repeat(4, 0).repeat(4, 1)
    smooth = np.asarray(decode(Jpeg(60).apply(pixels)).pixels)
    scores = [score(Jpeg(quality).apply(smooth)) for quality in (90, 10, 2)]
    assert scores[0] > scores[2]
    assert score(Jpeg(90).apply(np.full((64, 64, 3), 128, np.uint8))) == -brisque.FLAT


def test_augmented_sources_are_not_measured_on(folder: Path, tmp_path: Path) -> None:
    from utility_gate.evaluation.labelled import read_table

    rows = read_labels(folder / "cls" / "labels.parquet")
    more: list[Label] = [dataclasses.replace(row, augmentation="flip") for row in rows]
    write_labels([*rows, *more, *rows], tmp_path / "l.parquet", studies.METADATA)
    table, plain = read_table(tmp_path / "l.parquet"), read_table(folder / "cls/labels.parquet")
    assert table.held_out == plain.held_out
    assert len(table.known) == 2 * len(plain.known)
    drawn = table.for_brisque
    assert {copy.label for copy in drawn} == {0, 1}
    assert len(drawn) == min(len(table.known), 500)

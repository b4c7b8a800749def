"""The report page: its numbers against tables worked by hand, and what the page must hold."""

from __future__ import annotations

import argparse
import importlib
import json
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cli.report
from labelers.decide import decide_as, describe_rule, make_rule
from labelers.relabel import relabel
from labelers.report import data
from labelers.report.page import render, write_report
from labelers.report.read import Run, read_run
from labelers.rules import DetectionRule
from tests.conftest import draw, encode
from utility_gate.augment import draw as draw_augmentation
from utility_gate.degrade import Degradation, Jpeg, describe, from_config, to_json
from utility_gate.errors import ConfigError, TableError
from utility_gate.files import digest_bytes
from utility_gate.images import decode
from utility_gate.tables import OBSERVATION_SCHEMAS, to_table, write_table
from utility_gate.types import DetectionObservation, Observation

LADDER: tuple[Degradation, ...] = (Jpeg(90), Jpeg(50), Jpeg(10))
SECTIONS = (
    "run", "counts", "accuracy", "shares", "groups", "confidence", "agreement", "utility", "flips",
)  # fmt: skip

R, W, M = (True, 0.97), (False, 0.03), (True, 0.5)
"""Right and sure; wrong and sure; right, but hardly."""
MISSED = (False, 0.3)

Seen = tuple[bool, float]

# By source: its class, and what each network sees on the pristine image and along the ladder.
TINY: dict[str, tuple[int, dict[str, list[Seen]]]] = {
    "set/s0.jpg": (0, {"a": [R, R, R, W], "b": [R, R, R, W], "c": [R] * 4}),
    "set/s1.jpg": (1, {"a": [R, R, W, W], "b": [R, R, W, R], "c": [R] * 4}),
    "other/s2.jpg": (1, {"a": [R, R, M, R], "b": [MISSED] * 4, "c": [R] * 4}),
}


def source_bytes(source: str) -> bytes:
    return encode(draw(240, 200, seed=sum(source.encode())), quality=92)


def copies_of(
    source: str, ladder: tuple[Degradation, ...], augmentation: str = ""
) -> list[dict[str, Any]]:
    """Fields of the pristine copy and of each degraded one, with their true digests."""
    file = source_bytes(source)
    common = {"source": source, "source_digest": digest_bytes(file), "augmentation": augmentation}
    pixels = decode(file).pixels
    made = [
        {
            **common, "degradation": "none", "parameters": "{}", "quality": None,
            "image_digest": digest_bytes(file) + augmentation,
        }
    ]  # fmt: skip
    for degradation in ladder:
        copy = degradation.apply(pixels, common["source_digest"] + augmentation)
        made.append(
            {
                **common, "degradation": degradation.name, "parameters": to_json(degradation),
                "quality": degradation.quality, "image_digest": digest_bytes(copy),
            }
        )  # fmt: skip
    return made


def metadata_of(
    task: str, networks: list[str], voters: int, ladder: tuple[Degradation, ...], **changes: Any
) -> dict[str, Any]:
    return {
        "task": task,
        "voters": networks[:voters],
        "networks": {name: {"sha256": "ab" * 32, "source": "nowhere"} for name in networks},
        "reference": "truth",
        "reference_score": 0.5,
        "rule": describe_rule(task, make_rule(task, {})),
        "degradations": [
            {"name": d.name, "parameters": d.parameters, "label": describe(d)} for d in ladder
        ],
        "config_sha256": "cd" * 32,
        "packages": {"pillow": "13.0.0"},
        "categories": {},
        **changes,
    }


def write_run(
    folder: Path,
    rows: list[Any],
    metadata: dict[str, Any],
    skipped: str = "",
    rounds: list[dict[str, Any]] | None = None,
) -> Path:
    table = to_table(rows, OBSERVATION_SCHEMAS[metadata["task"]])
    write_table(table, folder / "observations.parquet", metadata)
    write_table(decide_as(table, metadata), folder / "labels.parquet", metadata)
    (folder / "skipped.csv").write_text("path,reason,sha256\n" + skipped)
    manifest = {"job": metadata, "outputs": {}, "balance": rounds or []}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def look(
    content: dict[str, tuple[int, dict[str, list[Seen]]]],
    ladder: tuple[Degradation, ...] = LADDER,
    augmentation: str = "",
) -> list[Observation]:
    return [
        Observation(
            **copy, network=network, network_digest="0" * 64, true_class=true_class,
            predicted_class=true_class if right else 999, top1=max(ccsp, 0.4), ccsp=ccsp,
        )
        for source, (true_class, networks) in content.items()
        for network, views in networks.items()
        for copy, (right, ccsp) in zip(
            copies_of(source, ladder, augmentation), views, strict=True
        )
    ]  # fmt: skip


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two voters and an onlooker on three sources; the images lie in `images`."""
    folder = tmp_path_factory.mktemp("tiny")
    for source in TINY:
        path = folder / "images" / source
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source_bytes(source))
    return write_run(folder, look(TINY), metadata_of("classification", ["a", "b", "c"], 2, LADDER))


@pytest.fixture(scope="module")
def tiny(tiny_folder: Path) -> Run:
    return read_run(tiny_folder)


@pytest.fixture(scope="module")
def detection_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One detector on three sources: one loses its object, one has none, one never finds any."""
    ladder = LADDER[:2]
    seen = {  # by source: objects there are, then (score, object, IoU) of detections by copy
        "d0.jpg": (2, [[(0.9, 0, 0.8), (0.7, 1, 0.3)], [(0.6, 0, 0.6)], [(0.3, 0, 0.9)]]),
        "d1.jpg": (0, [[(0.9, -1, 0.0)], [], []]),
        "d2.jpg": (3, [[(0.9, 0, 0.2)], [(0.9, 0, 0.2)], []]),
    }
    rows = [
        DetectionObservation(
            **copy, network="detector", network_digest="0" * 64, reference_objects=objects,
            boxes=[[0.0, 0.0, 1.0, 1.0]] * len(found), classes=[1] * len(found),
            scores=[score for score, _, _ in found], objects=[o for _, o, _ in found],
            ious=[iou for _, _, iou in found],
        )
        for source, (objects, views) in seen.items()
        for copy, found in zip(copies_of(source, ladder), views, strict=True)
    ]  # fmt: skip
    metadata = metadata_of("detection", ["detector"], 1, ladder)
    return write_run(tmp_path_factory.mktemp("detection"), rows, metadata)


def test_order(tiny: Run) -> None:
    assert tiny.networks == ("a", "b", "c")
    assert tiny.voters == 2
    assert [step.short for step in tiny.steps] == ["90", "50", "10"]
    assert tiny.families == {"jpeg": [0, 1, 2]}


def test_accuracy(tiny: Run) -> None:
    rates = data.accuracies(tiny)
    assert rates.successes.tolist() == [[3, 2, 3], [3, 2, 3], [2, 1, 3], [1, 1, 3]]
    assert (rates.trials == 3).all()
    low, high = rates.interval
    assert (low[0, 1], high[0, 1]) == pytest.approx((0.2077, 0.9385), abs=1e-4)  # 2 of 3
    assert (low[0, 0], high[0, 0]) == pytest.approx((0.4385, 1.0), abs=1e-4)  # 3 of 3


def test_shares(tiny: Run) -> None:
    counts = data.count_votes(tiny, tiny.label)
    assert counts.tolist() == [[2, 0, 1], [1, 1, 1], [0, 1, 2]]
    assert data.shares(counts)[0].tolist() == pytest.approx([2 / 3, 0, 1 / 3])
    assert data.count_votes(tiny, tiny.votes[:, 0]).tolist() == [[3, 0, 0], [1, 1, 1], [1, 2, 0]]
    assert data.count_labels(tiny).sum(axis=1).tolist() == counts.tolist()
    assert np.isnan(data.shares(np.zeros((1, 3), np.int64))).all()


def test_agreement(tiny: Run) -> None:
    found = data.agreements(tiny.votes)
    assert found.both[0].tolist() == [8, 6, 8]
    assert found.share[0, 1] == pytest.approx(5 / 6)
    # a says useful on 3 of the 6, b on 4: equal by chance on 1/2.
    assert found.kappa[0, 1] == pytest.approx(2 / 3)
    assert found.share[0, 2] == pytest.approx(5 / 8)
    assert found.kappa[0, 2] == pytest.approx(0)
    assert np.allclose(found.kappa, found.kappa.T, equal_nan=True)
    assert np.isnan(found.kappa[2, 2])  # c always says the same


def test_groups(tiny: Run) -> None:
    rows = data.group_labels(tiny)
    assert rows == [data.GroupRow(0, 0, 1, 2, 1, 0), data.GroupRow(1, 1, 2, 1, 1, 4)]
    assert data.rank(rows[::-1]) == rows


def test_where_sources_die(tiny: Run) -> None:
    deaths = data.find_deaths(tiny)
    assert [(tiny.sources[d.source], d.step) for d in deaths] == [
        ("set/s0.jpg", 2),
        ("set/s1.jpg", 1),  # undecided afterwards, but never useful again
    ]
    assert deaths[0].rows == (0, 1, 2)
    assert data.spread(tiny, deaths, 1) == [deaths[1]]
    assert data.spread(tiny, deaths, 9) == deaths[::-1]


def test_a_source_that_recovers_has_not_died(tmp_path: Path) -> None:
    content = {
        "x.jpg": (0, {"a": [R, R, W, R]}),
        "y.jpg": (0, {"a": [R, W, W, W]}),  # never alive
        "z.jpg": (0, {"a": [R, W, R, W]}),
    }
    run = read_run(
        write_run(tmp_path, look(content), metadata_of("classification", ["a"], 1, LADDER))
    )
    assert [(d.source, d.step) for d in data.find_deaths(run)] == [(2, 2)]


def test_spread_takes_places_in_turn(tmp_path: Path) -> None:
    views = {0: [R, R, W, W], 1: [R, R, R, W]}
    content = {f"{n}.jpg": (0, {"a": views[n > 5]}) for n in range(8)}
    run = read_run(
        write_run(tmp_path, look(content), metadata_of("classification", ["a"], 1, LADDER))
    )
    deaths = data.find_deaths(run)
    assert [d.step for d in data.spread(run, deaths, 4)] == [1, 1, 2, 2]
    assert [d.step for d in data.spread(run, deaths, 6)] == [1, 1, 1, 1, 2, 2]
    assert data.spread(run, deaths, 4) == data.spread(run, deaths[::-1], 4)


def test_histogram_and_utility(tiny: Run) -> None:
    histogram = data.confidences(tiny)
    assert histogram.right[0, 0, 19] == 1  # network a, pristine: all three at 0.97
    assert histogram.wrong[3, 0, 0] == pytest.approx(2 / 3)
    assert np.allclose((histogram.right + histogram.wrong).sum(axis=2), 1)
    assert data.overlaps(tiny) is None
    quantiles, counts = data.utility_quantiles(tiny)
    assert quantiles[0, 2] == pytest.approx(0.47 / 0.53)
    assert counts.tolist() == [3, 3, 3]


def test_detection_numbers(detection_folder: Path) -> None:
    run = read_run(detection_folder)
    rates = data.accuracies(run)
    assert rates.successes[:, 0].tolist() == [1, 1, 0]
    assert rates.trials[:, 0].tolist() == [2, 2, 2]  # d1 has nothing to find
    assert run.label.tolist() == [1, 0, -1, -1, 0, 0]
    assert run.best_iou is not None
    copies, pristine = run.best_iou
    assert copies[:, 0] == pytest.approx([0.6, 0, 0, 0, 0.2, 0])
    assert pristine[::2, 0] == pytest.approx([0.8, 0, 0.2])
    assert [(g.low, g.high, g.sources) for g in data.group_labels(run)] == [
        (0, 0, 1), (2, 2, 1), (3, 4, 1)
    ]  # fmt: skip


def test_augmented_sources_count_but_make_no_rates(tmp_path: Path) -> None:
    name = draw_augmentation(0, "digest", 8).name
    augmented = {"set/s0.jpg": (0, {n: [W] * 4 for n in "abc"})}
    rows = look(TINY) + look(augmented, augmentation=name)
    rounds = [{"augmented": 1, "counts": [{"side": "train", "useful": 7, "non_useful": 5}]}]
    metadata = metadata_of("classification", ["a", "b", "c"], 2, LADDER)
    run = read_run(write_run(tmp_path, rows, metadata, rounds=rounds))
    assert len(run.sources) == 4
    assert data.count_labels(run).sum() == 12
    assert (data.accuracies(run).trials == 3).all()
    assert data.count_votes(run, run.label).sum() == 9
    assert sum(row.sources for row in data.group_labels(run)) == 3
    page = render(run)
    assert 'id="balance"' in page
    assert "Augmented sources, which were chosen by their labels, are left out." in page


def check_page(page: str) -> None:
    """Self-contained, no script, every figure well-formed, no identifier twice."""
    for section in SECTIONS:
        assert f'<section id="{section}">' in page
    assert "<script" not in page
    assert "@import" not in page
    assert "http://" not in page
    assert "https://" not in page
    assert all(u.startswith(("#", "data:")) for u in re.findall(r'(?:src|href)="([^"]*)"', page))
    assert all(u.startswith("#") for u in re.findall(r"url\(([^)]*)\)", page))
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(drawings) >= 5
    for drawing in drawings:
        ET.fromstring(drawing.replace("<svg", '<svg xmlns:xlink="x"', 1))
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    numbers = [int(n) for n in re.findall(r"<b>Figure (\d+)\.</b>", page)]
    assert numbers == list(range(1, len(numbers) + 1))


def test_page_for_classification(tiny_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "page.html"
    size = write_report(tiny_folder, out, images=tiny_folder / "images")
    page = out.read_text(encoding="utf-8")
    check_page(page)
    assert size == out.stat().st_size < 3_000_000
    assert "T_H = 0.9" in page
    assert "unanimous: all voters agree" in page
    assert "c (onlooker)" in page
    assert page.count("<img ") == 2 * (2 + len(LADDER))
    assert page.count("N †") == 2
    assert "dies at jpeg 50" in page
    assert not list(out.parent.glob("*.partial"))


def test_page_for_detection(detection_folder: Path) -> None:
    page = render(read_run(detection_folder))
    check_page(page)
    assert "no single class" in page
    assert "IoU threshold = 0.5" in page
    assert "one network only" in page


def test_same_tables_same_page(tiny_folder: Path) -> None:
    images = tiny_folder / "images"
    assert render(read_run(tiny_folder), images) == render(read_run(tiny_folder), images)


def test_style_of_this_machine_has_no_say(tiny_folder: Path) -> None:
    import matplotlib

    expected = render(read_run(tiny_folder))
    with matplotlib.rc_context({"axes.grid": True, "font.size": 20, "svg.fonttype": "path"}):
        assert render(read_run(tiny_folder)) == expected


def test_without_images(tiny: Run) -> None:
    page = render(tiny)
    check_page(page)
    assert "--images DIR" in page
    assert "<img " not in page


def test_hostile_names(tmp_path: Path) -> None:
    evil = '"><script>alert("x")<!--$x_$&amp;'
    content = {f"{evil}/{n}.jpg": (n, {evil: [R, R, R, W]}) for n in range(2)}
    metadata = metadata_of(
        "classification", [evil], 1, LADDER, categories={"0": evil}, packages={evil: evil},
        config_sha256=evil,
    )  # fmt: skip
    skipped = '"<script>.jpg","<script>no image</script>",\n'
    page = render(read_run(write_run(tmp_path, look(content), metadata, skipped)))
    check_page(page)
    assert "&lt;script&gt;no image" in page


@pytest.mark.parametrize("view", [[R] * 4, [M] * 4, [MISSED] * 4], ids=["U", "undecided", "wrong"])
def test_one_network_and_no_flips(tmp_path: Path, view: list[Seen]) -> None:
    content = {f"{n}.jpg": (n, {"only": view}) for n in range(2)}
    folder = write_run(tmp_path, look(content), metadata_of("classification", ["only"], 1, LADDER))
    page = render(read_run(folder), images=tmp_path)
    check_page(page)
    assert "No source flips" in page
    assert not re.search(r"\bnan\b", page, re.IGNORECASE)


def test_networks_that_share_no_decision(tmp_path: Path) -> None:
    content = {"x.jpg": (0, {"a": [R, R, R, R], "b": [MISSED] * 4})}
    run = read_run(
        write_run(tmp_path, look(content), metadata_of("classification", ["a", "b"], 2, LADDER))
    )
    found = data.agreements(run.votes)
    assert found.both[0, 1] == 0
    assert np.isnan(found.share[0, 1])
    check_page(render(run))


def test_families_stand_apart(tmp_path: Path) -> None:
    ladder = (*LADDER, *from_config({"kind": "motion_blur", "severity": [1, 3]}))
    content = {"x.jpg": (0, {"a": [R, R, R, W, R, W]})}
    metadata = metadata_of("classification", ["a"], 1, ladder)
    run = read_run(write_run(tmp_path, look(content, ladder), metadata))
    assert run.families == {"jpeg": [0, 1, 2], "motion_blur": [3, 4]}
    deaths = data.find_deaths(run)
    assert [(d.family, d.step) for d in deaths] == [("jpeg", 2), ("motion_blur", 4)]
    assert data.spread(run, deaths, 5) == deaths[:1]  # each source once
    check_page(render(run))


def test_many_classes_show_both_ends(tmp_path: Path) -> None:
    content = {f"{n}.jpg": (n, {"a": [R, R, R, W if n % 2 else R]}) for n in range(31)}
    run = read_run(
        write_run(tmp_path, look(content), metadata_of("classification", ["a"], 1, LADDER))
    )
    page = render(run)
    assert "15 most robust of 31" in page
    assert "15 least robust of 31" in page


def test_relabelled(tiny_folder: Path, tmp_path: Path) -> None:
    labels = tmp_path / "other.parquet"
    relabel(tiny_folder, labels, {"t_high": 0.4, "operator": "majority"}, ("a",))
    run = read_run(tiny_folder, labels)
    assert run.networks == ("a", "b", "c")
    assert run.voters == 1
    assert run.label.tolist() == run.votes[:, 0].tolist()
    assert "T_H = 0.4" in render(run)


def test_labels_in_another_order(tiny_folder: Path, tiny: Run, tmp_path: Path) -> None:
    labels = tmp_path / "reversed.parquet"
    order = np.arange(len(tiny.labels))[::-1]
    write_table(tiny.labels.take(order.tolist()), labels, tiny.metadata)
    run = read_run(tiny_folder, labels)
    assert run.votes.tolist() == tiny.votes[::-1].tolist()
    assert data.accuracies(run).successes.tolist() == data.accuracies(tiny).successes.tolist()


def test_refuses_labels_of_another_run(tiny_folder: Path, tmp_path: Path) -> None:
    content = {"stranger.jpg": (0, {"a": [R] * 4})}
    other = write_run(tmp_path, look(content), metadata_of("classification", ["a"], 1, LADDER))
    with pytest.raises(TableError, match=r"stranger\.jpg.*was not observed there"):
        read_run(tiny_folder, other / "labels.parquet")


def test_refuses_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"has finished.*no manifest"):
        read_run(tmp_path)
    (tmp_path / "manifest.json").write_text('{"job": {}}')
    with pytest.raises(TableError, match="not finished"):
        read_run(tmp_path)
    (tmp_path / "manifest.json").write_text('{"job": {}, "outputs": {}}')
    with pytest.raises(TableError, match=r"labels\.parquet"):
        read_run(tmp_path)


def test_refuses_an_image_that_changed(tiny_folder: Path, tmp_path: Path) -> None:
    for source in TINY:
        path = tmp_path / source
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source_bytes("another"))
    with pytest.raises(TableError, match="is not the image that was labelled"):
        render(read_run(tiny_folder), tmp_path)


def test_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for package, module in (("matplotlib", "figures"), ("jinja2", "page")):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            patch.delitem(sys.modules, f"labelers.report.{module}")
            with pytest.raises(ConfigError, match=r"pip install '\.\[report\]'"):
                importlib.import_module(f"labelers.report.{module}")


def test_command(tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    cli.report.add_arguments(parser)
    out = tmp_path / "page.html"
    arguments = [str(tiny_folder), "--out", str(out), "--images", str(tiny_folder / "images")]
    assert cli.report.run(parser.parse_args([*arguments, "--sheet", "1"])) == 0
    assert str(out) in capsys.readouterr().out
    assert out.read_text().count("dies at") == 1
    assert cli.report.run(parser.parse_args([str(tiny_folder)])) == 0
    assert (tiny_folder / "report.html").exists()
    with pytest.raises(ConfigError, match="--sheet >= 1"):
        cli.report.run(parser.parse_args([*arguments, "--sheet", "0"]))


def test_pristine_reference(tmp_path: Path) -> None:
    unsure = (True, 0.3)  # top-1 0.4: too little to be a reference
    content = {"x.jpg": (0, {"a": [R, R, W, W]}), "y.jpg": (0, {"a": [unsure, R, R, R]})}
    metadata = metadata_of("classification", ["a"], 1, LADDER, reference="pristine")
    run = read_run(write_run(tmp_path, look(content), metadata))
    assert data.accuracies(run).trials[:, 0].tolist() == [1, 1, 1, 1]
    page = render(run)
    assert "no ground truth" in page
    assert "Agreement with the pristine image of each network" in page


def test_rule_of_detection_in_words(detection_folder: Path) -> None:
    run = read_run(detection_folder)
    assert isinstance(run.rule, DetectionRule)
    assert "score of at least 0.5 and an IoU of at least 0.5" in render(run)

"""Labelling from files to tables, with tiny networks that are really run."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from labelers.balance import count_sides
from labelers.config import LabelConfig, load_label_config, make_label_config
from labelers.job import LabelJob
from labelers.plan import plan
from labelers.relabel import relabel
from labelers.run import run
from labelers.store import PART_SOURCES, claim
from tests.conftest import draw, encode
from tests.networks import save_colour_network, save_detector, write_entries
from utility_gate.augment import parse
from utility_gate.degrade import Crop, Jpeg, SensorNoise, from_json
from utility_gate.errors import ConfigError, NetworkError, TableError
from utility_gate.files import digest_bytes
from utility_gate.images import decode, encode_jpeg
from utility_gate.remake import remake_source
from utility_gate.tables import read_labels, read_metadata, read_observations

COLOURS = {"red": (220, 20, 20), "green": (20, 220, 20), "blue": (20, 20, 220)}


def config(**values: Any) -> LabelConfig:
    made = {"networks": ("one", "two"), "observe_only": ("onlooker",), "qualities": (90, 30, 5)}
    return make_label_config(made | values)


def change(job: LabelJob, **values: Any) -> LabelJob:
    """The same job with other values in its configuration."""
    own = {name: getattr(job.config, name) for name in job.config.model_fields_set}
    return dataclasses.replace(job, config=make_label_config(own | values))


def rows_of(job: LabelJob) -> list[dict[str, Any]]:
    return read_observations(job.out / "observations.parquet")[0].to_pylist()


def tables_of(job: LabelJob) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in job.out.iterdir() if path.is_file()}


@pytest.fixture
def job(tmp_path: Path) -> LabelJob:
    """Three plain images, one with a wrong truth, one that is no image; two networks."""
    images = tmp_path / "images"
    images.mkdir()
    for name, colour in COLOURS.items():
        pixels = np.full((40, 60, 3), colour, np.uint8)
        (images / f"{name}.png").write_bytes(encode(pixels, "PNG"))
    (images / "broken.png").write_bytes(b"not an image")
    (tmp_path / "truth.csv").write_text(
        "path,class_index,name\nred.png,0,r\ngreen.png,1,g\nblue.png,0,wrong\n"
        "broken.png,0,b\nmissing.png,1,m\n"
    )
    for name in ("one", "two", "onlooker"):
        save_colour_network(tmp_path / f"{name}.onnx", sharpness=0.1 if name == "one" else 0.08)
    return LabelJob(
        config=config(),
        images=images,
        truth=tmp_path / "truth.csv",
        out=tmp_path / "out",
        networks_file=write_entries(tmp_path, ["one", "two", "onlooker"]),
        workers=1,
    )


@pytest.fixture
def many(job: LabelJob) -> LabelJob:
    """More sources than fit into two parts."""
    lines = ["path,class_index"]
    for number in range(2 * PART_SOURCES + 3):
        pixels = np.full((20, 30, 3), COLOURS["red"], np.uint8)
        pixels[0, 0] = number
        (job.images / f"{number:03d}.png").write_bytes(encode(pixels, "PNG"))
        lines.append(f"{number:03d}.png,0")
    assert job.truth is not None
    job.truth.write_text("\n".join(lines))
    return job


def stop_after(sources: int) -> Any:
    def progress(done: int, _total: int) -> None:
        if done == sources:
            raise KeyboardInterrupt

    return progress


class TestTables:
    def test_a_job_makes_them(self, job: LabelJob) -> None:
        calls: list[tuple[int, int]] = []
        result = run(job, lambda done, total: calls.append((done, total)))
        assert calls[0] == (0, 5)
        assert calls[-1] == (5, 5)
        assert [name for name, _ in result.skipped] == ["broken.png", "missing.png"]
        # 3 readable images x (pristine + 3 qualities) x 3 networks
        assert len(rows_of(job)) == 36 == result.observations
        labels = read_labels(job.out / "labels.parquet")
        assert len(labels) == 9 == len(result.labels)
        by_source = {label.source: label.label for label in labels}
        assert by_source == {"red.png": 1, "green.png": 1, "blue.png": None}
        assert {label.networks for label in labels} == {2}
        assert 0 < result.forward_seconds <= result.busy_seconds
        assert not (job.out / "parts").exists()

    def test_skipped_images_are_named_without_the_place_where_they_lay(self, job: LabelJob) -> None:
        run(job)
        text = (job.out / "skipped.csv").read_text()
        assert 'broken.png,"expected a JPEG, PNG or WebP image' in text
        assert "missing.png,No such file or directory," in text
        assert str(job.images) not in text

    def test_observations_hold_what_the_networks_said(self, job: LabelJob) -> None:
        run(job)
        rows = rows_of(job)
        red = next(
            r for r in rows
            if (r["source"], r["network"], r["quality"]) == ("red.png", "one", 30)
        )  # fmt: skip
        assert red["predicted_class"] == red["true_class"] == 0
        assert red["ccsp"] == red["top1"] > 0.99
        pixels = np.full((40, 60, 3), COLOURS["red"], np.uint8)
        assert red["image_digest"] == digest_bytes(encode_jpeg(pixels, 30))
        assert red["source_digest"] == digest_bytes((job.images / "red.png").read_bytes())
        assert from_json("jpeg", red["parameters"]) == Jpeg(30)
        blue = next(r for r in rows if r["source"] == "blue.png" and r["quality"] is None)
        assert (blue["predicted_class"], blue["degradation"]) == (2, "none")
        assert blue["ccsp"] < 0.01

    def test_they_say_how_they_were_made(self, job: LabelJob) -> None:
        run(job)
        metadata = read_metadata(job.out / "labels.parquet")
        assert metadata["voters"] == ["one", "two"]
        assert metadata["rule"] == {
            "name": "ccsp", "t_high": 0.9, "t_low": 0.1, "recognition": 0.5,
            "operator": "unanimous",
        }  # fmt: skip
        assert metadata["networks"]["two"]["resize"] == 16
        assert job.truth is not None
        assert metadata["truth_sha256"] == digest_bytes(job.truth.read_bytes())
        weights = (job.images.parent / "one.onnx").read_bytes()
        assert metadata["networks"]["one"]["sha256"] == digest_bytes(weights)
        assert metadata["config_sha256"] == job.config.digest()
        assert {"pillow", "onnxruntime"} <= set(metadata["packages"])
        first = metadata["degradations"][0]
        assert first["parameters"] == {"quality": 90, "subsampling": "4:2:0"}
        assert len(first["encoder"]["quantization"]["0"]) == 64
        assert "libjpeg" in first["encoder"]["library"]
        manifest = json.loads((job.out / "manifest.json").read_text())
        observations = (job.out / "observations.parquet").read_bytes()
        origin = {"observations_sha256": digest_bytes(observations)}
        assert manifest["job"] | origin == metadata
        assert manifest["outputs"]["labels.parquet"] == digest_bytes(
            (job.out / "labels.parquet").read_bytes()
        )

    def test_the_same_job_gives_the_same_bytes(self, job: LabelJob, tmp_path: Path) -> None:
        run(job)
        again = dataclasses.replace(job, out=tmp_path / "again", workers=2)
        run(again)
        assert tables_of(again) == tables_of(job)

    def test_a_network_that_says_nonsense_stops_the_run(self, job: LabelJob) -> None:
        save_colour_network(job.images.parent / "two.onnx", sharpness=float("nan"))
        with pytest.raises(NetworkError, match=r"two: expected finite probabilities for red\.png"):
            run(job)

    def test_without_a_readable_image_there_is_nothing_to_label(self, job: LabelJob) -> None:
        assert job.truth is not None
        job.truth.write_text("path,class_index\nbroken.png,0\n")
        with pytest.raises(TableError, match="at least one image that can be read"):
            run(job)


class TestRefusals:
    def test_a_class_beyond_the_networks(self, job: LabelJob) -> None:
        assert job.truth is not None
        job.truth.write_text("path,class_index\nred.png,7\n")
        calls: list[int] = []
        with pytest.raises(TableError, match=r"class index in 0\.\.2 for one, got 7"):
            run(job, lambda done, _: calls.append(done))
        assert not calls, "it should be found before the first image"

    def test_an_image_folder_that_holds_none_of_the_images(self, job: LabelJob) -> None:
        elsewhere = dataclasses.replace(job, images=job.out.parent)
        with pytest.raises(TableError, match=r"found none of 5, such as red\.png"):
            run(elsewhere)

    def test_classes_in_another_order_are_warned_of(
        self, job: LabelJob, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert job.truth is not None
        job.truth.write_text("path,class_index\nred.png,1\ngreen.png,2\nblue.png,0\n")
        run(job)
        assert "one is right on 0.0 % of the pristine images" in caplog.text

    def test_workers_with_other_networks_than_the_job_describes(
        self, job: LabelJob, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As when another node of a cluster has other weights under the same name."""
        monkeypatch.setattr("labelers.run.fingerprint", lambda _: "other")
        with pytest.raises(NetworkError, match="expected every worker to have the same weights"):
            run(job)

    def test_a_folder_that_cannot_be_written(self, job: LabelJob) -> None:
        job.out.write_text("a file where the folder should be")
        with pytest.raises(TableError, match="a folder that can be written"):
            run(job)

    def test_two_runs_in_one_folder(self, job: LabelJob) -> None:
        with claim(job.out), pytest.raises(TableError, match="another run is at work there"):
            run(job)
        run(job)

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"networks": ()}, "networks"),
            ({"networks": ("a", "a")}, "distinct networks, got a, a"),
            ({"observe_only": ("one",)}, "distinct networks"),
            ({"qualities": (0,)}, "JPEG quality in 1..100"),
            ({"qualities": (30, 30)}, "distinct JPEG qualities"),
            (
                {"qualities": (30,), "degrade": ({"kind": "jpeg", "quality": 30},)},
                "every degradation once",
            ),
            ({"qualities": (), "degrade": ()}, "at least one degradation"),
            ({"degrade": ({"kind": "rain"},)}, "rain"),
            ({"rule": {"t_high": 0.0}}, "t_low <= t_high"),
            ({"rule": {"iou": 0.5}}, "expected only t_high"),
            ({"rule": {"t_high": True}}, "expected a number for t_high, got True"),
            ({"rule": {"t_high": "0.9"}}, "expected a number for t_high, got '0.9'"),
            ({"qualities": (True,)}, "qualities"),
            ({"task": "detection", "rule": {"require_pristine": "false"}}, "true or false"),
            ({"task": "detection", "rule": {"score": 0.01}}, "score >= 0.05"),
            ({"task": "detection", "reference_score": 0.01}, "at least 0.05"),
            ({"temperature": {"nobody": 2.0}}, "temperature"),
            ({"reference": "guess"}, "reference"),
            ({"speed": 9}, "speed"),
            ({"balance": {"ratio": 0.0}}, "ratio"),
        ],
    )
    def test_impossible_configurations(self, values: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            config(**values)

    def test_out_inside_the_sources(self, job: LabelJob) -> None:
        own = config(reference="pristine")
        with pytest.raises(ConfigError, match="out: expected a folder outside"):
            dataclasses.replace(job, config=own, truth=None, out=job.images / "labels")

    def test_configuration_files(self, tmp_path: Path) -> None:
        path = tmp_path / "label.toml"
        for text in ("networks = 3", "not toml", ""):
            path.write_text(text)
            with pytest.raises(ConfigError, match="not a labelling configuration"):
                load_label_config(path)

    def test_truth_and_reference_must_fit(self, job: LabelJob) -> None:
        with pytest.raises(ConfigError, match='expected --truth FILE with reference = "truth"'):
            dataclasses.replace(job, truth=None)
        with pytest.raises(ConfigError, match='none with reference = "pristine"'):
            change(job, reference="pristine")
        with pytest.raises(ConfigError, match="workers >= 1"):
            dataclasses.replace(job, workers=-1)


class TestResume:
    def test_a_stopped_run_goes_on_and_ends_with_the_same_bytes(
        self, many: LabelJob, tmp_path: Path
    ) -> None:
        whole = dataclasses.replace(many, out=tmp_path / "whole")
        run(whole)
        with pytest.raises(KeyboardInterrupt):
            run(many, stop_after(2 * PART_SOURCES + 1))
        assert len(list((many.out / "parts").glob("*.parquet"))) == 2
        result = run(many)
        assert result.observed == 3, "finished parts are not computed again"
        assert tables_of(many) == tables_of(whole)

    def test_a_finished_run_is_not_done_again(self, many: LabelJob) -> None:
        first = run(many)
        before = tables_of(many)
        again = run(many)
        assert again.observed == 0
        assert again.labels.equals(first.labels.cast(again.labels.schema))
        assert tables_of(many) == before

    def test_a_broken_part_is_made_again(
        self, many: LabelJob, caplog: pytest.LogCaptureFixture
    ) -> None:
        with pytest.raises(KeyboardInterrupt):
            run(many, stop_after(2 * PART_SOURCES + 1))
        part = sorted((many.out / "parts").glob("*.parquet"))[1]
        data = bytearray(part.read_bytes())
        data[len(data) // 3] ^= 0xFF
        part.write_bytes(data)
        result = run(many)
        assert result.observed == PART_SOURCES + 3
        assert f"{part.name} is made again" in caplog.text
        assert len(rows_of(many)) == (2 * PART_SOURCES + 3) * 4 * 3

    def test_a_changed_source_is_observed_again(
        self, many: LabelJob, caplog: pytest.LogCaptureFixture
    ) -> None:
        with pytest.raises(KeyboardInterrupt):
            run(many, stop_after(2 * PART_SOURCES + 1))
        other = encode(np.full((20, 30, 3), COLOURS["green"], np.uint8), "PNG")
        (many.images / "003.png").write_bytes(other)
        assert run(many).observed == PART_SOURCES + 3
        assert "003.png has changed since" in caplog.text
        changed = [r for r in rows_of(many) if r["source"] == "003.png"]
        assert {r["source_digest"] for r in changed} == {digest_bytes(other)}

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            (
                {"qualities": (90, 30)},
                r'"jpeg 5"\] -> \["jpeg 90", "jpeg 30"\]; give another --out',
            ),
            ({"rule": {"t_high": 0.8}}, r"rule.t_high: 0.9 -> 0.8; .* then `utility-gate relabel`"),
            ({"observe_only": ()}, "networks.onlooker"),
        ],
    )
    @pytest.mark.parametrize("finished", [True, False])
    def test_another_configuration_is_refused(
        self, many: LabelJob, values: dict[str, Any], message: str, finished: bool
    ) -> None:
        if finished:
            run(many)
        else:
            with pytest.raises(KeyboardInterrupt):
                run(many, stop_after(PART_SOURCES + 1))
        before = tables_of(many)
        with pytest.raises(TableError, match=f"begun otherwise; .*{message}"):
            run(change(many, **values))
        assert tables_of(many) == before

    def test_other_weights_are_refused(self, many: LabelJob) -> None:
        with pytest.raises(KeyboardInterrupt):
            run(many, stop_after(PART_SOURCES + 1))
        save_colour_network(many.images.parent / "two.onnx", sharpness=0.5)
        with pytest.raises(TableError, match=r"networks\.two\.sha256: "):
            run(many)

    def test_a_finished_run_that_was_tampered_with_is_refused(self, many: LabelJob) -> None:
        run(many)
        labels = many.out / "labels.parquet"
        good = labels.read_bytes()
        labels.write_bytes(good[:-1])
        with pytest.raises(TableError, match=r"labels\.parquet: expected the file that the fin"):
            run(many)
        labels.write_bytes(good)
        (many.images / "004.png").unlink()
        with pytest.raises(TableError, match=r"004\.png has changed since it was labelled"):
            run(many)

    def test_a_damaged_manifest_is_named(self, many: LabelJob) -> None:
        many.out.mkdir()
        (many.out / "manifest.json").write_text("{")
        with pytest.raises(TableError, match=r"manifest\.json: expected a manifest"):
            run(many)


class TestPlan:
    def test_it_says_what_would_be_done_and_writes_nothing(self, many: LabelJob) -> None:
        made = plan(many)
        assert not many.out.exists()
        assert (made.sources, made.done, made.copies) == (2 * PART_SOURCES + 3, 0, 3)
        assert made.degradations == ("jpeg 90", "jpeg 30", "jpeg 5")
        assert made.networks == ("one", "two", "onlooker")
        assert made.observations == made.sources * 4 * 3
        assert made.seconds == pytest.approx(made.seconds_each * made.sources)
        with pytest.raises(KeyboardInterrupt):
            run(many, stop_after(PART_SOURCES + 1))
        assert plan(many).done == PART_SOURCES
        run(many)
        assert plan(many).done == made.sources
        assert plan(many).seconds == 0

    def test_it_finds_what_would_stop_the_run(self, many: LabelJob) -> None:
        run(many)
        with pytest.raises(TableError, match="begun otherwise"):
            plan(change(many, qualities=(50,)))


class TestDegradations:
    def test_copies_of_every_kind_can_be_made_again(self, job: LabelJob) -> None:
        (job.images / "red.png").write_bytes(encode(draw(60, 40), "PNG"))
        job = change(
            job,
            qualities=(50,),
            degrade=(
                {"kind": "sensor_noise", "severity": [1, 3], "seed": 4},
                {"kind": "crop", "keep": 0.5},
                {"kind": "chain", "steps": [{"kind": "motion_blur", "severity": 2},
                                            {"kind": "jpeg", "quality": 30}]},
            ),
        )  # fmt: skip
        run(dataclasses.replace(job, keep_copies=job.out.parent / "copies"))
        labels = [r for r in read_labels(job.out / "labels.parquet") if r.source == "red.png"]
        assert [label.degradation for label in labels] == [
            "jpeg", "sensor_noise", "sensor_noise", "crop", "chain",
        ]  # fmt: skip
        assert [label.quality for label in labels] == [50, None, None, None, 30]
        noise = from_json("sensor_noise", labels[1].parameters)
        assert noise == SensorNoise.at_severity(1, seed=4)
        copies = list(remake_source(job.images, "red.png", labels))  # checks every digest
        kept = {p.stem: p.read_bytes() for p in (job.out.parent / "copies").rglob("*.*")}
        assert [kept[label.image_digest] for label in labels] == copies
        assert decode(copies[3]).pixels.shape == (20, 30, 3)

    def test_every_image_has_its_own_noise_and_every_run_the_same(self, job: LabelJob) -> None:
        grey = np.full((40, 60, 3), 128, np.uint8)
        for name in ("red", "green"):  # the same pixels in two different files
            level = 1 if name == "red" else 9
            (job.images / f"{name}.png").write_bytes(encode(grey, "PNG", compress_level=level))
        job = change(job, qualities=(), degrade=({"kind": "sensor_noise", "severity": 3},))
        run(job)
        again = dataclasses.replace(job, out=job.out / "again")
        run(again)
        digests = {r["source"]: r["image_digest"] for r in rows_of(job) if r["quality"] is None
                   and r["degradation"] != "none"}  # fmt: skip
        assert digests["red.png"] != digests["green.png"]
        assert tables_of(again) == tables_of(job)

    def test_a_lossless_copy_may_be_larger_than_any_upload(
        self, job: LabelJob, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("utility_gate.images.DecodeLimits.__init__.__defaults__", (1000, 10**6))
        noisy = change(job, qualities=(90,), degrade=({"kind": "sensor_noise", "severity": 5},))
        result = run(noisy)
        assert len(result.labels) == 6
        assert len(result.skipped) == 2

    def test_a_copy_that_its_format_cannot_hold_skips_the_image(self, job: LabelJob) -> None:
        (job.images / "red.png").write_bytes(encode(np.zeros((2, 66000, 3), np.uint8), "PNG"))
        result = run(job)
        assert "JPEG cannot hold 66000 x 2 pixels" in dict(result.skipped)["red.png"]

    def test_a_pipe_in_the_place_of_an_image_is_not_waited_for(self, job: LabelJob) -> None:
        os.mkfifo(job.images / "missing.png")
        assert dict(run(job).skipped)["missing.png"] == "expected an ordinary file"

    def test_webp_cannot_hold_long_images(self, job: LabelJob) -> None:
        (job.images / "red.png").write_bytes(encode(np.zeros((2, 16390, 3), np.uint8), "PNG"))
        result = run(change(job, degrade=({"kind": "webp", "quality": 50},)))
        assert "WEBP cannot hold 16390 x 2 pixels" in dict(result.skipped)["red.png"]
        assert {row["source"] for row in rows_of(job)} == {"green.png", "blue.png"}

    def test_copies_are_kept_of_sources_that_were_observed_before(self, job: LabelJob) -> None:
        run(job)
        kept = job.out.parent / "copies"
        run(dataclasses.replace(job, keep_copies=kept))
        digests = {row["image_digest"] for row in rows_of(job) if row["quality"] is not None}
        assert {path.stem for path in kept.rglob("*.jpg")} == digests


class TestReferenceAndTemperature:
    def test_the_pristine_image_can_be_the_reference(self, job: LabelJob) -> None:
        job = dataclasses.replace(job, config=config(reference="pristine"), truth=None)
        run(job)
        labels = {r.source: r.label for r in read_labels(job.out / "labels.parquet")}
        assert labels == {"red.png": 1, "green.png": 1, "blue.png": 1}
        assert {r["true_class"] for r in rows_of(job) if r["source"] == "blue.png"} == {2}
        assert read_metadata(job.out / "labels.parquet")["truth_sha256"] is None

    def test_temperature_moves_confidence_alone(self, job: LabelJob) -> None:
        run(job)
        warm = dataclasses.replace(change(job, temperature={"one": 20.0}), out=job.out / "warm")
        run(warm)
        for cold_row, warm_row in zip(rows_of(job), rows_of(warm), strict=True):
            assert cold_row["predicted_class"] == warm_row["predicted_class"]
            if cold_row["network"] == "one":
                assert warm_row["top1"] < cold_row["top1"]
            else:
                assert warm_row["top1"] == cold_row["top1"]


class TestRelabel:
    def test_new_thresholds_need_no_network(self, job: LabelJob, tmp_path: Path) -> None:
        run(job)
        (tmp_path / "one.onnx").unlink()
        out = tmp_path / "new.parquet"
        labels = relabel(job.out, out, {"t_high": 1.0})
        assert set(labels["label"].to_pylist()) == {None}
        metadata = read_metadata(out)
        assert metadata["rule"]["t_high"] == 1.0
        assert metadata["rule"]["t_low"] == 0.1
        assert metadata["config"]["rule"]["t_high"] == 1.0
        own = read_metadata(job.out / "labels.parquet")
        assert metadata["config_sha256"] != own["config_sha256"]
        assert metadata["observations_sha256"] == digest_bytes(
            (job.out / "observations.parquet").read_bytes()
        )
        assert [r.label for r in read_labels(out)] == [None] * 9

    def test_a_runs_own_files_are_never_overwritten(self, job: LabelJob) -> None:
        run(job)
        before = tables_of(job)
        for name in ("observations.parquet", "labels.parquet", "../out/manifest.json"):
            with pytest.raises(TableError, match="expected a file beside those of the run"):
                relabel(job.out, job.out / name, {})
        assert tables_of(job) == before

    def test_the_same_thresholds_give_the_same_bytes(self, job: LabelJob, tmp_path: Path) -> None:
        run(job)
        relabel(job.out, tmp_path / "same.parquet", {})
        assert (tmp_path / "same.parquet").read_bytes() == (job.out / "labels.parquet").read_bytes()

    def test_an_onlooker_may_be_given_a_vote(self, job: LabelJob, tmp_path: Path) -> None:
        run(job)
        labels = relabel(job.out, tmp_path / "n.parquet", {"operator": "mean"}, ("onlooker",))
        assert set(labels["networks"].to_pylist()) == {1}
        assert read_metadata(tmp_path / "n.parquet")["voters"] == ["onlooker"]

    def test_mistakes_are_named(self, job: LabelJob, tmp_path: Path) -> None:
        run(job)
        out = tmp_path / "n.parquet"
        with pytest.raises(ConfigError, match=r"expected only t_high.*got iou"):
            relabel(job.out, out, {"iou": 0.5})
        with pytest.raises(TableError, match=r"expected distinct voters of .*got.*nobody"):
            relabel(job.out, out, {}, ("nobody",))
        with pytest.raises(TableError, match="expected a Parquet table"):
            relabel(tmp_path, out, {})
        assert not out.exists()


class TestBalance:
    @pytest.fixture
    def lopsided(self, job: LabelJob) -> LabelJob:
        """Blue images; one in eight is barely blue, and grey at quality 1: non-useful."""
        lines = ["path,class_index"]
        random = np.random.default_rng(0)
        for number in range(40):
            pixels = np.full((32, 32, 3), COLOURS["blue"], np.uint8)
            if number % 8 == 0:
                pixels[:] = (120, 128, 136)
            pixels[:2, :2] = random.integers(100, 156)  # no two files are the same
            (job.images / f"{number:02d}.png").write_bytes(encode(pixels, "PNG"))
            lines.append(f"{number:02d}.png,2")
        assert job.truth is not None
        job.truth.write_text("\n".join(lines))
        for name in ("one", "two", "onlooker"):
            save_colour_network(job.images.parent / f"{name}.onnx", sharpness=3.0)
        return change(
            job,
            qualities=(90, 1),
            rule={"t_high": 0.9, "t_low": 0.5},
            balance={"ratio": 0.5, "rounds": 6},
        )

    def test_the_rarer_class_catches_up_by_new_sources_not_by_copies(
        self, lopsided: LabelJob
    ) -> None:
        result = run(lopsided)
        before = run(dataclasses.replace(change(lopsided, balance=None), out=lopsided.out / "b"))
        assert result.rounds
        rows = read_labels(lopsided.out / "labels.parquet")
        plain = [row for row in rows if not row.augmentation]
        assert plain == read_labels(lopsided.out / "b" / "labels.parquet")
        assert len(before.labels) == len(plain)
        assert sum(r.augmented for r in result.rounds) == len(
            {(row.source, row.augmentation) for row in rows if row.augmentation}
        )
        before_counts = {c.side: c for c in count_sides(before.labels)}
        assert before_counts["train"].missing(0.5) > 0
        for counts in result.rounds[-1].counts:
            rarer = before_counts[counts.side].non_useful
            assert counts.missing(0.5) == 0 or rarer == 0, "only what never occurs stays rare"
        sides = {row.source: row.split for row in plain}
        assert all(sides[row.source] == row.split for row in rows)
        keys = [(r.source, r.augmentation, r.parameters) for r in rows]
        assert len(set(keys)) == len(keys), "no label stands twice"
        augmented = [row for row in rows if row.augmentation]
        for row in augmented[:5]:
            assert list(remake_source(lopsided.images, row.source, [row]))

    def test_an_interrupted_balance_ends_with_the_same_bytes(self, lopsided: LabelJob) -> None:
        whole = dataclasses.replace(lopsided, out=lopsided.out / "whole")
        run(whole)
        with pytest.raises(KeyboardInterrupt):
            run(lopsided, _stop_in_second_round())
        run(lopsided)
        assert tables_of(lopsided) == tables_of(whole)

    def test_where_the_rarer_class_never_occurs_it_ends(self, many: LabelJob) -> None:
        result = run(change(many, balance={"ratio": 1.0}))
        assert result.rounds == ()


def _stop_in_second_round() -> Any:
    rounds = 0

    def progress(done: int, _total: int) -> None:
        nonlocal rounds
        rounds += done == 0
        if rounds == 2 and done == 1:
            raise KeyboardInterrupt

    return progress


def iou(a: list[float], b: list[float]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


class TestDetection:
    @pytest.fixture
    def watched(self, tmp_path: Path) -> LabelJob:
        """A red and a grey image; their `thing` lies in the middle, where the detector says."""
        images = tmp_path / "images"
        images.mkdir()
        for name, colour in (("red", (250, 0, 0)), ("grey", (100, 0, 0))):
            pixels = np.full((60, 80, 3), colour, np.uint8)
            (images / f"{name}.png").write_bytes(encode(pixels, "PNG"))
        things = [{"image_id": n, "category_id": 5, "bbox": [20, 15, 40, 28]} for n in (1, 2)]
        coco = {
            "images": [
                {"id": 1, "file_name": "red.png", "width": 80, "height": 60},
                {"id": 2, "file_name": "grey.png", "width": 80, "height": 60},
                {"id": 3, "file_name": "red.png.none", "width": 80, "height": 60},
            ],
            "categories": [{"id": 5, "name": "thing"}],
            "annotations": [{"id": i, **thing} for i, thing in enumerate(things)],
        }
        (tmp_path / "instances.json").write_text(json.dumps(coco))
        save_detector(tmp_path)
        made = make_label_config(
            {
                "task": "detection",
                "networks": ("watcher",),
                "qualities": (90,),
                "degrade": ({"kind": "low_light", "exposure": 0.02},
                            {"kind": "messenger", "side": 40, "quality": 80},
                            {"kind": "crop", "keep": 0.5, "seed": 2}),
            }
        )  # fmt: skip
        return LabelJob(
            config=made, images=images, truth=tmp_path / "instances.json", out=tmp_path / "out",
            networks_file=tmp_path / "networks.toml", workers=1,
        )  # fmt: skip

    def test_boxes_are_in_pixels_of_the_source_whatever_the_copy(self, watched: LabelJob) -> None:
        run(watched)
        rows = {r["degradation"]: r for r in rows_of(watched) if r["source"] == "red.png"}
        for name in ("none", "jpeg", "messenger"):
            assert rows[name]["boxes"][0] == pytest.approx([20, 15, 60, 45]), name
            assert rows[name]["reference_objects"] == 1
            # the truth is 28 of the box's 30 pixels high
            assert rows[name]["ious"][0] == pytest.approx(28 / 30)
            assert rows[name]["objects"][0] == 0
        view = Crop(0.5, seed=2).view(80, 60, rows["crop"]["source_digest"])
        assert rows["crop"]["boxes"][0] == pytest.approx(
            [view[0] + 10, view[1] + 7.5, view[0] + 30, view[1] + 22.5]
        )

    def test_labels_follow_the_detector(self, watched: LabelJob) -> None:
        run(watched)
        labels = {
            (r.source, r.degradation): r.label for r in read_labels(watched.out / "labels.parquet")
        }
        assert labels["red.png", "jpeg"] == 1
        assert labels["red.png", "low_light"] == 0
        # a score of 100 / 255 is no detection, not even on the pristine image
        assert labels["grey.png", "jpeg"] == 0
        strict = relabel(watched.out, watched.out / "s.parquet", {"require_pristine": True})
        assert dict(zip(strict["source"].to_pylist(), strict["label"].to_pylist(), strict=True))[
            "grey.png"
        ] is None  # fmt: skip
        loose = relabel(watched.out, watched.out / "l.parquet", {"score": 0.3, "iou": 0.9})
        by_copy = zip(*(loose[n].to_pylist() for n in ("source", "degradation", "label")),
                      strict=True)  # fmt: skip
        assert ("grey.png", "jpeg", 1) in by_copy

    def test_an_image_that_exif_turns_is_left_out(self, watched: LabelJob) -> None:
        exif = Image.Exif()
        exif[0x0112] = 3  # upside down: the size stays, the boxes would not fit
        grey = np.full((60, 80, 3), (100, 0, 0), np.uint8)
        (watched.images / "grey.png").write_bytes(encode(grey, "PNG", exif=exif))
        assert "its EXIF turns" in dict(run(watched).skipped)["grey.png"]

    def test_an_image_of_another_size_than_the_truth_says_is_left_out(
        self, watched: LabelJob
    ) -> None:
        (watched.images / "grey.png").write_bytes(encode(draw(60, 80), "PNG"))
        result = run(watched)
        reasons = dict(result.skipped)
        assert "expected 80 x 60 pixels as in the ground truth, got 60 x 80" in reasons["grey.png"]
        assert len(reasons) == 2

    def test_the_detectors_own_finds_can_be_the_reference(self, watched: LabelJob) -> None:
        own = watched.config.model_dump() | {"reference": "pristine"}
        job = dataclasses.replace(watched, config=make_label_config(own), truth=None)
        run(job)
        rows = [r for r in rows_of(job) if r["degradation"] == "none"]
        by_source = {r["source"]: r for r in rows}
        assert by_source["red.png"]["reference_objects"] == 1
        assert by_source["red.png"]["ious"][0] == pytest.approx(1.0)
        assert by_source["grey.png"]["reference_objects"] == 0
        labels = {
            (r.source, r.degradation): r.label for r in read_labels(job.out / "labels.parquet")
        }
        assert labels["red.png", "jpeg"] == 1
        assert labels["red.png", "low_light"] == 0
        assert labels["grey.png", "jpeg"] is None, "nothing to be found is nothing to judge"

    def test_augmented_sources_take_their_boxes_along(self, watched: LabelJob) -> None:
        # Red images are useful and one grey one is not: it is augmented until it has caught up.
        for number in range(8):
            pixels = np.full((60, 80, 3), (250, number, 0), np.uint8)
            (watched.images / f"red{number}.png").write_bytes(encode(pixels, "PNG"))
        assert watched.truth is not None
        coco = json.loads(watched.truth.read_text())
        for number in range(8):
            image = {"id": 10 + number, "file_name": f"red{number}.png", "width": 80, "height": 60}
            coco["images"].append(image)
            thing = {"image_id": 10 + number, "category_id": 5, "bbox": [0, 15, 40, 30]}
            coco["annotations"].append({"id": 10 + number, **thing})
        watched.truth.write_text(json.dumps(coco))
        job = change(watched, balance={"ratio": 1.0, "rounds": 3, "seed": 1}, degrade=(),
                     rule={"iou": 0.3})  # fmt: skip
        result = run(job)
        assert result.rounds
        augmented = [r for r in rows_of(job) if r["augmentation"] and r["degradation"] == "none"]
        assert augmented
        for row in augmented:
            augmentation = parse(row["augmentation"])
            truth = {"grey.png": [20, 15, 60, 43]}.get(row["source"], [0, 15, 40, 45])
            (box,), (kept,) = augmentation.boxes(np.array([truth], float), 80, 60)
            assert row["reference_objects"] == int(kept)
            x0, y0, x1, y1 = augmentation.view(80, 60)
            width, height = x1 - x0, y1 - y0
            own = [0.25 * width, 0.25 * height, 0.75 * width, 0.75 * height]
            where = row["classes"].index(0) if 0 in row["classes"] else None
            if where is not None:
                assert row["boxes"][where] == pytest.approx(own)
                if kept:
                    assert row["ious"][where] == pytest.approx(iou(own, box.tolist()), abs=1e-5)

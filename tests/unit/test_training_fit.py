"""Fits: killed and continued, on the fly, in several processes, exact; what they leave behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from PIL import Image
from safetensors.torch import save_file

from tests.training import METADATA, TINY
from utility_gate.checkpoint import CARD
from utility_gate.errors import ConfigError
from utility_gate.predictor import UtilityPredictor
from utility_gate.sides import load_sides
from utility_gate.training import fit as fits
from utility_gate.training.config import TrainConfig, load_config
from utility_gate.training.curves import draw_curves
from utility_gate.training.dataset import make_copies
from utility_gate.training.fit import Fitted, build_net, fit
from utility_gate.training.module import Trunk, UtilityNet
from utility_gate.training.origin import PHOTOGRAPHS, short_digest
from utility_gate.training.train import describe_run, train
from utility_gate.training.trainer import log_files, make_trainer

SMALL = TINY | {"epochs": 3, "epoch_samples": 32, "dropout": 0.5}


class KilledError(Exception):
    pass


class Kill(Callback):
    """The end of the process, in the middle of the third epoch."""

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.current_epoch == 2:
            raise KilledError


def run(tables: Path, out: Path, config: TrainConfig) -> tuple[UtilityNet, Fitted]:
    labels = [tables / "labels.parquet"]
    sides = load_sides(labels, tables, config.targets, config.shares)
    net = build_net(config)
    copies = [make_copies(side, 64, None) for side in (sides.train, sides.validation)]
    return net, fit(net, config, copies[0], copies[1], out, describe_run(config, labels))


def killed_run(
    tables: Path, out: Path, config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_kill(*arguments: Any) -> Any:
        trainer, best = make_trainer(*arguments)
        trainer.callbacks.append(Kill())  # type: ignore[attr-defined]
        return trainer, best

    with monkeypatch.context() as patch:
        patch.setattr(fits, "make_trainer", with_kill)
        with pytest.raises(KilledError):
            run(tables, out, config)


def check_killed_run(
    tables: Path, folder: Path, config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run as a whole and one that is killed and continued, in `folder`, end alike."""
    whole, expected = run(tables, folder / "whole", config)
    killed_run(tables, folder / "killed", config, monkeypatch)
    continued, fitted = run(tables, folder / "killed", config)
    assert fitted.auroc == expected.auroc
    for name, value in whole.state_dict().items():
        assert torch.equal(continued.state_dict()[name], value), name


def test_a_killed_run_ends_as_if_it_had_not_been(
    tables: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check_killed_run(tables, tmp_path, load_config("finetune", **SMALL), monkeypatch)
    # Both parts of the log are there, and the curves run through them.
    first, second = (log.read_text() for log in log_files(tmp_path / "killed"))
    assert ("\n1," in first, "\n1," in second) == (True, False)
    assert "\n2," in second
    assert draw_curves(tmp_path / "killed").stat().st_size > 5000


def test_another_run_is_not_continued(
    tables: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    killed_run(tables, tmp_path, load_config("finetune", **SMALL), monkeypatch)
    with pytest.raises(ConfigError, match="the beginning of a run with other labels"):
        run(tables, tmp_path, load_config("finetune", **SMALL, seed=1))
    # How many workers and threads do the work is not part of what is done.
    run(tables, tmp_path, load_config("finetune", **(SMALL | {"threads": 2})))


def test_logs_curves_and_pace_are_left_behind(
    tables: Path,
    tmp_path: Path,
) -> None:
    card = train(
        load_config("finetune", **(SMALL | {"on_the_fly": True, "calibration_fraction": 0.2})),
        [tables / "labels.parquet"], tables, tmp_path / "p", name="x", release="1",
    )  # fmt: skip
    assert card is not None
    header, *rows = (tmp_path / "p" / "log" / "000" / "metrics.csv").read_text().splitlines()
    for name in ("train_loss", "val_auroc", "images_per_second", "waiting_share"):
        assert name in header
    assert len(rows) >= 3
    assert list((tmp_path / "p" / "log" / "000").glob("events.out.tfevents.*"))
    with Image.open(tmp_path / "p" / "curves.png") as picture:
        picture.load()
    pace = card.training["pace"]
    assert pace["images_per_second"] > 0
    assert 0 <= pace["waiting_share"] <= 1
    assert list((tmp_path / "p" / "cache").glob("sources-*.rgb"))
    assert {g.kind for g in card.guarantees} == {"reject_useful", "pass_non_useful"}
    assert not any(g.holds for g in card.guarantees)  # forty sources promise nothing
    assert {g.threshold for g in card.guarantees} == {
        card.thresholds.review, card.thresholds.useful,
    }  # fmt: skip


def test_without_sources_of_their_own_thresholds_promise_nothing(
    tables: Path,
    tmp_path: Path,
) -> None:
    # Held back hard: what a trunk without weights sees is noise, and the export rounds.
    changes = {"calibration_fraction": 0.0, "views": 2, "weight_decay": 1.0}
    config = load_config("embedded", **(TINY | changes))
    arguments: dict[str, Any] = {"name": "x", "release": "1", "cache": tmp_path / "cache"}
    labels = [tables / "labels.parquet"]
    card = train(config, labels, tables, tmp_path / "a", **arguments)
    assert card is not None
    assert card.guarantees == ()
    # The same with what the trunk saw kept: the same predictor.
    again = train(config, labels, tables, tmp_path / "b", **arguments)
    assert again is not None
    assert again.weights.sha256 == card.weights.sha256
    assert UtilityPredictor.load(tmp_path / "b").card.training["config"]["features"] == [
        "confidence", "pooled", "stages",
    ]  # fmt: skip


def test_guarantees_are_of_what_was_exported(tables: Path, tmp_path: Path) -> None:
    config = load_config("finetune", **(SMALL | {"calibration_fraction": 0.2, "min_side": 73}))
    labels = [tables / "labels.parquet"]
    card = train(config, labels, tables, tmp_path / "p", name="x", release="1")
    assert card is not None
    predictor = UtilityPredictor.load(tmp_path / "p")
    sides = load_sides(labels, tables, config.targets, config.shares, only=("calibration",))
    useful = [copy for copy in sides.calibration if copy.label.label == 1]
    rejected = [predictor.look(copy.data).utility < card.thresholds.review for copy in useful]
    assert card.guarantees[0].achieved == pytest.approx(sum(rejected) / len(rejected))
    # All are 96 x 72 pixels, too small to be judged: none is told from another.
    assert {predictor.look(copy.data).utility for copy in sides.calibration} == {0.0}


def test_photographs_that_a_trunk_was_pretrained_on_promise_nothing(
    tables: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    changes = SMALL | {"epochs": 1, "calibration_fraction": 0.2}
    labels, config = [tables / "labels.parquet"], load_config("finetune", **changes)
    sides = load_sides(labels, tables, config.targets, config.shares, only=("calibration",))
    seen = short_digest(sides.calibration[0].label.source_digest)
    state = Trunk().state_dict()
    for name, photographs in (("other", ["0" * 16]), ("same", [seen])):
        trunk = tmp_path / f"{name}.safetensors"
        save_file(state, trunk, {PHOTOGRAPHS: json.dumps(photographs), "teacher": "x"})
        own = load_config("finetune", **(changes | {"init": str(trunk)}))
        card = train(own, labels, tables, tmp_path / name, name="x", release="1")
        assert card is not None
        assert bool(card.guarantees) is (name == "other")
        assert card.training["init"]["teacher"] == "x"
        assert PHOTOGRAPHS not in card.training["init"]
    assert "pretrained on 1 of " in caplog.text


@pytest.mark.slow
def test_two_processes_train_one_predictor(
    tables: Path,
    tmp_path: Path,
) -> None:
    (tmp_path / "tiny.toml").write_text(
        "\n".join(
            f"{name} = {f'{value!r}' if isinstance(value, str) else value}"
            for name, value in (SMALL | {"epochs": 1}).items()
        )
    )
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        *("-m", "cli.main", "train", "--preset", str(tmp_path / "tiny.toml")),
        *("--labels", str(tables / "labels.parquet"), "--images", str(tables)),
        *("--out", str(tmp_path / "p")),
    ]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        command, cwd=root, timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("validation AUROC") == 1
    card = UtilityPredictor.load(tmp_path / "p").card
    assert card.training["labels"][0]["voters"] == METADATA["voters"]
    assert (tmp_path / "p" / CARD).exists()


def test_more_processes_than_gpus_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "2")
    with pytest.raises(ConfigError, match="at most one process for each of 1 GPUs, got 2"):
        make_trainer(load_config("finetune", **TINY), tmp_path)


def test_impossible_recipes_are_refused() -> None:
    for changes, message in (
        ({"optimizer": "lbfgs"}, "trunk_rate = 0 with lbfgs"),
        ({"optimizer": "lbfgs", "trunk_rate": 0, "on_the_fly": True}, "on_the_fly = false"),
        ({"features": ["pooled", "pooled"]}, "distinct features"),
        ({"feature_scale": {"stages": 1.0}}, "a feature_scale for each of pooled"),
        ({"validation_fraction": 0.5, "calibration_fraction": 0.5}, "a tenth of the sources"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_config("finetune", **changes)

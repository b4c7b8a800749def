"""What training draws, keeps and sees: the same whatever the processes, the cache and the kills."""

from __future__ import annotations

import dataclasses
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.conftest import draw, encode
from utility_gate.degrade import Jpeg, decode_copy, to_json
from utility_gate.errors import TableError
from utility_gate.files import digest_bytes
from utility_gate.images import encode_jpeg
from utility_gate.sides import LabelledCopy, LabelledRow
from utility_gate.training.dataset import (
    CopyDataset,
    DecodedCopies,
    EncodedCopies,
    FreshCopies,
    predictor_preprocess,
)
from utility_gate.training.draws import BalancedDraws, balanced_weights
from utility_gate.training.features import see
from utility_gate.training.linear import fit_head
from utility_gate.training.module import USEFUL, Standardize, Trunk, UtilityNet
from utility_gate.training.pixels import store_pixels
from utility_gate.types import Label

TARGETS = [1.0] * 30 + [0.75] * 10 + [0.5] * 20 + [0.0] * 4


def label_of(source: str, digest: str, quality: int, copy: str) -> Label:
    return Label(
        source=source, source_digest=digest, degradation="jpeg", parameters=to_json(Jpeg(quality)),
        quality=quality, image_digest=copy, split="train", label=1, utility=None, useful_votes=1,
        non_useful_votes=0, networks=1,
    )  # fmt: skip


@pytest.fixture
def copies(tmp_path: Path) -> list[LabelledCopy]:
    """Two sources at qualities 90, 40, 20 (useful) and 5 (not)."""
    made = []
    for number in range(2):
        pixels = draw(96, 72, seed=number)
        data = encode(pixels, "PNG")
        (tmp_path / f"{number}.png").write_bytes(data)
        for quality, target in ((90, 1.0), (40, 1.0), (20, 1.0), (5, 0.0)):
            copy = Jpeg(quality).apply(pixels)
            label = label_of(f"{number}.png", digest_bytes(data), quality, digest_bytes(copy))
            made.append(LabelledCopy(dataclasses.replace(label, label=int(target)), copy, target))
    return made


def rows_of(copies: list[LabelledCopy]) -> list[LabelledRow]:
    return [LabelledRow(copy.label, copy.target, copy.task) for copy in copies]


# --- draws


def test_what_is_drawn_balances_hard_and_soft_targets() -> None:
    drawn = [TARGETS[index] for index, _ in BalancedDraws(TARGETS, 20_000, seed=0)]
    assert np.mean(drawn) == pytest.approx(0.5, abs=0.02)
    assert 0.5 not in drawn
    assert balanced_weights(TARGETS).sum() == pytest.approx(1)


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_an_epoch(processes: int) -> None:
    alone = BalancedDraws(TARGETS, 101, seed=3)
    alone.set_epoch(2)
    shares = [BalancedDraws(TARGETS, 101, 3, rank, processes) for rank in range(processes)]
    for share in shares:
        share.set_epoch(2)
    assert len({len(list(share)) for share in shares}) == 1
    together = Counter(draw for share in shares for draw in share)
    missing = Counter(alone) - together
    assert not together - Counter(alone)
    assert missing.total() == 101 % processes


def test_epochs_differ_and_repeat() -> None:
    draws = BalancedDraws(TARGETS, 50, seed=1)
    first = list(draws)
    draws.set_epoch(1)
    assert list(draws) != first
    draws.set_epoch(0)
    assert list(draws) == first
    assert list(BalancedDraws(TARGETS, 50, seed=2)) != first
    assert len({seed for _, seed in first}) == 50


# --- images on disk


def test_decoded_images_are_read_back_and_kept(tmp_path: Path) -> None:
    images = {str(n): draw(20 + n, 30, seed=n) for n in range(5)}
    asked: list[str] = []

    def load(key: str) -> np.ndarray:
        asked.append(key)
        return images[key]

    for _ in range(2):
        store = store_pixels(tmp_path, "x", images, load)
        assert len(store) == 5
        assert all((store[key] == pixels).all() for key, pixels in images.items())
    assert sorted(asked) == sorted(images)  # once
    assert (pickle.loads(pickle.dumps(store))["3"] == images["3"]).all()
    fewer = store_pixels(tmp_path, "x", ["0"], load)
    assert len(fewer) == 1


def test_a_store_that_was_not_finished_is_made_again(tmp_path: Path) -> None:
    def fail(key: str) -> np.ndarray:
        raise TableError(f"no {key}")

    with pytest.raises(TableError, match="no 7"):
        store_pixels(tmp_path, "x", ["7"], fail)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(TableError, match="cannot keep decoded images"):
        store_pixels(tmp_path / "file", "x", ["7"], lambda key: draw(8, 8))


def test_decoded_copies_show_what_encoded_ones_do(
    copies: list[LabelledCopy], tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    encoded = EncodedCopies(copies, 32)
    decoded = DecodedCopies.make(copies, 32, tmp_path / "cache")
    assert decoded.targets == encoded.targets
    for index in range(len(copies)):
        assert (decoded.pixels(index, random) == encoded.pixels(index, random)).all()


# --- copies made anew


def test_fresh_copies_take_qualities_between_observed_ones_that_agree(
    copies: list[LabelledCopy], tmp_path: Path
) -> None:
    fresh = FreshCopies.make(rows_of(copies), tmp_path, 64, tmp_path / "cache")
    qualities = [copy.label.quality for copy in copies]
    # 90 has none above it, 5's neighbour 20 has another label.
    assert fresh.upto == [90, 90, 40, 5] * 2
    pixels = draw(96, 72, seed=0)
    seen = set()
    for seed in range(300):
        shown = fresh.pixels(1, np.random.default_rng(seed))  # 40 up to 90
        matches = [q for q in range(40, 90) if (decode_copy(encode_jpeg(pixels, q)) == shown).all()]
        assert matches
        seen.add(matches[0])
    assert len(seen) > 30
    for index in (0, 3):
        shown = fresh.pixels(index, np.random.default_rng(index))
        quality = qualities[index]
        assert quality is not None
        assert (shown == decode_copy(encode_jpeg(pixels, quality))).all()


def test_fresh_copies_do_not_pass_over_qualities_that_were_undecided(
    copies: list[LabelledCopy], tmp_path: Path
) -> None:
    rows = [row for row in rows_of(copies) if row.label.quality != 20]
    at_60 = [
        dataclasses.replace(row.label, quality=60, parameters=to_json(Jpeg(60)), label=None)
        for row in rows
        if row.label.quality == 40
    ]
    observed = [(row.task, row.label) for row in rows] + [("classification", one) for one in at_60]
    fresh = FreshCopies.make(rows, tmp_path, 64, tmp_path / "cache", observed)
    upto = {row.label.quality: top for row, top in zip(rows, fresh.upto, strict=True)}
    assert upto[40] == 40, "60 lies between it and 90"


def test_fresh_copies_of_changed_sources_are_refused(
    copies: list[LabelledCopy], tmp_path: Path
) -> None:
    (tmp_path / "1.png").write_bytes(encode(draw(96, 72, seed=9), "PNG"))
    with pytest.raises(TableError, match="is not the image that was labelled"):
        FreshCopies.make(rows_of(copies), tmp_path, 64, tmp_path / "cache")


# --- looks


def test_a_look_depends_on_its_seed_alone(copies: list[LabelledCopy]) -> None:
    preprocess = predictor_preprocess(48)
    dataset = CopyDataset(EncodedCopies(copies, 64), preprocess, augment=True, reencode=0.5)
    looks = [dataset[0, seed][0] for seed in range(20)]
    again = [dataset[0, seed][0] for seed in range(20)]
    assert all(torch.equal(a, b) for a, b in zip(looks, again, strict=True))
    assert not any(torch.equal(looks[0], other) for other in looks[1:])
    plain = CopyDataset(EncodedCopies(copies, 64), preprocess, augment=False)
    assert torch.equal(plain[0][0], plain[0, 17][0])
    assert float(plain[3][1]) == 0.0


def test_saving_once_more_changes_little(copies: list[LabelledCopy]) -> None:
    again = CopyDataset(
        EncodedCopies(copies, 64), predictor_preprocess(48), augment=False, reencode=1.0
    )
    before = decode_copy(copies[1].data).astype(float)
    resaved = [again.show(1, seed) for seed in range(40)]
    shapes = {image.shape for image in resaved}
    assert len(shapes) > 10  # shifted by 0 to 7 pixels, or scaled
    assert all(abs(image.mean() - before.mean()) < 8 for image in resaved)


# --- features and the exact head


def tiny_net() -> UtilityNet:
    torch.manual_seed(0)
    net = UtilityNet("resnet18", ("confidence", "pooled", "stages"))
    net.freeze_trunk()
    return net.eval()


def test_features_are_the_trunk_s_and_are_computed_once(
    copies: list[LabelledCopy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = tiny_net()
    shown = CopyDataset(EncodedCopies(copies, 64), predictor_preprocess(48), augment=True)
    features = see(net.trunk, shown, copies, 2, 0, 0, tmp_path / "cache")
    assert features.shape == (8, 2, sum(net.trunk.sizes().values()))
    assert not torch.equal(features[:, 0], features[:, 1])
    calls = 0
    compute = Trunk.forward

    def counted(self: Trunk, images: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += len(images)
        return compute(self, images)

    monkeypatch.setattr(Trunk, "forward", counted)
    assert torch.equal(see(net.trunk, shown, copies, 2, 0, 0, tmp_path / "cache"), features)
    assert calls == 0
    more = see(net.trunk, shown, copies[::-1], 3, 0, 0, tmp_path / "cache")
    assert calls == 8  # the third look at each
    assert torch.equal(more[:, :2], features.flip(0))
    # Another seed, another trunk or another way to show: nothing of it is kept yet.
    see(net.trunk, shown, copies, 1, 1, 0, tmp_path / "cache")
    plain = CopyDataset(EncodedCopies(copies, 64), predictor_preprocess(48), augment=False)
    see(net.trunk, plain, copies, 1, 0, 0, tmp_path / "cache")
    torch.nn.init.zeros_(next(net.trunk.parameters()))
    see(net.trunk, shown, copies, 1, 0, 0, tmp_path / "cache")
    assert calls == 8 + 3 * 8


def test_a_trunk_s_features_by_hand() -> None:
    net = tiny_net()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        confidence, pooled, stages = net.trunk(images).split(list(net.trunk.sizes().values()), 1)
        probabilities = net.trunk.net(images).softmax(1)
        last, maps = net.trunk.look(images)
    best = probabilities.sort(1, descending=True).values[:, :10]
    assert confidence[:, :10] == pytest.approx(best.log().numpy(), abs=1e-4)
    assert confidence[:, 12] == pytest.approx(best[:, 0].numpy(), abs=1e-5)
    assert pooled == pytest.approx(last.mean((2, 3)).numpy(), abs=1e-5)
    first = torch.cat([maps[0].mean((2, 3)), maps[0].std((2, 3), correction=0)], 1)
    assert stages[:, : first.shape[1]] == pytest.approx(first.numpy(), abs=1e-3)
    assert [stage.shape[1] for stage in maps] == [64, 64, 128, 256]


def test_the_exact_head_is_at_the_minimum() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(400, 5, generator=generator) * torch.tensor([1, 10, 0.1, 1, 1]) + 3
    targets = (features[:, 0] - features[:, 1] / 10 + 1 > 0).float() * 0.9 + 0.05
    weights = torch.full((400,), 1 / 400)
    head = nn.Sequential(Standardize(5), nn.Dropout(0.5), nn.Linear(5, 2))
    scale = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.01])
    fit_head(head, features, targets, weights, 1e-2, scale)
    head.eval()

    def value(shift: int | None = None, by: float = 0.0) -> float:
        with torch.no_grad():
            linear = head[2]
            margin = (linear.weight[USEFUL] - linear.weight[1 - USEFUL]).clone()
            logits = head(features)
            if shift is not None:
                margin[shift] += by
                logits[:, USEFUL] += by * head[0](features)[:, shift]
            entropy = nn.functional.cross_entropy(
                logits, torch.stack([1 - targets, targets], 1), reduction="none"
            )
            return float((entropy * weights).sum() + 1e-2 * margin.square().sum())

    lowest = value()
    for shift in range(5):
        for by in (-0.05, 0.05):
            assert value(shift, by) > lowest
    margin = (head[2].weight[USEFUL] - head[2].weight[1 - USEFUL]).abs()
    assert margin[4] < margin[:2].min() / 50  # held back by its scale

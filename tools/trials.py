"""What helps the head of a frozen trunk: the same recipe with one thing changed, cross-validated.

    python tools/trials.py --labels FIRST.parquet [MORE.parquet ...] --images DIR --cache DIR

Sources held out for testing are never looked at. The others are cut into five folds by content;
each trial learns on four and judges the fifth, in turn. Judged are the decided copies of FIRST
alone, so every trial answers for the same copies. MORE are further tables (low qualities, other
photographs, other encodings), each a trial of its own. Printed as Markdown: balanced accuracy at
the trial's own threshold of 1/2, and AUROC. What the trunk sees is computed once and kept in the
cache, which takes most of the time of a first run.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from utility_gate.evaluation.scores import auroc, balanced_accuracy, best_threshold
from utility_gate.sides import LabelledCopy, Shares, choose_rows, load_sides, target_of
from utility_gate.split import unit_hash
from utility_gate.training.config import load_config
from utility_gate.training.dataset import CopyDataset, EncodedCopies, predictor_preprocess
from utility_gate.training.draws import balanced_weights
from utility_gate.training.features import see
from utility_gate.training.fit import build_net
from utility_gate.training.linear import fit_head
from utility_gate.training.module import USEFUL, Standardize

FOLDS = 5
OFF = 1e-6
"""A feature's scale at which it counts for nothing."""

BASE = {"confidence": 1.0, "pooled": 0.05, "stages": 0.1}


@dataclass(frozen=True)
class Trial:
    """One change: feature scales, penalty, targets, smoothing, looks, and how many tables."""

    name: str
    scale: Mapping[str, float]
    decay: float = 3e-3
    targets: str = "votes"
    smoothing: float = 0.0
    views: int = 1
    tables: int = 1


def trials(tables: Sequence[Path], views: int) -> list[Trial]:
    """All trials, each differing from the first in what its name says."""
    alone = {name: {**dict.fromkeys(BASE, OFF), name: BASE[name]} for name in BASE}
    found = [
        Trial("confidence, pooled and stages", BASE),
        Trial("confidence alone", alone["confidence"], decay=1e-4),
        Trial("pooled features alone", alone["pooled"]),
        Trial("stages alone", alone["stages"]),
        Trial("confidence and pooled", {**BASE, "stages": OFF}),
        Trial("confidence and stages", {**BASE, "pooled": OFF}),
        Trial("all alike in scale", dict.fromkeys(BASE, 0.1)),
        Trial("a third of the penalty", BASE, decay=1e-3),
        Trial("three times the penalty", BASE, decay=1e-2),
        Trial("decided copies alone", BASE, targets="unanimous"),
        Trial("continuous utility (Eq. 2) as target", BASE, targets="eq2"),
        Trial("label smoothing 0.1", BASE, smoothing=0.1),
    ]
    for count in range(2, len(tables) + 1):
        added = tables[count - 1].resolve().parent.name
        found.append(Trial(f"{count} tables (and {added})", BASE, tables=count))
    if views > 1:
        found.append(Trial(f"all tables, {views} looks", BASE, views=views, tables=len(tables)))
    return found


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labels", type=Path, nargs="+", required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--preset", default="embedded", help="the recipe that is changed")
    parser.add_argument("--views", type=int, default=1)
    options = parser.parse_args()

    config = load_config(options.preset, views=options.views)
    net = build_net(config)
    tables = list(options.labels)
    sides = load_sides(tables, options.images, "eq2", Shares(), only=("train",))
    copies = sides.train
    number = _first_table(tables)
    shown = [
        CopyDataset(
            EncodedCopies(copies, config.scale_to), predictor_preprocess(config.side, config.fit),
            augment=altered and config.augment, reencode=config.reencode if altered else 0.0,
        )
        for altered in (False, True)
    ]  # fmt: skip
    seen = [see(net.trunk, shown[0], copies, 1, config.seed, config.workers, options.cache)]
    if options.views > 1:
        looks = options.views - 1
        seen.append(
            see(net.trunk, shown[1], copies, looks, config.seed, config.workers, options.cache)
        )
    _report(copies, torch.cat(seen, 1), number, net.trunk.sizes(), trials(tables, options.views))


def _first_table(tables: Sequence[Path]) -> dict[str, int]:
    """The number of the first table that each copy is in."""
    number: dict[str, int] = {}
    for count, table in enumerate(tables):
        for row in choose_rows([table], "eq2", Shares(), only=("train",)):
            number.setdefault(row.label.image_digest, count)
    return number


def _report(
    copies: list[LabelledCopy],
    features: Tensor,
    number: Mapping[str, int],
    sizes: Mapping[str, int],
    every: Sequence[Trial],
) -> None:
    table = np.array([number[copy.label.image_digest] for copy in copies])
    labels = np.array([-1 if copy.label.label is None else copy.label.label for copy in copies])
    folds = np.array([int(FOLDS * unit_hash("fold", c.label.source_digest)) for c in copies])
    judged = (table == 0) & (labels >= 0)
    truth = labels[judged]
    print(f"{int((truth == 1).sum())} useful and {int((truth == 0).sum())} non-useful copies\n")
    print("| trial | learns from | balanced accuracy | AUROC |\n|---|---|---|---|")
    quality = np.array([float(copy.label.quality or 100) for copy in copies])[judged]
    place = list(sizes).index("confidence")
    surest = features[:, 0, sum(list(sizes.values())[:place]) + 12].numpy()[judged].astype(float)
    for name, scores in (("gate (a), JPEG quality", quality), ("gate (b), top-1", surest)):
        accuracy = balanced_accuracy(scores >= best_threshold(scores, truth), truth)
        print(f"| {name}, best threshold | | {accuracy:.1%} | {auroc(scores, truth):.3f} |")
    for trial in every:
        margin, learned = _cross_validate(trial, copies, features, table, folds, judged, sizes)
        accuracy = balanced_accuracy(margin >= 0, truth)
        print(f"| {trial.name} | {learned} | {accuracy:.1%} | {auroc(margin, truth):.4f} |")


def _cross_validate(
    trial: Trial,
    copies: list[LabelledCopy],
    features: Tensor,
    table: np.ndarray,
    folds: np.ndarray,
    judged: np.ndarray,
    sizes: Mapping[str, int],
) -> tuple[np.ndarray, int]:
    """Margins of the judged copies, and how many copies the trial could learn from."""
    aims = [target_of(copy.label, trial.targets) for copy in copies]  # type: ignore[arg-type]
    usable = np.array([aim is not None for aim in aims]) & (table < trial.tables)
    targets = torch.tensor([0.5 if aim is None else aim for aim in aims])
    targets = targets + trial.smoothing * (0.5 - targets)
    scale = torch.cat([torch.full((size,), trial.scale[name]) for name, size in sizes.items()])
    margin = np.full(len(copies), np.nan)
    for fold in range(FOLDS):
        train = np.flatnonzero(usable & (folds != fold))
        test = np.flatnonzero(judged & (folds == fold))
        weights = torch.from_numpy(balanced_weights(targets[train].tolist())).float()
        width = features.shape[2]
        head = nn.Sequential(Standardize(width), nn.Dropout(0.0), nn.Linear(width, 2)).eval()
        fit_head(
            head, features[train, : trial.views].flatten(0, 1),
            targets[train].repeat_interleave(trial.views),
            weights.repeat_interleave(trial.views) / trial.views, trial.decay, scale,
        )  # fmt: skip
        with torch.inference_mode():
            logits = head(features[test, 0])
        margin[test] = (logits[:, USEFUL] - logits[:, 1 - USEFUL]).numpy()
    return margin[judged], int(usable.sum())


if __name__ == "__main__":
    main()

"""Fit and judge the numbers of `utility_gate.advice.QualityModel`.

    python tools/fit_quality_advice.py TABLE.csv DIR [LIMIT]

TABLE has a column `path` of photographs below DIR. The embedded predictor judges them at the
qualities of LADDER, and those held out at the sides of SIDES; of each copy that is not useful it is
known then from which quality on its photograph is. Fitted on the training side, judged on the
held-out one, beside advice that is always the same. Last, in how many held-out photographs blocks
are seen, as they are and saved twice.
"""

import csv
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from utility_gate.advice import _BLOCKED, HIGHEST, MODEL, QualityModel
from utility_gate.files import digest_bytes
from utility_gate.images import Pixels, decode, encode_jpeg
from utility_gate.measure import blocking
from utility_gate.predictor import UtilityPredictor
from utility_gate.split import split_of, unit_hash

LADDER = (95, 90, 85, 80, 75, 70, 60, 50, 40, 35, 30, 25, 20, 15, 10, 7, 5)
SIDES = (64, 96, 128, 160, 192, 224)
FAR = -6.0

Sources = dict[str, list[list[float]]]


def resize(pixels: Pixels, side: int) -> Pixels:
    """To a shorter side of `side` pixels."""
    height, width = pixels.shape[:2]
    scale = side / min(height, width)
    size = (max(1, round(scale * width)), max(1, round(scale * height)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def measure(paths: list[Path]) -> tuple[Sources, list[list[float]]]:
    """Utilities by quality of each photograph, by side of the split; and by size, if held out."""
    predictor = UtilityPredictor.load()

    def judge(data: bytes) -> float:
        image = predictor.decode(data)
        return predictor.judge(image, predictor.crop(image))

    def look(path: Path) -> tuple[str, list[float], list[float]]:
        data = path.read_bytes()
        pixels, side = decode(data).pixels, split_of(digest_bytes(data))
        by_quality = [judge(encode_jpeg(pixels, quality)) for quality in LADDER]
        sizes = SIDES if side == "test" and by_quality[0] >= useful else ()
        return side, by_quality, [judge(encode_jpeg(resize(pixels, s), HIGHEST)) for s in sizes]

    useful = predictor.card.thresholds.useful
    sources: Sources = {"train": [], "test": []}
    sizes = []
    with ThreadPoolExecutor(2) as pool:
        for side, by_quality, by_size in pool.map(look, paths):
            sources[side].append(by_quality)
            sizes += [by_size] if by_size else []
    return sources, sizes


def print_blocks(paths: list[Path]) -> None:
    """How many held-out photographs show blocks, by what was done to them."""
    seen: dict[str, list[bool]] = {}
    for path in paths:
        data = path.read_bytes()
        if split_of(digest_bytes(data)) != "test":
            continue
        pixels = decode(data).pixels
        for first in (None, 40, 30, 20, 10, 5):
            once = data if first is None else encode_jpeg(pixels, first)
            name = "as it is" if first is None else f"{first}, then {HIGHEST}"
            again = once if first is None else encode_jpeg(decode(once).pixels, HIGHEST)
            seen.setdefault(name, []).append(blocking(decode(again)) > _BLOCKED)
    print("\n| saved at quality | " + " | ".join(seen) + " |")
    print("|---" * (len(seen) + 1) + "|")
    print("| blocks seen | " + " | ".join(f"{np.mean(each):.0%}" for each in seen.values()) + " |")


def logit(values: np.ndarray) -> np.ndarray:
    """Of probabilities, kept off 0 and 1."""
    inside = np.clip(values, 1e-6, 1 - 1e-6)
    return np.log(inside / (1 - inside))


def pairs(utilities: np.ndarray, useful: float) -> np.ndarray:
    """Rows (distance, quality now, quality then, useful then) of what was not useful."""
    return np.array([
        (max(FAR, logit(row[now]) - logit(np.float64(useful))), LADDER[now], LADDER[then],
         row[then] >= useful)
        for row in utilities
        for now in range(len(LADDER)) if row[now] < useful
        for then in range(now)
    ], float)  # fmt: skip


def fit(rows: np.ndarray) -> QualityModel:
    """Logistic regression by Newton's method."""
    distance, now, then = rows[:, 0], np.log(rows[:, 1]), np.log(rows[:, 2])
    x = np.stack([np.ones_like(now), distance, now, now * distance, then], 1)
    weights = np.zeros(x.shape[1])
    for _ in range(50):
        p = 1 / (1 + np.exp(-x @ weights))
        curvature = (x * (p * (1 - p))[:, None]).T @ x + 1e-3 * np.eye(len(weights))
        weights += np.linalg.solve(curvature, x.T @ (rows[:, 3] - p) - 1e-3 * weights)
    return QualityModel(*(round(float(weight), 3) for weight in weights))


def score(name: str, advised: object, utilities: np.ndarray, useful: float) -> None:
    """One row: what following the advice does to copies of quality 80 and below."""
    helped = given = mendable = hopeless = spared = 0
    qualities = []
    for row in utilities:
        for now, quality in enumerate(LADDER):
            if quality > 80 or row[now] >= useful:
                continue
            wanted = advised(quality, row[now])  # type: ignore[operator]
            can = row[0] >= useful
            mendable, hopeless = mendable + can, hopeless + (not can)
            if wanted is None:
                spared += not can
                continue
            given += 1
            at = max(i for i, q in enumerate(LADDER) if q >= wanted)
            helped += row[at] >= useful
            if can:
                qualities.append(wanted)
    print(f"| {name} | {helped / mendable:.0%} | {np.mean(qualities):.0f} | "
          f"{spared / hopeless:.0%} | {helped / given:.0%} |")  # fmt: skip


def main() -> None:
    """Print the fitted numbers and what they are worth."""
    table, folder, *limit = sys.argv[1:]
    with Path(table).open(newline="") as file:
        names = sorted((row["path"] for row in csv.DictReader(file)),
                       key=lambda name: unit_hash("limit", name))  # fmt: skip
    names = names[: int(limit[0])] if limit else names
    sources, sizes = measure([Path(folder) / name for name in names])
    useful = UtilityPredictor.load().card.thresholds.useful
    train, test = np.array(sources["train"]), np.array(sources["test"])
    model = fit(pairs(train, useful))
    print(f"{len(train)} photographs fitted on, {len(test)} held out\n{model}\n")

    def by(model: QualityModel, always: bool) -> object:
        def advised(quality: int, utility: float) -> int | None:
            distance = max(FAR, float(logit(np.float64(utility)) - logit(np.float64(useful))))
            hopeless = model.chance(quality, distance, HIGHEST) < model.least
            return None if hopeless and not always else model.reach(quality, distance)

        return advised

    print(
        "| advice | of mendable copies, mended | quality | of others, spared | advice that helps |"
    )
    print("|---|---|---|---|---|")
    for name, one in {"fitted now": model, "in the code": MODEL}.items():
        score(name, lambda q, u, one=one: by(one, always=q < 20)(q, u), test, useful)
        score(f"{name}, always", by(one, always=True), test, useful)
    for fixed in (40, 75, 95):
        score(f"always {fixed}", lambda q, _, f=fixed: f if f > q else 95, test, useful)
    print("\n| shorter side | " + " | ".join(map(str, SIDES)) + " |")
    print("|---" * (len(SIDES) + 1) + "|")
    shares = (np.array(sizes) >= useful).mean(0)
    print("| still useful | " + " | ".join(f"{share:.0%}" for share in shares) + " |")
    print_blocks([Path(folder) / name for name in names])


if __name__ == "__main__":
    main()

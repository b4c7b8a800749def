"""Print how the reasons' measurements are distributed over photographs.

    python tools/measure_quantiles.py DIR [DIR ...]

The defaults of `utility_gate.measure.MeasureLimits` were chosen by this table.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from utility_gate.files import find_images
from utility_gate.images import decode
from utility_gate.measure import luma, sharpness
from utility_gate.preprocess import Preprocess

QUANTILES = (0, 0.005, 0.05, 0.5, 0.95, 0.995, 1)
CROP = Preprocess(resize=224, crop=224)


def measure(path: Path) -> tuple[float, float, float]:
    """Mean luma, its standard deviation, sharpness."""
    gray = luma(CROP.crop_pixels(decode(path.read_bytes(), scale_to=256).pixels))
    return float(gray.mean()), float(gray.std()), sharpness(gray)


def main() -> None:
    """One row a measurement."""
    paths = find_images([Path(argument) for argument in sys.argv[1:]])
    with ThreadPoolExecutor() as pool:
        table = np.array(list(pool.map(measure, paths)))
    print(f"{len(paths)} photographs")
    print("| measurement | " + " | ".join(f"{q:.1%}" for q in QUANTILES) + " |")
    print("|---" * (len(QUANTILES) + 1) + "|")
    for name, column in zip(("mean luma", "contrast", "sharpness"), table.T, strict=True):
        values = np.quantile(column, QUANTILES)
        print(f"| {name} | " + " | ".join(f"{value:.1f}" for value in values) + " |")


if __name__ == "__main__":
    main()

"""Start a gate, send it photographs at falling JPEG quality, print what it says.

Run with `make demo`. The photographs are free ones that scikit-image carries.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from skimage import data

from utility_gate.client import GateClient
from utility_gate.degrade import Jpeg
from utility_gate.types import Verdict

# Of things that image classifiers know; on others the utility is low at any quality.
PHOTOGRAPHS = {
    "chelsea": data.chelsea,
    "coffee": data.coffee,
    "motorcycle": lambda: data.stereo_motorcycle()[0],
}
QUALITIES = (90, 30, 15, 10, 5, 2)
ROW = "{:<12} {:>7} {:>8} {:<11} {:>6}  {}"


@contextmanager
def running_gate(*, quiet: bool = False) -> Iterator[str]:
    """A gate of its own process on free loopback ports; yields its gRPC address."""
    command = [sys.executable, "-P", "-m", "cli.main", "serve", "--port", "0", "--web-port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            name, address = line.split()
            if not quiet:
                print(f"{name:<8} {address}")
            if name == "grpc":
                target = address
            if name == "ready":
                break
        else:
            raise SystemExit(f"the gate did not start (exit code {process.wait()})")
        yield target
    finally:
        process.terminate()
        process.wait(30)


def main() -> int:
    """Print one row per photograph and quality, then the mean utility per quality."""
    utilities: dict[int, list[float]] = {quality: [] for quality in QUALITIES}
    with running_gate() as target, GateClient(target) as client:
        task = client.info().tasks[0]
        print(
            f"\ntask {task.name}, predictor {task.predictor.name} {task.predictor.version}: ",
            end="",
        )
        print(f"USEFUL from {task.thresholds.useful:.2f}, ", end="")
        print(f"NON_USEFUL below {task.thresholds.review:.2f}\n")
        print(ROW.format("photo", "quality", "utility", "decision", "ms", "reasons"))
        for name, load in PHOTOGRAPHS.items():
            photograph = load()
            for quality in QUALITIES:
                image = Jpeg(quality).apply(photograph)
                started = time.perf_counter()
                verdict = client.assess(image)
                milliseconds = 1000 * (time.perf_counter() - started)
                utilities[quality].append(verdict.utility or 0.0)
                print(row(name, quality, verdict, milliseconds))
    print("\nmean utility by quality:")
    for quality, values in utilities.items():
        mean = statistics.mean(values)
        print(f"{quality:>4}  {mean:.3f}  {'#' * round(50 * mean)}")
    means = [statistics.mean(values) for values in utilities.values()]
    if means != sorted(means, reverse=True):
        print("expected utility to fall as quality falls", file=sys.stderr)
        return 1
    return 0


def row(name: str, quality: int, verdict: Verdict, milliseconds: float) -> str:
    """One line of the table."""
    reasons = ", ".join(f"{reason.kind} {reason.value:.3g}" for reason in verdict.reasons)
    return ROW.format(
        name,
        quality,
        f"{verdict.utility or 0.0:.3f}",
        verdict.decision,
        f"{milliseconds:.1f}",
        reasons,
    )


if __name__ == "__main__":
    sys.exit(main())

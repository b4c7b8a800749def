"""Photographs at falling JPEG quality, through the gate and on to the two pipelines behind it.

Run with `make demo`, or `make demo PHOTOS=DIR` for photographs of your own. Without any, it takes
the free ones that scikit-image carries; there is no car among them, which the pipelines say too.
Callers talk to the gate as if it were the pipelines: routes in its settings do the rest.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from skimage import data

from pipelines.v1 import car_model_pb2, car_model_pb2_grpc, damage_pb2, damage_pb2_grpc
from utility_gate.degrade import Jpeg
from utility_gate.files import find_images
from utility_gate.images import Pixels, decode

PHOTOGRAPHS: dict[str, Callable[[], Pixels]] = {
    "chelsea": data.chelsea,
    "coffee": data.coffee,
    "motorcycle": lambda: data.stereo_motorcycle()[0],
}
QUALITIES = (90, 30, 15, 10, 5, 2)
PIPELINES = ("car_model", "damage")
PREDICTORS = """
[predictors]
general = "embedded"
damage = "embedded:damage"
"""
ROUTES = """
[upstreams.{name}]
addresses = ["{address}"]

[[routes]]
method = "{method}"
upstream = "{name}"
image_field = "image"
task = "{task}"
"""
TASKS = {"car_model": "general", "damage": "damage"}
METHODS = {
    "car_model": "pipelines.v1.CarModelService/Identify",
    "damage": "pipelines.v1.DamageService/Assess",
}
PREFIXES = ("UTILITY_GATE", "CAR_MODEL_PIPELINE", "DAMAGE_PIPELINE")
ROW = "{:<14} {:>7} {:<10} {:>7} {:>7}  {}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one photograph: whether the pipeline was asked, the utility that the gate
    gave it, the milliseconds it took, and what was said."""

    passed: bool
    utility: float
    milliseconds: float
    text: str


@contextmanager
def running(*command: str, quiet: bool = True) -> Iterator[str]:
    """`utility-gate COMMAND` as a process of its own on free loopback ports; yields its gRPC
    address once it is ready."""
    line = [sys.executable, "-P", "-m", "cli.main", *command, "--port", "0", "--web-port", "0"]
    quietly = {f"{name}_LOG_LEVEL": "WARNING" for name in PREFIXES}
    process = subprocess.Popen(
        line, stdout=subprocess.PIPE, text=True, env={**quietly, **os.environ}
    )
    try:
        assert process.stdout is not None
        target = ""
        for row in process.stdout:
            name, address = row.split()
            if not quiet:
                print(f"{name:<8} {address}")
            if name == "grpc":
                target = address
            if name == "ready":
                break
        else:
            raise SystemExit(f"{' '.join(command)} did not start (exit code {process.wait()})")
        yield target
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def running_gate(*, quiet: bool = False) -> Iterator[str]:
    """A gate alone."""
    with running("serve", quiet=quiet) as target:
        yield target


def main() -> int:
    """Print one row per photograph, quality and pipeline, then what was saved."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path, nargs="*", help="files or folders")
    photographs = load(parser.parse_args().photos)
    with ExitStack() as stack:
        config = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "gate.toml"
        addresses = {
            name: stack.enter_context(running("pipeline", "serve", name)) for name in PIPELINES
        }
        config.write_text(
            PREDICTORS
            + "".join(
                ROUTES.format(name=name, address=address, method=METHODS[name], task=TASKS[name])
                for name, address in addresses.items()
            )
        )
        print(
            f"Two pipelines, and a gate in front of them with these settings:\n{config.read_text()}"
        )
        gate = stack.enter_context(running("serve", "--config", str(config), quiet=False))
        channel = stack.enter_context(grpc.insecure_channel(gate))
        print()
        print(ROW.format("photo", "quality", "pipeline", "utility", "ms", "answer"))
        rows = [
            show(channel, name, quality, pipeline, pixels)
            for name, pixels in photographs.items()
            for quality in QUALITIES
            for pipeline in PIPELINES
        ]
    return sum_up(rows)


def load(photos: list[Path]) -> dict[str, Pixels]:
    """The photographs to send, by name, HWC uint8 RGB."""
    if not photos:
        return {name: make() for name, make in PHOTOGRAPHS.items()}
    return {path.stem[:14]: decode(path.read_bytes()).pixels for path in find_images(photos)}


def show(
    channel: grpc.Channel, name: str, quality: int, pipeline: str, pixels: Pixels
) -> tuple[str, Answer]:
    """Send one photograph at one quality to one pipeline and print what comes back."""
    answer = ask(channel, pipeline, Jpeg(quality).apply(pixels))
    said = answer.text if answer.passed else f"STOPPED: {answer.text}"
    utility, milliseconds = f"{answer.utility:.3f}", f"{answer.milliseconds:.0f}"
    print(ROW.format(name, quality, pipeline, utility, milliseconds, said))
    return pipeline, answer


def ask(channel: grpc.Channel, pipeline: str, image: bytes) -> Answer:
    """One call as any client of the pipeline makes it; the gate is on the way."""
    started = time.perf_counter()
    try:
        text, call = CALLS[pipeline](channel, image)
    except grpc.RpcError as error:
        elapsed = 1000 * (time.perf_counter() - started)
        return Answer(False, *refusal(error, elapsed))
    elapsed = 1000 * (time.perf_counter() - started)
    trailers = dict(call.trailing_metadata())
    return Answer(True, float(trailers["utility-gate-utility"]), elapsed, text)


def refusal(error: grpc.RpcError, elapsed: float) -> tuple[float, float, str]:
    """The utility, the milliseconds, and what the gate found and advises."""
    status = rpc_status.from_call(error)
    if error.code() is not grpc.StatusCode.FAILED_PRECONDITION or status is None:
        raise error
    info = error_details_pb2.ErrorInfo()
    next(detail for detail in status.details if detail.Is(info.DESCRIPTOR)).Unpack(info)
    said = f"{info.metadata['reasons']} -> {info.metadata['advice']}"
    return float(info.metadata["utility"]), elapsed, said


def identify(channel: grpc.Channel, image: bytes) -> tuple[str, grpc.Call]:
    """The car-model pipeline's answer, and the call."""
    stub = car_model_pb2_grpc.CarModelServiceStub(channel)
    answer, call = stub.Identify.with_call(car_model_pb2.IdentifyRequest(image=image), timeout=10)
    return answer.text, call


def assess(channel: grpc.Channel, image: bytes) -> tuple[str, grpc.Call]:
    """The damage pipeline's answer, and the call."""
    stub = damage_pb2_grpc.DamageServiceStub(channel)
    answer, call = stub.Assess.with_call(damage_pb2.AssessRequest(image=image), timeout=10)
    outcome = damage_pb2.Outcome.Name(answer.outcome).removeprefix("OUTCOME_").lower()
    kind = next(head for head in answer.whole if head.head == "type").classes[0].name
    return f"{outcome}, {len(answer.regions)} regions, all of it: {kind}", call


CALLS = {"car_model": identify, "damage": assess}


def sum_up(rows: list[tuple[str, Answer]]) -> int:
    """What was stopped and what that saved; 1 if the gate did nothing."""
    print()
    for pipeline in PIPELINES:
        answers = [answer for name, answer in rows if name == pipeline]
        passed = [answer for answer in answers if answer.passed]
        stopped = [answer for answer in answers if not answer.passed]
        if not passed or not stopped:
            print(f"{pipeline}: expected some to pass and some to be stopped", file=sys.stderr)
            return 1
        through = sum(answer.milliseconds for answer in passed) / len(passed)
        refused = sum(answer.milliseconds for answer in stopped) / len(stopped)
        print(
            f"{pipeline}: {len(stopped)} of {len(answers)} photographs were stopped, in "
            f"{refused:.0f} ms each; those that passed took {through:.0f} ms with the pipeline"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

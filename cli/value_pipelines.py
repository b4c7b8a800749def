"""Pipelines that `utility-gate value` can ask: classifiers as ONNX, our two pipelines, in this
process or at an address, and models of the Open Inference Protocol."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from utility_gate.channels import open_channel
from utility_gate.errors import ConfigError, NetworkError
from utility_gate.images import decode
from utility_gate.predictor import EMBEDDED
from utility_gate.types import PredictorInfo
from utility_gate.value.job import Clock, Decided

KINDS = ("classifier", "car_model", "damage_type", "damage_severity", "inference")

Answer = Callable[[bytes], str]

LONGEST_SECONDS = 60.0
"""A pipeline that takes longer for one image has failed."""


@dataclass(frozen=True, slots=True)
class TimedPipeline:
    """A pipeline whose time is that of `answer` by `clock` (seconds), decoding or the way to it
    included; `columns` are where tables have its labels, `close` ends it."""

    name: str
    answer: Answer
    columns: tuple[str, ...] = ("label", "name")
    close: Callable[[], None] = lambda: None
    clock: Clock = time.perf_counter

    def decide(self, image: bytes) -> Decided:
        """The class of an encoded image."""
        started = self.clock()
        label = self.answer(image)
        return Decided(label, 1000 * (self.clock() - started))


def add_pipeline_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that say which pipeline."""
    group = parser.add_argument_group("pipeline")
    group.add_argument("--pipeline", choices=KINDS, required=True)
    group.add_argument("--networks", type=Path, metavar="FILE.toml", help="classifier: its file")
    group.add_argument("--network", metavar="NAME", help="classifier: its entry there")
    group.add_argument(
        "--model", metavar="DIR|NAME",
        help="car_model, damage_...: folder of its networks; inference: the model's name",
    )  # fmt: skip
    group.add_argument(
        "--pipeline-target",
        metavar="HOST:PORT",
        help="ask it there, in plaintext and without a key",
    )
    group.add_argument("--input", default="image", help="inference: a BYTES tensor, default image")
    group.add_argument(
        "--output", default="probabilities",
        help="inference: probabilities [n, classes] as FP32 or FP64, or the class as BYTES",
    )  # fmt: skip
    group.add_argument(
        "--classes", type=Path, metavar="FILE.txt",
        help="inference: names of the classes, one a line; default: their numbers",
    )  # fmt: skip


def open_pipeline(options: argparse.Namespace) -> TimedPipeline:
    """The pipeline that the options ask for.

    Raises:
        UtilityGateError: if there is none.
    """
    kind: str = options.pipeline
    if kind == "classifier":
        return _open_classifier(options)
    if kind == "inference":
        from cli.value_inference import open_inference

        return open_inference(options)
    if options.pipeline_target is not None:
        if options.model is not None:
            raise ConfigError("expected --model or --pipeline-target, got both")
        return _ask_car_model(options) if kind == "car_model" else _ask_damage(options)
    return _open_car_model(options) if kind == "car_model" else _open_damage(options)


def _open_classifier(options: argparse.Namespace) -> TimedPipeline:
    from labelers.images import ImageBatch
    from labelers.networks import Classifier, open_network

    if options.network is None or options.pipeline_target is not None:
        raise ConfigError("--pipeline classifier: expected --networks and --network, no target")
    network = open_network(options.network, options.networks)
    if not isinstance(network, Classifier):
        raise NetworkError(f"{options.network}: expected a classifier")

    def answer(image: bytes) -> str:
        inputs = network.prepare(ImageBatch([decode(image).pixels]))
        return str(int(network.forward(inputs)[0].argmax()))

    return TimedPipeline(network.name, answer, ("class_index", "label"))


def _open_car_model(options: argparse.Namespace) -> TimedPipeline:
    from pipelines.car_model.answer import NO_CAR
    from pipelines.car_model.pipeline import CarModelPipeline

    pipeline = CarModelPipeline.load(options.model or EMBEDDED)

    def answer(image: bytes) -> str:
        told = pipeline.identify(image).identification
        best = told.candidates[0]
        return NO_CAR if told.no_car > best.probability else best.name

    return TimedPipeline(_title("car-model pipeline", pipeline.models["classifier"]), answer)


def _open_damage(options: argparse.Namespace) -> TimedPipeline:
    from pipelines.damage.pipeline import DamagePipeline

    pipeline, head = DamagePipeline.load(options.model or EMBEDDED), _head(options)

    def answer(image: bytes) -> str:
        return _best({each.head: each.best[0] for each in pipeline.assess(image).whole}, head)

    name = f"damage pipeline ({head})"
    return TimedPipeline(_title(name, pipeline.models["classifier"]), answer)


def _ask_car_model(options: argparse.Namespace) -> TimedPipeline:
    from pipelines.car_model.answer import NO_CAR
    from pipelines.v1 import car_model_pb2 as pb
    from pipelines.v1 import car_model_pb2_grpc as pb_grpc

    channel = open_channel(options.pipeline_target)
    stub = pb_grpc.CarModelServiceStub(channel)

    def answer(image: bytes) -> str:
        told = ask(
            options.pipeline_target,
            lambda: stub.Identify(
                pb.IdentifyRequest(image=image, top_k=1), timeout=LONGEST_SECONDS
            ),
        )
        best = told.candidates[0]
        return NO_CAR if told.no_car_probability > best.probability else str(best.name)

    return TimedPipeline("car-model service", answer, close=channel.close)


def _ask_damage(options: argparse.Namespace) -> TimedPipeline:
    from pipelines.v1 import damage_pb2 as pb
    from pipelines.v1 import damage_pb2_grpc as pb_grpc

    channel, head = open_channel(options.pipeline_target), _head(options)
    stub = pb_grpc.DamageServiceStub(channel)

    def answer(image: bytes) -> str:
        told = ask(
            options.pipeline_target,
            lambda: stub.Assess(pb.AssessRequest(image=image), timeout=LONGEST_SECONDS),
        )
        return _best({each.head: each.classes[0].name for each in told.whole}, head)

    return TimedPipeline(f"damage service ({head})", answer, close=channel.close)


def ask(target: str, call: Callable[[], Any]) -> Any:
    """The answer of `call`, a call to the pipeline at `target`.

    Raises:
        NetworkError: if it fails.
    """
    try:
        return call()
    except grpc.RpcError as error:
        raise NetworkError(
            f"the pipeline at {target} failed with {error.code().name}: {error.details()}"
        ) from error


def _head(options: argparse.Namespace) -> str:
    return str(options.pipeline).removeprefix("damage_")


def _best(said: dict[str, str], head: str) -> str:
    if head not in said:
        raise ConfigError(f"expected one of the heads {', '.join(said)}, got {head}")
    return said[head]


def _title(what: str, model: PredictorInfo) -> str:
    return f"{what} {model.version}"

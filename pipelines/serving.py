"""What the services of both pipelines share: settings, metrics, a call's way through a worker."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import grpc
from prometheus_client import Counter, Gauge, Histogram
from pydantic import Field

from pipelines.embedded import network_files
from serving.app import ServiceServer
from serving.auth import client_identity
from serving.current import Current
from serving.metrics import SECONDS, ServiceMetrics
from serving.settings import ServiceSettings
from serving.tracing import NO_TRACER, Tracer, queued
from serving.workers import Workers
from utility_gate.errors import InputError
from utility_gate.images import DecodedImage, DecodeLimits
from utility_gate.predictor import EMBEDDED
from utility_gate.types import PredictorInfo

Context = grpc.aio.ServicerContext[Any, Any]
Result = TypeVar("Result")


class Pipeline(Protocol):
    """What a service needs of its pipeline, whatever it answers."""

    @property
    def models(self) -> Mapping[str, PredictorInfo]:
        """Its networks, by what they are for."""

    def decode(self, data: bytes, limits: DecodeLimits | None = None) -> DecodedImage:
        """Bytes to pixels."""


AnyPipeline = TypeVar("AnyPipeline", bound=Pipeline)


class PipelineSettings(ServiceSettings):
    """Settings of a pipeline's service; a subclass gives `noun`, an `env_prefix` and ports of its
    own."""

    model: str = Field(
        default=EMBEDDED,
        description="Folder of the pipeline's networks, or 'embedded': those that ship with it.",
    )


class PipelineMetrics(ServiceMetrics):
    """The metrics of one pipeline's service, in a registry of its own."""

    def __init__(self, prefix: str) -> None:
        super().__init__(prefix)
        self.infer_seconds = Histogram(
            f"{prefix}_infer_duration_seconds",
            "Time of the networks on one image, and of drawing overlays.",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.answers = Counter(
            f"{prefix}_answers_total", "Answers, by what they say.", ["answer"],
            registry=self.registry,
        )  # fmt: skip
        self.models = Gauge(
            f"{prefix}_model_info",
            "1 for each loaded network.",
            ["role", "name", "version", "digest"],
            registry=self.registry,
        )

    def publish(self, models: Mapping[str, PredictorInfo]) -> None:
        """Tell that these are the networks that serve now, and no others."""
        self.models.clear()
        for role, info in models.items():
            self.models.labels(role, info.name, info.version, info.digest).set(1)


class ImageCalls(Generic[AnyPipeline]):
    """Takes the image of a call through one worker thread, from bytes to answer."""

    def __init__(
        self,
        current: Current[AnyPipeline],
        workers: Workers,
        metrics: PipelineMetrics,
        limits: DecodeLimits,
        tracer: Tracer = NO_TRACER,
        admit: Callable[[], None] = lambda: None,
    ) -> None:
        """`admit` is asked before each image, and raises if the caller may send no more."""
        self._current, self._workers, self._metrics = current, workers, metrics
        self.limits = limits
        self._tracer, self._admit = tracer, admit

    def ready(self) -> AnyPipeline:
        """The pipeline that serves now, for a call that begins now.

        Raises:
            NotReadyError: if the service is starting, or takes no new call because it ends.
        """
        return self._current.ready()

    async def run(
        self, data: bytes, context: Context, ask: Callable[[AnyPipeline, DecodedImage], Result]
    ) -> Result:
        """What `ask` says of the image in `data`.

        Raises:
            ServiceError: if the call cannot be taken now.
            ImageError: if the bytes cannot be used.
            NetworkError: if a network fails.
        """
        pipeline = self.ready()
        self._admit()
        self._tracer.annotate({"image.bytes": len(data)})
        with queued(self._tracer, lambda: self._work(pipeline, data, ask)) as work:
            return await self._workers.run(
                work, client=client_identity(), seconds=context.time_remaining()
            )

    def count(self, answer: str) -> None:
        """An answer is given."""
        self._metrics.answers.labels(answer).inc()
        self._tracer.annotate({"answer": answer})

    def _work(
        self,
        pipeline: AnyPipeline,
        data: bytes,
        ask: Callable[[AnyPipeline, DecodedImage], Result],
    ) -> Result:
        started = time.perf_counter()
        try:
            with self._tracer.span("decode"):
                image = pipeline.decode(data, self.limits)
        except InputError as error:
            self._metrics.rejected_inputs.labels(type(error).__name__).inc()
            raise
        decoded = time.perf_counter()
        with self._tracer.span("infer"):
            result = ask(pipeline, image)
        self._metrics.decode_seconds.observe(decoded - started)
        self._metrics.infer_seconds.observe(time.perf_counter() - decoded)
        self._metrics.image_bytes.observe(len(data))
        return result


class PipelineServer(ServiceServer[AnyPipeline]):
    """The service of one pipeline; a subclass says what is its own, as `ServiceServer` asks."""

    settings: PipelineSettings
    metrics: PipelineMetrics

    def __init__(self, settings: PipelineSettings) -> None:
        super().__init__(settings, PipelineMetrics(settings.noun.replace(" ", "_")))

    @property
    def calls(self) -> ImageCalls[AnyPipeline]:
        """What servicers take calls' images by; there are workers once it starts."""
        return ImageCalls(
            self.current,
            self._workers,
            self.metrics,
            self.settings.limits,
            self._tracer,
            self._admission.admit_image,
        )

    def _watched_files(self) -> Sequence[Path]:
        return network_files(self.settings.model)

    def _swap(self, loaded: AnyPipeline) -> None:
        super()._swap(loaded)
        self.metrics.publish(loaded.models)

"""Settings to a gate: predictors open, repeat their conformance vectors, and are ready."""

from __future__ import annotations

import logging
from pathlib import Path

import onnxruntime as ort

from server.batches import BatchedPredictor
from server.canary import Canary
from server.gate import Gate, Predictor
from server.metrics import GateMetrics
from server.settings import GateSettings
from serving.tracing import NO_TRACER, Tracer
from utility_gate.checkpoint import CARD, ONNX, ONNX_INT8, Precision
from utility_gate.errors import ConfigError
from utility_gate.predictor import UtilityPredictor, is_embedded
from utility_gate.types import Mode

log = logging.getLogger(__name__)

_PROVIDERS = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
}


def load_gate(settings: GateSettings, metrics: GateMetrics, tracer: Tracer = NO_TRACER) -> Gate:
    """Load every predictor and canary that the settings name.

    Raises:
        CheckpointError: if one cannot be used.
        ConfigError: if the device is not there, or a mode is set for a task that is not.
    """
    predictors: dict[str, Predictor] = {}
    for task, source in settings.predictors.items():
        predictors[task] = _batched(
            _open(source, settings, settings.precision.get(task, "fp32")), settings
        )
        info = predictors[task].card.info
        log.info("task %s: %s %s, %s", task, info.name, info.version, info.digest[:12])
        made_for = predictors[task].card.task
        if made_for != task:
            log.warning("task %s: its predictor was made for the task %s", task, made_for)
    canaries = {
        task: Canary(_open(entry.predictor, settings, entry.precision), entry.share)
        for task, entry in settings.canaries.items()
    }
    return Gate(
        predictors,
        settings.limits,
        metrics=metrics,
        modes={task: Mode(mode) for task, mode in settings.modes.items()},
        fail_open=settings.fail_open,
        canaries=canaries,
        tracer=tracer,
    )


def watched_files(settings: GateSettings) -> list[Path]:
    """The files whose change means that a predictor is another one."""
    sources = [*settings.predictors.values(), *(c.predictor for c in settings.canaries.values())]
    folders = [Path(source) for source in sources if not is_embedded(source)]
    return [folder / name for folder in folders for name in (CARD, ONNX, ONNX_INT8)]


def _open(source: str, settings: GateSettings, precision: Precision) -> UtilityPredictor:
    providers = _PROVIDERS[settings.device]
    if providers[0] not in ort.get_available_providers():
        raise ConfigError(
            f"device {settings.device}: expected ONNX Runtime with {providers[0]}, it has "
            f"{', '.join(ort.get_available_providers())}; install onnxruntime-gpu or set device = "
            '"cpu"'
        )
    return UtilityPredictor.load(source, providers=providers, precision=precision)


def _batched(predictor: UtilityPredictor, settings: GateSettings) -> Predictor:
    if settings.device == "cpu":
        return predictor
    return BatchedPredictor(predictor, settings.batch_size, settings.batch_delay_ms / 1000)

"""The settings of the gate's own; `serving.settings` has those that every service has."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_settings import SettingsConfigDict

from server.routes.settings import RouteSettings, UpstreamSettings, check_routes
from serving.settings import ServiceSettings
from utility_gate.checkpoint import Precision
from utility_gate.predictor import EMBEDDED


class CanarySettings(BaseModel):
    """A predictor on trial."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    predictor: str = Field(description="Checkpoint folder, 'embedded' or 'embedded:TASK'.")
    share: float = Field(default=0.05, gt=0, le=1, description="Of the task's images.")
    precision: Precision = Field(default="fp32", description="As the setting of this name.")


class GateSettings(ServiceSettings):
    """Settings of one gate."""

    model_config = SettingsConfigDict(env_prefix="UTILITY_GATE_")
    noun: ClassVar[str] = "gate"

    predictors: dict[str, str] = Field(
        default={"general": EMBEDDED},
        min_length=1,
        description="Task to checkpoint folder, or to a predictor that ships: 'embedded' for "
        "general images, 'embedded:damage' for the damage pipeline. The first is the default task.",
    )
    precision: dict[str, Precision] = Field(
        default={},
        description="Task to the weights of its checkpoint that serve: fp32 (default); int8, made "
        "by `utility-gate quantize`, without which the gate does not start; auto, int8 where the "
        "checkpoint has it and this CPU computes with it what its card says, else fp32.",
    )
    modes: dict[str, Literal["ENFORCE", "SHADOW", "OFF"]] = Field(
        default={},
        description="Task to mode. ENFORCE: the decision is the judgement. SHADOW: images are "
        "judged and all let through; metrics and the verdict's `judgement` tell. OFF: let through "
        "unseen.",
    )
    fail_open: tuple[str, ...] = Field(
        default=(),
        description="Tasks whose images are let through unjudged, in mode FALLBACK, when the gate "
        "is overloaded or fails. Others get the error (fail closed).",
    )
    canaries: dict[str, CanarySettings] = Field(
        default={},
        description="Task to a second predictor that judges a share of its images too, for the "
        'metrics alone: { predictor = "FOLDER", share = 0.05, precision = "int8" }.',
    )
    upstreams: dict[str, UpstreamSettings] = Field(
        default={},
        description="Name to pipeline that routes lead to: a table `[upstreams.NAME]` each, see "
        "[below](#upstreamsname).",
    )
    routes: tuple[RouteSettings, ...] = Field(
        default=(),
        description="Methods of pipelines that are served here: a table `[[routes]]` each, see "
        "[below](#routes).",
    )
    device: Literal["cpu", "cuda"] = Field(
        default="cpu",
        description="Where networks run. cuda needs onnxruntime-gpu; images then go there in "
        "batches.",
    )
    batch_size: int = Field(
        default=16, ge=1, le=256, description="Most images of a batch; on an accelerator only."
    )
    batch_delay_ms: float = Field(
        default=2.0,
        ge=0,
        le=1000,
        description="How long the first image of a batch waits for others, milliseconds.",
    )
    max_streams: int = Field(
        default=64,
        ge=1,
        description="AssessStream calls open at a time; one more is RESOURCE_EXHAUSTED. A stream "
        "whose reader does not read holds about 2 x workers + 7 images.",
    )
    max_images_per_request: int = Field(
        default=16,
        ge=1,
        le=1024,
        description="Most images of one ModelInfer (Open Inference Protocol); the request as a "
        "whole must fit into one message, max_image_bytes and 4 MiB.",
    )

    @field_validator("precision")
    @classmethod
    def _is_of_tasks(
        cls, precision: dict[str, Precision], info: ValidationInfo
    ) -> dict[str, Precision]:
        tasks = info.data.get("predictors", precision)
        strangers = set(precision) - set(tasks)
        if strangers:
            raise ValueError(
                f"expected tasks among {', '.join(tasks)}, got {', '.join(sorted(strangers))}"
            )
        return precision

    @field_validator("routes")
    @classmethod
    def _lead_somewhere(
        cls, routes: tuple[RouteSettings, ...], info: ValidationInfo
    ) -> tuple[RouteSettings, ...]:
        check_routes(routes, info.data.get("upstreams"), info.data.get("predictors"))
        return routes

    @property
    def threads(self) -> int:
        """Threads that carry images: while a batch is out, its threads only wait."""
        return self.workers if self.device == "cpu" else max(self.workers, 2 * self.batch_size)

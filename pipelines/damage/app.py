"""The damage pipeline as a service; `serving.app` carries it from start to end."""

from __future__ import annotations

from typing import Annotated, ClassVar

import grpc
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from pipelines.damage.pipeline import DamagePipeline
from pipelines.damage.servicer import DamageServicer
from pipelines.serving import PipelineServer, PipelineSettings
from pipelines.v1 import damage_pb2 as pb
from pipelines.v1 import damage_pb2_grpc as pb_grpc
from serving.settings import Port

SERVICE = pb.DESCRIPTOR.services_by_name["DamageService"].full_name


class DamageSettings(PipelineSettings):
    """Settings of one damage service."""

    model_config = SettingsConfigDict(env_prefix="DAMAGE_PIPELINE_")
    noun: ClassVar[str] = "damage pipeline"

    # Not the gate's, which stands in front of it, often on the same machine.
    port: Port = Field(default=50061, description="gRPC port; 0 takes a free one.")
    web_port: Port = Field(
        default=9465, description="HTTP port of /metrics, /healthz, /readyz; 0 takes a free one."
    )
    detector_side: Annotated[int, Field(ge=32, le=4096, multiple_of=32)] | None = Field(
        default=None,
        description="Longer side, in pixels, of what the detector sees, a multiple of 32; larger "
        "finds smaller damage and takes longer. Default: what it was made for.",
    )


class DamageServer(PipelineServer[DamagePipeline]):
    """One damage service: `start`, then `stop`."""

    guarded = (SERVICE,)
    settings: DamageSettings

    def _register(self, server: grpc.aio.Server) -> None:
        pb_grpc.add_DamageServiceServicer_to_server(DamageServicer(self.calls), server)

    def _load(self) -> DamagePipeline:
        return DamagePipeline.load(self.settings.model, self.settings.detector_side)

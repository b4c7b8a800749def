"""The car-model pipeline as a service; `serving.app` carries it from start to end."""

from __future__ import annotations

from typing import ClassVar

import grpc
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from pipelines.car_model.pipeline import CarModelPipeline
from pipelines.car_model.servicer import CarModelServicer
from pipelines.serving import PipelineServer, PipelineSettings
from pipelines.v1 import car_model_pb2 as pb
from pipelines.v1 import car_model_pb2_grpc as pb_grpc
from serving.settings import Port

SERVICE = pb.DESCRIPTOR.services_by_name["CarModelService"].full_name


class CarModelSettings(PipelineSettings):
    """Settings of one car-model service."""

    model_config = SettingsConfigDict(env_prefix="CAR_MODEL_PIPELINE_")
    noun: ClassVar[str] = "car model pipeline"

    # Neither the gate's nor the other pipeline's, which often are on the same machine.
    port: Port = Field(default=50062, description="gRPC port; 0 takes a free one.")
    web_port: Port = Field(
        default=9466, description="HTTP port of /metrics, /healthz, /readyz; 0 takes a free one."
    )


class CarModelServer(PipelineServer[CarModelPipeline]):
    """One car-model service: `start`, then `stop`."""

    guarded = (SERVICE,)
    settings: CarModelSettings

    def _register(self, server: grpc.aio.Server) -> None:
        pb_grpc.add_CarModelServiceServicer_to_server(CarModelServicer(self.calls), server)

    def _load(self) -> CarModelPipeline:
        return CarModelPipeline.load(self.settings.model)

"""gRPC messages to calls of the car-model pipeline and back; decides nothing."""

from __future__ import annotations

from pipelines.car_model import wire
from pipelines.car_model.pipeline import CarModelPipeline
from pipelines.serving import Context, ImageCalls
from pipelines.v1 import car_model_pb2 as pb
from pipelines.v1 import car_model_pb2_grpc as pb_grpc

TOP_K = 3
"""Candidates for those who do not say how many."""


class CarModelServicer(pb_grpc.CarModelServiceServicer):
    """Serves the pipeline that `calls` carries images to."""

    def __init__(self, calls: ImageCalls[CarModelPipeline]) -> None:
        self._calls = calls

    async def Identify(  # noqa: N802 - named by the contract
        self, request: pb.IdentifyRequest, context: Context
    ) -> pb.IdentifyResponse:
        """Look at one photograph."""
        answer = await self._calls.run(
            request.image,
            context,
            lambda pipeline, image: pipeline.identify(image, with_maps=request.with_maps),
        )
        self._calls.count(answer.identification.level)
        return wire.from_answer(answer, request.top_k or TOP_K)

    async def GetInfo(  # noqa: N802
        self, request: pb.CarModelServiceGetInfoRequest, context: Context
    ) -> pb.CarModelServiceGetInfoResponse:
        """Say what is served."""
        return wire.from_pipeline(self._calls.ready(), self._calls.limits)

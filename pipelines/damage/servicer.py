"""gRPC messages to calls of the damage pipeline and back; decides nothing."""

from __future__ import annotations

from pipelines.damage import wire
from pipelines.damage.pipeline import DamagePipeline
from pipelines.serving import Context, ImageCalls
from pipelines.v1 import damage_pb2 as pb
from pipelines.v1 import damage_pb2_grpc as pb_grpc


class DamageServicer(pb_grpc.DamageServiceServicer):
    """Serves the pipeline that `calls` carries images to."""

    def __init__(self, calls: ImageCalls[DamagePipeline]) -> None:
        self._calls = calls

    async def Assess(  # noqa: N802 - named by the contract
        self, request: pb.AssessRequest, context: Context
    ) -> pb.AssessResponse:
        """Look at one photograph."""
        assessment = await self._calls.run(
            request.image,
            context,
            lambda pipeline, image: pipeline.assess(image, with_maps=request.with_maps),
        )
        self._calls.count(assessment.outcome)
        return wire.from_assessment(assessment)

    async def GetInfo(  # noqa: N802
        self, request: pb.DamageServiceGetInfoRequest, context: Context
    ) -> pb.DamageServiceGetInfoResponse:
        """Say what is served."""
        return wire.from_pipeline(self._calls.ready(), self._calls.limits)

"""The gate as models of the Open Inference Protocol, for KServe's and Triton's clients."""

from __future__ import annotations

from collections.abc import Callable

import grpc

from server import tensors
from server.servicer import Policy
from server.several import Judge, judge_all
from utility_gate import __version__
from utility_gate.errors import UnknownModelError
from utility_gate.inference import open_inference_pb2 as pb
from utility_gate.inference import open_inference_pb2_grpc as pb_grpc
from utility_gate.types import TaskInfo
from utility_gate.v1.gate_pb2 import AssessRequest

NAME: str = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name

Context = grpc.aio.ServicerContext[object, object]


class InferenceServicer(pb_grpc.GRPCInferenceServiceServicer):
    """Each task is a model of its name, whose one version is its predictor's."""

    def __init__(
        self, judge: Judge, is_ready: Callable[[], bool], max_images: int, concurrency: int
    ) -> None:
        """`max_images` may be in one request, `concurrency` of them are under way at a time."""
        self._judge = judge
        self._is_ready = is_ready
        self._max_images = max_images
        self._concurrency = concurrency

    async def ServerLive(  # noqa: N802 - named by the contract
        self, request: pb.ServerLiveRequest, context: Context
    ) -> pb.ServerLiveResponse:
        """Say that the process answers."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(  # noqa: N802
        self, request: pb.ServerReadyRequest, context: Context
    ) -> pb.ServerReadyResponse:
        """Say whether the gate serves, and is not about to end."""
        return pb.ServerReadyResponse(ready=self._is_ready())

    async def ModelReady(  # noqa: N802
        self, request: pb.ModelReadyRequest, context: Context
    ) -> pb.ModelReadyResponse:
        """Say the same of one model."""
        if not self._is_ready():
            return pb.ModelReadyResponse(ready=False)
        self._find(request.name, request.version)
        return pb.ModelReadyResponse(ready=True)

    async def ServerMetadata(  # noqa: N802
        self, request: pb.ServerMetadataRequest, context: Context
    ) -> pb.ServerMetadataResponse:
        """Name the software."""
        return pb.ServerMetadataResponse(name="utility-gate", version=__version__)

    async def ModelMetadata(  # noqa: N802
        self, request: pb.ModelMetadataRequest, context: Context
    ) -> pb.ModelMetadataResponse:
        """Describe a model's tensors."""
        model = self._find(request.name, request.version)
        response = pb.ModelMetadataResponse(
            name=model.name, versions=[model.predictor.version], platform="utility_gate_onnx"
        )
        response.inputs.add(name=tensors.IMAGE, datatype="BYTES", shape=[-1])
        for name, datatype in tensors.OUTPUTS.items():
            response.outputs.add(name=name, datatype=datatype, shape=[-1])
        return response

    async def ModelInfer(  # noqa: N802
        self, request: pb.ModelInferRequest, context: Context
    ) -> pb.ModelInferResponse:
        """Judge the images of one request."""
        model = self._find(request.model_name, request.model_version)
        names = tensors.to_names(request)
        images = tensors.to_images(request, self._max_images)
        asked = [AssessRequest(image=image, task=model.name) for image in images]
        verdicts = await judge_all(
            self._judge, "ModelInfer", asked, context, Policy(), self._concurrency
        )
        response = tensors.from_verdicts(verdicts, names, raw=tensors.is_raw(request))
        response.model_name, response.model_version = model.name, model.predictor.version
        response.id = request.id
        return response

    def _find(self, name: str, version: str) -> TaskInfo:
        models = self._judge.ready().info.tasks
        model = next((task for task in models if name in ("", task.name)), None)
        if model is None:
            served = ", ".join(task.name for task in models)
            raise UnknownModelError(f"expected one of the models {served}, got {name[:100]!r}")
        if version not in ("", model.predictor.version):
            raise UnknownModelError(
                f"expected version {model.predictor.version} of model {model.name}, got "
                f"{version[:100]!r}"
            )
        return model

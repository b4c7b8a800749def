"""A tiny pipeline behind a gate: photographs go in, only useful ones reach its model.

Run with `python -m examples.pipeline`. The "model" tells an image's mean colour; what matters is
the one line that puts the gate in front of it. The photographs are free ones that scikit-image
carries.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
from google.protobuf.wrappers_pb2 import BytesValue, StringValue
from skimage import data

from examples.demo import running_gate
from utility_gate.client import GateClient
from utility_gate.degrade import Jpeg
from utility_gate.images import decode
from utility_gate.interceptors import DECISION_KEY, RequireUseful

METHOD = "/pipeline.v1.Pipeline/Describe"
PHOTOGRAPHS = {"chelsea": data.chelsea, "coffee": data.coffee}
QUALITIES = (90, 2)


def describe(request: BytesValue, _: grpc.ServicerContext) -> StringValue:
    """The pipeline's model: the mean colour of the image in `request.value`."""
    print("  the model runs")
    red, green, blue = decode(request.value).pixels.mean(axis=(0, 1))
    return StringValue(value=f"rgb({red:.0f}, {green:.0f}, {blue:.0f})")


@contextmanager
def running_pipeline(gate: GateClient) -> Iterator[str]:
    """The pipeline on a free loopback port; yields its address."""
    server = grpc.server(
        ThreadPoolExecutor(4), interceptors=[RequireUseful(gate, image_field="value")]
    )
    handler = grpc.unary_unary_rpc_method_handler(
        describe,
        request_deserializer=BytesValue.FromString,
        response_serializer=StringValue.SerializeToString,
    )
    service, name = METHOD.strip("/").split("/")
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {name: handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(1).wait()


def main() -> int:
    """Send each photograph at a high and at a low JPEG quality; print what came back."""
    codes = []
    with (
        running_gate(quiet=True) as target,
        GateClient(target, on_failure="open") as gate,
        running_pipeline(gate) as address,
        grpc.insecure_channel(address) as channel,
    ):
        call = channel.unary_unary(
            METHOD,
            request_serializer=BytesValue.SerializeToString,
            response_deserializer=StringValue.FromString,
        )
        for name, load in PHOTOGRAPHS.items():
            for quality in QUALITIES:
                print(f"{name}, JPEG quality {quality}")
                image = Jpeg(quality).apply(load())
                try:
                    answer, done = call.with_call(BytesValue(value=image), timeout=10)
                except grpc.RpcError as error:
                    print(f"  {error.code().name}: {error.details()}")
                    codes.append(error.code())
                else:
                    decision = dict(done.trailing_metadata())[DECISION_KEY]
                    print(f"  {decision}: {answer.value}")
                    codes.append(grpc.StatusCode.OK)
    expected = [grpc.StatusCode.OK, grpc.StatusCode.FAILED_PRECONDITION] * len(PHOTOGRAPHS)
    if codes != expected:
        print("expected high quality to pass and low quality to be stopped", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

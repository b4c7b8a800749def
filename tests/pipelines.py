"""A pipeline with one method of each kind, on threads and on asyncio, that remembers its calls."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.wrappers_pb2 import StringValue

from utility_gate.v1.gate_pb2 import AssessRequest

SERVICE = "pipeline.v1.Pipeline"
KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
DONE = StringValue(value="done")


def path(kind: str) -> str:
    return f"/{SERVICE}/{kind}"


def stub(channel: Any, kind: str) -> Any:
    return getattr(channel, kind)(
        path(kind),
        request_serializer=AssessRequest.SerializeToString,
        response_deserializer=StringValue.FromString,
    )


class Pipeline:
    """Serves on threads; `seen` holds the images that reached a handler."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        self.metadata: list[tuple[str, str]] = []
        self.target = ""

    def take(self, request: Any, context: Any) -> None:
        self.seen.append(request.image)
        self.metadata = list(context.invocation_metadata())
        context.set_trailing_metadata((("of-the-handler", "kept"),))

    def unary_unary(self, request: Any, context: Any) -> Any:
        self.take(request, context)
        return DONE

    def unary_stream(self, request: Any, context: Any) -> Iterator[Any]:
        self.take(request, context)
        yield from (DONE, DONE)

    def stream_unary(self, requests: Any, context: Any) -> Any:
        for request in requests:
            self.take(request, context)
        return DONE

    def stream_stream(self, requests: Any, context: Any) -> Iterator[Any]:
        for request in requests:
            self.take(request, context)
            yield DONE

    @contextmanager
    def serve(self, *interceptors: Any) -> Iterator[Any]:
        server = grpc.server(ThreadPoolExecutor(8), interceptors=interceptors)
        server.add_generic_rpc_handlers((handlers(self),))
        self.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        try:
            yield self
        finally:
            server.stop(0).wait()


class AsyncPipeline(Pipeline):
    """The same on asyncio; `stream_unary` and `read_write` use grpc.aio's read and write."""

    async def unary_unary(self, request: Any, context: Any) -> Any:  # type: ignore[override]
        self.take(request, context)
        return DONE

    async def unary_stream(  # type: ignore[override]
        self, request: Any, context: Any
    ) -> AsyncIterator[Any]:
        self.take(request, context)
        for _ in range(2):
            yield DONE

    async def stream_unary(self, requests: Any, context: Any) -> Any:  # type: ignore[override]
        while (request := await context.read()) is not grpc.aio.EOF:
            self.take(request, context)
        return DONE

    async def stream_stream(  # type: ignore[override]
        self, requests: Any, context: Any
    ) -> AsyncIterator[Any]:
        async for request in requests:
            self.take(request, context)
            yield DONE

    async def read_write(self, requests: Any, context: Any) -> None:
        while (request := await context.read()) is not grpc.aio.EOF:
            self.take(request, context)
            await context.write(DONE)

    def threaded(self, request: Any, context: Any) -> Any:
        self.take(request, context)
        return DONE

    @contextmanager
    def serve(self, *make_interceptors: Any) -> Iterator[Any]:
        """Interceptors are given as functions: they are made inside the event loop."""
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()

        def call(coroutine: Any) -> Any:
            return asyncio.run_coroutine_threadsafe(coroutine, loop).result(10)

        async def start() -> grpc.aio.Server:
            made = [make() for make in make_interceptors]
            with ThreadPoolExecutor(1) as pool:
                server = grpc.aio.server(pool, interceptors=made)
            server.add_generic_rpc_handlers((handlers(self),))
            self.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
            await server.start()
            return server

        server = call(start())
        try:
            yield self
        finally:
            call(server.stop(0))
            loop.call_soon_threadsafe(loop.stop)
            thread.join(10)
            loop.close()


def handlers(pipeline: Pipeline) -> Any:
    names = {kind: kind for kind in KINDS}
    if isinstance(pipeline, AsyncPipeline):
        names |= {"read_write": "stream_stream", "threaded": "unary_unary"}
    made = {
        name: getattr(grpc, f"{kind}_rpc_method_handler")(
            getattr(pipeline, name),
            request_deserializer=AssessRequest.FromString,
            response_serializer=StringValue.SerializeToString,
        )
        for name, kind in names.items()
    }
    return grpc.method_handlers_generic_handler(SERVICE, made)

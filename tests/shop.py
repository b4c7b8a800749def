"""A service that only the tests know: its contract is built here, in a pool of its own.

`python -m tests.shop PORT` serves it in a process of its own, to be killed.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import (
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

SERVICE = "shop.v1.ShopService"
LOOK, BROWSE = f"{SERVICE}/Look", f"{SERVICE}/Browse"
WATCH, UPLOAD, CHAT = f"{SERVICE}/Watch", f"{SERVICE}/Upload", f"{SERVICE}/Chat"

_F = FieldDescriptorProto


def _field(name: str, number: int, kind: int, repeated: bool = False, **more: Any) -> Any:
    label = _F.LABEL_REPEATED if repeated else _F.LABEL_OPTIONAL
    return _F(name=name, number=number, type=kind, label=label, **more)


def files() -> list[FileDescriptorProto]:
    """Two files, the second imports the first."""
    types = FileDescriptorProto(name="shop/v1/types.proto", package="shop.v1", syntax="proto3")
    photo = types.message_type.add(name="Photo")
    photo.field.extend(
        [_field("name", 1, _F.TYPE_STRING), _field("data", 2, _F.TYPE_BYTES)]
    )  # fmt: skip
    shop = FileDescriptorProto(
        name="shop/v1/shop.proto",
        package="shop.v1",
        syntax="proto3",
        dependency=["shop/v1/types.proto", "google/protobuf/timestamp.proto"],
    )
    look = shop.message_type.add(name="LookRequest")
    photo_type = {"type_name": ".shop.v1.Photo"}
    look.field.extend(
        [
            _field("id", 1, _F.TYPE_STRING),
            _field("image", 2, _F.TYPE_BYTES),
            _field("images", 3, _F.TYPE_BYTES, True),
            _field("photo", 4, _F.TYPE_MESSAGE, **photo_type),
            _field("photos", 5, _F.TYPE_MESSAGE, True, **photo_type),
            _field("extra", 6, _F.TYPE_BYTES, oneof_index=0, proto3_optional=True),
            _field("at", 7, _F.TYPE_MESSAGE, type_name=".google.protobuf.Timestamp"),
            _field("scores", 8, _F.TYPE_FLOAT, True),
        ]
    )
    look.oneof_decl.add(name="_extra")
    shop.message_type.add(name="BrowseRequest").field.append(_field("query", 1, _F.TYPE_STRING))
    shop.message_type.add(name="Answer").field.append(_field("text", 1, _F.TYPE_STRING))
    service = shop.service.add(name="ShopService")
    for name, takes, in_stream, out_stream in (
        ("Look", "LookRequest", False, False),
        ("Browse", "BrowseRequest", False, False),
        ("Watch", "LookRequest", False, True),
        ("Upload", "LookRequest", True, False),
        ("Chat", "LookRequest", True, True),
    ):
        service.method.add(
            name=name,
            input_type=f".shop.v1.{takes}",
            output_type=".shop.v1.Answer",
            client_streaming=in_stream,
            server_streaming=out_stream,
        )
    return [types, shop]


def _pool() -> descriptor_pool.DescriptorPool:
    from google.protobuf import timestamp_pb2

    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    for file in files():
        pool.AddSerializedFile(file.SerializeToString())
    return pool


POOL = _pool()


def _message(name: str) -> Any:
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"shop.v1.{name}"))


LookRequest, BrowseRequest, Answer = map(_message, ("LookRequest", "BrowseRequest", "Answer"))


def save_descriptors(path: Path, *, imports: bool = True) -> Path:
    """A FileDescriptorSet of the contract."""
    from google.protobuf import timestamp_pb2

    stamp = FileDescriptorProto.FromString(timestamp_pb2.DESCRIPTOR.serialized_pb)
    described = files()
    chosen = [stamp, *described] if imports else described[1:]
    path.write_bytes(FileDescriptorSet(file=chosen).SerializeToString())
    return path


class Shop:
    """Serves on threads; remembers what reached it, as bytes. What a call does is in its request's
    `id`: "sleep" sleeps, "fail" fails with details, a code's name ends with that code."""

    def __init__(self, name: str = "shop") -> None:
        self.name = name
        self.seen: list[bytes] = []
        self.metadata: list[tuple[str, str]] = []
        self.deadlines: list[float | None] = []
        self.under_way = 0
        self.cancelled = threading.Event()
        self.entered = threading.Event()
        self.release = threading.Event()
        self.target = ""
        self.health = health.HealthServicer()

    def _enter(self, request: bytes, context: grpc.ServicerContext) -> Any:
        message = LookRequest.FromString(request)
        self.seen.append(request)
        self.metadata = [tuple(pair) for pair in context.invocation_metadata()]  # type: ignore[misc]
        self.deadlines.append(context.time_remaining())
        # Before anybody knows that the call is here: once it is given up, there is no adding.
        if message.id == "sleep" and not context.add_callback(self.cancelled.set):
            self.cancelled.set()
        self.entered.set()
        context.set_trailing_metadata((("after", "the answer"), ("raw-bin", b"\0\1")))
        return message

    def look(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        message = self._enter(request, context)
        context.send_initial_metadata((("before", "the answer"),))
        if message.id == "sleep":
            self.release.wait(10)
        if message.id == "fail":
            status = status_pb2.Status(code=9, message="sold out")
            status.details.add().Pack(error_details_pb2.ErrorInfo(reason="SOLD_OUT", domain="shop"))
            packed = ("grpc-status-details-bin", status.SerializeToString())
            context.set_trailing_metadata((packed, ("after", "the failure")))
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "sold out")
        if message.id in grpc.StatusCode.__members__:
            context.abort(grpc.StatusCode[message.id], f"told to: {message.id}")
        return bytes(Answer(text=f"{self.name} saw {message.id}").SerializeToString())

    def browse(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        query = BrowseRequest.FromString(request).query
        return bytes(Answer(text=f"{self.name} has {query}").SerializeToString())

    def watch(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        self._enter(request, context)
        for number in range(3):
            yield Answer(text=str(number)).SerializeToString()

    def upload(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        ids = [self._enter(request, context).id for request in requests]
        return bytes(Answer(text=",".join(ids)).SerializeToString())

    def chat(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        context.add_callback(self.cancelled.set)
        context.send_initial_metadata((("before", "the answers"),))
        for request in requests:
            message = self._enter(request, context)
            if message.id in grpc.StatusCode.__members__:
                context.abort(grpc.StatusCode[message.id], f"told to: {message.id}")
            yield Answer(text=message.id).SerializeToString()

    @contextmanager
    def serve(
        self,
        port: int = 0,
        credentials: grpc.ServerCredentials | None = None,
        reflect: str = "v1alpha",
        with_health: bool = True,
        threads: int = 32,
    ) -> Iterator[Shop]:
        """On loopback; `reflect` is the version of reflection, "" for none."""
        with ThreadPoolExecutor(threads) as pool:
            server = grpc.server(pool, options=[("grpc.max_receive_message_length", -1)])
            server.add_generic_rpc_handlers((self._handlers(),))
            if reflect:
                names = (SERVICE, reflection.SERVICE_NAME)
                servicer = reflection.ReflectionServicer(names, POOL)
                if reflect == "v1alpha":
                    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)
                else:
                    server.add_generic_rpc_handlers((_newer_reflection(servicer),))
            if with_health:
                health_pb2_grpc.add_HealthServicer_to_server(self.health, server)
            address = f"127.0.0.1:{port}"
            if credentials is None:
                bound = server.add_insecure_port(address)
            else:
                bound = server.add_secure_port(address, credentials)
            assert bound, "the port is taken"
            self.target = f"127.0.0.1:{bound}"
            server.start()
            try:
                yield self
            finally:
                self.release.set()
                server.stop(0).wait()

    def _handlers(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Look": grpc.unary_unary_rpc_method_handler(self.look),
                "Browse": grpc.unary_unary_rpc_method_handler(self.browse),
                "Watch": grpc.unary_stream_rpc_method_handler(self.watch),
                "Upload": grpc.stream_unary_rpc_method_handler(self.upload),
                "Chat": grpc.stream_stream_rpc_method_handler(self.chat),
            },
        )


def _newer_reflection(servicer: Any) -> grpc.GenericRpcHandler:
    from grpc_reflection.v1alpha import reflection_pb2

    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return grpc.method_handlers_generic_handler(
        "grpc.reflection.v1.ServerReflection", {"ServerReflectionInfo": handler}
    )


def call(channel: grpc.Channel, method: str = LOOK) -> Any:
    """A method of the shop as a caller has it."""
    kinds: dict[str, Callable[..., Any]] = {
        WATCH: channel.unary_stream,
        UPLOAD: channel.stream_unary,
        CHAT: channel.stream_stream,
    }
    return kinds.get(method, channel.unary_unary)(
        f"/{method}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=Answer.FromString,
    )


def main() -> None:
    with Shop().serve(port=int(sys.argv[1])) as shop:
        sys.stdout.write(f"{shop.target}\n")
        sys.stdout.flush()
        time.sleep(600)


if __name__ == "__main__":
    main()

"""A pipeline's contract, asked of the pipeline itself (gRPC reflection)."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection_pb2 as pb

from server.routes.metadata import Metadata
from server.routes.status import StatusWatch
from utility_gate.errors import UtilityGateError

_SERVICES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
"""The newer first; their messages are the same."""

_MOST_FILES = 2_000
_SECONDS = 10.0


class ReflectionError(UtilityGateError):
    """A pipeline does not describe itself; the message says what it did instead."""


async def fetch_files(
    channel: grpc.aio.Channel, services: Collection[str], metadata: Metadata
) -> list[FileDescriptorProto]:
    """The files that describe `services`, and all that they import. Those that the pipeline does
    not know are left out.

    Raises:
        ReflectionError: if it does not answer as it should.
    """
    for name in _SERVICES:
        try:
            async with asyncio.timeout(_SECONDS):
                return await _Asked(channel, name, metadata).fetch(services)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                continue
            raise ReflectionError(f"{error.code().name}: {error.details()}") from error
        except TimeoutError as error:
            raise ReflectionError(f"no answer within {_SECONDS:g} s") from error
        except DecodeError as error:
            raise ReflectionError("descriptors that do not decode") from error
    raise ReflectionError(
        "no reflection service; turn it on there, or give the upstream `descriptors`"
    )


class _Asked:
    """One conversation: a request, its answer, and so on."""

    def __init__(self, channel: grpc.aio.Channel, service: str, metadata: Metadata) -> None:
        method = channel.stream_stream(
            f"/{service}/ServerReflectionInfo",
            request_serializer=pb.ServerReflectionRequest.SerializeToString,
            response_deserializer=pb.ServerReflectionResponse.FromString,
        )
        self._call = method(metadata=metadata)
        self._status = StatusWatch(self._call)
        self._files: dict[str, FileDescriptorProto] = {}

    async def fetch(self, services: Collection[str]) -> list[FileDescriptorProto]:
        try:
            for service in services:
                await self._ask(pb.ServerReflectionRequest(file_containing_symbol=service))
            while missing := list(self._missing()):
                for name in missing:
                    await self._import(name)
            await self._call.done_writing()
            while await self._call.read() is not grpc.aio.EOF:  # an orderly end
                pass
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            raise await self._status.get() from error
        finally:
            self._call.cancel()
        return list(self._files.values())

    async def _ask(self, request: pb.ServerReflectionRequest) -> bool:
        """Whether there was an answer."""
        await self._call.write(request)
        answer: Any = await self._call.read()
        if answer is grpc.aio.EOF:
            raise ReflectionError("an end in place of an answer")
        if answer.WhichOneof("message_response") == "error_response":
            if answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]:
                return False
            raise ReflectionError(answer.error_response.error_message or "an error")
        for data in answer.file_descriptor_response.file_descriptor_proto:
            file = FileDescriptorProto.FromString(data)
            self._files[file.name] = file
        if len(self._files) > _MOST_FILES:
            raise ReflectionError(f"more than {_MOST_FILES} files")
        return True

    async def _import(self, name: str) -> None:
        await self._ask(pb.ServerReflectionRequest(file_by_filename=name))
        if name in self._files:
            return
        try:  # some servers keep protobuf's own files to themselves
            own = descriptor_pool.Default().FindFileByName(name)
        except KeyError as error:
            raise ReflectionError(f"no file {name}, which others import") from error
        file = FileDescriptorProto()
        own.CopyToProto(file)
        self._files[name] = file

    def _missing(self) -> Iterator[str]:
        for file in self._files.values():
            for name in file.dependency:
                if name not in self._files:
                    yield name

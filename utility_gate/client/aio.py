"""The client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from types import TracebackType

import grpc

from utility_gate import wire
from utility_gate.channels import open_async_channel
from utility_gate.client.base import BaseClient
from utility_gate.client.failures import raise_ours, to_answer, to_ours
from utility_gate.client.many import check_concurrency
from utility_gate.client.values import StreamAnswer, StreamItem
from utility_gate.errors import GateProtocolError, UtilityGateError
from utility_gate.streams import map_unordered, to_async
from utility_gate.types import GateInfo, Suggestion, Verdict
from utility_gate.v1 import gate_pb2 as pb


class AsyncGateClient(BaseClient):
    """`GateClient` for asyncio: same methods, same errors. Make it inside the event loop that uses
    it."""

    _open = staticmethod(open_async_channel)

    async def assess(
        self,
        image: bytes,
        *,
        task: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - a gRPC deadline, sent to the server
        hurried: bool = False,
    ) -> Verdict:
        """The verdict on one encoded image (JPEG, PNG, WebP); `hurried` as `GateClient.assess`."""
        request = pb.AssessRequest(image=image, task=self._name(task))
        seconds = self.timeout if timeout is None else timeout
        try:
            answer = await self._stub.Assess(request, timeout=seconds)
            return wire.to_verdict(answer.verdict)
        except grpc.RpcError as error:
            failure = to_ours(error)
        except GateProtocolError as error:
            failure = error
        return self._fallback.instead(failure, request.task, hurried=hurried)

    def assess_many(
        self,
        images: AsyncIterable[StreamItem] | Iterable[StreamItem],
        *,
        concurrency: int = 8,
        task: str | None = None,
    ) -> AsyncIterator[StreamAnswer]:
        """(id, encoded image) pairs in; (id, verdict or error) pairs out, as they are ready.

        As `GateClient.assess_many`; one image more than `concurrency` may be taken in advance.
        """
        check_concurrency(concurrency)

        async def judge(item: StreamItem) -> StreamAnswer:
            try:
                return item[0], await self.assess(item[1], task=task)
            except UtilityGateError as error:
                return item[0], error

        # As an async generator: what it holds ends when its reader leaves.
        return map_unordered(to_async(images), judge, concurrency)

    async def assess_stream(
        self,
        images: AsyncIterable[StreamItem],
        *,
        task: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - a gRPC deadline, sent to the server
    ) -> AsyncIterator[StreamAnswer]:
        """(id, encoded image) pairs in; (id, verdict or error) pairs out, as they are ready.

        As `GateClient.assess_stream`.
        """
        name = self._name(task)
        failed: list[BaseException] = []

        async def requests() -> AsyncIterator[pb.AssessStreamRequest]:
            try:
                async for number, data in images:
                    yield pb.AssessStreamRequest(id=number, image=data, task=name)
            except Exception as error:  # gRPC would turn it into a cancellation
                failed.append(error)
                raise

        call = self._stub.AssessStream(requests(), timeout=timeout)
        try:
            async for answer in call:
                yield self._fallback.answer(to_answer(answer), name)
        except grpc.RpcError as error:
            if failed:
                raise failed[0] from None
            raise_ours(error)
        except asyncio.CancelledError:
            if failed:
                raise failed[0] from None
            raise
        finally:
            call.cancel()  # whoever stops reading stops the sending too

    async def suggest(
        self,
        image: bytes,
        *,
        utility: float = 0.0,
        max_side: int = 0,
        task: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - a gRPC deadline, sent to the server
    ) -> Suggestion:
        """As `GateClient.suggest`."""
        request = pb.SuggestRequest(
            image=image, task=self._name(task), utility=utility, max_side=max_side
        )
        seconds = self.timeout if timeout is None else timeout
        try:
            answer = await self._stub.Suggest(request, timeout=seconds)
        except grpc.RpcError as error:
            raise_ours(error)
        return wire.to_suggestion(answer.suggestion)

    async def info(self) -> GateInfo:
        """What the gate serves."""
        try:
            answer = await self._stub.GetInfo(pb.GetInfoRequest(), timeout=self.timeout)
        except grpc.RpcError as error:
            raise_ours(error)
        return wire.to_info(answer)

    async def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        await self._channel.close()

    async def __aenter__(self) -> AsyncGateClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        await self.close()

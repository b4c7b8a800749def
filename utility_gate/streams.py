"""Streams on asyncio: concurrency for one, and one from any iterable."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
)
from typing import Any, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


async def map_unordered(
    items: AsyncIterator[Item],
    work: Callable[[Item], Awaitable[Answer]],
    limit: int,
    stop: asyncio.Event | None = None,
) -> AsyncGenerator[Answer, None]:
    """`work` on every item, `limit` at a time, answers as they are ready.

    An item is only taken from `items` when there is room for it, so that a slow reader of the
    answers slows the sender of the items. Once `stop` is set no further item is taken; those
    taken are still answered. What is under way is cancelled if the caller leaves; the first
    error of `items` or `work` ends the iteration.
    """
    pending: set[asyncio.Future[Answer]] = set()
    source = aiter(items)
    stopped = asyncio.ensure_future(stop.wait()) if stop is not None else None
    taking: asyncio.Future[Item] | None = asyncio.ensure_future(anext(source))
    try:
        while taking is not None or pending:
            if stop is not None and stop.is_set() and taking is not None and not taking.done():
                taking.cancel()
                taking = None
                continue
            waiting: set[asyncio.Future[Any]] = set(pending)
            if taking is not None and len(pending) < limit:
                waiting.add(taking)
            if stopped is not None and not stopped.done():
                waiting.add(stopped)
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if taking is not None and taking in waiting and taking.done():
                try:
                    pending.add(asyncio.ensure_future(work(taking.result())))
                    taking = asyncio.ensure_future(anext(source))
                except StopAsyncIteration:
                    taking = None
            for answered in [future for future in pending if future.done()]:
                pending.discard(answered)
                yield answered.result()
    finally:
        for future in (*pending, taking, stopped):
            if future is not None:
                future.cancel()


async def to_async(items: AsyncIterable[Item] | Iterable[Item]) -> AsyncIterator[Item]:
    """The items of either kind of iterable."""
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item

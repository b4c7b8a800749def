"""Concurrency for a stream of requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


async def map_unordered(
    items: AsyncIterator[Item], work: Callable[[Item], Awaitable[Answer]], limit: int
) -> AsyncIterator[Answer]:
    """`work` on every item, `limit` at a time, answers as they are ready.

    An item is only taken from `items` when there is room for it, so that a slow reader of the
    answers slows the sender of the items. What is under way is cancelled if the caller stops;
    the first error of `items` or `work` ends the iteration.
    """
    pending: set[asyncio.Future[Answer]] = set()
    source = aiter(items)
    taking: asyncio.Future[Item] | None = asyncio.ensure_future(anext(source))
    try:
        while taking is not None or pending:
            waiting: set[asyncio.Future[Any]] = set(pending)
            if taking is not None and len(pending) < limit:
                waiting.add(taking)
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
        for future in pending:
            future.cancel()
        if taking is not None:
            taking.cancel()

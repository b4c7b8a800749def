"""Many images through unary calls, a bounded number at a time, without threads of our own."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from utility_gate.client.values import StreamAnswer, StreamItem
from utility_gate.errors import ConfigError

Call = Any
"""A grpc call that is also a future."""


def check_concurrency(concurrency: int) -> int:
    """`concurrency` itself; ConfigError if it is below 1."""
    if concurrency < 1:
        raise ConfigError(f"expected a concurrency of at least 1, got {concurrency}")
    return concurrency


def as_ready(
    images: Iterable[StreamItem],
    start: Callable[[bytes], Call],
    finish: Callable[[str, Call], StreamAnswer],
    concurrency: int,
) -> Iterator[StreamAnswer]:
    """Answers as they are ready; the next image is taken when there is room for its call.

    What is under way is cancelled if the caller leaves or `images` raises.
    """
    done: queue.SimpleQueue[Call] = queue.SimpleQueue()
    under_way: dict[Call, str] = {}
    source: Iterator[StreamItem] | None = iter(images)
    try:
        while source is not None or under_way:
            if source is not None and len(under_way) < concurrency:
                item = next(source, None)
                if item is None:
                    source = None
                    continue
                call = start(item[1])
                under_way[call] = item[0]
                call.add_done_callback(done.put)
            # Wait only if there is nothing else to do; what is ready need not wait for `images`.
            full = source is None or len(under_way) == concurrency
            while under_way and (full or not done.empty()):
                call = done.get()
                yield finish(under_way.pop(call), call)
                full = False
    finally:
        for call in under_way:
            call.cancel()

"""Images in the metrics, each by the status code that it was answered with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from grpc import StatusCode

from server.metrics import GateMetrics
from serving.errors import given_up, to_code


class Deadline(Protocol):
    """What is asked of a call's context."""

    def time_remaining(self) -> float | None:
        """Seconds; None if there is no deadline."""


@contextmanager
def counted(metrics: GateMetrics, method: str, context: Deadline) -> Iterator[None]:
    """Count one image of a call of `method`, as the block ends."""
    code = None
    try:
        yield
        code = StatusCode.OK
    except Exception as error:
        code = to_code(error)
        raise
    finally:
        if code is None:  # given up, by the caller or by its deadline
            code = given_up(context.time_remaining())
        metrics.images.labels(method, code.name).inc()

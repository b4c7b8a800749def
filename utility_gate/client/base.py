"""What the clients for threads and for asyncio have in common: everything but the waiting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import grpc

from utility_gate.client.fallback import Fallback, OnFailure
from utility_gate.client.options import DEFAULT_TIMEOUT, OPTIONS
from utility_gate.v1 import gate_pb2_grpc as pb_grpc


class BaseClient:
    """A channel to one gate, and what to do when it is in trouble."""

    _open: ClassVar[Callable[..., Any]]
    """`open_channel` or `open_async_channel` of `utility_gate.channels`."""

    def __init__(
        self,
        target: str,
        *,
        task: str = "",
        timeout: float = DEFAULT_TIMEOUT,
        on_failure: OnFailure = "closed",
        credentials: grpc.ChannelCredentials | None = None,
        api_key: str = "",
    ) -> None:
        """`task` "" is the gate's default one; `timeout` is in seconds per call.

        Without `credentials` (`utility_gate.channels.tls_credentials`) the channel is plaintext;
        `api_key` goes with each call.

        Raises:
            ConfigError: if `on_failure` is neither "closed" nor "open", or the key cannot be one or
                would travel unencrypted beyond this machine.
        """
        self.timeout = timeout
        self._task = task
        self._fallback = Fallback(on_failure)
        self._channel = type(self)._open(
            target, credentials=credentials, api_key=api_key, options=OPTIONS
        )
        self._stub: Any = pb_grpc.UtilityGateServiceStub(self._channel)

    @property
    def fallbacks(self) -> int:
        """How many images were let through unjudged."""
        return self._fallback.count

    def _name(self, task: str | None) -> str:
        return self._task if task is None else task

"""One address of an upstream: its channel, what is known of it, and its breaker."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable

import grpc

from server.routes.breaker import Breaker
from server.routes.settings import UpstreamSettings
from utility_gate.channels import tls_credentials

log = logging.getLogger(__name__)

_Connectivity = grpc.ChannelConnectivity

_PING_MILLISECONDS = 30_000
_PONG_MILLISECONDS = 10_000
"""While calls are under way, a connection that is silent for the first and does not answer within
the second is given up."""

_FIRST_PAUSE_MILLISECONDS = 100
"""Before a connection is tried again; grows to `connect_seconds`."""

_LAST_SECONDS = 60.0
"""For calls by a connection that another has replaced."""

_NOT_SENT = "connections to all backends failing"
"""How gRPC begins when there was nowhere to send a call to."""


def credentials_of(settings: UpstreamSettings) -> grpc.ChannelCredentials | None:
    """What its connections are encrypted with; None: nothing.

    Raises:
        ConfigError: if a file cannot be used.
    """
    if not settings.encrypted:
        return None
    return tls_credentials(settings.ca, settings.certificate, settings.key)


class Address:
    """`changed` is called whenever `connected` has changed."""

    def __init__(
        self,
        target: str,
        settings: UpstreamSettings,
        credentials: grpc.ChannelCredentials | None,
        changed: Callable[[Address], None],
    ) -> None:
        self.target, self._settings = target, settings
        self.breaker = Breaker(settings.breaker)
        self.in_flight = 0
        self.connected: bool | None = None
        """Whether there is a connection, to somebody who says that he serves. None: not known yet,
        it connects for the first time, or anew after an orderly end."""
        self._changed = changed
        self._closing: set[asyncio.Future[None]] = set()
        self._connect(credentials)

    @property
    def usable(self) -> bool:
        """Whether a call may go there now."""
        return bool(self.connected) and self.breaker.allows

    def was_not_sent(self, error: grpc.aio.AioRpcError) -> bool:
        """Whether a call surely never left: there was no connection, by what gRPC says and by the
        state that the channel is in."""
        return (
            error.code() is grpc.StatusCode.UNAVAILABLE
            and (error.details() or "").startswith(_NOT_SENT)
            and self.channel.get_state() is not _Connectivity.READY
        )

    def is_local(self, error: grpc.aio.AioRpcError) -> bool:
        """Whether the error is the connection's and not the pipeline's own word."""
        return (
            error.code() is grpc.StatusCode.UNAVAILABLE
            and not error.trailing_metadata()
            and self.channel.get_state() is not _Connectivity.READY
        )

    def reconnect(self, credentials: grpc.ChannelCredentials | None) -> None:
        """Make new calls by a new connection; those under way have time to end."""
        ending = asyncio.ensure_future(_end(self.channel, self._watching, _LAST_SECONDS))
        self._closing.add(ending)
        ending.add_done_callback(self._closing.discard)
        self.connected = None
        self._connect(credentials)

    async def close(self) -> None:
        """Cancel what is under way, and disconnect."""
        for ending in self._closing:
            ending.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        await _end(self.channel, self._watching, None)

    def _connect(self, credentials: grpc.ChannelCredentials | None) -> None:
        self.channel = _open(self.target, self._settings, credentials)
        self._watching = asyncio.ensure_future(self._watch(self.channel))

    async def _watch(self, channel: grpc.aio.Channel) -> None:
        while (state := channel.get_state(try_to_connect=True)) is not _Connectivity.SHUTDOWN:
            if channel is self.channel:
                self._note(state)
            await channel.wait_for_state_change(state)

    def _note(self, state: grpc.ChannelConnectivity) -> None:
        before = self.connected
        if state is _Connectivity.READY:
            self.connected = True
        elif state is _Connectivity.TRANSIENT_FAILURE:
            self.connected = False
        elif self.connected:  # idle, or connecting anew: it may have been asked to leave politely
            self.connected = None
        if self.connected is not before:
            log.info("upstream address %s: %s", self.target, state.name)
            self._changed(self)


async def _end(
    channel: grpc.aio.Channel, watching: asyncio.Future[None], grace: float | None
) -> None:
    """Close a channel; first of all that: it ends the watching, which gRPC cannot cancel."""
    try:
        await channel.close(grace)
    finally:
        await channel.close()
    await asyncio.wait({watching}, timeout=1)
    watching.cancel()


def _open(
    target: str, settings: UpstreamSettings, credentials: grpc.ChannelCredentials | None
) -> grpc.aio.Channel:
    # Of the policies only this one follows health; with one host it is no other than the default.
    service_config: dict[str, object] = {"loadBalancingConfig": [{"round_robin": {}}]}
    if settings.follow_health:
        service_config["healthCheckConfig"] = {"serviceName": settings.health_service}
    longest = int(1000 * settings.connect_seconds)
    options: list[tuple[str, object]] = [
        ("grpc.service_config", json.dumps(service_config)),
        ("grpc.service_config_disable_resolution", 1),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", settings.max_response_bytes),
        ("grpc.initial_reconnect_backoff_ms", min(_FIRST_PAUSE_MILLISECONDS, longest)),
        ("grpc.min_reconnect_backoff_ms", longest),  # how long an attempt may take
        ("grpc.max_reconnect_backoff_ms", longest),
        ("grpc.keepalive_time_ms", _PING_MILLISECONDS),
        ("grpc.keepalive_timeout_ms", _PONG_MILLISECONDS),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if settings.authority:
        options.append(("grpc.default_authority", settings.authority))
        options.append(("grpc.ssl_target_name_override", settings.authority))
    if credentials is None:
        return grpc.aio.insecure_channel(target, options=options)
    return grpc.aio.secure_channel(target, credentials, options=options)

"""Who calls, and whether they may."""

from __future__ import annotations

import contextlib
import logging
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, cast

import grpc

from serving import request_context
from serving.errors import to_status
from serving.health import NAME as HEALTH
from serving.keys import Key, load_keys
from serving.metrics import ServiceMetrics
from serving.rate_limit import RateLimiter
from serving.watched_files import Reloading
from utility_gate.errors import UnauthenticatedError

log = logging.getLogger(__name__)

Handler = Any
"""grpc's RpcMethodHandler, which has no public type of its own for aio."""


@dataclass(frozen=True, slots=True)
class _Client:
    identity: str = ""
    key: Key | None = None


_NOBODY = _Client()
_client: ContextVar[_Client] = ContextVar("client", default=_NOBODY)


def client_identity() -> str:
    """Whose call is being served: the name of the API key; without keys, the common name of the
    client's certificate; without either, the peer's address without its port ("unix" for a
    socket). "" outside of a call. Never a secret, but what a stranger chose to connect from."""
    return _client.get().identity


class Admission:
    """The rules of one service: its keys, if it asks for any, and their limits."""

    def __init__(self, api_keys: Path | None, metrics: ServiceMetrics, noun: str) -> None:
        """Read the file of keys; None: anyone may call. `noun` is what callers are told it is.

        Raises:
            ConfigError: if the file cannot be used.
        """
        self._metrics, self._noun = metrics, noun
        self._limiter = RateLimiter(metrics)
        self._keys = None
        if api_keys is not None:
            self._keys = Reloading(lambda: load_keys(api_keys), [api_keys])

    def authenticate(self, details: grpc.HandlerCallDetails) -> Key | None:
        """The key that a call presents; None if none is asked for.

        Raises:
            UnauthenticatedError: if it presents no key, or none that is known.
        """
        if self._keys is None:
            return None
        key = self._keys.get().find(_presented(details))
        if key is None:
            self._refuse()
        return key

    def admit_image(self) -> None:
        """Account for one image of the call being served, alone or in a stream.

        Raises:
            RateLimitedError: if the caller's key is over its limit.
            UnauthenticatedError: if the key was taken away since the call began.
        """
        key = _client.get().key
        if self._keys is None or key is None:
            return
        current = self._keys.get().still_holds(key)
        if current is None:
            self._refuse()
        self._limiter.spend(current)

    def charge_images(self, count: int) -> None:
        """Account for further images that the call being served has cost. It is not refused for
        them: what is more than the limit is owed, and images that come later wait for it."""
        key = _client.get().key
        if self._keys is not None and key is not None and count:
            self._limiter.charge(self._keys.get().still_holds(key) or key, count)

    def _refuse(self) -> NoReturn:
        self._metrics.unauthenticated.inc()
        raise UnauthenticatedError(
            "expected a valid API key as metadata 'authorization: Bearer KEY'; whoever runs this "
            f"{self._noun} hands them out"
        )


class AuthInterceptor(grpc.aio.ServerInterceptor):
    """Lets calls with a valid key pass, and sets whose they are. Health needs no key.

    Stands inside of GuardInterceptor (after it in the server's list), which counts what is refused
    here and answers it. A refused call's message is never taken from the wire.
    """

    def __init__(self, admission: Admission, services: Collection[str]) -> None:
        """Methods of `services` ("package.Service") are guarded."""
        self._admission = admission
        self._services = services

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Wrap or replace the handler."""
        handler = await continuation(handler_call_details)
        service, _ = split_path(handler_call_details.method)
        if handler is None or service == HEALTH:
            return handler
        guarded = service in self._services
        try:
            key = self._admission.authenticate(handler_call_details)
        except UnauthenticatedError as error:
            return _refusal(error, guarded=guarded)
        return _identified(handler, key) if guarded else handler


def split_path(path: str) -> tuple[str, str]:
    """Service and method of gRPC's "/package.Service/Method"."""
    service, _, method = path.removeprefix("/").rpartition("/")
    return service, method


def _presented(details: grpc.HandlerCallDetails) -> str:
    """The key in the metadata; "" if there is none, or more than one."""
    given = [value for name, value in details.invocation_metadata or () if name == "authorization"]
    if len(given) != 1 or not isinstance(given[0], str):
        return ""
    scheme, _, key = given[0].partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def _refusal(error: UnauthenticatedError, *, guarded: bool) -> Handler:
    # As a stream's handler, which gRPC starts before it has received any message.
    async def refuse(_: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        log.debug("no valid API key from %s", _identify(context, None))
        if guarded:
            raise error
        status = to_status(error)
        await context.abort(status.code, status.message, cast(Any, status.to_trailers()))
        yield b""  # never reached; makes this a stream

    return grpc.stream_stream_rpc_method_handler(refuse)


def _identified(handler: Handler, key: Key | None) -> Handler:
    async def unary(request: Any, context: Any) -> Any:
        _enter(context, key)
        return await handler.unary_unary(request, context)

    async def stream(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        _enter(context, key)
        async with contextlib.aclosing(handler.stream_stream(requests, context)) as responses:
            async for response in responses:
                yield response

    wire = (handler.request_deserializer, handler.response_serializer)
    if handler.response_streaming:
        return grpc.stream_stream_rpc_method_handler(stream, *wire)
    return grpc.unary_unary_rpc_method_handler(unary, *wire)


def _enter(context: Any, key: Key | None) -> None:
    """Say whose call this task serves; tasks and threads that it starts inherit it."""
    identity = _identify(context, key)
    _client.set(_Client(identity, key))
    request_context.bind(client=identity)


def _identify(context: Any, key: Key | None) -> str:
    if key is not None:
        return key.name
    # gRPC fills these in only from a certificate that it has verified.
    for name in context.auth_context().get("x509_common_name", ()):
        common_name = bytes(name).decode("utf-8", "replace")
        return "".join(c if c.isprintable() else "?" for c in common_name)
    return peer_host(context.peer())


def peer_host(peer: str) -> str:
    """The address in gRPC's name of a peer: "ipv6:[::1]:50" is "::1", "unix:..." is "unix"."""
    scheme, _, address = urllib.parse.unquote(peer).partition(":")
    if scheme not in ("ipv4", "ipv6"):
        return scheme or "unknown"
    return address.rpartition(":")[0].removeprefix("[").removesuffix("]")

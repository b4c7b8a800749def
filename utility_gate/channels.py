"""gRPC channels to a gate: plaintext or TLS, with or without an API key."""

from __future__ import annotations

import ipaddress
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import grpc

from utility_gate.errors import ConfigError
from utility_gate.pem import read_authorities, read_pair

API_KEY_VARIABLE = "UTILITY_GATE_API_KEY"
"""The environment variable from which the command line takes its key."""

Options = Sequence[tuple[str, Any]]


def tls_credentials(
    ca: Path | str | None = None,
    certificate: Path | str | None = None,
    key: Path | str | None = None,
) -> grpc.ChannelCredentials:
    """What a client trusts and what it shows, from PEM files.

    `ca` holds the authorities that may vouch for the gate (None: gRPC's own list of public ones);
    `certificate` and `key` are this client's own, for a gate that asks for them. The files are
    read once.

    Raises:
        ConfigError: if a file cannot be used, or one of `certificate` and `key` is missing.
    """
    authorities = None if ca is None else read_authorities(Path(ca), "ca")
    if certificate is None and key is None:
        return grpc.ssl_channel_credentials(authorities)
    if certificate is None or key is None:
        raise ConfigError("expected a client's certificate and its key together, got one of them")
    names = ("certificate", "key")
    pair = read_pair(Path(certificate), Path(key), names=names, server=False)
    return grpc.ssl_channel_credentials(authorities, pair.key, pair.certificate)


def open_channel(
    target: str,
    *,
    credentials: grpc.ChannelCredentials | None = None,
    api_key: str = "",
    options: Options = (),
) -> grpc.Channel:
    """A channel for threads. Without `credentials` it is plaintext; `api_key` goes with each call.

    Raises:
        ConfigError: if the key cannot be one, or would travel unencrypted beyond this machine.
    """
    _check_key(target, api_key, encrypted=credentials is not None)
    if credentials is None:
        channel = grpc.insecure_channel(target, options=_plaintext(target, options))
    else:
        channel = grpc.secure_channel(target, credentials, options=options)
    return cast(grpc.Channel, _Keyed(channel, api_key)) if api_key else channel


def open_async_channel(
    target: str,
    *,
    credentials: grpc.ChannelCredentials | None = None,
    api_key: str = "",
    options: Options = (),
) -> grpc.aio.Channel:
    """The same for asyncio.

    Raises:
        ConfigError: as `open_channel`.
    """
    _check_key(target, api_key, encrypted=credentials is not None)
    if credentials is None:
        channel = grpc.aio.insecure_channel(target, options=_plaintext(target, options))
    else:
        channel = grpc.aio.secure_channel(target, credentials, options=options)
    return cast(grpc.aio.Channel, _Keyed(channel, api_key)) if api_key else channel


def is_loopback(host: str) -> bool:
    """Whether an address ("127.0.0.1", "::1", "[::1]") or "localhost" stays on this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:  # another name: who knows where it leads
        return False


def _plaintext(target: str, options: Options) -> Options:
    """Of a channel without TLS: else a proxy that the environment names would carry what is meant
    to stay on this machine."""
    return (*options, ("grpc.enable_http_proxy", 0)) if _stays_here(target) else options


def _check_key(target: str, api_key: str, *, encrypted: bool) -> None:
    if not api_key:
        return
    if not (api_key.isascii() and api_key.isprintable() and " " not in api_key):
        raise ConfigError(
            "api_key: expected visible ASCII characters alone, got others (a line break at its "
            "end?); the key is not repeated here"
        )
    if not encrypted and not _stays_here(target):
        raise ConfigError(
            f"expected TLS for an API key to {target}, got a plaintext channel, on which anyone "
            "between could read the key; give credentials (on the command line --ca)"
        )


def _stays_here(target: str) -> bool:
    """Whether a gRPC target ("host:port", "dns:///host:port", "ipv4:...", "unix:...") does."""
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    address = urllib.parse.unquote(target)
    for scheme in ("dns:///", "dns:", "ipv4:", "ipv6:"):
        address = address.removeprefix(scheme)
    if "/" in address:  # a resolver that we do not know, or "dns://authority/host"
        return False
    return all(is_loopback(_host(one)) for one in address.split(","))


def _host(address: str) -> str:
    if address.startswith("["):
        return address[1:].split("]")[0]
    return address.rsplit(":", 1)[0] if address.count(":") == 1 else address


class _Keyed:
    """A channel, of either kind, whose calls carry an API key.

    Not gRPC's interceptors: those of grpc.aio change how a stream's errors and cancellation reach
    its caller. Not its call credentials: those refuse loopback without TLS.
    """

    def __init__(self, channel: Any, api_key: str) -> None:
        self._channel = channel
        self._metadata = (("authorization", f"Bearer {api_key}"),)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def unary_unary(self, *arguments: Any, **options: Any) -> _KeyedCall:
        return _KeyedCall(self._channel.unary_unary(*arguments, **options), self._metadata)

    def unary_stream(self, *arguments: Any, **options: Any) -> _KeyedCall:
        return _KeyedCall(self._channel.unary_stream(*arguments, **options), self._metadata)

    def stream_unary(self, *arguments: Any, **options: Any) -> _KeyedCall:
        return _KeyedCall(self._channel.stream_unary(*arguments, **options), self._metadata)

    def stream_stream(self, *arguments: Any, **options: Any) -> _KeyedCall:
        return _KeyedCall(self._channel.stream_stream(*arguments, **options), self._metadata)

    def __enter__(self) -> _Keyed:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    async def __aenter__(self) -> _Keyed:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()


class _KeyedCall:
    """One method of such a channel."""

    def __init__(self, call: Any, metadata: tuple[tuple[str, str], ...]) -> None:
        self._call, self._metadata = call, metadata

    def __call__(self, *arguments: Any, metadata: Any = None, **options: Any) -> Any:
        return self._call(*arguments, metadata=self._with_key(metadata), **options)

    def with_call(self, *arguments: Any, metadata: Any = None, **options: Any) -> Any:
        return self._call.with_call(*arguments, metadata=self._with_key(metadata), **options)

    def future(self, *arguments: Any, metadata: Any = None, **options: Any) -> Any:
        return self._call.future(*arguments, metadata=self._with_key(metadata), **options)

    def _with_key(self, metadata: Any) -> tuple[tuple[str, str], ...]:
        return (*(metadata or ()), *self._metadata)

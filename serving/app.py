"""One gRPC service from start to end: it listens, loads, serves and drains."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from serving import health
from serving.access import AccessLog
from serving.auth import Admission, AuthInterceptor
from serving.current import Current
from serving.grpc_logs import tame
from serving.health import HealthServicer
from serving.interceptors import GuardInterceptor
from serving.metrics import ServiceMetrics
from serving.reloading import Reloader
from serving.settings import ServiceSettings
from serving.tls import server_credentials
from serving.tracing import FLUSH_SECONDS, open_tracer
from serving.web import WebServer
from serving.workers import Workers
from utility_gate.errors import ConfigError, ServiceError

log = logging.getLogger(__name__)

Loaded = TypeVar("Loaded")

_MESSAGE_ROOM = 4 * 1024 * 1024
"""How far a message may exceed the image limit and still be answered with its own error."""

_PING_MILLISECONDS = 30_000
"""How often a client may ping while calls are open; gRPC's own 5 minutes are more than clients and
balancers wait."""


_PENDING_CALLS = 1_000_000

_QUIET_SECONDS = 0.05
"""While calls are refused: so often it is looked whether all that were accepted are answered."""


class ServiceServer(ABC, Generic[Loaded]):
    """One service: `start`, then `stop`. `port` and `web_port` are known after `start`.

    A subclass says what is its own: the names that are `guarded`, its servicers (`_register`), and
    what they serve from (`_load`); perhaps its files and what a swap means beside that.
    """

    guarded: tuple[str, ...]
    """The services ("package.Service") that are guarded, and named by health."""
    described: tuple[str, ...] | None = None
    """Those of them that reflection names and describes; None: all."""

    def __init__(self, settings: ServiceSettings, metrics: ServiceMetrics) -> None:
        tame()
        self.settings = settings
        self.metrics = metrics
        self.port = 0
        self.web_port = 0
        self.current: Current[Loaded] = Current(settings.noun)
        self._access = AccessLog()
        self._ready = False
        self.metrics.ready.set_function(lambda: float(self._ready))
        self._watching: asyncio.Future[None] | None = None
        self._started = time.perf_counter()

    @abstractmethod
    def _register(self, server: grpc.aio.Server) -> None:
        """Add the servicers; they serve what `self.current` holds, once it does, by
        `self._workers`, `self._admission` and `self._tracer`."""

    @abstractmethod
    def _load(self) -> Loaded:
        """What the servicers serve from, proven to work. Called in a thread, at the start and at
        each reload.

        Raises:
            UtilityGateError: if it cannot be had.
        """

    def _watched_files(self) -> Sequence[Path]:
        """The files whose change means that `_load` would give something else."""
        return ()

    def _label(self, service: str, method: str) -> str:  # noqa: ARG002
        """What a guarded method is called in metrics, logs and spans."""
        return method

    @property
    def _idle(self) -> bool:
        """Whether no accepted call is under way that must not be cut off."""
        return self._workers.idle

    async def _disconnect(self) -> None:
        """Close what the servicers need, after the last call."""

    def _swap(self, loaded: Loaded) -> None:
        """Serve `loaded` from now on."""
        self.current.value = loaded

    async def start(self) -> None:
        """Listen, load, warm, serve.

        Raises:
            ConfigError: if an address cannot be listened on, if traces cannot be had, or if
                certificates or keys cannot be used or are missing.
            UtilityGateError: what `_load` raises.
        """
        noun = self.settings.noun
        self._credentials = server_credentials(self.settings)
        self._admission = Admission(self.settings.api_keys, self.metrics, noun)
        name = self.metrics.prefix.replace("_", "-")
        self._tracer = open_tracer(self.settings.trace_endpoint, service=name)
        # 1. Whoever asks finds us alive and not ready.
        self._health = HealthServicer(*self.guarded)
        self._health.report(serving=False)
        self._web = WebServer(
            self._web_host, self.settings.web_port, self.metrics.registry, lambda: self._ready
        )
        self.web_port = self._web.port
        # 2. The workers and the servicers, still with nothing to serve.
        self._workers = Workers(
            self.settings.threads, self.settings.max_waiting, self.metrics, noun=noun
        )
        self._server = self._build_server()
        try:
            self.port = self._listen()
            await self._server.start()
            # 3. What is served loads and proves itself, off the event loop: warm.
            self._reloader = Reloader(self._load, self._swap, self.metrics, self._watched_files())
            self._swap(await asyncio.to_thread(self._load))
        except BaseException:
            await self._close(grace=0)
            raise
        if self.settings.watch_seconds:
            watching = self._reloader.watch(self.settings.watch_seconds)
            self._watching = asyncio.ensure_future(watching)
        # 4. Ready.
        self._ready = True
        self._health.report(serving=True)
        log.info("ready after %.1f s", time.perf_counter() - self._started)

    async def stop(self) -> None:
        """Drain and end; what was accepted is finished within `grace_seconds`."""
        # 1. Balancers and probes are told first, while calls are still taken.
        if self._watching is not None:
            self._watching.cancel()
        log.info("draining for %.1f s", self.settings.drain_seconds)
        self._ready = False
        self._health.leave()
        await asyncio.sleep(self.settings.drain_seconds)
        # 2. Streams take no further image; those who watch our health have seen the end of it.
        self.current.closing.set()
        self._health.end_watches()
        # 3. New calls are refused by us, accepted ones finish. gRPC's own shutdown would cancel
        # calls that arrive in its last moment; told when to try again, they do not arrive.
        ended = time.monotonic() + self.settings.grace_seconds
        await asyncio.sleep(_QUIET_SECONDS)
        while not self._idle and time.monotonic() < ended:  # noqa: ASYNC110
            await asyncio.sleep(_QUIET_SECONDS)
        await self._close(max(0.0, ended - time.monotonic()))
        log.info("stopped")

    async def wait_for_termination(self) -> None:
        """Return when the gRPC server has ended, which only `stop` or a defect makes it do."""
        # Shielded: to cancel the wait itself would break the server's own end.
        await asyncio.shield(self._server.wait_for_termination())

    @property
    def endpoints(self) -> dict[str, str]:
        """Where to find what."""
        web = f"http://{_join(self._web_host, self.web_port)}"
        return {
            "grpc": _join(self.settings.host, self.port),
            "metrics": f"{web}/metrics",
            "alive": f"{web}/healthz",
            "ready": f"{web}/readyz",
        }

    @property
    def _web_host(self) -> str:
        return self.settings.web_host or self.settings.host

    async def reload(self) -> bool:
        """Load again and swap between two requests; False if what was loaded cannot be used and
        the old state goes on."""
        return await self._reloader.reload()

    def _build_server(self) -> grpc.aio.Server:
        server = grpc.aio.server(
            interceptors=[
                GuardInterceptor(
                    self.metrics, self.guarded, self._tracer, self._access, self._label
                ),
                # Inside of it, so that what it refuses is answered and counted there.
                AuthInterceptor(self._admission, self.guarded),
            ],
            options=[
                ("grpc.max_receive_message_length", self.settings.max_image_bytes + _MESSAGE_ROOM),
                ("grpc.so_reuseport", 0),  # two servers on one port would be a mistake
                ("grpc.http2.min_ping_interval_without_data_ms", _PING_MILLISECONDS),
                # Beyond its own limits gRPC cancels calls by itself, whosever they are, and nobody
                # counts them; ours answers what is too much.
                ("grpc.server.max_pending_requests", _PENDING_CALLS),
                ("grpc.server.max_pending_requests_hard_limit", _PENDING_CALLS),
            ],
        )
        self._register(server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if self.settings.reflection:
            described = self.guarded if self.described is None else self.described
            names = (*described, health.NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, server)
        return server

    def _listen(self) -> int:
        address = _join(self.settings.host, self.settings.port)
        try:
            if self._credentials is None:
                return self._server.add_insecure_port(address)
            return self._server.add_secure_port(address, self._credentials)
        except RuntimeError as error:
            raise ConfigError(
                f"{address} cannot be listened on ({error}); choose another port"
            ) from error

    async def _close(self, grace: float) -> None:
        await self._server.stop(grace)
        await self._disconnect()
        await asyncio.to_thread(self._workers.close)
        await asyncio.to_thread(self._web.close)
        # Last: what the others had to tell is told.
        self._access.close()
        await asyncio.to_thread(self._tracer.close, FLUSH_SECONDS)


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


Server = TypeVar("Server", bound=ServiceServer[Any])


async def serve(server_factory: Callable[[], Server], on_ready: Callable[[Server], None]) -> None:
    """Serve until SIGTERM or SIGINT, then drain; `on_ready` is called once it serves.

    Raises:
        UtilityGateError: as `ServiceServer.start`.
        ServiceError: if the gRPC server ends by itself.
    """
    loop = asyncio.get_running_loop()
    asked_to_stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked_to_stop.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: None)  # there is nothing to reload yet
    server = server_factory()
    if not await _unless(asked_to_stop, server.start()):
        log.info("asked to stop while starting")
        return
    reloads: set[asyncio.Future[bool]] = set()

    def reload() -> None:
        task = asyncio.ensure_future(server.reload())
        reloads.add(task)  # the loop itself keeps no task alive
        task.add_done_callback(reloads.discard)

    loop.add_signal_handler(signal.SIGHUP, reload)
    on_ready(server)
    if await _unless(asked_to_stop, server.wait_for_termination()):
        raise ServiceError("the gRPC server ended by itself; see the log above")
    await server.stop()


async def _unless(asked_to_stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Do `work`; cancel it and return False if asked to stop first."""
    task, asked = asyncio.ensure_future(work), asyncio.ensure_future(asked_to_stop.wait())
    await asyncio.wait({task, asked}, return_when=asyncio.FIRST_COMPLETED)
    finished = task.done()
    for future in (task, asked):
        future.cancel()
    await asyncio.wait({task, asked})
    if finished:
        task.result()
    return finished

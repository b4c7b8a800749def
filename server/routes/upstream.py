"""A pipeline's addresses: which one gets the next call, and whether there is any."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection
from functools import partial
from types import TracebackType

import grpc

from server.metrics import RouteMetrics
from server.routes.address import Address, credentials_of
from server.routes.settings import ALL, UpstreamSettings
from serving.watched_files import CHECK_SECONDS, sign
from utility_gate.errors import ConfigError, NotReadyError, OverloadedError

log = logging.getLogger(__name__)

_LEAST_RETRY = 0.1

_SMOOTHING = 0.05
"""Weight of the newest answer in the moving average of their seconds."""

_PATIENCE = 5.0

_A_MOMENT = 0.05
"""Seconds after an ejection's end at which it is surely over."""


class Upstream:
    """One pipeline. Connects when it is made (inside of an event loop), and again by itself."""

    def __init__(
        self,
        name: str,
        settings: UpstreamSettings,
        credentials: grpc.ChannelCredentials | None,
        metrics: RouteMetrics,
        connected: Callable[[Address], None],
        changed: Callable[[], None],
    ) -> None:
        """`connected` is told of each connection that is made; `changed` is called when `usable`
        may have changed."""
        self.name, self.settings = name, settings
        self._metrics, self._connected, self._tell = metrics, connected, changed
        self._moved = asyncio.Event()
        self._waiting = 0
        self._usual_seconds: dict[str, float] = {}  # by method
        self._timers: set[asyncio.TimerHandle] = set()
        self._failures = frozenset(grpc.StatusCode[code] for code in settings.breaker.codes)
        self._turn = 0
        self.addresses = [
            Address(target, settings, credentials, self._moved_on) for target in settings.addresses
        ]
        self._renewing = asyncio.ensure_future(self._renew())
        for address in self.addresses:
            labels = (name, address.target)
            metrics.breaker.labels(*labels).set_function(partial(_breaker_state, address))
            metrics.usable.labels(*labels).set_function(partial(_is_usable, address))
            metrics.in_flight.labels(*labels).set_function(partial(_in_flight, address))

    @property
    def added(self) -> dict[str, str]:
        """The metadata that the settings add to each call."""
        return {name: value.get_secret_value() for name, value in self.settings.metadata.items()}

    @property
    def usable(self) -> bool:
        """Whether any address is."""
        return any(address.usable for address in self.addresses)

    @property
    def in_flight(self) -> int:
        """Calls under way, those that wait for a first connection included."""
        return self._waiting + sum(address.in_flight for address in self.addresses)

    async def ready(self, seconds: float | None) -> None:
        """Return if a call could go somewhere. While nothing could and it is not known yet whether
        there is a connection, wait for that, for `seconds` and a connection's time at most.

        Raises:
            NotReadyError: if it could not.
            OverloadedError: if too many calls are under way.
        """
        self._require_room()
        if not self.usable:
            self._waiting += 1
            try:
                await self._connection(seconds)
            finally:
                self._waiting -= 1
        if not self.usable:
            raise self.unavailable()

    async def begin(
        self, method: str, seconds: float | None, beside: Collection[Address] = ()
    ) -> Call:
        """A call to the usable address with the fewest under way, other than those `beside`.
        `method` is its name in the metrics.

        Raises:
            NotReadyError: if there is none.
            OverloadedError: if too many calls are under way.
        """
        await self.ready(seconds)
        self._require_room()  # others may have waited too
        usable = [one for one in self.addresses if one.usable and one not in beside]
        if not usable:
            raise self.unavailable()
        self._turn += 1  # those with equally many take turns
        start = self._turn % len(usable)
        address = min(usable[start:] + usable[:start], key=lambda one: one.in_flight)
        return Call(self, address, method)

    def unavailable(self) -> NotReadyError:
        """What callers are told when there is no address: nothing of where they are."""
        ejected = [one.breaker.opens_in for one in self.addresses if one.connected]
        again = min(ejected, default=self.settings.connect_seconds)
        return NotReadyError(
            f"the upstream {self.name} is not available; try again in a moment",
            max(_LEAST_RETRY, again),
        )

    async def close(self) -> None:
        """Cancel what is under way, and disconnect."""
        self._renewing.cancel()
        for timer in self._timers:
            timer.cancel()
        await asyncio.gather(*(address.close() for address in self.addresses))

    def is_fair(self, method: str, seconds: float | None, enough: float) -> bool:
        """Whether an address that does not answer within `seconds` is to blame for it: that is
        several times what answers of the method take, or `enough`. Else callers with deadlines that
        nobody could meet would eject it."""
        if seconds is None:
            return True
        usual = self._usual_seconds.get(method)
        return seconds >= (enough if usual is None else min(enough, _PATIENCE * usual))

    def _require_room(self) -> None:
        if self.in_flight >= self.settings.max_in_flight:
            self._metrics.shed.labels(self.name).inc()
            raise OverloadedError(
                f"expected at most {self.settings.max_in_flight} calls under way to the upstream "
                f"{self.name}; try again later"
            )

    async def _connection(self, seconds: float | None) -> None:
        """Return when one is there, when none can be had, or after `seconds`."""
        most = self.settings.connect_seconds
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(most if seconds is None else min(seconds, most)):
                while not self.usable and any(one.connected is None for one in self.addresses):
                    await self._moved.wait()

    def end(self, call: Call, seconds: float) -> None:
        """Account for a call that ended after `seconds`."""
        address, code, trial = call.address, call.code, call.trial
        if not call.streams:
            self._metrics.seconds.labels(self.name).observe(seconds)
        ended = grpc.StatusCode.CANCELLED if code is None else code
        self._metrics.codes.labels(self.name, ended.name).inc()
        breaker = address.breaker
        late = code is grpc.StatusCode.DEADLINE_EXCEEDED
        # What is called "Service/*" are methods of any kind: one average would tell of none.
        if code is grpc.StatusCode.OK and not call.streams and not call.method.endswith(ALL):
            before = self._usual_seconds.get(call.method, seconds)
            self._usual_seconds[call.method] = before + _SMOOTHING * (seconds - before)
        if code is None or code is grpc.StatusCode.CANCELLED or (late and not call.fair):
            breaker.forget(trial=trial)
        elif code not in self._failures:
            breaker.succeed(trial=trial)
        elif breaker.fail(trial=trial):
            self._metrics.ejections.labels(self.name, address.target).inc()
            log.warning(
                "upstream %s: %s gets no calls for %.1f s, it failed too often; last: %s",
                self.name, address.target, breaker.opens_in, code.name,
            )  # fmt: skip
            self._look_again(address)
        if trial:
            self._changed()

    async def _renew(self) -> None:
        """Connect anew when certificates change; those that cannot be used leave what there is."""
        settings = self.settings
        files = [one for one in (settings.ca, settings.certificate, settings.key) if one]
        seen = sign(files)
        while files:
            await asyncio.sleep(CHECK_SECONDS)
            if (now := sign(files)) == seen:
                continue
            seen = now
            try:
                credentials = await asyncio.to_thread(credentials_of, settings)
            except ConfigError as error:
                log.warning("upstream %s: the old certificates stay: %s", self.name, error)
                continue
            log.info("upstream %s: certificates were read again", self.name)
            for address in self.addresses:
                address.reconnect(credentials)

    def _look_again(self, address: Address) -> None:
        """Tell of an ejection, and of its end."""
        self._changed()

        def over() -> None:
            self._timers.discard(timer)
            self._changed()

        loop = asyncio.get_running_loop()
        timer = loop.call_later(address.breaker.opens_in + _A_MOMENT, over)
        self._timers.add(timer)

    def _moved_on(self, address: Address) -> None:
        if address.connected:
            self._connected(address)
        self._changed()

    def _changed(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()
        self._tell()


class Call:
    """One call's place at an address: a context manager that must be told how the call ended
    (`code`), else it was given up."""

    def __init__(self, upstream: Upstream, address: Address, method: str) -> None:
        self.upstream, self.address, self.method = upstream, address, method
        self.code: grpc.StatusCode | None = None
        self.fair = True
        """Whether the pipeline had the time that a call may take."""
        self.trial = address.breaker.begin()
        """Whether it is the one that is tried after an ejection."""
        self.streams = False
        """Whether it lasts as long as its caller likes."""
        self._answered = False
        self._started = time.perf_counter()
        address.in_flight += 1

    @property
    def channel(self) -> grpc.aio.Channel:
        """Where to make it."""
        return self.address.channel

    def answers(self) -> None:
        """A stream's answer came: whatever its end, the address is alive."""
        if self._answered:
            return
        self._answered = True
        self.address.breaker.succeed(trial=self.trial)
        self.trial = 0

    @property
    def seconds(self) -> float:
        """How long it has lasted."""
        return time.perf_counter() - self._started

    def __enter__(self) -> Call:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.address.in_flight -= 1
        self.upstream.end(self, self.seconds)


def _breaker_state(address: Address) -> float:
    return float(address.breaker.state)


def _is_usable(address: Address) -> float:
    return float(address.usable)


def _in_flight(address: Address) -> float:
    return float(address.in_flight)

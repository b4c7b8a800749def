"""All routes of a gate: which call goes where, and what is known of the upstreams."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import grpc

from server.metrics import RouteMetrics
from server.routes.address import Address
from server.routes.contracts import Prepared, known_types, services_of
from server.routes.descriptors import MethodTypes
from server.routes.judging import RequestJudge
from server.routes.learning import Learner
from server.routes.proxy import Proxy
from server.routes.route import Handler, JudgedRoute, PassingRoute
from server.routes.settings import ALL, RouteSettings, UpstreamSettings
from server.routes.upstream import Upstream
from server.several import Judge
from serving.auth import split_path
from serving.tracing import Tracer

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

Report = Callable[[str, bool], None]
"""Told of a service whether its calls could be forwarded now."""


class Routes(grpc.GenericRpcHandler):
    """Serves the methods that are routed. Make it inside of an event loop; it connects at once."""

    def __init__(
        self,
        routes: tuple[RouteSettings, ...],
        upstreams: Mapping[str, UpstreamSettings],
        prepared: Mapping[str, Prepared],
        judge: Judge,
        metrics: RouteMetrics,
        tracer: Tracer,
        report: Report,
        *,
        keyed: bool,
        max_images: int,
        concurrency: int,
    ) -> None:
        """`prepared` by upstream; `keyed`: whether callers show the gate an API key; `max_images`
        may be in one request, `concurrency` of them are under way at a time."""
        self._routes, self._metrics, self._report = routes, metrics, report
        self._judged: dict[str, JudgedRoute] = {}
        self._passing: dict[str, PassingRoute] = {}
        self._types: dict[str, MethodTypes] = {}  # by upstream
        self._learners: dict[str, Learner] = {}
        self._upstreams: dict[str, Upstream] = {}
        for name in dict.fromkeys(route.upstream for route in routes):
            self._upstreams[name] = Upstream(
                name,
                upstreams[name],
                prepared[name].credentials,
                metrics,
                partial(self._connected, name),
                partial(self._report_all, name),
            )
        for route in routes:
            proxy = Proxy(
                self._upstreams[route.upstream], metrics, tracer, keyed=keyed,
                fair_seconds=route.timeout / 2,
            )  # fmt: skip
            if route.image_field:
                requests = RequestJudge(route, judge, max_images, concurrency)
                self._judged[route.method] = JudgedRoute(route, proxy, requests, metrics)
            else:
                self._passing[route.method] = PassingRoute(proxy, metrics, judge.ready)
        self._folded = frozenset(method.casefold() for method in self._judged)
        for name, upstream in self._upstreams.items():
            self._apply(name, prepared[name].types)
            services = services_of(name, routes)
            if prepared[name].types is None and services:
                self._learners[name] = Learner(
                    upstream, services, partial(self._apply, name), partial(self._explain, name)
                )

    def service(self, handler_call_details: Any) -> Handler | None:
        """The handler of a call; None if no route leads there."""
        path = handler_call_details.method
        service, name = split_path(path)
        method = path.removeprefix("/")
        if method in self._judged:
            return self._judged[method].handler
        passing = self._passing.get(method) or self._passing.get(f"{service}/{ALL}")
        # No other names: who knows what somebody on the way makes of "%4cook".
        if passing is None or not _NAME.fullmatch(name):
            return None
        # There are servers to which LOOK is Look.
        if method.casefold() in self._folded and method not in self._passing:
            return None
        known = self._types[passing.upstream].get(method)
        return passing.handler(path, self.label(method), known)

    def label(self, method: str) -> str:
        """What "package.Service/Method" is called in metrics: itself if it is known, for callers
        may make up as many as they like."""
        if method in self._judged or method in self._passing:
            return method
        if any(method in types for types in self._types.values()):
            return method
        return f"{method.rpartition('/')[0]}/{ALL}"

    @property
    def idle(self) -> bool:
        """Whether no call is under way."""
        return not any(upstream.in_flight for upstream in self._upstreams.values())

    async def close(self) -> None:
        """Cancel what is under way, and disconnect."""
        await asyncio.gather(*(learner.close() for learner in self._learners.values()))
        await asyncio.gather(*(upstream.close() for upstream in self._upstreams.values()))

    def _connected(self, upstream: str, address: Address) -> None:
        if upstream in self._learners:
            self._learners[upstream].connected(address)

    def _apply(self, upstream: str, types: MethodTypes | None) -> None:
        """Hold the judged routes of an upstream against its types; None: not known yet."""
        self._types[upstream] = {
            method: known
            for route in self._of(upstream)
            for method, known in (known_types(route, types) or {}).items()
        }
        for judged in self._judged.values():
            known = known_types(judged.settings, types)
            if judged.settings.upstream == upstream and known is not None:
                judged.know(known)
        self._report_all(upstream)

    def _explain(self, upstream: str, why: str) -> None:
        """Types cannot be had; those that were had before stay."""
        for route in self._judged.values():
            if route.settings.upstream == upstream and route.judge.field is None:
                route.judge.lose(why)

    def _of(self, upstream: str) -> Iterator[RouteSettings]:
        return (route for route in self._routes if route.upstream == upstream)

    def _report_all(self, upstream: str) -> None:
        """Tell of the services that lead there."""
        for service in dict.fromkeys(route.service for route in self._of(upstream)):
            self._report(service, self._is_ready(service))

    def _is_ready(self, service: str) -> bool:
        routes: dict[str, JudgedRoute | PassingRoute] = {**self._judged, **self._passing}
        return all(route.ready for name, route in routes.items() if name.startswith(f"{service}/"))

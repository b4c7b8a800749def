"""The filter in front of pipelines: real gates and callers, and a service that only tests know."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serving.keys import digest
from tests.certificates import Authority
from tests.conftest import RunningGate, encode
from tests.processes import free_port
from tests.shop import (
    BROWSE,
    CHAT,
    LOOK,
    SERVICE,
    UPLOAD,
    WATCH,
    Answer,
    BrowseRequest,
    LookRequest,
    Shop,
    call,
    save_descriptors,
)
from utility_gate.client import GateClient
from utility_gate.errors import ConfigError
from utility_gate.predictor import UtilityPredictor

Start = Callable[..., RunningGate]
Code = grpc.StatusCode

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def plain(red: int) -> bytes:
    return encode(np.full((64, 64, 3), red, np.uint8), "PNG")


DARK, MEDIUM, BRIGHT = plain(20), plain(128), plain(230)
"""NON_USEFUL, REVIEW and USEFUL to the tests' predictor."""


def wait_for(condition: Callable[[], object], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it should have happened by now"
        time.sleep(0.005)


def status_of(target: str, service: str) -> int:
    with grpc.insecure_channel(target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return int(stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5).status)


def ready(gate: RunningGate, service: str = SERVICE, status: int = _SERVING) -> RunningGate:
    """Once its routes have that health."""
    wait_for(lambda: status_of(gate.target, service) == status)
    return gate


@pytest.fixture
def route(start_gate: Start) -> Callable[..., RunningGate]:
    """A gate in front of `shop` (or `targets`), once it is ready; `upstream` are settings of the
    upstream, others those of the route to LOOK, `settings` the gate's."""

    def start(
        shop: Shop | None,
        *,
        targets: list[str] | None = None,
        upstream: dict[str, Any] | None = None,
        settings: dict[str, Any] | None = None,
        more: list[dict[str, Any]] | None = None,
        wait: bool = True,
        **changes: Any,
    ) -> RunningGate:
        addresses = targets or [shop.target if shop else ""]
        entry = {"method": LOOK, "upstream": "shop", "image_field": "image"} | changes
        routes = [entry, *(more or []), {"method": f"{SERVICE}/*", "upstream": "shop"}]
        gate = start_gate(
            upstreams={"shop": {"addresses": addresses} | (upstream or {})},
            routes=routes,
            **(settings or {}),
        )
        return ready(gate) if wait else gate

    return start


Route = Callable[..., RunningGate]


@pytest.fixture
def shop() -> Iterator[Shop]:
    with Shop().serve() as shop:
        yield shop


def info_of(error: Any) -> error_details_pb2.ErrorInfo:
    info = error_details_pb2.ErrorInfo()
    for packed in details_of(error):
        if packed.Unpack(info):
            return info
    raise AssertionError(f"no ErrorInfo in {error}")


def details_of(error: Any) -> Any:
    trailers = dict(error.trailing_metadata())
    return status_pb2.Status.FromString(trailers["grpc-status-details-bin"]).details


@contextmanager
def refused(code: grpc.StatusCode) -> Iterator[list[Any]]:
    """The error of the block, which must have this code."""
    caught: list[Any] = []
    with pytest.raises(grpc.RpcError) as raised:
        yield caught
    error: Any = raised.value
    assert error.code() is code, f"{error.code()}: {error.details()}"
    caught.append(error)


def code_of(make: Callable[[], Any]) -> grpc.StatusCode:
    try:
        make()
    except grpc.RpcError as error:
        found: Any = error
        return Code[found.code().name]
    return Code.OK


class TestJudging:
    def test_a_useful_image_s_request_goes_on_byte_by_byte(self, route: Route, shop: Shop) -> None:
        gate = route(shop)
        # As no serializer of ours would write it: fields out of order, one that is unknown.
        request = b"\x42\x04\0\0\x80\x3f" + LookRequest(image=BRIGHT).SerializeToString()
        request += b"\x0a\x017" + b"\xfa\x3f\x03abc"
        with grpc.insecure_channel(gate.target) as channel:
            look = channel.unary_unary(f"/{LOOK}")
            answer, made = look.with_call(request, timeout=5)  # type: ignore[attr-defined]
        assert shop.seen == [request]
        assert Answer.FromString(answer).text == "shop saw 7"
        told = {
            "decision": "USEFUL",
            "mode": "ENFORCE",
            "task": "general",
            "predictor-version": "7",
        }
        for metadata in (dict(shop.metadata), dict(made.trailing_metadata())):
            assert {name: metadata[f"utility-gate-{name}"] for name in told} == told
            assert 0.9 < float(metadata["utility-gate-utility"]) < 1
        assert gate.metric(
            "utility_gate_route_requests_total", route=LOOK, outcome="forwarded"
        ) == 1  # fmt: skip
        assert gate.metric("utility_gate_requests_total", method=LOOK, code="OK") == 1
        assert gate.metric("utility_gate_images_total", method=LOOK, code="OK") == 1
        assert gate.metric("utility_gate_upstream_calls_total", upstream="shop", code="OK") == 1

    def test_another_never_reaches_the_pipeline(self, route: Route, shop: Shop) -> None:
        gate = route(shop)
        with (
            grpc.insecure_channel(gate.target) as channel,
            refused(Code.FAILED_PRECONDITION) as caught,
        ):
            call(channel)(LookRequest(image=DARK), timeout=5)
        assert shop.seen == []
        info = info_of(caught[0])
        assert (info.reason, info.domain) == ("IMAGE_NOT_USEFUL", "utility-gate")
        known = dict(info.metadata)
        assert known["decision"] == "NON_USEFUL"
        assert known["task"] == "general"
        assert known["predictor_version"] == "7"
        assert float(known["utility"]) < 0.1
        assert "LOW_UTILITY" in known["reasons"]
        assert "BRIGHTER" in known["advice"]
        violation = error_details_pb2.PreconditionFailure()
        assert details_of(caught[0])[0].Unpack(violation)
        assert violation.violations[0].subject == "image"
        trailers = dict(caught[0].trailing_metadata())
        assert trailers["utility-gate-decision"] == "NON_USEFUL"
        outcome = {"route": LOOK, "outcome": "stopped"}
        assert gate.metric("utility_gate_route_requests_total", **outcome) == 1
        code = {"method": LOOK, "code": "FAILED_PRECONDITION"}
        assert gate.metric("utility_gate_requests_total", **code) == 1

    def test_what_is_no_image_is_named(self, route: Route, shop: Shop) -> None:
        gate = route(shop, image_field="photo.data")
        with grpc.insecure_channel(gate.target) as channel:
            with refused(Code.INVALID_ARGUMENT) as caught:
                call(channel)(LookRequest(photo={"data": b"junk"}), timeout=5)
            bad = error_details_pb2.BadRequest()
            assert details_of(caught[0])[0].Unpack(bad)
            (violation,) = bad.field_violations
            assert (violation.field, violation.reason) == ("photo.data", "NOT_AN_IMAGE")
            with refused(Code.INVALID_ARGUMENT):
                channel.unary_unary(f"/{LOOK}")(b"\x07 no protobuf", timeout=5)
            assert shop.seen == []
            # A request without the field is none of the gate's business.
            assert call(channel)(LookRequest(id="7"), timeout=5).text == "shop saw 7"
        assert "utility-gate-decision" not in dict(shop.metadata)

    @pytest.mark.parametrize(
        ("review", "code"), [("pass", Code.OK), ("stop", Code.FAILED_PRECONDITION)]
    )
    def test_what_becomes_of_images_between_the_thresholds(
        self, route: Route, shop: Shop, review: str, code: grpc.StatusCode
    ) -> None:
        gate = route(shop, review=review)
        with grpc.insecure_channel(gate.target) as channel:
            assert code_of(lambda: call(channel)(LookRequest(image=MEDIUM), timeout=5)) is code

    def test_a_route_may_have_a_mode_of_its_own(self, route: Route, shop: Shop) -> None:
        gate = route(shop, mode="SHADOW")
        with grpc.insecure_channel(gate.target) as channel:
            _, made = call(channel).with_call(LookRequest(image=DARK), timeout=5)
        told = dict(made.trailing_metadata())
        assert told["utility-gate-mode"] == "SHADOW"
        assert told["utility-gate-decision"] == "USEFUL"
        assert told["utility-gate-judgement"] == "NON_USEFUL"
        with GateClient(gate.target) as client:
            assert client.assess(DARK).decision == "NON_USEFUL", "the task's own mode is another"

    def test_off_needs_to_know_nothing(self, route: Route) -> None:
        with Shop().serve(reflect="") as shop:
            gate = route(shop, mode="OFF")
            with grpc.insecure_channel(gate.target) as channel:
                _, made = call(channel).with_call(LookRequest(image=b"junk"), timeout=5)
        assert dict(made.trailing_metadata())["utility-gate-mode"] == "OFF"
        outcome = {"route": LOOK, "outcome": "unjudged"}
        assert gate.metric("utility_gate_route_requests_total", **outcome) == 1

    @pytest.mark.parametrize("policy", ["open", "closed"])
    def test_trouble_of_the_gate_s_own(
        self, route: Route, shop: Shop, monkeypatch: pytest.MonkeyPatch, policy: str
    ) -> None:
        gate = route(shop, on_gate_failure=policy)

        def fail(*_: Any) -> float:
            raise ZeroDivisionError("the network is broken")

        monkeypatch.setattr(UtilityPredictor, "judge", fail)
        with grpc.insecure_channel(gate.target) as channel:
            if policy == "open":
                _, made = call(channel).with_call(LookRequest(image=DARK), timeout=5)
                assert dict(made.trailing_metadata())["utility-gate-mode"] == "FALLBACK"
            else:
                with refused(Code.INTERNAL):
                    call(channel)(LookRequest(image=DARK), timeout=5)
            with refused(Code.INVALID_ARGUMENT):  # the caller's fault is never passed over
                call(channel)(LookRequest(image=b"junk"), timeout=5)
        assert len(shop.seen) == (policy == "open")


class TestSeveralImages:
    CASES = (
        ("all", [BRIGHT, BRIGHT], [0, 1]),
        ("all", [BRIGHT, DARK], None),
        ("any", [DARK, BRIGHT, DARK], [0, 1, 2]),
        ("any", [DARK, DARK], None),
        ("filter", [DARK, BRIGHT, MEDIUM, DARK], [1, 2]),
        ("filter", [BRIGHT, BRIGHT], [0, 1]),
        ("filter", [DARK, DARK], None),
    )

    @pytest.mark.parametrize(("rule", "sent", "kept"), CASES)
    @pytest.mark.parametrize("field", ["images", "photos.data"])
    def test_as_the_route_says(
        self, route: Route, shop: Shop, rule: str, sent: list[bytes], kept: Any, field: str
    ) -> None:
        gate = route(shop, images=rule, image_field=field)
        if field == "images":
            request = LookRequest(id="7", images=sent)
        else:
            photos = [{"name": str(i), "data": data} for i, data in enumerate(sent)]
            request = LookRequest(id="7", photos=photos)
        with grpc.insecure_channel(gate.target) as channel:
            if kept is None:
                with refused(Code.FAILED_PRECONDITION) as caught:
                    call(channel)(request, timeout=5)
                assert shop.seen == []
                assert f"{field}[" in str(details_of(caught[0])[0])
                return
            call(channel)(request, timeout=5)
        (seen,) = shop.seen
        if len(kept) == len(sent):
            assert seen == request.SerializeToString(), "untouched"
        arrived = LookRequest.FromString(seen)
        data = arrived.images if field == "images" else [one.data for one in arrived.photos]
        assert list(data) == [sent[index] for index in kept]
        decisions = dict(shop.metadata)["utility-gate-decision"].split(",")
        assert len(decisions) == len(sent)

    def test_one_that_is_no_image_is_named_by_its_index(self, route: Route, shop: Shop) -> None:
        gate = route(shop, images="any", image_field="images")
        with grpc.insecure_channel(gate.target) as channel:
            with refused(Code.INVALID_ARGUMENT) as caught:
                call(channel)(LookRequest(images=[BRIGHT, b"junk"]), timeout=5)
            assert "image 1" in caught[0].details()
            with refused(Code.INVALID_ARGUMENT) as caught:
                call(channel)(LookRequest(images=[BRIGHT] * 17), timeout=5)
            assert "at most 16" in caught[0].details()


class TestContracts:
    @pytest.mark.parametrize("version", ["v1", "v1alpha"])
    def test_either_reflection_is_asked(self, route: Route, version: str) -> None:
        with Shop().serve(reflect=version) as shop:
            gate = route(shop)
            with grpc.insecure_channel(gate.target) as channel:
                assert code_of(lambda: call(channel)(LookRequest(image=DARK), timeout=5)) is (
                    Code.FAILED_PRECONDITION
                )

    def test_or_a_file_of_descriptors(self, route: Route, tmp_path: Path) -> None:
        saved = save_descriptors(tmp_path / "shop.binpb")
        with Shop().serve(reflect="") as shop:
            gate = route(shop, upstream={"descriptors": str(saved)}, image_field="photo.data")
            with (
                grpc.insecure_channel(gate.target) as channel,
                refused(Code.FAILED_PRECONDITION),
            ):
                call(channel)(LookRequest(photo={"data": DARK}), timeout=5)

    def test_without_either_calls_are_told_so_and_the_gate_is_fine(self, route: Route) -> None:
        with Shop().serve(reflect="") as shop:
            gate = route(shop, wait=False)
            wait_for(lambda: gate.metric(
                "utility_gate_upstream_usable", upstream="shop", address=shop.target
            ) == 1)  # fmt: skip
            with grpc.insecure_channel(gate.target) as channel:
                wait_for(lambda: "no reflection service" in details(channel, BRIGHT))
                with refused(Code.UNAVAILABLE) as caught:
                    call(channel)(LookRequest(image=BRIGHT), timeout=5)
                assert "give the upstream `descriptors`" in caught[0].details()
                assert call(channel, BROWSE)(BrowseRequest(query="q"), timeout=5)
            assert status_of(gate.target, SERVICE) == _NOT_SERVING
            assert status_of(gate.target, "") == _SERVING
            with GateClient(gate.target) as client:
                assert client.assess(BRIGHT).decision == "USEFUL"

    def test_a_route_that_opens_forwards_unjudged_then(self, route: Route) -> None:
        with Shop().serve(reflect="") as shop:
            gate = route(shop, wait=False, on_gate_failure="open")
            with grpc.insecure_channel(gate.target) as channel:
                _, made = call(channel).with_call(LookRequest(image=DARK), timeout=5)
            assert dict(made.trailing_metadata())["utility-gate-mode"] == "FALLBACK"

    def test_a_pipeline_that_comes_later_is_asked_then(self, route: Route) -> None:
        port = free_port()
        gate = route(None, targets=[f"127.0.0.1:{port}"], wait=False)
        assert status_of(gate.target, SERVICE) == _NOT_SERVING
        with Shop().serve(port=port) as shop:
            ready(gate)
            with grpc.insecure_channel(gate.target) as channel:
                assert call(channel)(LookRequest(id="7", image=BRIGHT), timeout=5)
            assert len(shop.seen) == 1

    def test_a_field_that_does_not_fit_is_said_to_callers_and_in_the_log(
        self, route: Route, shop: Shop, caplog: pytest.LogCaptureFixture
    ) -> None:
        gate = route(shop, image_field="picture", wait=False)
        with grpc.insecure_channel(gate.target) as channel:
            wait_for(lambda: "got picture" in details(channel, BRIGHT))
        assert "image_field picture: expected one of the fields id, image" in caplog.text

    def test_a_file_that_does_not_fit_ends_the_start(
        self, start_gate: Start, tmp_path: Path
    ) -> None:
        saved = save_descriptors(tmp_path / "shop.binpb")
        with pytest.raises(ConfigError, match="expected one of the fields id, image"):
            start_gate(
                upstreams={"shop": {"addresses": ["127.0.0.1:1"], "descriptors": str(saved)}},
                routes=[{"method": LOOK, "upstream": "shop", "image_field": "picture"}],
            )


def details(channel: grpc.Channel, image: bytes) -> str:
    """What a call is told; "" if it succeeds."""
    try:
        call(channel)(LookRequest(image=image), timeout=5)
    except grpc.RpcError as error:
        found: Any = error
        return str(found.details())
    return ""


class TestProxy:
    def test_metadata_and_trailers_pass_both_ways(self, route: Route, shop: Shop) -> None:
        gate = route(shop, upstream={"metadata": {"x-api-key": "ours"}})
        sent = (
            ("x-tenant", "7"), ("trace-bin", b"\0\xff"), ("x-api-key", "theirs"),
            ("utility-gate-decision", "USEFUL"), ("utility-gate-utility", "1"),
            ("x-request-id", "mine"), ("authorization", "Bearer token"),
        )  # fmt: skip
        with grpc.insecure_channel(gate.target) as channel:
            request = LookRequest(id="7", image=BRIGHT)
            _, made = call(channel).with_call(request, timeout=5, metadata=sent)
        arrived = dict(shop.metadata)
        assert arrived["x-tenant"] == "7"
        assert arrived["trace-bin"] == b"\0\xff"
        assert arrived["x-api-key"] == "ours"
        assert arrived["x-request-id"] == "mine"
        assert arrived["authorization"] == "Bearer token", "this gate has no keys of its own"
        names = [name for name, _ in shop.metadata]
        assert names.count("utility-gate-utility") == 1
        assert arrived["utility-gate-utility"] != "1"
        assert dict(made.initial_metadata())["before"] == "the answer"
        trailers = dict(made.trailing_metadata())
        assert trailers["after"] == "the answer"
        assert trailers["raw-bin"] == b"\0\1"
        assert trailers["x-request-id"] == "mine"

    def test_status_message_and_details_are_the_pipeline_s(self, route: Route, shop: Shop) -> None:
        gate = route(shop)
        with grpc.insecure_channel(gate.target) as channel:
            with refused(Code.FAILED_PRECONDITION) as caught:
                call(channel)(LookRequest(id="fail", image=BRIGHT), timeout=5)
            assert caught[0].details() == "sold out"
            assert (info_of(caught[0]).reason, info_of(caught[0]).domain) == ("SOLD_OUT", "shop")
            trailers = dict(caught[0].trailing_metadata())
            assert trailers["after"] == "the failure"
            assert trailers["utility-gate-decision"] == "USEFUL"
            assert dict(caught[0].initial_metadata())["before"] == "the answer"
            for code in Code:
                if code is Code.OK:
                    continue
                with refused(code) as caught:
                    call(channel)(LookRequest(id=code.name, image=BRIGHT), timeout=5)
                assert caught[0].details() == f"told to: {code.name}"

    def test_a_caller_who_gives_up_ends_the_pipeline_s_call(self, route: Route, shop: Shop) -> None:
        gate = route(shop)
        with grpc.insecure_channel(gate.target) as channel:
            made = call(channel).future(LookRequest(id="sleep", image=BRIGHT), timeout=20)
            assert shop.entered.wait(5)
            made.cancel()
            assert shop.cancelled.wait(5)
            code = {"method": LOOK, "code": "CANCELLED"}
            wait_for(lambda: gate.metric("utility_gate_requests_total", **code) == 1)
        where = {"upstream": "shop", "address": shop.target}
        wait_for(lambda: gate.metric("utility_gate_upstream_calls_in_flight", **where) == 0)

    def test_the_shorter_deadline_holds(self, route: Route, shop: Shop) -> None:
        gate = route(shop, timeout=0.5)
        with grpc.insecure_channel(gate.target) as channel:
            started = time.monotonic()
            with refused(Code.DEADLINE_EXCEEDED):  # the route's
                call(channel)(LookRequest(id="sleep", image=BRIGHT), timeout=20)
            assert 0.3 < time.monotonic() - started < 5
            assert shop.cancelled.wait(5)
            call(channel)(LookRequest(id="7", image=BRIGHT), timeout=0.4)
            # The wire has whole units of time, rounded up.
            assert 0 < (shop.deadlines[-1] or 0) <= 0.41  # the caller's
            call(channel)(LookRequest(id="7", image=BRIGHT))
            assert 0 < (shop.deadlines[-1] or 0) <= 0.51

    def test_a_judgement_that_takes_too_long_ends_with_the_route_s_time(
        self, route: Route, shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gate = route(shop, timeout=0.3)
        release = threading.Event()
        judge = UtilityPredictor.judge

        def slow(self: UtilityPredictor, *arguments: Any) -> float:
            release.wait(10)
            return judge(self, *arguments)

        monkeypatch.setattr(UtilityPredictor, "judge", slow)
        with grpc.insecure_channel(gate.target) as channel:
            with refused(Code.DEADLINE_EXCEEDED) as caught:
                call(channel)(LookRequest(image=BRIGHT), timeout=20)
            release.set()
            assert "the route's timeout" in caught[0].details()
        assert shop.seen == []

    def test_other_methods_pass_whatever_they_stream(self, route: Route, shop: Shop) -> None:
        gate = route(shop)
        with grpc.insecure_channel(gate.target) as channel:
            assert call(channel, BROWSE)(BrowseRequest(query="q"), timeout=5).text == "shop has q"
            assert [a.text for a in call(channel, WATCH)(LookRequest(), timeout=5)] == [
                "0",
                "1",
                "2",
            ]
            ids = iter([LookRequest(id=str(i), image=DARK) for i in range(3)])
            assert call(channel, UPLOAD)(ids, timeout=5).text == "0,1,2"
            chat = call(channel, CHAT)(iter([LookRequest(id="a"), LookRequest(id="b")]), timeout=5)
            assert dict(chat.initial_metadata())["before"] == "the answers"
            assert [a.text for a in chat] == ["a", "b"]
            assert dict(chat.trailing_metadata())["after"] == "the answer"
            with refused(Code.DATA_LOSS) as caught:
                list(call(channel, CHAT)(iter([LookRequest(id="DATA_LOSS")]), timeout=5))
            assert caught[0].details() == "told to: DATA_LOSS"
            with refused(Code.UNIMPLEMENTED):
                channel.unary_unary(f"/{SERVICE}/MadeUp{time.time_ns()}")(b"", timeout=5)
        methods = {
            sample.labels["method"]
            for metric in gate.server.metrics.registry.collect()
            if metric.name == "utility_gate_requests"
            for sample in metric.samples
        }
        assert methods == {BROWSE, WATCH, UPLOAD, CHAT, f"{SERVICE}/*"}, "names cannot be made up"

    def test_a_name_in_disguise_reaches_nobody(self, route: Route, shop: Shop) -> None:
        gate = route(shop)
        request = LookRequest(image=DARK).SerializeToString()
        with grpc.insecure_channel(gate.target) as channel:
            for name in (
                f"{SERVICE}/%4cook",
                f"{SERVICE}/Look/",
                f"/{SERVICE}/Look",
                f"{SERVICE}/",
                f"{SERVICE}/LOOK",
                f"{SERVICE}/look",
            ):
                with refused(Code.UNIMPLEMENTED):
                    channel.unary_unary(f"/{name}")(request, timeout=5)
        for code in ("OK", "UNIMPLEMENTED"):
            assert gate.metric("utility_gate_upstream_calls_total", upstream="shop", code=code) == 0
        assert shop.seen == []

    def test_without_a_route_to_the_service_only_what_is_named_is_served(
        self, start_gate: Start, shop: Shop
    ) -> None:
        gate = ready(start_gate(
            upstreams={"shop": {"addresses": [shop.target]}},
            routes=[{"method": LOOK, "upstream": "shop", "image_field": "image"}],
        ))  # fmt: skip
        with grpc.insecure_channel(gate.target) as channel, refused(Code.UNIMPLEMENTED):
            call(channel, BROWSE)(BrowseRequest(query="q"), timeout=5)

    def test_streams_take_turns_and_no_more_than_is_taken(self, route: Route, shop: Shop) -> None:
        """Each answer is asked for before the next request is sent: nothing is collected first."""
        gate = route(shop)
        sent: list[int] = []
        go_on = threading.Semaphore(1)

        def requests() -> Iterator[Any]:
            for number in range(5):
                assert go_on.acquire(timeout=5)
                sent.append(number)
                yield LookRequest(id=str(number))

        with grpc.insecure_channel(gate.target) as channel:
            for number, answer in enumerate(call(channel, CHAT)(requests(), timeout=20)):
                assert answer.text == str(number)
                assert sent == list(range(number + 1))
                go_on.release()

    def test_a_slow_reader_slows_the_pipeline(self, route: Route) -> None:
        big = Answer(text="x" * 100_000).SerializeToString()
        made = 0

        class Firehose(Shop):
            def watch(self, request: bytes, context: Any) -> Iterator[bytes]:
                nonlocal made
                for made in range(1, 2001):  # noqa: B007 - counted
                    yield big

        with Firehose().serve() as shop:
            gate = route(shop)
            with grpc.insecure_channel(gate.target) as channel:
                answers = call(channel, WATCH)(LookRequest(), timeout=30)
                next(answers)
                time.sleep(0.5)
                held = made
                time.sleep(0.3)
                assert made == held, "it waits for us"
                assert held < 200, "a few windows of 100 kB messages, not all 200 MB"
                answers.cancel()
            where = {"upstream": "shop", "address": shop.target}
            wait_for(lambda: gate.metric("utility_gate_upstream_calls_in_flight", **where) == 0)

    def test_a_stream_that_is_given_up_ends_at_the_pipeline(self, route: Route, shop: Shop) -> None:
        gate = route(shop)
        with grpc.insecure_channel(gate.target) as channel:
            hold = threading.Event()

            def requests() -> Iterator[Any]:
                yield LookRequest(id="a")
                hold.wait(10)

            answers = call(channel, CHAT)(requests(), timeout=20)
            assert next(answers).text == "a"
            answers.cancel()
            assert shop.cancelled.wait(5)
            hold.set()

    def test_streams_are_judged_if_a_route_says_so(self, route: Route, shop: Shop) -> None:
        more = [
            {"method": method, "upstream": "shop", "image_field": "image"}
            for method in (WATCH, UPLOAD, CHAT)
        ]
        gate = route(shop, more=more)
        good, bad = LookRequest(id="g", image=BRIGHT), LookRequest(id="b", image=DARK)
        with grpc.insecure_channel(gate.target) as channel:
            watched = call(channel, WATCH)(good, timeout=5)
            assert [a.text for a in watched] == ["0", "1", "2"]
            assert dict(shop.metadata)["utility-gate-decision"] == "USEFUL"
            shop.seen.clear()
            with refused(Code.FAILED_PRECONDITION):
                list(call(channel, WATCH)(bad, timeout=5))
            assert shop.seen == []
            with refused(Code.FAILED_PRECONDITION) as caught:
                call(channel, UPLOAD)(iter([good, bad, good]), timeout=5)
            assert info_of(caught[0]).reason == "IMAGE_NOT_USEFUL"
            chat = call(channel, CHAT)(iter([good, good]), timeout=5)
            assert [a.text for a in chat] == ["g", "g"]
            assert dict(chat.trailing_metadata())["utility-gate-decision"] == "USEFUL,USEFUL"
            with refused(Code.FAILED_PRECONDITION):
                list(call(channel, CHAT)(iter([good, bad]), timeout=5))
        assert all(LookRequest.FromString(seen).id == "g" for seen in shop.seen)

    def test_a_large_request_passes_and_a_larger_one_does_not(
        self, route: Route, shop: Shop
    ) -> None:
        gate = route(shop, settings={"max_image_bytes": 8 * 2**20})
        padding = [0.5] * (2 * 2**20)  # 8 MiB
        options = [("grpc.max_send_message_length", -1)]
        with grpc.insecure_channel(gate.target, options=options) as channel:
            request = LookRequest(id="7", image=BRIGHT, scores=padding)
            assert call(channel)(request, timeout=10).text == "shop saw 7"
            with refused(Code.RESOURCE_EXHAUSTED):
                call(channel)(LookRequest(image=BRIGHT, scores=padding * 2), timeout=10)


class TestTrouble:
    def test_dead_at_the_start_is_unavailable_at_once(self, route: Route) -> None:
        gate = route(None, targets=[f"127.0.0.1:{free_port()}"], wait=False)
        with grpc.insecure_channel(gate.target) as channel:
            code_of(lambda: call(channel)(LookRequest(image=BRIGHT), timeout=5))
            for method, request in ((LOOK, LookRequest(image=BRIGHT)), (BROWSE, BrowseRequest())):
                started = time.monotonic()
                with refused(Code.UNAVAILABLE) as caught:
                    call(channel, method)(request, timeout=5)
                assert time.monotonic() - started < 0.5
                retry = error_details_pb2.RetryInfo()
                assert details_of(caught[0])[0].Unpack(retry)
                assert "127.0.0.1" not in caught[0].details(), "nothing of where it is"
        assert gate.metric("utility_gate_verdicts_total") == 0

    def test_a_silent_address_is_no_hang(self, route: Route) -> None:
        """It takes connections and never says a word: not even HTTP/2 begins."""
        import socket

        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen(1)
            target = f"127.0.0.1:{silent.getsockname()[1]}"
            gate = route(None, targets=[target], wait=False, upstream={"connect_seconds": 0.5})
            with grpc.insecure_channel(gate.target) as channel:
                started = time.monotonic()
                with refused(Code.UNAVAILABLE):
                    call(channel, BROWSE)(BrowseRequest(), timeout=20)
                assert time.monotonic() - started < 3

    def test_killed_under_load_it_is_unavailable_at_once_and_comes_back(self, route: Route) -> None:
        port = free_port()
        target = f"127.0.0.1:{port}"
        process = serve_apart(port)
        gate = route(None, targets=[target])
        outcomes: list[tuple[float, float, str]] = []
        stop = threading.Event()

        def load() -> None:
            with grpc.insecure_channel(
                gate.target, options=[("grpc.enable_retries", 0)]
            ) as channel:
                while not stop.is_set():
                    started = time.monotonic()
                    code = code_of(lambda: call(channel)(LookRequest(image=BRIGHT), timeout=10))
                    outcomes.append((started, time.monotonic() - started, code.name))
                    time.sleep(0.02)  # or the callers take all of the machine

        try:
            with ThreadPoolExecutor(4) as pool:
                for _ in range(4):
                    pool.submit(load)
                wait_for(lambda: len(outcomes) > 50)
                process.kill()
                process.wait()
                where = {"upstream": "shop", "address": target}
                wait_for(lambda: gate.metric("utility_gate_upstream_usable", **where) == 0)
                dead = time.monotonic()
                time.sleep(1.0)
                assert status_of(gate.target, SERVICE) == _NOT_SERVING
                assert status_of(gate.target, "") == _SERVING
                alive = time.monotonic()
                process = serve_apart(port)
                ready(gate)
                back = time.monotonic()
                wait_for(lambda: any(at > back and code == "OK" for at, _, code in outcomes))
                stop.set()
        finally:
            stop.set()
            process.kill()
            process.wait()
        meanwhile = [(took, code) for at, took, code in outcomes if dead < at < alive]
        assert len(meanwhile) > 20
        assert {code for _, code in meanwhile} == {"UNAVAILABLE"}
        # Callers and servers share few cores, perhaps with others; nine of ten must be in time.
        assert sorted(took for took, _ in meanwhile)[int(0.9 * len(meanwhile))] < 0.1
        assert back - alive < 8
        late = Counter(code for at, _, code in outcomes if at > back + 0.5)
        assert set(late) <= {"OK"}

    def test_failures_open_the_breaker_and_a_trial_closes_it(
        self, route: Route, shop: Shop
    ) -> None:
        breaker = {"consecutive": 3, "ejection": 0.5}
        gate = route(shop, upstream={"breaker": breaker})
        where = {"upstream": "shop", "address": shop.target}

        def state() -> float:
            return gate.metric("utility_gate_upstream_breaker_state", **where)

        with grpc.insecure_channel(gate.target, options=[("grpc.enable_retries", 0)]) as channel:
            look = call(channel)
            for _ in range(3):
                with refused(Code.UNAVAILABLE) as caught:
                    look(LookRequest(id="UNAVAILABLE", image=BRIGHT), timeout=5)
                assert caught[0].details() == "told to: UNAVAILABLE"
            assert state() == 2
            seen = len(shop.seen)
            started = time.monotonic()
            with refused(Code.UNAVAILABLE) as caught:
                look(LookRequest(image=BRIGHT), timeout=5)
            assert time.monotonic() - started < 0.1
            assert len(shop.seen) == seen, "nothing was sent"
            assert dict(caught[0].trailing_metadata())["grpc-retry-pushback-ms"]
            ready(gate, status=_NOT_SERVING)
            wait_for(lambda: state() == 1)
            ready(gate)  # or no balancer would ever send the trial
            with refused(Code.UNAVAILABLE):
                look(LookRequest(id="UNAVAILABLE", image=BRIGHT), timeout=5)
            assert state() == 2, "the trial failed"
            wait_for(lambda: state() == 1)
            assert look(LookRequest(id="7", image=BRIGHT), timeout=5).text == "shop saw 7"
            assert state() == 0
        assert gate.metric("utility_gate_upstream_ejections_total", **where) == 2

    def test_what_callers_provoke_does_not_open_it(self, route: Route, shop: Shop) -> None:
        gate = route(shop, upstream={"breaker": {"consecutive": 2}})
        with grpc.insecure_channel(gate.target) as channel:
            for code in ("INTERNAL", "UNKNOWN", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED") * 2:
                code_of(lambda: call(channel)(LookRequest(id=code, image=BRIGHT), timeout=5))  # noqa: B023
            for _ in range(4):
                made = LookRequest(id="sleep", image=BRIGHT)
                assert code_of(lambda: call(channel)(made, timeout=0.05)) is Code.DEADLINE_EXCEEDED  # noqa: B023
        where = {"upstream": "shop", "address": shop.target}
        assert gate.metric("utility_gate_upstream_breaker_state", **where) == 0

    def test_a_pipeline_that_hangs_is_ejected(self, route: Route, shop: Shop) -> None:
        gate = route(shop, timeout=0.2, upstream={"breaker": {"consecutive": 2, "ejection": 60}
                                                  | {"longest_ejection": 60}})  # fmt: skip
        with grpc.insecure_channel(gate.target) as channel:
            for _ in range(2):
                with refused(Code.DEADLINE_EXCEEDED):
                    call(channel)(LookRequest(id="sleep", image=BRIGHT), timeout=5)
            started = time.monotonic()
            with refused(Code.UNAVAILABLE):
                call(channel)(LookRequest(id="7", image=BRIGHT), timeout=5)
            assert time.monotonic() - started < 0.1

    def test_it_is_ejected_too_where_its_callers_have_the_shorter_deadlines(
        self, route: Route, shop: Shop
    ) -> None:
        """They cancel, by clocks of their own, shortly before the gate sees the deadline pass."""
        breaker = {"consecutive": 3, "ejection": 60, "longest_ejection": 60}
        gate = route(shop, timeout=0.5, upstream={"breaker": breaker})
        with grpc.insecure_channel(gate.target) as channel:
            for _ in range(3):
                with refused(Code.DEADLINE_EXCEEDED):
                    call(channel)(LookRequest(id="sleep", image=BRIGHT), timeout=0.4)
            where = {"upstream": "shop", "address": shop.target}
            ejected = "utility_gate_upstream_ejections_total"
            wait_for(lambda: gate.metric(ejected, **where) == 1)

    def test_quick_methods_do_not_shorten_the_patience_with_slow_ones(
        self, route: Route, shop: Shop
    ) -> None:
        gate = route(shop, timeout=20, upstream={"breaker": {"consecutive": 2}})
        with grpc.insecure_channel(gate.target) as channel:
            for _ in range(100):
                call(channel, BROWSE)(BrowseRequest(query="x"), timeout=5)
            for _ in range(4):
                with refused(Code.DEADLINE_EXCEEDED):
                    call(channel)(LookRequest(id="sleep", image=BRIGHT), timeout=0.2)
        where = {"upstream": "shop", "address": shop.target}
        assert gate.metric("utility_gate_upstream_breaker_state", **where) == 0

    def test_a_silent_stream_does_not_keep_a_recovered_pipeline_out(
        self, route: Route, shop: Shop
    ) -> None:
        gate = route(shop, upstream={"breaker": {"consecutive": 1, "ejection": 0.3}})
        state = "utility_gate_upstream_breaker_state"
        where = {"upstream": "shop", "address": shop.target}
        with grpc.insecure_channel(gate.target) as channel:
            with refused(Code.UNAVAILABLE):
                call(channel)(LookRequest(id="UNAVAILABLE", image=BRIGHT), timeout=5)
            wait_for(lambda: gate.metric(state, **where) == 1)
            over = threading.Event()

            def nothing() -> Iterator[Any]:
                over.wait(10)
                yield from ()

            uploading = call(channel, UPLOAD).future(nothing(), timeout=10)
            look = LookRequest(id="7", image=BRIGHT)
            wait_for(lambda: code_of(lambda: call(channel)(look, timeout=5)) is Code.OK, 5)
            assert gate.metric(state, **where) == 0
            assert not uploading.done()
            over.set()

    def test_one_bad_address_of_three_is_left_out(self, route: Route) -> None:
        class Broken(Shop):
            def look(self, request: bytes, context: Any) -> bytes:
                self.seen.append(request)
                context.abort(Code.UNAVAILABLE, "out of order")
                raise AssertionError

        with ExitStack() as stack:
            good = [stack.enter_context(Shop(name).serve()) for name in "ab"]
            bad = stack.enter_context(Broken().serve())
            gate = route(
                None,
                targets=[shop.target for shop in (bad, *good)],
                upstream={"breaker": {"consecutive": 2, "ejection": 30}},
            )
            for shop in (bad, *good):
                where = {"upstream": "shop", "address": shop.target}
                wait_for(lambda: gate.metric("utility_gate_upstream_usable", **where) == 1)  # noqa: B023
            codes: Counter[str] = Counter()
            options = [("grpc.enable_retries", 0)]
            with grpc.insecure_channel(gate.target, options=options) as channel:
                for _ in range(40):
                    request = LookRequest(image=BRIGHT)
                    codes[code_of(lambda: call(channel)(request, timeout=5)).name] += 1  # noqa: B023
            assert codes == {"OK": 38, "UNAVAILABLE": 2}
            assert len(bad.seen) == 2
            assert min(len(shop.seen) for shop in good) >= 15, "the others take turns"
            assert status_of(gate.target, SERVICE) == _SERVING

    def test_an_address_that_dies_costs_no_call_that_was_not_sent(self, route: Route) -> None:
        with ExitStack() as stack:
            one = stack.enter_context(Shop("one").serve())
            with Shop("two").serve() as two:
                gate = route(None, targets=[one.target, two.target])
                for shop in (one, two):
                    where = {"upstream": "shop", "address": shop.target}
                    wait_for(lambda: gate.metric("utility_gate_upstream_usable", **where) == 1)  # noqa: B023
                with grpc.insecure_channel(gate.target) as channel:
                    for _ in range(10):
                        call(channel)(LookRequest(image=BRIGHT), timeout=5)
                assert one.seen
                assert two.seen
            with grpc.insecure_channel(
                gate.target, options=[("grpc.enable_retries", 0)]
            ) as channel:
                for _ in range(30):
                    answer = call(channel)(LookRequest(id="7", image=BRIGHT), timeout=5)
                    assert answer.text == "one saw 7"

    def test_a_call_that_was_surely_not_sent_goes_to_another_address(
        self, route: Route, shop: Shop
    ) -> None:
        """As when an address dies between its choice and the call."""
        dead = f"127.0.0.1:{free_port()}"
        gate = route(None, targets=[dead, shop.target])
        gone, alive = gate.server._routes._upstreams["shop"].addresses
        wait_for(lambda: gone.connected is False)
        gone.connected, alive.in_flight = True, 1
        with grpc.insecure_channel(gate.target, options=[("grpc.enable_retries", 0)]) as channel:
            request = LookRequest(id="7", image=BRIGHT)
            assert call(channel)(request, timeout=5).text == "shop saw 7"
            assert gate.metric("utility_gate_upstream_retried_total", upstream="shop") == 1
            assert len(shop.seen) == 1
            alive.connected = False
            with refused(Code.UNAVAILABLE) as caught:
                call(channel)(request, timeout=5)
            assert dead not in caught[0].details()

    def test_calls_go_where_the_fewest_are(self, route: Route) -> None:
        with Shop("slow").serve() as slow, Shop("fast").serve() as fast:
            gate = route(None, targets=[slow.target, fast.target])
            for shop in (slow, fast):
                where = {"upstream": "shop", "address": shop.target}
                wait_for(lambda: gate.metric("utility_gate_upstream_usable", **where) == 1)  # noqa: B023
            with grpc.insecure_channel(gate.target) as channel:
                stuck = [
                    call(channel).future(LookRequest(id="sleep", image=BRIGHT), timeout=20)
                    for _ in range(2)
                ]
                wait_for(lambda: len(slow.seen) + len(fast.seen) == 2)
                assert len(slow.seen) == len(fast.seen) == 1
                fast.release.set()
                wait_for(lambda: any(one.done() for one in stuck))
                for _ in range(5):
                    call(channel)(LookRequest(id="7", image=BRIGHT), timeout=5)
                assert len(slow.seen) == 1
                slow.release.set()

    def test_too_many_at_once_are_turned_away_and_the_rest_answered(
        self, route: Route, shop: Shop
    ) -> None:
        gate = route(shop, upstream={"max_in_flight": 3})
        with grpc.insecure_channel(gate.target, options=[("grpc.enable_retries", 0)]) as channel:
            made = [
                call(channel).future(LookRequest(id="sleep", image=BRIGHT), timeout=20)
                for _ in range(8)
            ]
            wait_for(lambda: sum(one.done() for one in made) == 5)
            shop.release.set()
            codes = Counter(one.code().name for one in made)
            assert codes == {"OK": 3, "RESOURCE_EXHAUSTED": 5}
            refused_one = next(one for one in made if one.code() is not Code.OK)
            assert error_details_pb2.RetryInfo.DESCRIPTOR.full_name in str(
                details_of(refused_one)[0].type_url
            )
        assert gate.metric("utility_gate_upstream_shed_total", upstream="shop") == 5

    def test_health_is_the_pipeline_s_own(self, route: Route, shop: Shop) -> None:
        gate = route(shop)
        with grpc.insecure_channel(gate.target) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(
                health_pb2.HealthCheckRequest(service=SERVICE), timeout=20
            )
            assert next(watch).status == _SERVING
            shop.health.set("", _NOT_SERVING)
            assert next(watch).status == _NOT_SERVING
            with refused(Code.UNAVAILABLE):
                call(channel)(LookRequest(image=BRIGHT), timeout=5)
            assert status_of(gate.target, "") == _SERVING
            shop.health.set("", _SERVING)
            assert next(watch).status == _SERVING
            assert call(channel)(LookRequest(id="7", image=BRIGHT), timeout=5)
            watch.cancel()

    def test_a_pipeline_without_a_health_service_is_healthy(self, route: Route) -> None:
        with Shop().serve(with_health=False) as shop:
            gate = route(shop)
            with grpc.insecure_channel(gate.target) as channel:
                assert call(channel)(LookRequest(image=BRIGHT), timeout=5)

    def test_accepted_calls_finish_when_the_gate_ends(self, route: Route, shop: Shop) -> None:
        gate = route(shop)
        with grpc.insecure_channel(gate.target) as channel:
            made = call(channel).future(LookRequest(id="sleep", image=BRIGHT), timeout=20)
            assert shop.entered.wait(5)
            ending = threading.Thread(target=gate.stop)
            ending.start()
            wait_for(lambda: gate.server.current.closing.is_set())
            with grpc.insecure_channel(gate.target, options=[("grpc.enable_retries", 0)]) as other:
                assert code_of(lambda: call(other)(LookRequest(image=BRIGHT), timeout=5)) is (
                    Code.UNAVAILABLE
                )
                assert code_of(
                    lambda: call(other, BROWSE)(BrowseRequest(query="q"), timeout=5)
                ) is Code.UNAVAILABLE  # fmt: skip
            shop.release.set()
            assert made.result(10).text == "shop saw sleep"
            ending.join(15)
            assert not ending.is_alive()


class TestSecurity:
    def test_tls_to_the_pipeline_with_a_certificate_of_our_own(
        self, route: Route, tmp_path: Path
    ) -> None:
        authority = Authority()
        ca = authority.save(tmp_path)
        certificate, key = authority.issue("gate").save(tmp_path, "gate")
        served = authority.issue("pipeline")
        credentials = grpc.ssl_server_credentials(
            [(served.key_pem(), served.certificate_pem)],
            root_certificates=authority.own.certificate_pem,
            require_client_auth=True,
        )
        with Shop().serve(credentials=credentials) as shop:
            tls = {"ca": str(ca), "certificate": str(certificate), "key": str(key)}
            gate = route(shop, upstream=tls)
            with grpc.insecure_channel(gate.target) as channel:
                assert call(channel)(LookRequest(id="7", image=BRIGHT), timeout=5)
            stranger = route(shop, upstream={"ca": str(ca)}, wait=False)
            with grpc.insecure_channel(stranger.target) as channel, refused(Code.UNAVAILABLE):
                call(channel, BROWSE)(BrowseRequest(), timeout=5)
            wrong = route(shop, upstream=tls | {"authority": "other.example"}, wait=False)
            with grpc.insecure_channel(wrong.target) as channel, refused(Code.UNAVAILABLE):
                call(channel, BROWSE)(BrowseRequest(), timeout=5)
            named = route(shop, upstream=tls | {"authority": "localhost"})
            with grpc.insecure_channel(named.target) as channel:
                assert call(channel)(LookRequest(id="7", image=BRIGHT), timeout=5)

    def test_a_certificate_is_exchanged_without_a_restart(
        self, route: Route, tmp_path: Path
    ) -> None:
        authority, strangers = Authority(), Authority("strangers")
        ca = authority.save(tmp_path)
        certificate, key = strangers.issue("gate").save(tmp_path, "gate")
        served = authority.issue("pipeline")
        credentials = grpc.ssl_server_credentials(
            [(served.key_pem(), served.certificate_pem)],
            root_certificates=authority.own.certificate_pem,
            require_client_auth=True,
        )
        with Shop().serve(credentials=credentials) as shop:
            tls = {"ca": str(ca), "certificate": str(certificate), "key": str(key)}
            gate = route(shop, upstream=tls, wait=False)
            with grpc.insecure_channel(gate.target) as channel:
                with refused(Code.UNAVAILABLE):
                    call(channel, BROWSE)(BrowseRequest(), timeout=5)
                authority.issue("gate").save(tmp_path, "gate")
                ready(gate)
                assert call(channel)(LookRequest(id="7", image=BRIGHT), timeout=5)

    @pytest.mark.parametrize("forward", [False, True])
    def test_routes_ask_for_the_gate_s_key_and_keep_it(
        self, route: Route, shop: Shop, tmp_path: Path, forward: bool
    ) -> None:
        keys = tmp_path / "keys.toml"
        keys.write_text(f'[alice]\nsha256 = "{digest("secret")}"\nrate = 0.001\nburst = 2\n')
        gate = route(
            shop,
            settings={"api_keys": str(keys)},
            upstream={"forward_authorization": forward},
        )
        with grpc.insecure_channel(gate.target, options=[("grpc.enable_retries", 0)]) as channel:
            for method in (LOOK, BROWSE):
                with refused(Code.UNAUTHENTICATED):
                    call(channel, method)(LookRequest(), timeout=5)
            assert shop.seen == []
            bearer = (("authorization", "Bearer secret"),)
            for _ in range(2):
                call(channel)(LookRequest(image=BRIGHT), timeout=5, metadata=bearer)
            assert ("authorization" in dict(shop.metadata)) is forward
            with refused(Code.RESOURCE_EXHAUSTED):  # by image, as everywhere
                call(channel)(LookRequest(image=BRIGHT), timeout=5, metadata=bearer)
            assert len(shop.seen) == 2
            assert call(channel, BROWSE)(BrowseRequest(), timeout=5, metadata=bearer)

    def test_the_gate_s_own_services_are_not_touched(self, route: Route, shop: Shop) -> None:
        gate = route(shop)
        with GateClient(gate.target) as client:
            assert client.assess(BRIGHT).decision == "USEFUL"
        assert gate.metric("utility_gate_requests_total", method="Assess", code="OK") == 1


def serve_apart(port: int) -> subprocess.Popen[str]:
    """A shop in a process of its own, once it serves."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.shop", str(port)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == f"127.0.0.1:{port}"
    process.stdout.close()
    return process

"""Gates in front of pipelines: on the pipeline's server, and on its caller's channel."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.rpc import error_details_pb2, status_pb2

from server.settings import GateSettings
from tests.conftest import RunningGate, encode
from tests.gates import VERDICT, ScriptedGate, serving
from tests.pipelines import KINDS, AsyncPipeline, Pipeline, path, stub
from tests.shop import BrowseRequest, LookRequest
from utility_gate.client import AsyncGateClient, GateClient
from utility_gate.client.options import DEFAULT_TIMEOUT
from utility_gate.errors import (
    ConfigError,
    GateUnavailableError,
    NotAnImageError,
    NotUsefulError,
)
from utility_gate.interceptors import (
    AsyncRequireUseful,
    GateCalls,
    RequireUseful,
    async_gate_calls,
)
from utility_gate.interceptors.rules import Rules, notes
from utility_gate.types import Decision, Mode
from utility_gate.v1.gate_pb2 import AssessRequest

NOBODY = "127.0.0.1:1"
Start = Callable[..., AbstractContextManager[Pipeline]]


def plain(level: int) -> bytes:
    return encode(np.full((64, 64, 3), level, np.uint8), "PNG")


BRIGHT, MIDDLING, DARK = plain(220), plain(128), plain(10)


@contextmanager
def on_threads(target: str, on_failure: Any = "closed", **rules: Any) -> Iterator[Pipeline]:
    rules = {"image_field": "image"} | rules
    with (
        GateClient(target, on_failure=on_failure) as gate,
        Pipeline().serve(RequireUseful(gate, **rules)) as pipeline,
    ):
        yield pipeline


@contextmanager
def on_asyncio(target: str, on_failure: Any = "closed", **rules: Any) -> Iterator[Pipeline]:
    rules = {"image_field": "image"} | rules

    def make() -> AsyncRequireUseful:
        return AsyncRequireUseful(AsyncGateClient(target, on_failure=on_failure), **rules)

    with AsyncPipeline().serve(make) as pipeline:
        yield pipeline


@pytest.fixture(scope="module")
def gate(brightness_predictor: Path) -> Iterator[RunningGate]:
    predictors = {"general": str(brightness_predictor)}
    settings = GateSettings(port=0, web_port=0, drain_seconds=0, predictors=predictors)
    running = RunningGate(settings)
    yield running
    running.stop()


@pytest.fixture(params=[on_threads, on_asyncio])
def start(request: pytest.FixtureRequest) -> Start:
    return request.param  # type: ignore[no-any-return]


def ask(
    target: str, kind: str, *images: bytes, metadata: Any = None, name: str = "", timeout: float = 5
) -> tuple[list[Any], dict[str, Any]]:
    """Answers and trailers of a call with these images."""
    requests = [AssessRequest(image=image) for image in images]
    with grpc.insecure_channel(target) as channel:
        call = getattr(channel, kind)(
            path(name or kind),
            request_serializer=AssessRequest.SerializeToString,
            response_deserializer=lambda data: data,
        )
        sent = iter(requests) if kind.startswith("stream") else requests[0]
        if kind.endswith("unary"):
            answer, done = call.with_call(sent, timeout=timeout, metadata=metadata)
            return [answer], dict(done.trailing_metadata())
        done = call(sent, timeout=timeout, metadata=metadata)
        return list(done), dict(done.trailing_metadata())


def refused(*arguments: Any, **options: Any) -> Any:
    """The error that such a call ends with."""
    with pytest.raises(grpc.RpcError) as caught:
        ask(*arguments, **options)
    return caught.value


def detail(error: Any, kind: Any) -> Any:
    """The detail of this kind."""
    packed = dict(error.trailing_metadata())["grpc-status-details-bin"]
    for one in status_pb2.Status.FromString(packed).details:
        found = kind()
        if one.Unpack(found):
            return found
    raise AssertionError(f"no {kind.__name__}")


class TestServer:
    @pytest.mark.parametrize("kind", KINDS)
    def test_only_useful_images_reach_the_handler(
        self, gate: RunningGate, start: Start, kind: str
    ) -> None:
        with start(gate.target) as pipeline:
            answers, trailers = ask(pipeline.target, kind, BRIGHT)
            assert len(answers) == (2 if kind == "unary_stream" else 1)
            assert pipeline.seen == [BRIGHT]
            assert trailers["utility-gate-decision"] == "USEFUL"
            assert trailers["of-the-handler"] == "kept"
            error = refused(pipeline.target, kind, DARK)
            assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert pipeline.seen == [BRIGHT]

    @pytest.mark.parametrize("kind", ["stream_unary", "stream_stream"])
    def test_the_first_refused_image_ends_a_stream(
        self, gate: RunningGate, start: Start, kind: str
    ) -> None:
        with start(gate.target) as pipeline:
            error = refused(pipeline.target, kind, BRIGHT, BRIGHT, b"junk", BRIGHT)
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert pipeline.seen == [BRIGHT, BRIGHT]
            _, trailers = ask(pipeline.target, kind, BRIGHT, MIDDLING)
            assert trailers["utility-gate-decision"] == "REVIEW"  # the last one that differs

    def test_the_caller_is_told_what_is_wrong(self, gate: RunningGate, start: Start) -> None:
        with start(gate.target) as pipeline:
            error = refused(pipeline.target, "unary_unary", DARK)
        assert "NON_USEFUL: the predicted utility" in error.details()
        (violation,) = detail(error, error_details_pb2.PreconditionFailure).violations
        assert (violation.type, violation.subject) == ("UTILITY", "image")
        assert "the predicted utility is" in violation.description
        known = detail(error, error_details_pb2.ErrorInfo)
        assert (known.reason, known.domain) == ("IMAGE_NOT_USEFUL", "utility-gate")
        assert float(known.metadata["utility"]) < 0.1
        assert known.metadata["decision"] == "NON_USEFUL"
        assert known.metadata["task"] == "general"
        assert known.metadata["predictor_version"] == "7"
        assert "TOO_DARK=10," in known.metadata["reasons"]
        assert "BRIGHTER=25," in known.metadata["advice"]
        assert "send a brighter photograph" in error.details()

    def test_images_for_review_pass_and_are_marked(self, gate: RunningGate, start: Start) -> None:
        with start(gate.target) as pipeline:
            claimed = [("utility-gate-decision", "USEFUL"), ("other", "1")]
            _, trailers = ask(pipeline.target, "unary_unary", MIDDLING, metadata=claimed)
            assert trailers["utility-gate-decision"] == "REVIEW"
            seen = [pair for pair in pipeline.metadata if pair[0] in dict(claimed)]
            assert sorted(map(tuple, seen)) == [("other", "1"), ("utility-gate-decision", "REVIEW")]

    def test_or_are_stopped(self, gate: RunningGate, start: Start) -> None:
        with start(gate.target, review="stop") as pipeline:
            error = refused(pipeline.target, "unary_unary", MIDDLING)
            assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert "judged REVIEW" in error.details()

    def test_bytes_that_are_no_image_are_invalid(self, gate: RunningGate, start: Start) -> None:
        with start(gate.target) as pipeline:
            error = refused(pipeline.target, "unary_unary", b"junk")
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        (violation,) = detail(error, error_details_pb2.BadRequest).field_violations
        assert (violation.field, violation.reason) == ("image", "NOT_AN_IMAGE")

    def test_a_gate_in_trouble_is_unavailable_or_passed_over(self, start: Start) -> None:
        with start(NOBODY) as pipeline:
            error = refused(pipeline.target, "unary_unary", BRIGHT)
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert detail(error, error_details_pb2.RetryInfo).retry_delay.ToMilliseconds() == 500
            assert dict(error.trailing_metadata())["grpc-retry-pushback-ms"] == "500"
            assert NOBODY not in error.details()
            assert pipeline.seen == []
        with start(NOBODY, on_failure="open") as pipeline:
            _, trailers = ask(pipeline.target, "unary_unary", BRIGHT)
            assert trailers["utility-gate-mode"] == "FALLBACK"
            assert pipeline.seen == [BRIGHT]

    def test_denied_credentials_are_an_internal_matter(self, start: Start) -> None:
        with (
            serving(ScriptedGate([grpc.StatusCode.UNAUTHENTICATED])) as gate,
            start(gate.target, on_failure="open") as pipeline,
        ):
            error = refused(pipeline.target, "unary_unary", BRIGHT)
        assert error.code() is grpc.StatusCode.INTERNAL
        assert "credentials" not in error.details()

    def test_methods_limit_it(self, gate: RunningGate, start: Start) -> None:
        with start(gate.target, methods=[path("unary_stream")]) as pipeline:
            ask(pipeline.target, "unary_unary", DARK)
            assert refused(pipeline.target, "unary_stream", DARK)
            assert pipeline.seen == [DARK]

    def test_a_misspelt_field_is_an_error_where_methods_are_named(
        self, gate: RunningGate, start: Start, caplog: pytest.LogCaptureFixture
    ) -> None:
        with start(gate.target, image_field="photo") as pipeline:
            ask(pipeline.target, "unary_unary", DARK)
        with start(gate.target, image_field="photo", methods=[path("unary_unary")]) as pipeline:
            error = refused(pipeline.target, "unary_unary", DARK)
            assert pipeline.seen == []
        assert error.code() is grpc.StatusCode.INTERNAL
        assert "expected a field photo in /pipeline.v1.Pipeline/unary_unary" in caplog.text

    def test_a_function_finds_the_image(self, gate: RunningGate, start: Start) -> None:
        find = lambda request: request.image or None  # noqa: E731
        with start(gate.target, image_field=find) as pipeline:
            ask(pipeline.target, "unary_unary", b"")
            assert refused(pipeline.target, "unary_unary", DARK)
            assert pipeline.seen == [b""]

    @pytest.mark.parametrize("on_failure", ["closed", "open"])
    def test_the_call_s_deadline_bounds_the_gate(self, start: Start, on_failure: str) -> None:
        """And a short one gets nothing past a gate that fails open."""
        with (
            serving(ScriptedGate(seconds=0.4)) as gate,
            start(gate.target, on_failure=on_failure) as pipeline,
        ):
            error = refused(pipeline.target, "unary_unary", BRIGHT, timeout=0.3)
            assert error.code() in (
                grpc.StatusCode.DEADLINE_EXCEEDED,
                grpc.StatusCode.UNAVAILABLE,
            )
            assert 0 < gate.remaining[0] < 0.35
            time.sleep(0.2)
            assert pipeline.seen == []

    @pytest.mark.parametrize("timeout", [1.0, 30.0])
    def test_a_gate_that_finds_it_too_short_lets_nothing_past(
        self, start: Start, timeout: float
    ) -> None:
        """A busy gate says so at once, while the call has time left for its handler."""
        late = ScriptedGate([grpc.StatusCode.DEADLINE_EXCEEDED])
        with serving(late) as gate, start(gate.target, on_failure="open") as pipeline:
            if timeout > DEFAULT_TIMEOUT:  # the gate had its own time: that is its trouble
                ask(pipeline.target, "unary_unary", BRIGHT, timeout=timeout)
                assert pipeline.seen == [BRIGHT]
            else:
                error = refused(pipeline.target, "unary_unary", BRIGHT, timeout=timeout)
                assert error.code() is grpc.StatusCode.UNAVAILABLE
                assert pipeline.seen == []

    def test_images_in_several_messages_are_refused_not_passed(self) -> None:
        rules = Rules("photos.data")
        with pytest.raises(ConfigError, match=r"a message before data of photos\.data"):
            rules.image("/shop.v1.ShopService/Look", LookRequest(photos=[{"data": DARK}]))
        assert rules.image("/shop.v1.ShopService/Browse", BrowseRequest(query="x")) is None

    def test_asyncio_s_read_and_write_are_gated_too(self, gate: RunningGate) -> None:
        with on_asyncio(gate.target) as pipeline:
            answers, _ = ask(pipeline.target, "stream_stream", BRIGHT, name="read_write")
            assert len(answers) == 1
            assert refused(pipeline.target, "stream_stream", DARK, name="read_write")
            assert pipeline.seen == [BRIGHT]

    def test_a_threaded_handler_on_asyncio_is_refused_not_ungated(self, gate: RunningGate) -> None:
        with on_asyncio(gate.target) as pipeline:
            error = refused(pipeline.target, "unary_unary", BRIGHT, name="threaded")
            assert error.code() is grpc.StatusCode.INTERNAL
            assert pipeline.seen == []

    def test_an_unknown_method_stays_unknown(self, gate: RunningGate, start: Start) -> None:
        with start(gate.target) as pipeline:
            error = refused(pipeline.target, "unary_unary", BRIGHT, name="nothing")
            assert error.code() is grpc.StatusCode.UNIMPLEMENTED


class TestCaller:
    """Calls raise our errors, and what is stopped never reaches the pipeline."""

    @pytest.mark.parametrize("kind", KINDS)
    def test_threads(self, gate: RunningGate, kind: str) -> None:
        with (
            GateClient(gate.target) as client,
            Pipeline().serve() as pipeline,
            grpc.insecure_channel(pipeline.target) as ungated,
        ):
            channel = grpc.intercept_channel(ungated, GateCalls(client, image_field="image"))

            def call(*images: bytes) -> Any:
                requests = [AssessRequest(image=image) for image in images]
                sent = iter(requests) if kind.startswith("stream") else requests[0]
                answer = stub(channel, kind)(sent, timeout=5)
                return answer if kind.endswith("unary") else list(answer)

            assert call(BRIGHT)
            assert call(MIDDLING)
            if kind.startswith("unary"):
                assert ("utility-gate-decision", "REVIEW") in map(tuple, pipeline.metadata)
            with pytest.raises(NotUsefulError, match="NON_USEFUL") as caught:
                call(DARK)
            assert caught.value.verdict.decision is Decision.NON_USEFUL
            with pytest.raises(NotAnImageError):
                call(b"junk")
            assert pipeline.seen == [BRIGHT, MIDDLING]

    @pytest.mark.parametrize("kind", KINDS)
    async def test_asyncio(self, gate: RunningGate, kind: str) -> None:
        async def each(requests: list[AssessRequest]) -> AsyncIterator[AssessRequest]:
            for request in requests:
                yield request

        async with AsyncGateClient(gate.target) as client:
            with Pipeline().serve() as pipeline:
                gated = async_gate_calls(client, image_field="image")
                async with grpc.aio.insecure_channel(
                    pipeline.target, interceptors=gated
                ) as channel:

                    async def call(*images: bytes) -> Any:
                        requests = [AssessRequest(image=image) for image in images]
                        sent = each(requests) if kind.startswith("stream") else requests[0]
                        answer = stub(channel, kind)(sent, timeout=5)
                        if kind.endswith("unary"):
                            return await answer
                        return [one async for one in answer]

                    assert await call(BRIGHT)
                    assert await call(MIDDLING)
                    if kind.startswith("unary"):
                        assert ("utility-gate-decision", "REVIEW") in map(tuple, pipeline.metadata)
                    with pytest.raises(NotUsefulError, match="NON_USEFUL"):
                        await call(DARK)
                    with pytest.raises(NotAnImageError):
                        await call(b"junk")
                    assert pipeline.seen == [BRIGHT, MIDDLING]

    async def test_asyncio_s_writes_are_judged(self, gate: RunningGate) -> None:
        async with AsyncGateClient(gate.target) as client:
            with Pipeline().serve() as pipeline:
                gated = async_gate_calls(client, image_field="image")
                async with grpc.aio.insecure_channel(
                    pipeline.target, interceptors=gated
                ) as channel:
                    call = stub(channel, "stream_unary")(timeout=5)
                    await call.write(AssessRequest(image=BRIGHT))
                    await call.write(AssessRequest(image=DARK))
                    with pytest.raises(NotUsefulError):
                        await call
                assert pipeline.seen == [BRIGHT]

    def test_futures_raise_it_too(self, gate: RunningGate) -> None:
        with GateClient(gate.target) as client, Pipeline().serve() as pipeline:
            with grpc.insecure_channel(pipeline.target) as plain_channel:
                gated = GateCalls(client, image_field="image")
                channel = grpc.intercept_channel(plain_channel, gated)
                for kind in ("unary_unary", "stream_unary"):
                    request = AssessRequest(image=DARK)
                    sent = iter([request]) if kind == "stream_unary" else request
                    future = stub(channel, kind).future(sent, timeout=5)
                    with pytest.raises(NotUsefulError):
                        future.result(5)
                    assert isinstance(future.exception(5), NotUsefulError)
            assert pipeline.seen == []

    def test_methods_trouble_and_the_timeout(self) -> None:
        with Pipeline().serve() as pipeline, grpc.insecure_channel(pipeline.target) as channel:
            request = AssessRequest(image=BRIGHT)
            with GateClient(NOBODY) as absent:
                gated = GateCalls(absent, image_field="image", methods=[path("unary_unary")])
                through = grpc.intercept_channel(channel, gated)
                with pytest.raises(GateUnavailableError):
                    stub(through, "unary_unary")(request, timeout=5)
                assert len(list(stub(through, "unary_stream")(request, timeout=5))) == 2
            with GateClient(NOBODY, on_failure="open") as absent:
                gated = GateCalls(absent, image_field="image")
                through = grpc.intercept_channel(channel, gated)
                stub(through, "unary_unary")(request, timeout=5)
                assert ("utility-gate-mode", "FALLBACK") in map(tuple, pipeline.metadata)
            with serving(ScriptedGate(seconds=0.2)) as gate, GateClient(gate.target) as client:
                through = grpc.intercept_channel(channel, GateCalls(client, image_field="image"))
                started = time.monotonic()
                stub(through, "unary_unary")(request, timeout=1)
                assert gate.remaining[0] < 1.05
                assert time.monotonic() - started < 1


class TestRules:
    @pytest.mark.parametrize(
        ("options", "told"),
        [
            ({"image_field": ""}, "image_field such as"),
            ({"image_field": "a..b"}, "image_field such as"),
            ({"image_field": "a", "review": "maybe"}, '"pass" or "stop"'),
            ({"image_field": "a", "methods": "/a.B/C"}, "methods such as"),
            ({"image_field": "a", "methods": ["Assess"]}, "methods such as"),
        ],
    )
    def test_options_that_cannot_be_meant_are_refused(
        self, options: dict[str, Any], told: str
    ) -> None:
        with pytest.raises(ConfigError, match=told):
            Rules(**options)

    def test_a_path_leads_through_messages_and_stops_where_nothing_is_set(self) -> None:
        upload = upload_message()
        rules = Rules("photo.data", ["/a.B/C"])
        assert rules.image("/a.B/C", upload()) is None
        assert rules.image("/a.B/C", upload(photo={"data": b"x"})) == b"x"
        assert rules.image("/a.B/C", upload(photo={})) == b""  # set, and empty: not an image
        assert Rules("raw").image("/a.B/C", upload()) is None
        assert Rules("raw").image("/a.B/C", upload(raw=b"")) == b""

    def test_other_requests_have_fields_too(self) -> None:
        request = SimpleNamespace(photo=SimpleNamespace(data=memoryview(b"x")), size=3)
        assert Rules("photo.data").image("/a.B/C", request) == b"x"
        with pytest.raises(ConfigError, match=r"expected bytes in size of /a\.B/C, got int"):
            Rules("size").image("/a.B/C", request)

    def test_a_shadow_s_judgement_is_noted(self) -> None:
        shadow = dataclasses.replace(VERDICT, utility=0.1, mode=Mode.SHADOW)
        assert notes(shadow) == (
            ("utility-gate-decision", "USEFUL"),
            ("utility-gate-mode", "SHADOW"),
            ("utility-gate-judgement", "NON_USEFUL"),
        )


def upload_message() -> Any:
    """message Upload { Photo photo = 1; optional bytes raw = 2; }, Photo { bytes data = 1; }"""
    file = descriptor_pb2.FileDescriptorProto(name="upload.proto", package="t", syntax="proto3")
    upload = file.message_type.add(name="Upload")
    upload.nested_type.add(name="Photo").field.add(name="data", number=1, type=12, label=1)
    upload.field.add(name="photo", number=1, type=11, label=1, type_name=".t.Upload.Photo")
    upload.oneof_decl.add(name="_raw")
    upload.field.add(name="raw", number=2, type=12, label=1, proto3_optional=True, oneof_index=0)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Upload"))

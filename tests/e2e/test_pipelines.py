"""Both pipelines as services: real processes, real servers, real calls."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from PIL import Image

from pipelines.car_model.app import CarModelServer, CarModelSettings
from pipelines.damage.app import DamageServer, DamageSettings
from pipelines.serving import PipelineServer
from pipelines.v1 import car_model_pb2 as car_pb
from pipelines.v1 import car_model_pb2_grpc as car_grpc
from pipelines.v1 import common_pb2
from pipelines.v1 import damage_pb2 as damage_pb
from pipelines.v1 import damage_pb2_grpc as damage_grpc
from serving.keys import digest
from serving.settings import load_settings
from tests.certificates import Authority
from tests.checkpoints import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RED,
    plain,
    save_car_model,
    save_damage,
    with_block,
)
from tests.conftest import RunningService, encode
from tests.processes import GateProcess, service_process
from utility_gate.errors import CheckpointError, ConfigError

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@dataclass(frozen=True)
class Case:
    """One of the two services, and how it is asked about an image."""

    name: str
    service: str
    server: type[PipelineServer[Any]]
    settings: Any
    save: Callable[[Path], Path]
    stub: Callable[[grpc.Channel], Any]
    method: str
    request: Any
    info_request: Any
    work: str

    @property
    def prefix(self) -> str:
        return f"{self.name}_pipeline"

    def ask(self, target: str, image: bytes, timeout: float = 10, **fields: Any) -> Any:
        with grpc.insecure_channel(target, options=[("grpc.enable_retries", 0)]) as channel:
            return self.call(channel)(self.request(image=image, **fields), timeout=timeout)

    def call(self, channel: grpc.Channel) -> Any:
        return getattr(self.stub(channel), self.method)

    def info(self, target: str) -> Any:
        with grpc.insecure_channel(target) as channel:
            return self.stub(channel).GetInfo(self.info_request(), timeout=10)


CASES = {
    "damage": Case(
        "damage", "pipelines.v1.DamageService", DamageServer, DamageSettings, save_damage,
        damage_grpc.DamageServiceStub, "Assess", damage_pb.AssessRequest,
        damage_pb.DamageServiceGetInfoRequest, "assess",
    ),
    "car_model": Case(
        "car_model", "pipelines.v1.CarModelService", CarModelServer, CarModelSettings,
        partial(save_car_model, finds=True), car_grpc.CarModelServiceStub, "Identify",
        car_pb.IdentifyRequest, car_pb.CarModelServiceGetInfoRequest, "identify",
    ),
}  # fmt: skip


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: each.save(tmp_path_factory.mktemp(name)) for name, each in CASES.items()}


@pytest.fixture(scope="module")
def processes(folders: dict[str, Path]) -> Iterator[dict[str, GateProcess]]:
    damage, car = (
        service_process("pipeline", "serve", name, prefix=f"{name.upper()}_PIPELINE_",
                        model=folders[name], workers=1,
                        max_image_bytes=3_000_000, max_image_pixels=1_000_000)
        for name in CASES
    )  # fmt: skip
    with damage as one, car as other:
        yield {"damage": one, "car_model": other}


@pytest.fixture
def start(folders: dict[str, Path]) -> Iterator[Callable[..., RunningService]]:
    """Starts services in this process on free loopback ports; stops them all."""
    running: list[RunningService] = []

    def start(case: Case, **changes: Any) -> RunningService:
        values = {
            "port": 0, "web_port": 0, "workers": 1, "drain_seconds": 0,
            "model": str(folders[case.name]),
        }  # fmt: skip
        running.append(RunningService(case.server(case.settings(**(values | changes)))))
        return running[-1]

    yield start
    for service in running:
        service.stop()


def png(pixels: np.ndarray) -> bytes:
    return encode(pixels, "PNG")


def page(process: GateProcess) -> str:
    return urllib.request.urlopen(process.metrics, timeout=5).read().decode()


def details(error: Any) -> Any:
    """The one google.rpc detail of a failed call."""
    trailers = dict(error.trailing_metadata())
    (packed,) = status_pb2.Status.FromString(trailers["grpc-status-details-bin"]).details
    for kind in (
        error_details_pb2.BadRequest, error_details_pb2.RetryInfo, error_details_pb2.ErrorInfo
    ):  # fmt: skip
        found = kind()
        if packed.Unpack(found):
            return found
    raise AssertionError(packed.type_url)


class TestProcesses:
    def test_a_damaged_car(self, processes: dict[str, GateProcess]) -> None:
        case, target = CASES["damage"], processes["damage"].target
        answer = case.ask(target, png(with_block(RED)))
        assert answer.outcome == damage_pb.OUTCOME_DAMAGED
        (region,) = answer.regions
        box = region.box
        assert (box.left, box.top, box.right, box.bottom) == pytest.approx((64, 64, 128, 128))
        assert (region.crop.left, region.crop.bottom) == (48, 144)
        assert region.detector_class == "scratch"
        assert 0.9 < region.score < 1
        assert [head.head for head in region.heads] == ["type", "severity", "location"]
        best = region.heads[0].classes[0]
        assert best.name == "door_scratch"
        assert best.probability == pytest.approx(0.80, abs=0.01)
        assert [head.multi_label for head in region.heads] == [False, False, True]
        assert answer.whole[0].classes[0].name == "none"
        assert answer.text.startswith("1 damaged region")
        assert answer.image.format == common_pb2.IMAGE_FORMAT_PNG
        assert (answer.image.width, answer.image.height) == (256, 256)
        assert (answer.detector.name, answer.detector.version) == ("cells", "2")
        assert (answer.classifier.name, answer.classifier.version) == ("colours", "1")
        assert len(answer.detector.digest) == len(answer.classifier.digest) == 64
        assert not region.heads[0].overlay_png

    @pytest.mark.parametrize(
        ("colour", "outcome"), [(GREY, "OUTCOME_NO_REGION"), (BLUE, "OUTCOME_NO_CAR")]
    )
    def test_no_damage_and_no_car(
        self, processes: dict[str, GateProcess], colour: Any, outcome: str
    ) -> None:
        answer = CASES["damage"].ask(processes["damage"].target, png(plain(colour)))
        assert damage_pb.Outcome.Name(answer.outcome) == outcome
        assert not answer.regions
        assert len(answer.whole) == 3

    @pytest.mark.parametrize(
        ("colour", "level", "text"),
        [
            (GREEN, "LEVEL_MODEL", "BMW M3 Coupe 2012"),
            (ORANGE, "LEVEL_MAKE", "Audi, model unsure"),
            (GREY, "LEVEL_UNSURE", "a car, make and model unsure"),
            (BLUE, "LEVEL_NO_CAR", "no car"),
        ],
    )
    def test_cars(
        self, processes: dict[str, GateProcess], colour: Any, level: str, text: str
    ) -> None:
        answer = CASES["car_model"].ask(processes["car_model"].target, png(plain(colour)))
        assert (car_pb.Level.Name(answer.level), answer.text) == (level, text)
        assert len(answer.candidates) == 3
        total = sum(car.probability for car in answer.candidates) + answer.no_car_probability
        assert total == pytest.approx(1)
        if colour == ORANGE:
            assert answer.make == "Audi"
            assert answer.make_probability == pytest.approx(0.99, abs=0.01)
        if colour == GREEN:
            best = answer.candidates[0]
            assert (best.make, best.model, best.year) == ("BMW", "M3 Coupe", 2012)
        assert not answer.overlay_png

    def test_where_the_car_is(self, processes: dict[str, GateProcess]) -> None:
        case, target = CASES["car_model"], processes["car_model"].target
        answer = case.ask(target, png(with_block(RED)))
        assert answer.cars == 1
        box, crop = answer.car.box, answer.car.crop
        assert (box.left, box.top, box.right, box.bottom) == pytest.approx((64, 64, 128, 128))
        assert (crop.left, crop.top, crop.right, crop.bottom) == (48, 48, 144, 144)
        assert answer.car.score == pytest.approx(0.93, abs=0.01)
        none = case.ask(target, png(plain(GREY)))
        assert (none.HasField("car"), none.cars) == (False, 0)
        assert none.detector.name == answer.detector.name == "cells"

    def test_as_many_candidates_as_one_likes(self, processes: dict[str, GateProcess]) -> None:
        case, target = CASES["car_model"], processes["car_model"].target
        for asked, given in ((0, 3), (1, 1), (2, 2), (4_000_000_000, 3)):
            assert len(case.ask(target, png(plain(GREEN)), top_k=asked).candidates) == given

    @pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
    def test_formats(self, case: Case, processes: dict[str, GateProcess], format: str) -> None:
        answer = case.ask(processes[case.name].target, encode(plain(GREY, 300, 200), format))
        assert common_pb2.ImageFormat.Name(answer.image.format) == f"IMAGE_FORMAT_{format}"
        assert (answer.image.width, answer.image.height) == (300, 200)

    def test_maps_come_if_they_are_asked_for(
        self, case: Case, processes: dict[str, GateProcess]
    ) -> None:
        data = png(with_block(RED, (150, 150, 300, 300), 600, 300))
        answer = case.ask(processes[case.name].target, data, with_maps=True)
        if case.name == "car_model":
            overlays = [answer.overlay_png]
        else:
            heads = [*answer.whole, *(head for region in answer.regions for head in region.heads)]
            overlays = [head.overlay_png for head in heads]
            assert len(overlays) == 3 * (1 + len(answer.regions)) > 3
        pictures = [Image.open(io.BytesIO(overlay)) for overlay in overlays]
        assert {picture.format for picture in pictures} == {"PNG"}
        # Of the whole photograph, smaller where there are many; or of the car that was cut out.
        assert pictures[0].size == ((404, 202) if case.name == "damage" else (224, 220))
        assert max(side for picture in pictures for side in picture.size) <= 512

    @pytest.mark.parametrize(
        ("data", "reason", "text"),
        [
            (b"", "NOT_AN_IMAGE", "0 bytes"),
            (b"%PDF-1.7 no image", "NOT_AN_IMAGE", "JPEG, PNG or WebP"),
            (encode(plain(GREY), quality=90)[:500], "CORRUPT_IMAGE", "truncated"),
            (encode(plain(GREY, 1, 1), "PNG"), "IMAGE_TOO_SMALL", "got 1 x 1"),
            (encode(plain(GREY, 1001, 1000), "PNG"), "IMAGE_TOO_LARGE", "1000000 pixels"),
            (encode(plain(GREY)) + bytes(3_000_000), "IMAGE_TOO_LARGE", "3000000 bytes"),
        ],
        ids=["empty", "pdf", "corrupt", "tiny", "many pixels", "many bytes"],
    )
    def test_what_is_no_photograph_is_the_caller_s_error(
        self, case: Case, processes: dict[str, GateProcess], data: bytes, reason: str, text: str
    ) -> None:
        with pytest.raises(grpc.RpcError) as caught:
            case.ask(processes[case.name].target, data)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        (violation,) = details(caught.value).field_violations
        assert (violation.field, violation.reason) == ("image", reason)
        assert text in violation.description

    def test_a_message_of_another_contract(
        self, case: Case, processes: dict[str, GateProcess]
    ) -> None:
        with grpc.insecure_channel(processes[case.name].target) as channel:
            call = channel.unary_unary(f"/{case.service}/{case.method}")
            with pytest.raises(grpc.RpcError) as caught:
                call(b"\xff\xff\xff", timeout=5)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    def test_info(self, processes: dict[str, GateProcess]) -> None:
        damage = CASES["damage"].info(processes["damage"].target)
        assert damage.detector_classes == ["scratch", "dent"]
        assert [(head.head, head.multi_label) for head in damage.heads] == [
            ("type", False), ("severity", False), ("location", True)
        ]  # fmt: skip
        assert damage.heads[1].classes == ["minor", "severe"]
        cars = CASES["car_model"].info(processes["car_model"].target)
        assert list(cars.makes) == ["Audi", "BMW"]
        assert len(cars.models) == 3
        assert (cars.model_from, cars.make_from) == (0.6, 0.7)
        for info in (damage, cars):
            assert info.server_version
            assert info.detector.name == "cells"
            assert info.classifier.name == "colours"
            assert info.limits.max_image_bytes == 3_000_000
            assert info.limits.max_image_pixels == 1_000_000
            assert info.limits.min_image_side == 32
            assert len(info.limits.formats) == 3

    def test_health_and_reflection(self, case: Case, processes: dict[str, GateProcess]) -> None:
        with grpc.insecure_channel(processes[case.name].target) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            for name in ("", case.service):
                request = health_pb2.HealthCheckRequest(service=name)
                assert health.Check(request, timeout=5).status == SERVING
            reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
            asked = [
                reflection_pb2.ServerReflectionRequest(list_services=""),
                reflection_pb2.ServerReflectionRequest(file_containing_symbol=case.service),
            ]
            listed, described = reflection.ServerReflectionInfo(iter(asked), timeout=5)
        assert case.service in {one.name for one in listed.list_services_response.service}
        assert described.file_descriptor_response.file_descriptor_proto

    def test_metrics_tell_what_was_asked_and_answered(
        self, case: Case, processes: dict[str, GateProcess]
    ) -> None:
        process = processes[case.name]
        answer = {"damage": "NO_CAR", "car_model": "NO_CAR"}[case.name]
        line = f'{case.prefix}_answers_total{{answer="{answer}"}} '

        def counted() -> float:
            rows = [row for row in page(process).splitlines() if row.startswith(line)]
            return float(rows[0].rsplit(" ", 1)[1]) if rows else 0.0

        before = counted()
        case.ask(process.target, png(plain(BLUE)))
        assert counted() == before + 1
        with pytest.raises(grpc.RpcError):
            case.ask(process.target, b"junk")
        text = page(process)
        for sample in (
            f'requests_total{{code="OK",method="{case.method}"}}',
            f'requests_total{{code="INVALID_ARGUMENT",method="{case.method}"}}',
            'rejected_inputs_total{error="NotAnImageError"}',
            "decode_duration_seconds_count",
            "infer_duration_seconds_count",
            "ready 1.0",
            "images_in_flight 0.0",
        ):
            assert f"\n{case.prefix}_{sample}" in text
        for role in ("detector", "classifier"):
            assert f'role="{role}"' in text
        web = process.metrics.removesuffix("/metrics")
        for path in ("healthz", "readyz"):
            assert urllib.request.urlopen(f"{web}/{path}", timeout=5).status == 200

    def test_no_torch_is_loaded_to_serve(self, processes: dict[str, GateProcess]) -> None:
        for process in processes.values():
            maps = Path(f"/proc/{process.process.pid}/maps").read_text()
            assert "onnxruntime" in maps
            assert "torch" not in maps


class TestLoad:
    def slow(
        self, service: RunningService, case: Case, monkeypatch: pytest.MonkeyPatch
    ) -> tuple[threading.Event, threading.Event]:
        """Answers wait for the second event; the first tells that one is being made."""
        entered, release = threading.Event(), threading.Event()
        pipeline = service.server.current.value
        work = getattr(pipeline, case.work)

        def wait(*arguments: Any, **options: Any) -> Any:
            entered.set()
            assert release.wait(20)
            return work(*arguments, **options)

        monkeypatch.setattr(pipeline, case.work, wait)
        return entered, release

    def test_overload_is_shed_at_once(
        self, case: Case, start: Callable[..., RunningService], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        service = start(case, max_waiting=0)
        entered, release = self.slow(service, case, monkeypatch)
        with grpc.insecure_channel(service.target) as channel:
            first = case.call(channel).future(case.request(image=png(plain(GREY))), timeout=30)
            assert entered.wait(10)
            started = time.perf_counter()
            with pytest.raises(grpc.RpcError) as caught:
                case.ask(service.target, png(plain(GREY)))
            assert time.perf_counter() - started < 2
            release.set()
            assert first.result(10).image.width == 256
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert details(caught.value).retry_delay.ToMilliseconds() > 0
        assert service.metric(f"{case.prefix}_shed_total") == 1

    def test_deadlines(
        self, case: Case, start: Callable[..., RunningService], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        service = start(case)
        entered, release = self.slow(service, case, monkeypatch)
        with pytest.raises(grpc.RpcError) as caught:
            case.ask(service.target, png(plain(GREY)), timeout=0.3)
        assert entered.is_set()
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        release.set()
        assert case.ask(service.target, png(plain(GREY))).image.width == 256
        name, end = f"{case.prefix}_requests_total", time.monotonic() + 5
        counted = {"method": case.method, "code": "DEADLINE_EXCEEDED"}
        while service.metric(name, **counted) != 1:
            assert time.monotonic() < end
            time.sleep(0.01)

    def test_a_deadline_that_cannot_be_met_is_refused_before_work(
        self, case: Case, start: Callable[..., RunningService], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        service = start(case)
        pipeline = service.server.current.value
        work = getattr(pipeline, case.work)

        def slow(*arguments: Any, **options: Any) -> Any:
            time.sleep(0.2)
            return work(*arguments, **options)

        monkeypatch.setattr(pipeline, case.work, slow)
        request = case.request(image=png(plain(GREY)))
        with grpc.insecure_channel(service.target) as channel:
            call = case.call(channel)
            call(request, timeout=10)  # now it is known what an image takes
            busy = [call.future(request, timeout=20) for _ in range(5)]
            end = time.monotonic() + 10
            while service.metric(f"{case.prefix}_images_waiting") != 4:
                assert time.monotonic() < end
                time.sleep(0.005)
            with pytest.raises(grpc.RpcError) as caught:
                call(request, timeout=0.3)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert [each.result(20).image.width for each in busy] == [256] * 5
        assert service.metric(f"{case.prefix}_too_late_total") == 1

    def test_draining_finishes_what_was_accepted(
        self, case: Case, start: Callable[..., RunningService], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        service = start(case, drain_seconds=0.3, grace_seconds=10)
        entered, release = self.slow(service, case, monkeypatch)
        with grpc.insecure_channel(service.target) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            accepted = case.call(channel).future(case.request(image=png(plain(GREY))), timeout=20)
            assert entered.wait(10)
            stopping = asyncio.run_coroutine_threadsafe(service.server.stop(), service._loop)
            time.sleep(0.1)
            request = health_pb2.HealthCheckRequest(service=case.service)
            assert health.Check(request, timeout=5).status == NOT_SERVING
            with pytest.raises(urllib.error.HTTPError, match="503"):
                urllib.request.urlopen(f"{service.web}/readyz", timeout=5)
            time.sleep(0.4)
            with pytest.raises(grpc.RpcError) as refused:
                case.call(channel)(case.request(image=png(plain(GREY))), timeout=0.2)
            release.set()
            assert accepted.result(10).image.width == 256
            stopping.result(20)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert f"the {case.settings.noun} is shutting down" in refused.value.details()
        service.stop = lambda: None  # type: ignore[method-assign]

    def test_a_network_that_fails_tells_an_incident_and_no_more(
        self, case: Case, start: Callable[..., RunningService], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*_: Any, **__: Any) -> None:
            raise RuntimeError("secret path /etc/pipeline")

        service = start(case)
        monkeypatch.setattr(service.server.current.value, case.work, broken)
        with pytest.raises(grpc.RpcError) as caught:
            case.ask(service.target, png(plain(GREY)))
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        assert "secret" not in caught.value.details()
        assert details(caught.value).metadata["incident"] in caught.value.details()

    def test_many_callers_get_the_same_answers(
        self, case: Case, start: Callable[..., RunningService]
    ) -> None:
        service = start(case, workers=2)
        images = [png(plain(colour)) for colour in (RED, GREEN, BLUE, GREY)]
        alone = [case.ask(service.target, image) for image in images]
        with grpc.insecure_channel(service.target) as channel:
            call = case.call(channel)
            calls = [call.future(case.request(image=images[n % 4]), timeout=30) for n in range(40)]
            for number, each in enumerate(calls):
                assert each.result(30).text == alone[number % 4].text


class TestSecurity:
    def test_keys_are_asked_for(
        self, case: Case, start: Callable[..., RunningService], tmp_path: Path
    ) -> None:
        keys = tmp_path / "keys.toml"
        keys.write_text(f'[alice]\nsha256 = "{digest("sesame")}"\nrate = 1\n')
        service = start(case, api_keys=keys)
        with pytest.raises(grpc.RpcError) as caught:
            case.ask(service.target, png(plain(GREY)))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        metadata = (("authorization", "Bearer sesame"),)
        request = case.request(image=png(plain(GREY)))
        options = [("grpc.enable_retries", 0)]
        with grpc.insecure_channel(service.target, options=options) as channel:
            call = case.call(channel)
            assert call(request, timeout=5, metadata=metadata).image.width == 256
            with pytest.raises(grpc.RpcError) as limited:
                call(request, timeout=5, metadata=metadata)
        assert limited.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED

    def test_tls(self, case: Case, start: Callable[..., RunningService], tmp_path: Path) -> None:
        authority = Authority()
        certificate, key = authority.issue("pipeline").save(tmp_path, "pipeline")
        service = start(case, tls_certificate=certificate, tls_key=key)
        trusted = grpc.ssl_channel_credentials(authority.own.certificate_pem)
        with grpc.secure_channel(service.target, trusted) as channel:
            answer = case.call(channel)(case.request(image=png(plain(GREY))), timeout=5)
        assert answer.image.width == 256
        with pytest.raises(grpc.RpcError):
            case.ask(service.target, png(plain(GREY)), timeout=2)


class TestOperations:
    def test_new_networks_are_swapped_in_and_broken_ones_are_not(
        self, case: Case, start: Callable[..., RunningService], tmp_path: Path
    ) -> None:
        folder = case.save(tmp_path / "networks")
        service = start(case, model=str(folder))
        case.save(folder, version="9")  # type: ignore[call-arg]
        assert service.call(service.server.reload())
        assert case.ask(service.target, png(plain(GREY))).classifier.version == "9"
        shutil.rmtree(folder)
        assert not service.call(service.server.reload())
        assert case.ask(service.target, png(plain(GREY))).classifier.version == "9"
        assert service.metric(f"{case.prefix}_reloads_total", outcome="failed") == 1

    def test_watched_files_reload_by_themselves(
        self, case: Case, start: Callable[..., RunningService], tmp_path: Path
    ) -> None:
        folder = case.save(tmp_path / "networks")
        service = start(case, model=str(folder), watch_seconds=0.1)
        case.save(folder, version="9")  # type: ignore[call-arg]
        end = time.monotonic() + 10
        while case.ask(service.target, png(plain(GREY))).classifier.version != "9":
            assert time.monotonic() < end
            time.sleep(0.05)

    def test_networks_that_compute_something_else_never_serve(
        self, case: Case, start: Callable[..., RunningService], tmp_path: Path
    ) -> None:
        folder = case.save(tmp_path / "networks")
        card = next(path for path in folder.rglob("card.json") if "classifier" in path.read_text())
        values = json.loads(card.read_text())
        vector = values["conformance"][0]
        vector["expected"] = dict.fromkeys(vector["expected"], 0.5)
        card.write_text(json.dumps(values))
        with pytest.raises(CheckpointError, match="conformance vector 0: expected"):
            start(case, model=str(folder))

    def test_settings_come_from_the_environment_of_their_own_prefix(
        self, case: Case, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        prefix = f"{case.name.upper()}_PIPELINE_"
        monkeypatch.setenv(f"{prefix}MAX_WAITING", "5")
        monkeypatch.setenv("UTILITY_GATE_MAX_WAITING", "6")
        settings = load_settings(case.settings)
        assert (settings.max_waiting, settings.model) == (5, "embedded")
        monkeypatch.setenv(f"{prefix}MODLE", "x")
        with pytest.raises(ConfigError, match="MODLE"):
            load_settings(case.settings)

    def test_ports_are_neither_the_gate_s_nor_each_other_s(self) -> None:
        ports = [port for kind in (DamageSettings, CarModelSettings)
                 for port in (kind().port, kind().web_port)]  # fmt: skip
        assert len({*ports, 50051, 9464}) == 6

    @pytest.mark.parametrize("side", [31, 100, 8192])
    def test_a_detector_s_side_must_be_possible(self, side: int) -> None:
        with pytest.raises(ConfigError, match="detector_side"):
            load_settings(DamageSettings, detector_side=side)

    def test_a_larger_side_finds_smaller_damage(self, start: Callable[..., RunningService]) -> None:
        case, data = CASES["damage"], png(with_block(RED, (32, 0, 64, 32)))
        assert not case.ask(start(case).target, data).regions
        assert len(case.ask(start(case, detector_side=256).target, data).regions) == 1

    def test_sigterm_ends_a_process_well(self, case: Case, folders: dict[str, Path]) -> None:
        prefix = f"{case.name.upper()}_PIPELINE_"
        command = ("pipeline", "serve", case.name, "--model", str(folders[case.name]))
        with service_process(*command, prefix=prefix) as process:
            assert case.ask(process.target, png(plain(GREY))).image.width == 256
            process.process.send_signal(signal.SIGTERM)
            assert process.process.wait(20) == 0


class TestCommands:
    def run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cli.main", "pipeline", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    @pytest.fixture
    def photos(self, tmp_path: Path) -> list[Path]:
        pictures = {"red": with_block(RED), "green": plain(GREEN), "blue": plain(BLUE)}
        for name, pixels in pictures.items():
            (tmp_path / f"{name}.png").write_bytes(png(pixels))
        return [tmp_path / f"{name}.png" for name in pictures]

    def test_asking_prints_a_table(self, folders: dict[str, Path], photos: list[Path]) -> None:
        result = self.run("ask", "damage", *photos, "--model", folders["damage"])
        assert result.returncode == 0, result.stderr
        assert "DAMAGED" in result.stdout
        assert "scratch (0.93) at 64,64 to 128,128: type door_scratch (0.80)" in result.stdout
        assert "NO_CAR" in result.stdout
        result = self.run("ask", "car_model", *photos, "--model", folders["car_model"])
        assert result.returncode == 0, result.stderr
        assert "MODEL      BMW M3 Coupe 2012" in result.stdout
        assert "no car" in result.stdout

    def test_asking_for_json_and_overlays(
        self, case: Case, folders: dict[str, Path], photos: list[Path], tmp_path: Path
    ) -> None:
        broken = tmp_path / "broken.png"
        broken.write_bytes(b"no image")
        result = self.run(
            "ask", case.name, *photos, broken, tmp_path / "none.png", "--json", "--model",
            folders[case.name], "--overlay", tmp_path / "maps", "--top-k", 1,
        )  # fmt: skip
        assert result.returncode == 1, "one could not be used"
        red, green, blue, failed, missing = map(json.loads, result.stdout.splitlines())
        assert "JPEG, PNG or WebP" in failed["error"]
        assert "No such file" in missing["error"]
        written = sorted(path.name for path in (tmp_path / "maps").iterdir())
        if case.name == "damage":
            assert [red["outcome"], blue["outcome"]] == ["DAMAGED", "NO_CAR"]
            assert red["regions"][0]["box"] == [64, 64, 128, 128]
            assert red["regions"][0]["heads"]["severity"]["severe"] == pytest.approx(0.71, abs=0.01)
            assert "1-red-region-1-severity.png" in written
            assert "3-blue-whole-type.png" in written
        else:
            assert [green["level"], blue["level"]] == ["MODEL", "NO_CAR"]
            assert [car["make"] for car in green["candidates"]] == ["BMW"]
            assert (red["car"]["box"], red["cars"]) == ([64, 64, 128, 128], 1)
            assert (blue["car"], blue["cars"]) == (None, 0)
            assert written == ["1-red-model.png", "2-green-model.png", "3-blue-model.png"]
        for path in (tmp_path / "maps").iterdir():
            assert Image.open(io.BytesIO(path.read_bytes())).format == "PNG"

    def test_a_model_that_is_not_there_is_a_message(self, tmp_path: Path) -> None:
        for action in (
            ("ask", "damage", "x.png"),
            ("serve", "car_model", "--port", "0", "--web-port", "0"),
        ):
            result = self.run(*action, "--model", tmp_path)
            assert result.returncode == 1
            assert "card.json" in result.stderr
            assert "Traceback" not in result.stderr

    def test_a_pipeline_that_is_not_known_is_wrong_usage(self) -> None:
        result = self.run("serve", "moon")
        assert result.returncode == 2
        assert "damage" in result.stderr

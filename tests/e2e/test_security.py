"""TLS, keys, limits and what is logged of them: real servers, real clients, loopback."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import serving.watched_files
from server.app import SERVICE, GateServer
from server.settings import GateSettings
from serving.auth import client_identity
from serving.keys import digest
from tests.certificates import Authority, put
from tests.conftest import RunningGate, encode
from tests.raw_http2 import literal, open_call
from utility_gate.channels import open_channel, tls_credentials
from utility_gate.client import AsyncGateClient, GateClient
from utility_gate.errors import (
    ConfigError,
    GateDeniedError,
    GateUnavailableError,
    InputError,
    NotAnImageError,
    UtilityGateError,
)
from utility_gate.types import Decision, Verdict
from utility_gate.v1 import gate_pb2 as pb
from utility_gate.v1 import gate_pb2_grpc as pb_grpc

Start = Callable[..., RunningGate]

CLI = [sys.executable, "-m", "cli.main"]
BRIGHT = encode(np.full((128, 128, 3), 200, np.uint8), "PNG")
KEYS = {name: secrets.token_urlsafe(32) for name in ("phone", "desk", "meter")}


@pytest.fixture(autouse=True)
def _look_at_files_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving.watched_files, "CHECK_SECONDS", 0.0)


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def tls(authority: Authority, tmp_path: Path) -> dict[str, Any]:
    """Settings of a gate with a certificate."""
    certificate, key = authority.issue("gate").save(tmp_path, "gate")
    authority.save(tmp_path)
    return {"tls_certificate": certificate, "tls_key": key}


@pytest.fixture
def api_keys(tmp_path: Path) -> Path:
    file = tmp_path / "keys.toml"
    write_keys(file, phone="", desk="", meter="rate = 0.5\nburst = 3\n")
    return file


def write_keys(file: Path, **limits: str) -> None:
    entries = [
        f'[{name}]\nsha256 = "{digest(KEYS[name])}"\n{limit}' for name, limit in limits.items()
    ]
    put(file, "\n".join(entries).encode())


def judged(target: str, **options: Any) -> Verdict:
    with GateClient(target, timeout=5, **options) as client:
        return client.assess(BRIGHT)


def details(error: grpc.RpcError, kind: Any) -> Any:
    trailers = dict(error.trailing_metadata())  # type: ignore[attr-defined]
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    found = kind()
    assert status.details[0].Unpack(found)
    return found


# TLS


def test_tls_serves_those_who_trust_its_authority_and_nobody_else(
    start_gate: Start, tls: dict[str, Any], tmp_path: Path
) -> None:
    gate = start_gate(**tls)
    trusting = tls_credentials(tmp_path / "ca.pem")
    assert judged(gate.target, credentials=trusting).decision is Decision.USEFUL
    stranger = tls_credentials(Authority().save(tmp_path, "stranger"))
    for credentials in (stranger, tls_credentials(), None):
        with pytest.raises(GateUnavailableError):
            judged(gate.target, credentials=credentials)
    with open_channel(gate.target, credentials=trusting) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        answer = health.Check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=5)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_the_asynchronous_client_speaks_tls_too(
    start_gate: Start, tls: dict[str, Any], tmp_path: Path, api_keys: Path
) -> None:
    gate = await asyncio.to_thread(start_gate, **tls, api_keys=api_keys)
    trusting = tls_credentials(tmp_path / "ca.pem")
    async with AsyncGateClient(gate.target, credentials=trusting, api_key=KEYS["phone"]) as client:
        assert (await client.assess(BRIGHT)).decision is Decision.USEFUL
    async with AsyncGateClient(gate.target, credentials=trusting) as client:
        with pytest.raises(GateDeniedError):
            await client.assess(BRIGHT)


def test_an_expired_certificate_is_warned_of_and_refused_by_clients(
    start_gate: Start,
    authority: Authority,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    certificate, key = authority.issue("gate", days=-1).save(tmp_path, "old")
    gate = start_gate(tls_certificate=certificate, tls_key=key)
    assert "clients will refuse it: certificate has expired" in caplog.text
    with pytest.raises(GateUnavailableError):
        judged(gate.target, credentials=tls_credentials(authority.save(tmp_path)))


def test_mutual_tls_serves_certified_clients_under_their_names(
    start_gate: Start,
    tls: dict[str, Any],
    authority: Authority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ca = tmp_path / "ca.pem"
    gate = start_gate(**tls, tls_client_ca=ca)
    seen = watch_identities(gate, monkeypatch)
    phone = authority.issue("phone 7").save(tmp_path, "phone")
    assert judged(gate.target, credentials=tls_credentials(ca, *phone)).decision is Decision.USEFUL
    assert seen == ["phone 7"]
    expired = authority.issue("phone 8", days=-1).save(tmp_path, "expired")
    forged = Authority().issue("phone 7").save(tmp_path, "forged")
    for files in ((), expired, forged):
        with pytest.raises(GateUnavailableError):
            judged(gate.target, credentials=tls_credentials(ca, *files))
    assert seen == ["phone 7"]


def watch_identities(gate: RunningGate, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Who asks, as the servicer sees it, image by image."""
    seen: list[str] = []
    admit = gate.server._servicer._admit

    def look() -> None:
        seen.append(client_identity())
        admit()

    monkeypatch.setattr(gate.server._servicer, "_admit", look)
    return seen


def test_certificates_are_exchanged_under_load_without_a_failed_call(
    start_gate: Start,
    tls: dict[str, Any],
    authority: Authority,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    gate = start_gate(**tls)
    first = (tmp_path / "gate.pem").read_bytes()
    trusting = tls_credentials(tmp_path / "ca.pem")
    answers: list[Decision] = []
    failures: list[Exception] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            try:  # a connection of its own, so that every call shakes hands
                answers.append(judged(gate.target, credentials=trusting).decision)
            except UtilityGateError as error:
                failures.append(error)

    with GateClient(gate.target, credentials=trusting) as kept:
        kept.assess(BRIGHT)
        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        for number in range(5):
            new = authority.issue(f"gate {number}")
            put(tmp_path / "gate.pem", new.certificate_pem)  # for a moment the pair is none
            time.sleep(0.1)
            put(tmp_path / "gate.key", new.key_pem())
            time.sleep(0.1)
            kept.assess(BRIGHT)
        stop.set()
        for thread in threads:
            thread.join(10)
    assert not failures
    assert len(answers) > 10
    assert set(answers) == {Decision.USEFUL}
    assert "the old state stays: tls_certificate and tls_key" in caplog.text
    shown = shown_certificate(gate)
    assert shown == new.certificate_pem
    assert shown != first
    put(tmp_path / "gate.pem", b"-----BEGIN CERTIFICATE-----\nhalf")
    assert judged(gate.target, credentials=trusting).decision is Decision.USEFUL
    assert shown_certificate(gate) == new.certificate_pem


def shown_certificate(gate: RunningGate) -> bytes:
    return ssl.get_server_certificate(("127.0.0.1", gate.server.port)).encode()


def test_an_authority_for_clients_is_exchanged_too(
    start_gate: Start, tls: dict[str, Any], authority: Authority, tmp_path: Path
) -> None:
    bundle = authority.save(tmp_path, "clients")
    gate = start_gate(**tls, tls_client_ca=bundle)
    old = tls_credentials(tmp_path / "ca.pem", *authority.issue("a").save(tmp_path, "a"))
    assert judged(gate.target, credentials=old)
    other = Authority()
    put(bundle, other.own.certificate_pem)
    new = tls_credentials(tmp_path / "ca.pem", *other.issue("b").save(tmp_path, "b"))
    assert judged(gate.target, credentials=new)
    # Under another name, so that gRPC does not lend the first client's connection.
    with pytest.raises(GateUnavailableError):
        judged(gate.target.replace("127.0.0.1", "localhost"), credentials=old)


@pytest.mark.parametrize("changes", [{"host": "0.0.0.0"}, {"tls_key": "absent"}])
def test_what_cannot_be_served_safely_is_not_started(
    start_gate: Start, changes: dict[str, str]
) -> None:
    with pytest.raises(ConfigError, match="expected"):
        start_gate(**changes)


def test_plaintext_beyond_loopback_is_served_if_said_so(start_gate: Start) -> None:
    gate = start_gate(host="0.0.0.0", allow_plaintext=True, web_host="127.0.0.1")
    assert judged(gate.target).decision is Decision.USEFUL
    assert gate.server.endpoints["metrics"].startswith("http://127.0.0.1:")


# API keys


def test_a_call_needs_a_known_key_and_is_not_told_what_was_wrong(
    start_gate: Start, api_keys: Path
) -> None:
    gate = start_gate(api_keys=api_keys)
    told = set()
    known = ("authorization", f"Bearer {KEYS['phone']}")
    with grpc.insecure_channel(gate.target) as channel:
        stub = pb_grpc.UtilityGateServiceStub(channel)
        request = pb.AssessRequest(image=BRIGHT)
        stub.Assess(request, metadata=[known], timeout=5)
        stub.Assess(request, metadata=[("authorization", f"bearer  {KEYS['desk']}")], timeout=5)
        wrong = (
            [],
            [("authorization", "Bearer " + "x" * 43)],
            [("authorization", "Bearer ")],
            [("authorization", KEYS["phone"])],
            [("authorization", f"Basic {KEYS['phone']}")],
            [("authorization", f"Bearer {digest(KEYS['phone'])}")],
            [known, known],
            [("authorization-bin", KEYS["phone"].encode())],
        )
        for metadata in wrong:
            calls: tuple[Callable[..., Any], ...] = (
                lambda **o: stub.Assess(request, **o),
                lambda **o: stub.GetInfo(pb.GetInfoRequest(), **o),
                lambda **o: list(stub.AssessStream(iter([pb.AssessStreamRequest()]), **o)),
            )
            for call in calls:
                with pytest.raises(grpc.RpcError) as caught:
                    call(metadata=metadata, timeout=5)
                assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
                told.add(caught.value.details())
                info = details(caught.value, error_details_pb2.ErrorInfo)
                assert (info.reason, info.domain) == ("UNAUTHENTICATED", "utility-gate")
    assert len(told) == 1
    count = gate.metric("utility_gate_requests_total", method="Assess", code="UNAUTHENTICATED")
    assert count == len(wrong)
    assert gate.metric("utility_gate_unauthenticated_total") == 3 * len(wrong)
    assert gate.metric("utility_gate_images_total", method="Assess", code="OK") == 2


def test_a_large_message_without_a_key_is_refused_before_it_is_taken(
    start_gate: Start, api_keys: Path
) -> None:
    gate = start_gate(api_keys=api_keys)
    with grpc.insecure_channel(
        gate.target, options=[("grpc.max_send_message_length", -1)]
    ) as channel:
        stub = pb_grpc.UtilityGateServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:  # over the limit: it would say so if taken
            stub.Assess(pb.AssessRequest(image=bytes(30_000_000)), timeout=20)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_health_needs_no_key_and_reflection_does(start_gate: Start, api_keys: Path) -> None:
    gate = start_gate(api_keys=api_keys)
    ask = reflection_pb2.ServerReflectionRequest(list_services="")
    with grpc.insecure_channel(gate.target) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        answer = health.Check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=5)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            list(reflection.ServerReflectionInfo(iter([ask]), timeout=5))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert details(caught.value, error_details_pb2.ErrorInfo).reason == "UNAUTHENTICATED"
    with open_channel(gate.target, api_key=KEYS["phone"]) as channel:
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        (listed,) = reflection.ServerReflectionInfo(iter([ask]), timeout=5)
        assert SERVICE in {one.name for one in listed.list_services_response.service}


def test_reflection_can_be_turned_off(start_gate: Start) -> None:
    gate = start_gate(reflection=False)
    with grpc.insecure_channel(gate.target) as channel:
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        with pytest.raises(grpc.RpcError) as caught:
            list(reflection.ServerReflectionInfo(iter([ask]), timeout=5))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_every_image_is_its_key_s(
    start_gate: Start, api_keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = start_gate(api_keys=api_keys)
    seen = watch_identities(gate, monkeypatch)
    turns: list[str] = []
    run = gate.server._workers.run
    monkeypatch.setattr(
        gate.server._workers, "run", lambda *a, **o: turns.append(o["client"]) or run(*a, **o)
    )

    def send(name: str) -> None:
        with GateClient(gate.target, api_key=KEYS[name]) as client:
            for _ in range(5):
                client.assess(BRIGHT)
            list(client.assess_stream([(str(n), BRIGHT) for n in range(5)], timeout=10))

    threads = [threading.Thread(target=send, args=[name]) for name in ("phone", "desk")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(seen) == sorted(turns) == 10 * ["desk"] + 10 * ["phone"]


def test_without_keys_who_asks_is_his_address(
    gate: RunningGate, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = watch_identities(gate, monkeypatch)
    judged(gate.target)
    assert seen == ["127.0.0.1"]


def test_the_rate_limit_is_per_key_and_image_and_says_when_to_come_again(
    start_gate: Start, api_keys: Path
) -> None:
    gate = start_gate(api_keys=api_keys, fail_open=["general"])  # which makes no limit good
    with open_channel(gate.target, api_key=KEYS["meter"]) as channel:
        stub = pb_grpc.UtilityGateServiceStub(channel)
        requests = [pb.AssessStreamRequest(id=str(n), image=BRIGHT) for n in range(5)]
        answers = list(stub.AssessStream(iter(requests), timeout=10))
        refused = [answer.error for answer in answers if answer.HasField("error")]
        assert [error.code for error in refused] == 2 * [
            grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
        ]
        assert "meter" in refused[0].message
        with pytest.raises(grpc.RpcError) as caught:
            stub.Assess(pb.AssessRequest(image=BRIGHT), timeout=5)
        stub.GetInfo(pb.GetInfoRequest(), timeout=5)  # no image
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    delay = details(caught.value, error_details_pb2.RetryInfo).retry_delay.ToMilliseconds()
    assert 0 < delay <= 2000  # one image in two seconds
    assert judged(gate.target, api_key=KEYS["phone"]).decision is Decision.USEFUL
    assert gate.metric("utility_gate_rate_limited_total", key="meter") == 3
    name = "utility_gate_images_total"
    assert gate.metric(name, method="AssessStream", code="RESOURCE_EXHAUSTED") == 2
    assert gate.metric("utility_gate_shed_total") == 0


def test_a_pause_that_ends_after_the_deadline_is_told_not_waited_for(
    start_gate: Start, api_keys: Path
) -> None:
    gate = start_gate(api_keys=api_keys)
    with GateClient(gate.target, api_key=KEYS["meter"], timeout=1.0) as client:
        for _ in range(3):  # at once; from then on one image in two seconds
            client.assess(BRIGHT)
        with pytest.raises(GateUnavailableError, match="meter"):
            client.assess(BRIGHT)


def test_keys_change_without_a_restart_even_inside_a_stream(
    start_gate: Start, api_keys: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_keys(api_keys, phone="")
    gate = start_gate(api_keys=api_keys)
    with pytest.raises(GateDeniedError):
        judged(gate.target, api_key=KEYS["desk"])
    go_on = threading.Event()

    def images():  # type: ignore[no-untyped-def]
        yield "before", BRIGHT
        assert go_on.wait(10)
        yield "after", BRIGHT

    with GateClient(gate.target, api_key=KEYS["phone"]) as client:
        answers = client.assess_stream(images(), timeout=10)
        number, before = next(answers)
        assert number == "before"
        assert isinstance(before, Verdict)
        put(api_keys, b"[phone")  # broken: the old keys stay
        judged(gate.target, api_key=KEYS["phone"])
        assert "the old state stays" in caplog.text
        write_keys(api_keys, desk="")
        go_on.set()
        ((_, after),) = answers
        assert isinstance(after, GateDeniedError)
    judged(gate.target, api_key=KEYS["desk"])
    with pytest.raises(GateDeniedError):
        judged(gate.target, api_key=KEYS["phone"])


# Logs


@pytest.mark.parametrize("key", ["phone", "meter"])
def test_neither_keys_nor_images_are_ever_logged(
    start_gate: Start,
    api_keys: Path,
    tls: dict[str, Any],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    key: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    gate = start_gate(api_keys=api_keys, **tls)
    trusting = tls_credentials(tmp_path / "ca.pem")
    marked = b"\x89PNG\r\n\x1a\n" + b"MARKED-BYTES" * 100
    unknown = "unknown-" + secrets.token_urlsafe(32)
    with GateClient(gate.target, credentials=trusting, api_key=KEYS[key]) as client:
        client.assess(BRIGHT)
        for data in (marked, b"MARKED-BYTES"):
            with pytest.raises(InputError) as refused:
                client.assess(data)
            assert "MARKED" not in str(refused.value)
        list(client.assess_stream([("1", marked), ("2", BRIGHT), ("3", BRIGHT)], timeout=5))
    with pytest.raises(GateDeniedError) as denied:
        judged(gate.target, credentials=trusting, api_key=unknown)
    write_keys(api_keys, desk="")
    with pytest.raises(GateDeniedError):
        judged(gate.target, credentials=trusting, api_key=KEYS[key])
    put(api_keys, KEYS[key].encode())
    put(tmp_path / "gate.key", b"-----BEGIN PRIVATE KEY-----\nMARKED-BYTES")
    judged(gate.target, credentials=trusting, api_key=KEYS["desk"])
    gate.call(gate.server.stop())
    gate.stop = lambda: None  # type: ignore[method-assign]
    page = repr(gate.server.metrics.registry.collect())
    out, err = capfd.readouterr()
    everything = caplog.text + out + err + str(denied.value) + page
    assert any(record.levelno == logging.DEBUG for record in caplog.records)
    assert "the old state stays" in caplog.text
    for secret in (*KEYS.values(), unknown, "MARKED-BYTES", "PRIVATE KEY-----\n"):
        assert secret not in everything
        assert digest(secret) not in everything


# The command line


def utility_gate(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CLI, *map(str, arguments)],
        capture_output=True, text=True, timeout=60, env=os.environ | environment,
    )  # fmt: skip


def test_the_command_line_shows_certificates_and_keys(
    start_gate: Start,
    tls: dict[str, Any],
    api_keys: Path,
    authority: Authority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ca = tmp_path / "ca.pem"
    gate = start_gate(**tls, tls_client_ca=ca, api_keys=api_keys)
    seen = watch_identities(gate, monkeypatch)
    certificate, key = authority.issue("of the certificate").save(tmp_path, "phone")
    shown = ["--ca", ca, "--certificate", certificate, "--key", key, "--target", gate.target]
    (tmp_path / "bright.png").write_bytes(BRIGHT)
    phone = KEYS["phone"]
    done = utility_gate("assess", tmp_path / "bright.png", *shown, UTILITY_GATE_API_KEY=phone)
    assert (done.returncode, "USEFUL" in done.stdout) == (0, True), done.stderr
    assert seen == ["phone"]  # of two names the key's
    denied = utility_gate("assess", tmp_path / "bright.png", *shown)
    assert denied.returncode == 1
    assert "expected a valid API key" in denied.stderr
    health = utility_gate("health", *shown)
    assert (health.returncode, health.stdout.strip()) == (0, "SERVING")


def test_health_of_an_encrypted_gate_is_asked_of_its_readyz(
    start_gate: Start, tls: dict[str, Any]
) -> None:
    gate = start_gate(**tls)
    environment = {
        "UTILITY_GATE_TLS_CERTIFICATE": str(tls["tls_certificate"]),
        "UTILITY_GATE_TLS_KEY": str(tls["tls_key"]),
        "UTILITY_GATE_WEB_PORT": str(gate.server.web_port),
        "UTILITY_GATE_HOST": "0.0.0.0",
        "UTILITY_GATE_API_KEY": "x",
        "http_proxy": "http://127.0.0.1:1",
    }
    health = utility_gate("health", **environment)
    assert (health.returncode, health.stdout.strip()) == (0, "SERVING")
    absent = utility_gate("health", **(environment | {"UTILITY_GATE_WEB_PORT": "1"}))
    assert absent.returncode == 1
    assert "/readyz" in absent.stdout


def test_mistakes_on_the_command_line_are_messages(tmp_path: Path) -> None:
    for arguments, message in (
        (["serve", "--host", "0.0.0.0", "--port", "0", "--web-port", "0"], "allow_plaintext"),
        (["assess", "x.png", "--ca", "ca.pem"], "expected --target"),
        (["assess", "x.png", "--target", "h:1", "--key", "k.pem"], "expected --ca"),
        (["assess", "x.png", "--target", "gate:1"], "expected TLS for an API key"),
    ):
        done = utility_gate(*arguments, UTILITY_GATE_API_KEY="hunter2")
        assert done.returncode == 1
        assert message in done.stderr
        assert "Traceback" not in done.stderr
        assert "hunter2" not in done.stderr


def test_a_gate_that_may_not_start_has_opened_no_port() -> None:
    gate = GateServer(GateSettings(host="0.0.0.0", port=0, web_port=0))
    with pytest.raises(ConfigError):
        asyncio.run(gate.start())
    assert (gate.port, gate.web_port) == (0, 0)


def test_bytes_that_are_no_image_are_still_told_apart_under_a_key(
    start_gate: Start, api_keys: Path
) -> None:
    gate = start_gate(api_keys=api_keys)
    with (
        GateClient(gate.target, api_key=KEYS["phone"]) as client,
        pytest.raises(NotAnImageError),
    ):
        client.assess(b"junk")


def test_a_key_that_is_no_text_is_not_repeated_in_the_log(
    start_gate: Start, api_keys: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """gRPC's Python layer logs metadata that it cannot decode, by itself."""
    gate = start_gate(api_keys=api_keys)
    header = literal(b"authorization", b"Bearer ug_SECRETSECRET\xa0")
    rude = open_call(gate.target, f"/{SERVICE}/GetInfo", b"", more=header)
    rude.recv(100)
    time.sleep(0.3)
    rude.close()
    assert "SECRET" not in caplog.text
    assert judged(gate.target, api_key=KEYS["phone"]).decision is Decision.USEFUL


def test_a_service_name_without_end_is_refused(start_gate: Start) -> None:
    gate = start_gate()
    with grpc.insecure_channel(gate.target) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service="x" * 1_000_000)
        with pytest.raises(grpc.RpcError, match="expected the name of a service"):
            health.Check(request, timeout=5)
        with pytest.raises(grpc.RpcError, match="expected the name of a service"):
            list(health.Watch(request, timeout=5))

"""Keys, buckets, reloading, names of peers: without a server."""

from __future__ import annotations

import hashlib
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from cli.main import main
from server.metrics import GateMetrics
from server.settings import GateSettings
from serving.auth import client_identity, peer_host
from serving.errors import to_status
from serving.keys import Key, digest, load_keys
from serving.rate_limit import RateLimiter, TokenBucket
from serving.settings import load_settings
from serving.tls import server_credentials
from serving.watched_files import CHECK_SECONDS, Reloading
from tests.certificates import Authority
from tests.processes import free_port
from utility_gate.channels import is_loopback, open_channel, tls_credentials
from utility_gate.errors import (
    ConfigError,
    OverloadedError,
    RateLimitedError,
    ServiceError,
    UnauthenticatedError,
)
from utility_gate.pem import read_authorities, read_pair

DIGEST = hashlib.sha256(b"secret").hexdigest()


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_gives_its_burst_then_its_rate() -> None:
    bucket = TokenBucket(rate=2.0, burst=3.0, now=0.0)
    assert [bucket.take(0.0) for _ in range(4)] == [0, 0, 0, 0.5]
    assert bucket.take(0.25) == 0.25  # refusals cost nothing
    assert bucket.take(0.5) == 0
    assert [bucket.take(1000.0) for _ in range(4)] == [0, 0, 0, 0.5]  # never over the burst
    assert bucket.take(999.0) == 0.5  # a clock that went back gives nothing


def test_what_is_charged_afterwards_is_owed() -> None:
    bucket = TokenBucket(rate=2.0, burst=3.0, now=0.0)
    assert bucket.take(0.0) == 0
    bucket.charge(0.0, 9)  # two were there: seven are owed
    assert bucket.take(0.0) == 4.0  # until there is one
    assert bucket.take(3.5) == 0.5
    assert bucket.take(4.0) == 0
    bucket.charge(1000.0, 1)  # never over the burst, here neither
    assert [bucket.take(1000.0) for _ in range(3)] == [0, 0, 0.5]


def test_only_keys_with_a_limit_owe() -> None:
    clock, metrics = Clock(), GateMetrics()
    limiter = RateLimiter(metrics, clock)
    slow, free = Key("slow", DIGEST, rate=4.0), Key("free", "0" * 64)
    limiter.charge(slow, 4)  # one was there
    limiter.charge(free, 1000)
    limiter.spend(free)
    with pytest.raises(RateLimitedError) as caught:
        limiter.spend(slow)
    assert caught.value.retry_after == 1.0


def test_limits_are_per_key_and_say_when_to_come_again() -> None:
    clock, metrics = Clock(), GateMetrics()
    limiter = RateLimiter(metrics, clock)
    slow, free = Key("slow", DIGEST, rate=4.0), Key("free", "0" * 64)
    limiter.spend(slow)
    with pytest.raises(RateLimitedError, match="from slow") as caught:
        limiter.spend(slow)
    assert caught.value.retry_after == 0.25
    for _ in range(100):
        limiter.spend(free)
    limiter.spend(Key("slow", DIGEST, rate=40.0))  # changed in the file: a new bucket
    clock.now += 0.025
    limiter.spend(Key("slow", DIGEST, rate=40.0))
    value = metrics.registry.get_sample_value("utility_gate_rate_limited_total", {"key": "slow"})
    assert value == 1


def test_both_refusals_have_their_place_and_their_details() -> None:
    limited = to_status(RateLimitedError("later", retry_after=0.0001))
    assert limited.code.name == "RESOURCE_EXHAUSTED"
    assert limited.detail.retry_delay.ToMilliseconds() == 1  # type: ignore[attr-defined]
    denied = to_status(UnauthenticatedError("who"))
    assert (denied.code.name, denied.detail.reason) == (  # type: ignore[attr-defined]
        "UNAUTHENTICATED",
        "UNAUTHENTICATED",
    )
    assert issubclass(RateLimitedError, OverloadedError)
    assert issubclass(UnauthenticatedError, ServiceError)


def test_a_file_of_keys(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(
        f'[phone]\nsha256 = "{DIGEST.upper()}"\nrate = 2.5\nburst = 7\n'
        f'[desk-2]\nsha256 = "{"0" * 64}"\n'
    )
    keys = load_keys(file)
    assert keys.find("secret") == Key("phone", DIGEST, 2.5, 7.0)
    assert keys.find("Secret") is None
    assert keys.find("") is None


def test_the_digest_of_nothing_is_nobody_s_key(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(f'[phone]\nsha256 = "{digest("")}"\n')
    assert load_keys(file).find("") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at least one key"),
        ("hunter2", "expected TOML.*line 1, column 8|end of document"),
        ("\udcff", "not UTF-8"),
        ("hunter2 = 5", "expected a table of sha256"),
        ("[a]\nrate = 1", "expected a table of sha256"),
        ('[a]\nsha256 = "hunter2"', "64 hexadecimal digits"),
        (f'["hunter2 x"]\nsha256 = "{DIGEST}"', "letters, digits"),
        (f'[a]\nsha256 = "{DIGEST}"\nrat = 2', "expected a table of sha256"),
        (f'[a]\nsha256 = "{DIGEST}"\nrate = 0', "rate to be a number above 0"),
        (f'[a]\nsha256 = "{DIGEST}"\nrate = true', "rate to be a number above 0"),
        (f'[a]\nsha256 = "{DIGEST}"\nrate = nan', "rate to be a number above 0"),
        (f'[a]\nsha256 = "{DIGEST}"\nburst = 2', "rate beside burst"),
        (f'[a]\nsha256 = "{DIGEST}"\nrate = 2\nburst = 0.5', "burst to be at least 1"),
        (f'[a]\nsha256 = "{DIGEST}"\n[b]\nsha256 = "{DIGEST}"', "got one twice"),
    ],
)
def test_mistakes_in_it_are_named_and_not_repeated(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "keys.toml"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError, match=message) as caught:
        load_keys(file)
    assert "hunter2" not in str(caught.value)


def test_a_key_in_place_of_the_file_s_path_is_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"api_keys.*No such file") as caught:
        load_keys(tmp_path / "hunter2")
    assert "hunter2" not in str(caught.value)


def test_the_subcommand_s_entry_fits_its_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["key", "phone", "--rate", "5", "--burst", "10"]) == 0
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    (key,) = (line for line in lines if len(line) == 43 and " " not in line)
    file = tmp_path / "keys.toml"
    file.write_text(printed[printed.index("[phone]") :])
    found = load_keys(file).find(key)
    assert found is not None
    assert (found.name, found.rate, found.burst) == ("phone", 5.0, 10.0)
    for wrong in (["a b"], ["a", "--rate", "0"], ["a", "--burst", "3"], ["a", "--rate", "nan"]):
        assert main(["key", *wrong]) == 1
        assert "expected" in capsys.readouterr().err


def test_files_are_read_again_when_they_change_and_broken_ones_are_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    file, clock = tmp_path / "value", Clock()
    file.write_text("1")
    loads = 0

    def load() -> int:
        nonlocal loads
        loads += 1
        try:
            return int(file.read_text())
        except (OSError, ValueError) as error:
            raise ConfigError(f"no number: {error}") from error

    value = Reloading(load, [file], clock=clock)

    def after(change: Callable[[], object]) -> int:
        change()
        clock.now += CHECK_SECONDS
        return value.get()

    assert after(lambda: None) == 1
    assert loads == 1
    assert after(lambda: file.write_text("22")) == 22
    file.write_text("333")
    assert value.get() == 22  # not looked at again so soon
    assert after(lambda: None) == 333
    assert after(lambda: file.write_text("half")) == 333
    assert after(lambda: None) == 333
    assert after(file.unlink) == 333
    warnings = [r for r in caplog.records if r.levelname == "WARNING"]
    assert len(warnings) == 2  # one for each state of the files
    assert "the old state stays" in warnings[0].message
    assert after(lambda: file.write_text("4")) == 4
    other = tmp_path / "other"
    other.write_text("5")
    os.utime(other, ns=(file.stat().st_mtime_ns, file.stat().st_mtime_ns))
    assert after(lambda: other.replace(file)) == 5  # same size, same time, another file


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("ipv4:10.0.0.7:50123", "10.0.0.7"),
        ("ipv6:[::1]:50123", "::1"),
        ("ipv6:%5Bfe80::1%25eth0%5D:50123", "fe80::1%eth0"),
        ("unix:/run/gate.sock", "unix"),
        ("", "unknown"),
    ],
)
def test_a_peer_is_its_address_without_the_port(peer: str, host: str) -> None:
    assert peer_host(peer) == host


def test_outside_of_a_call_nobody_asks() -> None:
    assert client_identity() == ""


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True), ("127.8.9.1", True), ("::1", True), ("[::1]", True),
        ("localhost", True), ("0.0.0.0", False), ("::", False), ("10.0.0.1", False),
        ("", False), ("localhost.example", False), ("gate", False),
    ],
)  # fmt: skip
def test_plaintext_stays_on_this_machine_unless_said_otherwise(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
    settings = GateSettings(host=host)
    if loopback:
        assert server_credentials(settings) is None
        return
    with pytest.raises(ConfigError, match=r"host: expected a loopback.*allow_plaintext = true"):
        server_credentials(settings)
    assert server_credentials(GateSettings(host=host, allow_plaintext=True)) is None


def test_keys_in_plaintext_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    server_credentials(
        GateSettings(host="0.0.0.0", allow_plaintext=True, api_keys=tmp_path / "keys.toml")
    )
    assert "API keys cross the network unencrypted" in caplog.text


@pytest.mark.parametrize(
    ("target", "allowed"),
    [
        ("127.0.0.1:50051", True), ("localhost:1", True), ("[::1]:1", True), ("localhost", True),
        ("dns:///localhost:1", True), ("ipv4:127.0.0.1:1", True), ("ipv6:%5B::1%5D:1", True),
        ("ipv4:127.0.0.1:1,10.0.0.1:1", False), ("unix:/run/gate.sock", True),
        ("gate:50051", False), ("dns:///gate:1", False), ("dns://10.0.0.1/localhost:1", False),
        ("10.0.0.1:1", False), ("[2001:db8::1]:1", False), ("xds:///localhost", False),
    ],
)  # fmt: skip
def test_a_key_travels_unencrypted_on_this_machine_only(target: str, allowed: bool) -> None:
    open_channel(target).close()
    if allowed:
        open_channel(target, api_key="secret").close()
    else:
        with pytest.raises(ConfigError, match="expected TLS for an API key") as caught:
            open_channel(target, api_key="secret")
        assert "secret" not in str(caught.value)
    open_channel(target, api_key="secret", credentials=tls_credentials()).close()


@pytest.mark.parametrize("key", ["hunter2\n", "hunter 2", "hünter2"])
def test_a_key_that_cannot_be_one_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(ConfigError, match="visible ASCII") as caught:
        open_channel("127.0.0.1:1", api_key=key)
    assert key.strip() not in str(caught.value)


def test_mistakes_with_certificates_name_the_setting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = Authority()
    ca = authority.save(tmp_path)
    certificate, key = authority.issue("gate").save(tmp_path, "gate")
    _, other = authority.issue("other").save(tmp_path, "other")
    junk, encrypted = tmp_path / "junk", tmp_path / "encrypted"
    junk.write_bytes(b"junk")
    half = tmp_path / "half"
    half.write_bytes(certificate.read_bytes()[:200])
    encrypted.write_bytes(authority.issue("gate").key_pem(b"password"))
    absent = tmp_path / "absent"
    good = {"tls_certificate": certificate, "tls_key": key, "tls_client_ca": ca}
    for changes, message in (
        ({"tls_key": None}, "tls_key: expected a PEM file beside"),
        ({"tls_certificate": None}, "tls_certificate: expected a PEM file beside"),
        ({"tls_certificate": None, "tls_key": None}, "tls_client_ca: expected tls_certificate"),
        ({"tls_certificate": absent}, "tls_certificate: expected a readable.*No such file"),
        ({"tls_key": absent}, "tls_key: expected a readable"),
        ({"tls_client_ca": absent}, "tls_client_ca: expected a readable"),
        ({"tls_certificate": junk}, "tls_certificate: expected '-----BEGIN CERTIFICATE"),
        ({"tls_key": junk}, "tls_key: expected 'PRIVATE KEY"),
        ({"tls_client_ca": junk}, "tls_client_ca: expected '-----BEGIN"),
        ({"tls_client_ca": half}, "tls_client_ca: expected PEM certificates"),
        ({"tls_certificate": half}, "tls_certificate and tls_key: expected a PEM"),
        ({"tls_key": other}, "tls_certificate and tls_key: .*key values mismatch"),
        ({"tls_key": encrypted}, "tls_key: expected a key without a password"),
    ):
        with pytest.raises(ConfigError, match=message):
            server_credentials(GateSettings(**(good | changes)))  # type: ignore[arg-type]
    assert not caplog.records
    assert server_credentials(GateSettings(**good, host="0.0.0.0")) is not None  # type: ignore[arg-type]
    old = authority.issue("gate", days=-1).save(tmp_path, "old")
    server_credentials(GateSettings(tls_certificate=old[0], tls_key=old[1]))
    assert "tls_certificate: clients will refuse it: certificate has expired" in caplog.text


def test_comments_in_a_file_of_certificates_may_be_in_any_language(tmp_path: Path) -> None:
    authority = Authority()
    bundle = tmp_path / "ca.pem"
    for comment in ("# O = Café\n".encode(), "# O = Café\n".encode("latin-1")):
        bundle.write_bytes(comment + authority.own.certificate_pem)
        assert read_authorities(bundle, "ca").startswith(b"# O")
        certificate, key = authority.issue("x").save(tmp_path, "own")
        certificate.write_bytes(comment + certificate.read_bytes())
        pair = read_pair(certificate, key, names=("certificate", "key"), server=True)
        assert pair.objection == ""


def test_a_key_does_not_leave_this_machine_through_a_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.settimeout(1.0)
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        for name in ("no_proxy", "no_grpc_proxy", "grpc_proxy", "https_proxy"):
            monkeypatch.delenv(name, raising=False)
        with open_channel(f"localhost:{free_port()}", api_key="secret") as channel:
            with pytest.raises(grpc.RpcError):
                channel.unary_unary("/a.B/C")(b"", timeout=1.0)
            with pytest.raises(TimeoutError):
                proxy.accept()


def test_mistakes_with_a_client_s_certificate_are_named(tmp_path: Path) -> None:
    authority = Authority()
    certificate, key = authority.issue("phone").save(tmp_path, "phone")
    assert tls_credentials(authority.save(tmp_path), certificate, key) is not None
    for arguments, message in (
        ((None, certificate, None), "together"),
        ((None, key, key), "certificate: expected '-----BEGIN"),
        ((tmp_path / "absent", None, None), "ca: expected a readable"),
    ):
        with pytest.raises(ConfigError, match=message):
            tls_credentials(*arguments)


def test_the_client_s_variable_is_none_of_the_gate_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UTILITY_GATE_API_KEY", "secret")
    assert load_settings(GateSettings).api_keys is None

"""Certificates and keys as PEM files, checked before gRPC, which says little of what is wrong."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path

from utility_gate.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate chain (leaf first) and the leaf's private key; the key is never printed."""

    certificate: bytes
    key: bytes = field(repr=False)
    objection: str = ""
    """Why a client that knows this certificate would still refuse it now (expired, not yet
    valid, not made for servers); "" if it would not."""


def read_pair(certificate: Path, key: Path, *, names: tuple[str, str], server: bool) -> Pair:
    """A certificate and its key.

    `names` is what the caller calls the two files, for the messages.

    Raises:
        ConfigError: if a file cannot be read or holds something else, if the key is encrypted, if
            the two do not belong together, or if they changed while they were read.
    """
    both = " and ".join(names)
    chain = _read(certificate, names[0], "-----BEGIN CERTIFICATE-----")
    secret = _read(key, names[1], "PRIVATE KEY-----")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    def no_password() -> str:  # without it OpenSSL would ask at the terminal
        raise ConfigError(f"{names[1]}: expected a key without a password, got an encrypted one")

    try:
        context.load_cert_chain(certificate, key, no_password)
    except ssl.SSLError as error:
        raise ConfigError(
            f"{both}: expected a PEM certificate and the key that belongs to it, got "
            f"{_reason(error)}; give the chain with the server's own certificate first"
        ) from error
    except OSError as error:
        raise ConfigError(f"{both}: {error.strerror}") from error
    # OpenSSL read the files by itself: what it approved must be what we hand on.
    if chain != certificate.read_bytes() or secret != key.read_bytes():
        raise ConfigError(f"{both}: the files changed while they were read")
    return Pair(chain, secret, _objection(context, chain) if server else "")


def read_authorities(path: Path, name: str) -> bytes:
    """A bundle of certificates of authorities.

    Raises:
        ConfigError: if the file cannot be read or holds no certificate.
    """
    bundle = _read(path, name, "-----BEGIN CERTIFICATE-----")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=_text(bundle))
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(
            f"{name}: expected PEM certificates of authorities, got {_reason(error)}"
        ) from error
    return bundle


def _read(path: Path, name: str, mark: str) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{name}: expected a readable PEM file at {path}: {error.strerror}"
        ) from error
    if mark.encode() not in data:
        raise ConfigError(f"{name}: expected '{mark}' in {path}, found other content")
    return data


def _text(pem: bytes) -> str:
    """What is encoded is ASCII; comments between may be anything."""
    return pem.decode("ascii", "ignore")


def _reason(error: Exception) -> str:
    """What OpenSSL says, without the line of its source."""
    return str(getattr(error, "reason", "") or error).split(" (_ssl")[0].lower().replace("_", " ")


def _objection(server: ssl.SSLContext, chain: bytes) -> str:
    """Shake hands in memory with a client that trusts this very certificate."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the leaf itself is what is trusted
    client.load_verify_locations(cadata=_text(chain))
    one, other = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = (client.wrap_bio(one, other), server.wrap_bio(other, one, server_side=True))
    for _ in range(3):  # TLS 1.3 takes one and a half round trips
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLCertVerificationError as error:
                return error.verify_message
            except ssl.SSLError as error:
                return _reason(error)
    return ""

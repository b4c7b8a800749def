"""Whether and how the gRPC port is encrypted; certificates change without a restart."""

from __future__ import annotations

import logging
from typing import Any, cast

import grpc

from serving.settings import ServiceSettings
from serving.watched_files import Reloading
from utility_gate.channels import is_loopback
from utility_gate.errors import ConfigError
from utility_gate.pem import read_authorities, read_pair

log = logging.getLogger(__name__)


def server_credentials(settings: ServiceSettings) -> grpc.ServerCredentials | None:
    """The credentials to listen with; None is plaintext, which only loopback gets unasked.

    Raises:
        ConfigError: naming the setting that is missing or whose file cannot be used.
    """
    certificate, key, client_ca = (
        settings.tls_certificate,
        settings.tls_key,
        settings.tls_client_ca,
    )
    if certificate is None and key is None:
        if client_ca is not None:
            raise ConfigError("tls_client_ca: expected tls_certificate and tls_key beside it")
        _guard_plaintext(settings)
        return None
    if certificate is None or key is None:
        missing = "tls_certificate" if certificate is None else "tls_key"
        raise ConfigError(f"{missing}: expected a PEM file beside the other one, got none")

    def load() -> grpc.ServerCertificateConfiguration:
        pair = read_pair(certificate, key, names=("tls_certificate", "tls_key"), server=True)
        if pair.objection:
            log.warning("tls_certificate: clients will refuse it: %s", pair.objection)
        authorities = None if client_ca is None else read_authorities(client_ca, "tls_client_ca")
        return grpc.ssl_server_certificate_configuration(
            [(pair.key, pair.certificate)], root_certificates=authorities
        )

    files = [file for file in (certificate, key, client_ca) if file is not None]
    configuration = Reloading(load, files)
    log.info("TLS is on, clients %s a certificate", "must show" if client_ca else "need not show")
    fetcher = _Fetcher(configuration)
    return grpc.dynamic_ssl_server_credentials(
        configuration.get(), cast(Any, fetcher), require_client_authentication=client_ca is not None
    )


class _Fetcher:
    """Asked by gRPC at every handshake, in a thread of its own; None: as last time."""

    def __init__(self, configuration: Reloading[grpc.ServerCertificateConfiguration]) -> None:
        self._configuration = configuration
        self._last = configuration.get()

    def __call__(self) -> grpc.ServerCertificateConfiguration | None:
        current = self._configuration.get()
        if current is self._last:
            return None  # gRPC would build a TLS context anew for every connection otherwise
        self._last = current
        return current


def _guard_plaintext(settings: ServiceSettings) -> None:
    if is_loopback(settings.host):
        return
    if not settings.allow_plaintext:
        raise ConfigError(
            f"host: expected a loopback address for traffic without TLS, got {settings.host!r}; "
            "set tls_certificate and tls_key, or allow_plaintext = true if the network is trusted "
            f"or something in front of the {settings.noun} encrypts"
        )
    if settings.api_keys is not None:
        log.warning("allow_plaintext: API keys cross the network unencrypted")

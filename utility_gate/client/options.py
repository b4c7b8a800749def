"""How a client's channel behaves: retries, keepalive, message sizes."""

from __future__ import annotations

import json
from typing import Any

DEFAULT_TIMEOUT = 10.0
"""Seconds for one call, retries included."""

# gRPC itself repeats, within the call's deadline, with +-20 % jitter, and waits as long as the
# server's trailer grpc-retry-pushback-ms says. A message over the transport's limit is
# RESOURCE_EXHAUSTED too; maxAttempts ends that.
SERVICE_CONFIG: dict[str, Any] = {
    "methodConfig": [
        {
            "name": [{"service": "utility_gate.v1.UtilityGateService"}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
            },
        }
    ],
    # The budget of all clients of a target in this process: a refused attempt costs 1, an answered
    # one earns 0.5, and below half of it nothing is repeated. While most calls fail, retries would
    # only add to the load; one full round of assess_many that is shed must not use it up.
    "retryThrottling": {"maxTokens": 50, "tokenRatio": 0.5},
}

# Equal options are what lets clients of one target share a connection: no per-client values here.
OPTIONS: tuple[tuple[str, str | int], ...] = (
    ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
    ("grpc.per_rpc_retry_buffer_size", 32 * 1024 * 1024),  # larger calls would not be retried
    # The gate allows a ping every 30 s while calls are open; idle connections are not pinged.
    ("grpc.keepalive_time_ms", 60_000),
    # Below DEFAULT_TIMEOUT, so that a connection that went dead unnoticed costs no more than its
    # calls. On Linux it also bounds how long sent bytes may stay unacknowledged.
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),  # no limit: streams may wait long for an image
    ("grpc.max_send_message_length", -1),  # the gate knows its limit and says it
)

"""Who is asking, for fairness: nobody is named in it who did not say who he is."""

from __future__ import annotations

from typing import Any

from server.auth import client_identity


def client_of(context: Any) -> str:
    """A name for the caller of an RPC: of its API key or certificate, else its address without the
    port, so that one machine with many connections is one client."""
    peer: str = context.peer() or ""
    return client_identity() or peer.rpartition(":")[0] or peer

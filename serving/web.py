"""HTTP for those who watch: /metrics, /healthz (alive), /readyz (ready)."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from utility_gate.errors import ConfigError

log = logging.getLogger(__name__)

_TEXT = "text/plain; charset=utf-8"


class WebServer:
    """Serves in a daemon thread until `close`."""

    def __init__(
        self, host: str, port: int, registry: CollectorRegistry, is_ready: Callable[[], bool]
    ) -> None:
        """Listen at once; `port` 0 takes a free one.

        Raises:
            ConfigError: if the address cannot be listened on.
        """

        class Handler(BaseHTTPRequestHandler):
            timeout = 10  # a client that never finishes its request must not hold a thread

            def do_GET(self) -> None:
                match self.path.split("?")[0]:
                    case "/metrics":
                        self._answer(200, CONTENT_TYPE_LATEST, generate_latest(registry))
                    case "/healthz":
                        self._answer(200, _TEXT, b"alive\n")
                    case "/readyz" if is_ready():
                        self._answer(200, _TEXT, b"ready\n")
                    case "/readyz":
                        self._answer(503, _TEXT, b"not ready\n")
                    case _:
                        self._answer(404, _TEXT, b"try /metrics, /healthz or /readyz\n")

            def _answer(self, code: int, kind: str, body: bytes) -> None:
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Scrapes are not worth a log line each."""

        class Server(ThreadingHTTPServer):
            address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002
                """Clients that leave early are no news; socketserver would print a traceback."""
                log.debug("a web client left", exc_info=True)

        try:
            self._server = Server((host, port), Handler)
        except OSError as error:
            raise ConfigError(
                f"web_port {port} on {host} cannot be listened on ({error}); choose another"
            ) from error
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, name="web", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

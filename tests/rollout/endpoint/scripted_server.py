"""A server on loopback that answers as a test says."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, Mapping[str, str], str]
"""(status, headers, body)"""
Script = Callable[[str, Any], Reply]
"""From path and body to the answer; called in a thread of its own for each request."""


@dataclass(slots=True, kw_only=True)
class ScriptedServer:
    """What it was asked, and where it is."""

    base_url: str
    requests: list[tuple[str, Any, Mapping[str, str]]] = field(default_factory=list)
    """(path, body, headers) in the order in which they came."""
    arrived_s: list[float] = field(default_factory=list)
    """When each of them came, by the monotonic clock."""
    at_once: int = 0
    """Requests that are being answered."""
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def most_within(self, window_s: float) -> int:
        """The most requests that came in any time of that length."""
        times = sorted(self.arrived_s)
        return max((sum(start <= at < start + window_s for at in times) for start in times), default=0)


@contextmanager
def serving(script: Script) -> Iterator[ScriptedServer]:
    """The server, while inside."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _answer(self, body: Any) -> None:
            with server.lock:
                server.requests.append((self.path, body, dict(self.headers)))
                server.arrived_s.append(time.monotonic())
                server.at_once += 1
                server.most_at_once = max(server.most_at_once, server.at_once)
            try:
                status, headers, text = script(self.path, body)
            finally:
                with server.lock:
                    server.at_once -= 1
            data = text.encode()
            with contextlib.suppress(ConnectionError):  # who asked may have given it up
                self.send_response(status)
                for name, value in {"Content-Length": str(len(data)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: the tests look at `requests`."""

    class Server(ThreadingHTTPServer):
        request_queue_size = 128
        daemon_threads = True

    http = Server(("127.0.0.1", 0), Handler)
    server = ScriptedServer(base_url=f"http://127.0.0.1:{http.server_address[1]}/v1")
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join(10)

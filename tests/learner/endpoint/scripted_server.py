"""A server on loopback that answers as a test says."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
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
            server.requests.append((self.path, body, dict(self.headers)))
            status, headers, text = script(self.path, body)
            data = text.encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: the tests look at `requests`."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server = ScriptedServer(base_url=f"http://127.0.0.1:{http.server_address[1]}/v1")
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join(10)


def scored(token_ids: Sequence[int], logprobs: Sequence[float], texts: Sequence[str] | None = None) -> Reply:
    """As vLLM answers to `prompt_logprobs: 0`: nothing for the first token, `logprobs` for the others."""
    said = texts or [f"<{token}>" for token in token_ids]
    entries: list[Any] = [None]
    for token, logprob, text in zip(token_ids[1:], logprobs, said[1:], strict=True):
        entries.append({str(token): {"logprob": logprob, "rank": 1, "decoded_token": text}})
    choice = {"index": 0, "text": "x", "finish_reason": "length", "logprobs": None, "prompt_logprobs": entries}
    return 200, {}, json.dumps({"object": "text_completion", "model": "m", "choices": [choice]})

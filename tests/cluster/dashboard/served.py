"""A dashboard that really listens, in a thread of the test, and requests to it byte for byte."""

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.dashboard.web.address import listening_socket
from cluster.dashboard.web.security import Access, access_for
from cluster.dashboard.web.server import make_app, make_server, open_store
from cluster.dashboard.web.stream import Follower


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    port: int
    follower: Follower

    def ask(self, target: str, *, method: str = "GET", **headers: str) -> Reply:
        """`target` is sent as it is; headers have "_" for "-"; `Host` replaces the ordinary one."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            named = {"host": f"127.0.0.1:{self.port}"} | {
                key.replace("_", "-").lower(): v for key, v in headers.items()
            }
            for name, value in named.items():
                connection.putheader(name, value)
            connection.endheaders()
            response = connection.getresponse()
            fields = {name.lower(): value for name, value in response.getheaders()}
            return Reply(status=response.status, headers=fields, body=response.read())
        finally:
            connection.close()

    def get(self, target: str) -> Any:
        """The JSON of an answer that must be there."""
        reply = self.ask(target)
        assert reply.status == 200, reply.body
        return reply.json()

    @contextlib.contextmanager
    def events(self, target: str = "/api/stream", **headers: str) -> Iterator[Iterator[dict[str, Any]]]:
        """The messages of the stream, each with its `id`, until the block is left."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request("GET", target, headers={key.replace("_", "-"): value for key, value in headers.items()})
        response = connection.getresponse()
        assert response.status == 200, response.read()
        try:
            yield _messages(response)
        finally:
            connection.close()


@contextlib.contextmanager
def serving(roots: Sequence[Path], access: Access | None = None) -> Iterator[Served]:
    """A dashboard of the runs below `roots` on a port of its own."""
    follower = Follower(roots, open_store)
    app = make_app(follower, access or access_for("127.0.0.1"), [str(root) for root in roots])
    with listening_socket("127.0.0.1", 0) as listening:
        server = make_server(app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            wait_until(lambda: server.started, "the server has started")
            yield Served(port=listening.getsockname()[1], follower=follower)
        finally:
            server.should_exit = True
            thread.join(15)
            assert not thread.is_alive()


def wait_until(condition: Any, what: str, timeout_s: float = 15.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not in {timeout_s} s: {what}"
        time.sleep(0.01)


def _messages(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    fields: dict[str, str] = {}
    while line := response.readline():
        text = line.decode().rstrip("\r\n")
        if text:
            name, _, value = text.partition(": ")
            fields[name] = value
        elif fields:
            if "data" in fields:
                yield json.loads(fields["data"]) | {"id": fields["id"], "event": fields["event"]}
            fields = {}

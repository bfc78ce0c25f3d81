"""Who opens connections and says nothing keeps nobody out, and is let go."""

import contextlib
import http.client
import resource
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.dashboard.web import connections, server
from cluster.dashboard.web.connections import ACCEPTED_AT_ONCE, most_connections
from tests.browser.conftest import REPOSITORY
from tests.cluster.dashboard.served import Served, serving, wait_until
from tests.cluster.dashboard.small_runs import write_run

HALF_OPEN, DESCRIPTORS = 2000, 1024
ANSWERED_S, SAID_BYTES = 2.0, 10_000


def opened(port: int, *, saying: bytes = b"") -> socket.socket:
    made = socket.create_connection(("127.0.0.1", port), timeout=10)
    made.sendall(saying)
    return made


def is_closed(made: socket.socket) -> bool:
    """By the other side; nothing is sent on these but by mistake."""
    made.setblocking(False)
    try:
        return made.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs")
    write_run(path / "one", num_steps=1)
    return path


@pytest.fixture
def served(folder: Path) -> Iterator[Served]:
    with serving([folder]) as running:
        yield running


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """This process may hold the other ends of all."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < HALF_OPEN + 500:
        pytest.skip(f"this process may have {hard} file descriptors alone")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, HALF_OPEN + 500), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def start(folder: Path, log: Path) -> tuple["subprocess.Popen[str]", int]:
    """A dashboard that may have as many file descriptors as is usual; its standard error is `log`."""
    command = [sys.executable, "-m", "cluster.cli", "dashboard", str(folder), "--port", "0"]
    process = subprocess.Popen(
        ["/bin/sh", "-c", f'ulimit -n {DESCRIPTORS}; exec "$@"', "sh", *command],
        stdout=subprocess.PIPE,
        stderr=log.open("w"),
        text=True,
        cwd=REPOSITORY,
    )
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    return process, int(address.rstrip("/").rpartition(":")[2])


def test_two_thousand_half_open_connections_keep_nobody_out(
    folder: Path, tmp_path: Path, many_descriptors: None
) -> None:
    log = tmp_path / "stderr"
    process, port = start(folder, log)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/runs/one", timeout=60) as reply:
            assert reply.status == 200
        with contextlib.ExitStack() as stack:
            parts = (b"", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: ")
            for number in range(HALF_OPEN):
                stack.enter_context(opened(port, saying=parts[number % 3]))
            slowest = 0.0
            for _ in range(20):
                began = time.monotonic()
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/runs", timeout=30) as reply:
                    assert reply.status == 200
                slowest = max(slowest, time.monotonic() - began)
            print(f"slowest of 20 answers beside {HALF_OPEN} half-open connections: {slowest:.3f} s")
            assert slowest < ANSWERED_S
        assert process.poll() is None
    finally:
        process.terminate()
        process.wait(20)
        assert process.stdout is not None
        process.stdout.close()
    assert log.stat().st_size < SAID_BYTES, log.read_text()[:2000]


def test_a_connection_that_sends_no_whole_request_has_an_end(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEADERS_S", 1.0)
    answered = http.client.HTTPConnection("127.0.0.1", served.port, timeout=10)
    with contextlib.closing(answered), served.events() as _:
        answered.request("GET", "/api/runs")
        answered.getresponse().read()
        mute = [opened(served.port), opened(served.port, saying=b"GET / HTTP/1.1\r\nHo")]
        answered.sock.sendall(b"GET /api/runs HTTP/1.1\r\n")  # half of a second request
        for made in (*mute, answered.sock):
            wait_until(lambda made=made: is_closed(made), "it is closed")
            made.close()
        # The stream has sent nothing either in this time, but it is an answer.
        assert served.follower.num_listeners() == 1
    assert served.ask("/api/runs").status == 200


def test_one_drop_at_a_time_does_not_make_it_last(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEADERS_S", 1.0)
    with opened(served.port, saying=b"GET / HTTP/1.1\r\nX: ") as slow:
        began = time.monotonic()
        while not is_closed(slow) and time.monotonic() - began < 8:
            with contextlib.suppress(OSError):
                slow.send(b"x")
            time.sleep(0.1)
        assert time.monotonic() - began < 6


def test_the_one_that_has_waited_longest_makes_room(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 4)
    with contextlib.ExitStack() as stack:
        mute = []
        for _ in range(6):
            mute.append(stack.enter_context(opened(served.port)))
            time.sleep(0.05)
        assert served.ask("/api/runs").status == 200
        assert [is_closed(made) for made in mute] == [True, True, True, False, False, False]


def test_where_all_are_being_answered_a_new_one_is_told_so(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 2)
    with served.events(), served.events():
        reply = served.ask("/api/runs")
        assert reply.status == 503
        assert reply.json() == {"error": "all connections of this dashboard are in use; close some of its pages"}
    wait_until(lambda: served.ask("/api/runs").status == 200, "there is room again")


def test_a_client_that_takes_nothing_of_its_answer_has_an_end(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "STUCK_S", 1.0)
    with socket.socket() as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        made.settimeout(10)
        made.connect(("127.0.0.1", served.port))
        request = f"GET /static/vendor/uPlot.mjs HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n\r\n".encode()
        made.sendall(request * 200)  # what is not taken of them waits in the server
        time.sleep(4.0)
        taken = 0
        with contextlib.suppress(ConnectionResetError):
            while part := made.recv(1 << 20):
                taken += len(part)
    whole = served.ask("/static/vendor/uPlot.mjs")
    assert 0 < taken < 200 * len(whole.body)


def test_there_are_descriptors_left_for_files(monkeypatch: pytest.MonkeyPatch) -> None:
    for soft, most in (
        (1024, 512 - ACCEPTED_AT_ONCE),
        (256, 128 - ACCEPTED_AT_ONCE),
        (65_536, 512),
        (-1, 512),
        (64, 1),
    ):
        monkeypatch.setattr(resource, "getrlimit", lambda _, soft=soft: (soft, soft))
        assert most_connections() == most


def test_no_more_streams_than_there_may_be(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_STREAMS", 5)
    with serving([folder]) as served:
        asked = [http.client.HTTPConnection("127.0.0.1", served.port, timeout=20) for _ in range(12)]
        for connection in asked:  # all are there before the first is answered
            connection.request("GET", "/api/stream")
        statuses = sorted(connection.getresponse().status for connection in asked)
        assert statuses == [200] * 5 + [503] * 7
        for connection in asked:
            connection.close()

        def again() -> int:
            connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)
            connection.request("GET", "/api/stream")
            status = connection.getresponse().status
            connection.close()
            return status

        wait_until(lambda: again() == 200, "the places were given back")

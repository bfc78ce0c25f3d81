"""Connections: how many there may be, and how long one may be of no use.

    made -> headers -> answered -> headers of the next request -> ...
    |--- HEADERS_S ---|          |--- uvicorn closes it after 5 s ---|

A connection that has sent no whole request within HEADERS_S is closed, and so is one that takes nothing of its answer
for STUCK_S. When there are as many as there may be, the one that has waited longest for its request makes room for a
new one: who opens a thousand and says nothing keeps nobody out. There are never so many that the process has no file
descriptor for the next: asyncio would say so with a traceback for each that waits.
"""

import asyncio
import contextlib
import json
import resource
import sys
import time
from collections.abc import Iterable
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEADERS_S, STUCK_S = 10.0, 60.0
MOST_CONNECTIONS = 512
"""Streams, of which there are 128 at most, and the requests of as many pages."""
ACCEPTED_AT_ONCE = 64
"""Before those that were accepted are counted. asyncio accepts so many in one go, and would run out of descriptors at
its usual 2048."""
WAITING = 1024
"""Connections that the system keeps until they are accepted."""
TOLD_EVERY_S = 60.0


def most_connections() -> int:
    """How many there may be: half of the file descriptors that the process may have, the rest is for files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(1, min(MOST_CONNECTIONS, soft // 2 - ACCEPTED_AT_ONCE))


class BoundedProtocol(H11Protocol):
    """A connection of uvicorn's that knows since when it waits for a request, and how its answer gets on."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Makes room for it, or turns it away where all others are being answered."""
        super().connection_made(transport)
        self.since_s = time.monotonic()
        self.unsent = 0, self.since_s
        """Bytes of its answer that wait to be taken, and since when they are so many."""
        if len(self.connections) > most_connections():
            # One that was told to close is counted until the loop's next turn.
            others = [p for p in self.connections if isinstance(p, BoundedProtocol) and p is not self and p.is_idle()]
            oldest = min(others, key=lambda protocol: protocol.since_s, default=None)
            if oldest is not None:
                oldest.transport.abort()
            elif sum(not protocol.transport.is_closing() for protocol in self.connections) > most_connections():
                transport.write(_BUSY)
                transport.close()

    def is_idle(self) -> bool:
        """Whether it waits for a request, whole or the rest of one."""
        return not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete)

    def on_response_complete(self) -> None:
        """The next request has its time from here on."""
        self.since_s = time.monotonic()
        super().on_response_complete()

    def is_of_no_use(self, now_s: float) -> bool:
        """Whether it has had its time."""
        if self.transport.is_closing():
            return False
        if self.is_idle():
            return now_s - self.since_s > HEADERS_S
        size = self.transport.get_write_buffer_size()
        if size == 0 or size != self.unsent[0]:
            self.unsent = size, now_s
        return now_s - self.unsent[1] > STUCK_S and size > 0


def close_useless(connections: Iterable[Any]) -> None:
    """Closes those that have had their time. To be called again and again."""
    now_s = time.monotonic()
    for protocol in list(connections):
        if isinstance(protocol, BoundedProtocol) and protocol.is_of_no_use(now_s):
            protocol.transport.abort()


class Complaints:
    """The event loop's handler of exceptions: that it cannot accept is said in one line, and seldom."""

    def __init__(self) -> None:
        self._told_s = -TOLD_EVERY_S

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """As asyncio asks for it."""
        if "accept" not in str(context.get("message", "")):
            loop.default_exception_handler(context)
        elif time.monotonic() - self._told_s >= TOLD_EVERY_S:
            self._told_s = time.monotonic()
            with contextlib.suppress(OSError):
                print(f"shoal: the dashboard cannot take connections now: {context.get('exception')}", file=sys.stderr)


def _busy() -> bytes:
    body = json.dumps({"error": "all connections of this dashboard are in use; close some of its pages"}).encode()
    head = f"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return head.encode() + b"connection: close\r\n\r\n" + body


_BUSY = _busy()

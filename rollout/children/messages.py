"""How the owner, the template and its children talk: length-prefixed messages on socket pairs.

Requests are pickled: they go from the owner to processes that it trusts less than itself. Answers are JSON, never
pickle: a child has run user code on model text, and unpickling what it sends would hand it the owner.
"""

import json
import pickle
import socket
import struct
import time
from typing import Any

LENGTH = struct.Struct("!I")
MAX_MESSAGE_BYTES = 256 * 2**20
"""More than any group of completions; a length above it is a broken or hostile peer."""


class PeerClosedError(Exception):
    """The other end is gone: its process ended."""


def send_pickle(peer: socket.socket, value: Any, deadline_s: float | None = None) -> None:
    """Send `value` by `deadline_s` (monotonic time; None waits without end, which only a template or child may)."""
    _send(peer, pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL), deadline_s)


def send_json(peer: socket.socket, value: Any, deadline_s: float | None = None) -> None:
    """Send what has a JSON form; `deadline_s` as in `send_pickle`."""
    _send(peer, json.dumps(value).encode("ascii"), deadline_s)


def receive_pickle(peer: socket.socket, deadline_s: float | None = None) -> Any:
    """Receive one request. For templates and children: the owner never unpickles.

    Raises:
        PeerClosedError: end of file.
        TimeoutError: `deadline_s` passed.
    """
    return pickle.loads(_receive(peer, deadline_s))


def receive_json(peer: socket.socket, deadline_s: float | None = None) -> Any:
    """Receive one answer.

    Raises:
        PeerClosedError: end of file.
        TimeoutError: `deadline_s` passed.
        ValueError: what came is not JSON.
    """
    return json.loads(_receive(peer, deadline_s))


def _send(peer: socket.socket, payload: bytes, deadline_s: float | None) -> None:
    assert len(payload) <= MAX_MESSAGE_BYTES, len(payload)
    _set_timeout(peer, deadline_s)
    try:
        peer.sendall(LENGTH.pack(len(payload)) + payload)
    except (BrokenPipeError, ConnectionResetError) as error:
        raise PeerClosedError("the peer closed its end") from error


def _receive(peer: socket.socket, deadline_s: float | None) -> bytes:
    (length,) = LENGTH.unpack(_receive_exactly(peer, LENGTH.size, deadline_s))
    if length > MAX_MESSAGE_BYTES:
        raise ValueError(f"a message of {length} bytes was announced, more than {MAX_MESSAGE_BYTES}")
    return _receive_exactly(peer, length, deadline_s)


def _receive_exactly(peer: socket.socket, num_bytes: int, deadline_s: float | None) -> bytes:
    received = bytearray()
    while len(received) < num_bytes:
        _set_timeout(peer, deadline_s)
        try:
            chunk = peer.recv(min(num_bytes - len(received), 1 << 20))
        except ConnectionResetError as error:
            raise PeerClosedError("the peer closed its end") from error
        if not chunk:
            raise PeerClosedError("the peer closed its end")
        received += chunk
    return bytes(received)


def _set_timeout(peer: socket.socket, deadline_s: float | None) -> None:
    if deadline_s is None:
        peer.settimeout(None)
        return
    remaining_s = deadline_s - time.monotonic()
    if remaining_s <= 0:
        raise TimeoutError("the deadline passed")
    peer.settimeout(remaining_s)

"""Where `shoal dashboard` listens: what was asked for, a bound socket, the address to open. Loads nothing heavy, since
every `shoal` command reads it."""

import errno
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rollout.errors import ConfigError

if TYPE_CHECKING:
    from cluster.dashboard.web.security import Access

DEFAULT_PORT, MAX_PORT = 7533, 65_535


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """What `shoal dashboard` was asked for."""

    roots: tuple[Path, ...]
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    """0: any that is free."""
    allow_hosts: tuple[str, ...] = ()
    require_token: bool = False
    allow_writing: bool = False
    """Whether who has the token may annotate completions."""
    parent: int | None = None
    """Process to end with: the run that started this dashboard, however it ends."""


def listening_socket(host: str, port: int) -> socket.socket:
    """A bound socket. Raises ConfigError, in one sentence, when the address is taken or is none of this machine's."""
    if not 0 <= port <= MAX_PORT:  # getaddrinfo would take the remainder
        raise ConfigError(f"--port is {port}, allowed: 0 (any that is free) to {MAX_PORT}")
    try:
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        # The protocol by name: by it asyncio knows that it may switch off Nagle's algorithm, for which every answer
        # after the first on a connection waits 40 ms until the client acknowledges its head.
        bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"there is no address {host}: {getattr(error, 'strerror', None) or error}; choose another --host"
        ) from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(place)
        bound.listen(128)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"port {port} of {host} is in use, perhaps by another dashboard; choose another with --port (0: any)"
            ) from error
        raise ConfigError(
            f"cannot listen on {host}, port {port}: {error.strerror}; choose another --host or --port"
        ) from error
    return bound


def address(host: str, port: int, access: "Access") -> str:
    """What to open in a browser."""
    name = socket.gethostname() if host in ("0.0.0.0", "::", "") else host
    shown_name = f"[{name}]" if ":" in name else name
    return f"http://{shown_name}:{port}/" + (f"?token={access.token}" if access.token else "")

"""Who may ask the dashboard: the checks before every request and the headers on every answer.

Runs hold prompts, completions and paths, so a web page that the user visits elsewhere must not be able to read them:
  - a foreign page whose name was made to point here (DNS rebinding) sends its own name as Host: 421;
  - a foreign page's fetch has its Origin, or `Sec-Fetch-Site: cross-site`: 403;
  - beyond loopback a random token is needed: 401 without it, for who opens the page with a field to paste it into;
  - nothing can be changed, 405 for all but GET and HEAD; but for the notes of people (POST .../annotations): as JSON,
    which no foreign page can send unasked, and beyond loopback only with --allow-writing.
"""

import hashlib
import hmac
import ipaddress
import json
import re
import secrets
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import cookie_parser

from cluster.dashboard.web.token_page import token_page

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
WILDCARDS = frozenset({"0.0.0.0", "::", ""})
TOKEN_BYTES = 32
WRITABLE = re.compile(r"/api/runs/[^/]+/annotations")
"""Paths that take a POST."""
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
API_POLICY = "default-src 'none'; frame-ancestors 'none'"
"""For answers that are no page: should one be shown as a document, it can do nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who may ask."""

    host_names: frozenset[str]
    """Allowed in the Host header, lower case, without a port: a tunnel may give any port."""
    any_address: bool = False
    """Whether an IP address is allowed too: an address cannot be rebound, a name can."""
    token: str | None = None
    """None: nobody is asked for it."""
    allow_writing: bool = False
    """Whether who has the token may annotate completions. Where there is no token only this machine can ask, and
    may."""

    @property
    def may_write(self) -> bool:
        """Whether those who may ask may also annotate."""
        return self.token is None or self.allow_writing

    @property
    def cookie_name(self) -> str:
        """Cookies are shared by all ports of a host, so that two dashboards need two names."""
        return f"shoal_{hashlib.sha256((self.token or '').encode()).hexdigest()[:12]}"

    def allows_host(self, header: str) -> bool:
        """Whether the Host header names this dashboard."""
        name = host_name(header)
        if name is None:
            return False
        return name in self.host_names or (self.any_address and _is_address(name))

    def allows_token(self, given: str | None) -> bool:
        """In constant time for the length that was given."""
        if self.token is None:
            return True
        return given is not None and hmac.compare_digest(given.encode("utf-8", "replace"), self.token.encode())


def access_for(
    host: str, allow_hosts: Iterable[str] = (), *, require_token: bool = False, allow_writing: bool = False
) -> Access:
    """Access for a server that listens on `host`; the token is asked for wherever that is not loopback."""
    names = LOOPBACK_NAMES | {name.lower().strip("[]") for name in allow_hosts}
    wildcard = host in WILDCARDS
    if wildcard:
        names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
    else:
        names |= {host.lower().strip("[]")}
    token = secrets.token_urlsafe(TOKEN_BYTES) if require_token or not is_loopback(host) else None
    return Access(host_names=frozenset(names), any_address=wildcard, token=token, allow_writing=allow_writing)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens there."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def host_name(header: str) -> str | None:
    """The name in a Host header without its port, lower case; None when it is malformed."""
    try:
        parts = urlsplit(f"//{header}")
        _ = parts.port  # raises for a port that is no number
    except ValueError:
        return None
    if parts.hostname is None or parts.netloc != header or "@" in header:
        return None
    return parts.hostname


class Guard:
    """ASGI middleware: refuses with a JSON sentence, else passes on, and adds the headers to every answer."""

    def __init__(self, app: "ASGIApp", access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """One request, or the application's own start and end."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # a WebSocket is never accepted: the server closes it
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        hosts = [value for key, value in scope["headers"] if key == b"host"]
        refusal = self._refusal(scope, headers, len(hosts))
        entry = {} if refusal else self._enter(scope, headers)
        if entry is None and _is_for_a_person(scope, headers):
            await _ask_for_token(_with_headers(send, {}), scope)
            return
        if entry is None:
            refusal = _refuse(401, "the token is missing or wrong; open the address that was printed at the start")
        if refusal is None:
            await self._app(scope, receive, _with_headers(send, entry or {}))
        else:
            await _answer(_with_headers(send, {}), *refusal, head=scope["method"] == "HEAD")

    def _refusal(self, scope: "Scope", headers: dict[str, str], num_hosts: int) -> "_Refusal | None":
        method: str = scope["method"]
        is_write = method == "POST" and WRITABLE.fullmatch(scope["path"]) is not None
        host = headers.get("host", "")
        if num_hosts != 1 or not self._access.allows_host(host):
            return _refuse(
                421, f"the Host {_short(host)} is not one of this dashboard's; start it with --allow-host for that name"
            )
        if method not in ("GET", "HEAD") and not is_write:
            return _refuse(
                405, f"the method {_short(method)} is not allowed: a dashboard is only read, with GET", allow=True
            )
        origin = headers.get("origin")
        if origin is not None and urlsplit_origin(origin) != host.lower():
            return _refuse(403, f"the Origin {_short(origin)} is not this dashboard's own")
        if is_write and not self._access.may_write:
            return _refuse(
                403, "this dashboard is only read; start it with --allow-writing for notes by those with the token"
            )
        if is_write and origin is None and headers.get("sec-fetch-site", "none") != "none":
            return _refuse(403, "this request has no Origin, by which it is known to be of the dashboard's own page")
        site, mode = headers.get("sec-fetch-site", "none"), headers.get("sec-fetch-mode", "navigate")
        if site not in ("none", "same-origin") and mode != "navigate":
            return _refuse(403, "this request comes from a page of another site")
        return None

    def _enter(self, scope: "Scope", headers: dict[str, str]) -> dict[str, str] | None:
        """Headers to add to the answer when the token is right, else None.

        It may be in the Authorization header, in the cookie or, once, in the address, which then sets the cookie. The
        page itself is the answer to that (no redirect: after a link from another site the browser would not send a
        `SameSite=Strict` cookie with it), and takes the token out of the address.
        """
        access = self._access
        if access.token is None:
            return {}
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and access.allows_token(given.strip()):
            return {}
        if access.allows_token(_cookie(headers.get("cookie", ""), access.cookie_name)):
            return {}
        query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        if scope["path"] == "/" and access.allows_token(query.get("token")):
            return {"set-cookie": f"{access.cookie_name}={access.token}; Path=/; HttpOnly; SameSite=Strict"}
        return None


def urlsplit_origin(origin: str) -> str | None:
    """host:port of an Origin header; None for "null" and what is no http address."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return None
    return parts.netloc.lower() if parts.scheme in ("http", "https") and parts.path == "" else None


_Refusal = tuple[int, dict[str, str], dict[str, str]]
"""Status, headers, body."""


def _refuse(status: int, sentence: str, *, allow: bool = False) -> _Refusal:
    return status, ({"allow": "GET, HEAD"} if allow else {}), {"error": sentence}


def _is_for_a_person(scope: "Scope", headers: dict[str, str]) -> bool:
    """Whether a browser opens the page itself, not a script a part of it."""
    return scope["path"] == "/" and "text/html" in headers.get("accept", "")


async def _ask_for_token(send: "Send", scope: "Scope") -> None:
    given = dict(parse_qsl(scope["query_string"].decode("latin-1"))).get("token")
    page = token_page(wrong=bool(given))
    content = page.html.encode()
    fields = {
        "content-type": "text/html; charset=utf-8",
        "content-length": str(len(content)),
        "content-security-policy": page.policy,
    }
    raw = [(key.encode(), value.encode()) for key, value in fields.items()]
    await send({"type": "http.response.start", "status": 401, "headers": raw})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else content})


async def _answer(send: "Send", status: int, headers: dict[str, str], body: dict[str, str], *, head: bool) -> None:
    content = json.dumps(body).encode() if body else b""
    fields = {"content-type": "application/json", "content-length": str(len(content)), **headers}
    raw = [(key.encode("latin-1"), value.encode("latin-1")) for key, value in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": b"" if head else content})


def _with_headers(send: "Send", own: dict[str, str]) -> "Send":
    async def sending(message: "Message") -> None:
        if message["type"] == "http.response.start":
            present = {key.lower() for key, _ in message["headers"]}
            extra = HEADERS | {"content-security-policy": API_POLICY, "cache-control": "no-store"} | own
            added = [(key.encode(), value.encode()) for key, value in extra.items() if key.encode() not in present]
            message = {**message, "headers": [*message["headers"], *added]}
        await send(message)

    return sending


def _cookie(header: str, name: str) -> str | None:
    """That of the header, whatever else is in it: a browser sends cookies of other servers of this host too, and
    `http.cookies` gives up at the first that has a character it does not allow."""
    return cookie_parser(header).get(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _short(text: str) -> str:
    """Quoted, escaped and bounded: it comes from outside."""
    return ascii(text if len(text) <= 80 else text[:80] + "...")

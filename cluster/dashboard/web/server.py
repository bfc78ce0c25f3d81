"""The server of `shoal dashboard`: the page, its files, the API, the stream of changes. All but POST is read-only.

GET /             the page               GET /api/...      JSON (api.py), in a pool of threads
GET /static/NAME  one of a fixed set     GET /api/stream   server-sent events
"""

import asyncio
import contextlib
import json
import os
import socket
import threading
import time
import webbrowser
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import anyio
import uvicorn
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from cluster.dashboard.web.address import ServerOptions, address, listening_socket
from cluster.dashboard.web.annotate import MAX_BODY_BYTES, annotate
from cluster.dashboard.web.api import Answer, Api
from cluster.dashboard.web.changes import Change, change_of
from cluster.dashboard.web.connections import (
    ACCEPTED_AT_ONCE,
    HEADERS_S,
    WAITING,
    BoundedProtocol,
    Complaints,
    close_useless,
)
from cluster.dashboard.web.page import Page, served_page, static_files
from cluster.dashboard.web.params import RequestError, parse_query, shown
from cluster.dashboard.web.security import Access, Guard, access_for
from cluster.dashboard.web.stream import Follower
from rollout.errors import ShoalError

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from cluster.dashboard.index.store import RunStore

MAX_STREAMS = 128
PING_S, SEND_TIMEOUT_S = 15, 30
"""A client that takes nothing for SEND_TIMEOUT_S is let go; it comes back by itself."""
BESIDE_A_RUN_NICE = 10
"""Niceness of a dashboard that a run started: the run goes first."""
GZIP_BYTES, GZIP_LEVEL = 1024, 1
REVALIDATE = "no-cache"
"""May be kept, but is asked for each time with its ETag."""


def make_app(follower: Follower, access: Access, folders: Sequence[str]) -> Starlette:
    """The application. The follower is started and stopped with it."""
    api, files, page = Api(follower, folders), static_files(), served_page()

    def index(_request: Request) -> Response:
        return _page_response(page)

    def static(request: Request) -> Response:
        file = files.get(_raw_path(request).removeprefix("/static/"))
        if file is None:
            raise RequestError(404, f"the page has no file {shown(request.url.path)}")
        content = file.read()
        headers = {"etag": content.etag, "cache-control": REVALIDATE, "vary": "Accept-Encoding"}
        if request.headers.get("if-none-match") == content.etag:
            return Response(status_code=304, headers=headers)
        if "gzip" in request.headers.get("accept-encoding", ""):
            headers["content-encoding"] = "gzip"
            return Response(content.gzipped, media_type=file.media_type, headers=headers)
        return Response(content.plain, media_type=file.media_type, headers=headers)

    def api_answer(request: Request) -> Response:
        path = _raw_path(request).removeprefix("/api/")
        answer = api.answer(path, request.url.query, request.headers.get("if-none-match"))
        return _api_response(answer)

    places = Places(MAX_STREAMS)

    async def stream(request: Request) -> Response:
        return await _stream(follower, places, request)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        follower.start()
        yield
        await run_in_threadpool(follower.stop)

    app = Starlette(
        routes=[
            Route("/", index),
            Route("/static/{name:path}", static),
            Route("/api/stream", stream),
            Route("/api/runs/{run}/annotations", partial(_annotation, follower), methods=["POST"]),
            Route("/api/{path:path}", api_answer),
        ],
        middleware=[
            Middleware(Guard, access=access),
            Middleware(GZipMiddleware, minimum_size=GZIP_BYTES, compresslevel=GZIP_LEVEL),
        ],
        exception_handlers={
            RequestError: _request_error,
            ShoalError: _shoal_error,
            HTTPException: _http_error,
            Exception: _defect,
        },
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # an address that is not there is 404, not a way to another
    return app


async def _annotation(follower: Follower, request: Request) -> Response:
    body = await _body(request, MAX_BODY_BYTES)
    name, content_type = request.path_params["run"], request.headers.get("content-type", "")
    return JSONResponse(await run_in_threadpool(annotate, follower, name, content_type, body))


async def _body(request: Request, most: int) -> bytes:
    """What was sent, up to the part that is beyond `most` bytes. Raises RequestError where it does not come: a
    connection whose request is being answered is closed by nobody else."""
    body = b""
    try:
        async with asyncio.timeout(HEADERS_S):
            async for part in request.stream():
                body += part
                if len(body) > most:
                    break
    except TimeoutError as error:
        raise RequestError(408, f"the request did not come within {HEADERS_S:g} s") from error
    except ClientDisconnect as error:
        raise RequestError(400, "the connection ended before the request did") from error
    return body


def _api_response(answer: Answer) -> Response:
    headers = {"cache-control": REVALIDATE} | ({"etag": answer.etag} if answer.etag else {})
    if answer.parts is not None:
        if answer.file_name:
            headers["content-disposition"] = f'attachment; filename="{answer.file_name}"'
        return StreamingResponse(answer.parts, media_type=answer.media_type, headers=headers)
    if answer.body is None:
        return Response(status_code=304, headers=headers)
    return Response(answer.body, media_type="application/json", headers=headers)


def _page_response(page: Page) -> Response:
    headers = {"content-security-policy": page.policy, "cache-control": "no-store"}
    return Response(page.html, media_type="text/html", headers=headers)


def _raw_path(request: Request) -> str:
    """The path as it was sent: an escaped slash or dot is no path of ours."""
    raw: bytes = request.scope.get("raw_path") or quote(request.scope["path"]).encode()
    return raw.split(b"?")[0].decode("latin-1")


def _error(status: int, sentence: str) -> JSONResponse:
    content = {"error": sentence.encode("utf-8", "backslashreplace").decode()}
    # After 408 the rest of the request may still come, and would be taken for the next one.
    return JSONResponse(content, status_code=status, headers={"connection": "close"} if status == 408 else None)


def _request_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return _error(error.status, str(error))


def _shoal_error(_request: Request, error: Exception) -> Response:
    """What a view says of a parameter, as of a filter that does not parse."""
    return _error(400, str(error))


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, f"there is nothing at {shown(request.url.path)}")


def _defect(_request: Request, error: Exception) -> Response:
    """A defect of ours; the server prints its trace as well."""
    return _error(500, f"internal error: {type(error).__name__}: {error}; the terminal of the dashboard has the trace")


class Places:
    """Of the streams. Taken and given back in the event loop alone, and taken before the answer begins: as many could
    come in between as there are clients."""

    def __init__(self, number: int) -> None:
        self._number = self._free = number

    def take(self) -> None:
        """Raises RequestError where all are taken."""
        if self._free <= 0:
            raise RequestError(503, f"{self._number} pages listen already; close some")
        self._free -= 1

    def give_back(self) -> None:
        """When the answer has ended."""
        self._free += 1


class _Stream(EventSourceResponse):
    """An answer that gives its place back, also where the client has gone before it began."""

    def __init__(self, places: Places, content: AsyncIterator[ServerSentEvent], **options: Any) -> None:
        super().__init__(content, **options)
        self._places = places

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._places.give_back()


async def _stream(follower: Follower, places: Places, request: Request) -> Response:
    run = parse_query(request.url.query, ("run",)).get("run")
    if run is not None and run not in await run_in_threadpool(follower.paths):
        raise RequestError(404, f"there is no run {shown(run)} here; /api/runs lists those there are")
    last_seen = request.headers.get("last-event-id")
    ending = anyio.Event()
    places.take()  # nothing is awaited from here to the answer's own end
    return _Stream(
        places,
        _events(follower, run, last_seen, ending),
        ping=PING_S,
        send_timeout=SEND_TIMEOUT_S,
        headers={"cache-control": "no-store"},
        shutdown_event=ending,
        shutdown_grace_period=1.0,
    )


async def _events(
    follower: Follower, run: str | None, last_seen: str | None, ending: anyio.Event
) -> AsyncIterator[ServerSentEvent]:
    """Until the client goes or the server is told to end (`ending`); then it returns, so that the answer is whole."""
    loop, ready = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed between the look at the listeners and this call
            loop.call_soon_threadsafe(ready.set)

    async def wake_at_the_end() -> None:
        await ending.wait()
        ready.set()

    listener, last = follower.listen(run, wake), loop.create_task(wake_at_the_end())
    try:
        first = await run_in_threadpool(_first_change, follower, run, last_seen)
        if first is not None:
            yield _message(first)
        while not ending.is_set():
            await ready.wait()
            ready.clear()
            for change in listener.take():
                yield _message(change)
    finally:
        last.cancel()
        follower.unlisten(listener)


def _first_change(follower: Follower, run: str | None, last_seen: str | None) -> Change | None:
    """Where the run is now: a page that was cut off for a while learns whether it missed something."""
    if run is None:
        return None
    with follower.use(run) as opened:
        missed = last_seen is not None and last_seen != str(opened.revision)
        return change_of(opened, opened.seen if missed else ())


def _message(change: Change) -> ServerSentEvent:
    data = {
        "run": change.run,
        "revision": change.revision,
        "step": change.step,
        "status": change.status,
        "changed": sorted(change.changed),
    }
    return ServerSentEvent(json.dumps(data), event="change", id=str(change.revision))


def serve(options: ServerOptions, *, open_browser: bool = False) -> None:
    """Prints the address and serves until it is interrupted. Raises ConfigError when the address cannot be had."""
    access = access_for(
        options.host, options.allow_hosts, require_token=options.require_token, allow_writing=options.allow_writing
    )
    with listening_socket(options.host, options.port) as listening:
        follower = Follower(options.roots, open_store)
        app = make_app(follower, access, [str(root) for root in options.roots])
        where = address(options.host, listening.getsockname()[1], access)
        print(where, flush=True)  # a pipe must have it now, not when its buffer is full
        if open_browser:
            webbrowser.open(where)
        server = make_server(app)
        if options.parent is not None:
            os.nice(BESIDE_A_RUN_NICE)
            threading.Thread(target=_end_with, args=(options.parent, server), daemon=True).start()
        with contextlib.suppress(KeyboardInterrupt):  # the ordinary end
            server.run(sockets=[listening])


class _Server(uvicorn.Server):
    """Looks twice a second whether it is to end, and which connections are of no use; uvicorn's own looks ten times, a
    tenth of what a page that follows a run costs."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(Complaints())
        await super().startup(sockets)
        for listening in sockets or ():
            listening.listen(WAITING)  # asyncio's own is how many it accepts at once

    async def main_loop(self) -> None:
        is_over = await self.on_tick(0)
        while not is_over:
            await asyncio.sleep(0.5)
            close_useless(self.server_state.connections)
            is_over = await self.on_tick(0)


def make_server(app: Starlette) -> uvicorn.Server:
    """What listens: HTTP/1.1 alone, silent but for defects, nothing told about itself."""
    return _Server(
        uvicorn.Config(
            app,
            log_level="error",  # a request that is none would be a warning, and anybody can send a million of them
            access_log=False,
            server_header=False,
            proxy_headers=False,
            http=BoundedProtocol,
            backlog=ACCEPTED_AT_ONCE,
            ws="none",
            loop="asyncio",
            timeout_graceful_shutdown=2,
        )
    )


def _end_with(parent: int, server: uvicorn.Server) -> None:
    """A run that was killed outright cannot end its dashboard: its child gets another parent then."""
    while os.getppid() == parent:
        time.sleep(1.0)
    server.should_exit = True


def open_store(path: Path) -> "RunStore":
    """The store of a run, which is imported when the first one is opened."""
    from cluster.dashboard.index.store import RunStore

    return RunStore(path)

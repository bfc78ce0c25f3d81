"""The JSON API of `docs/dashboard-api.md`: an address -> what a view function makes of a run.

The same answers go into an exported report, so nothing here knows of HTTP but for the parts of an address and a status.
"""

import contextlib
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

from cluster.dashboard.doctor.glance import Glances, counts, differing_keys, reward_curve
from cluster.dashboard.figures.settings import flattened
from cluster.dashboard.files.encoding import encode
from cluster.dashboard.files.run_tags import tags_info
from cluster.dashboard.views.compare import compare
from cluster.dashboard.views.frame import run_info
from cluster.dashboard.web.endpoints import (
    DEFAULT_POINTS,
    MAX_POINTS,
    Asked,
    Download,
    doctor_of,
    endpoint_of,
    saved_views,
)
from cluster.dashboard.web.params import RequestError, bad, names, parse_query, shown, whole
from cluster.dashboard.web.stream import Follower

Part = TypeVar("Part", str, bytes)
MAX_COMPARED = 8
"""Runs beside each other; more cannot be told apart."""
MAX_KEYS = 20
"""Of the configurations, as columns of the list of runs."""
GLANCES_S = 0.5
"""Longest that a list of runs waits for what it can do without."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What is sent back: JSON, whole or in parts, unless the asker has this already (neither)."""

    body: bytes | None
    etag: str | None
    parts: Iterator[str] | Iterator[bytes] | None = None
    """May be taken in another thread; the run stays open until the last was."""
    media_type: str = "application/json"
    file_name: str = ""
    """Of a file that is to be saved; empty for what is not."""


class Api:
    """All answers. Called from many threads at once."""

    def __init__(self, follower: Follower, folders: Sequence[str]) -> None:
        self._follower = follower
        self._folders = list(folders)
        self._glances = Glances()
        self._glancing = threading.Lock()
        self._boot = secrets.token_hex(4)  # revisions of another process are other revisions

    def answer(self, path: str, query: str = "", have: str | None = None) -> Answer:
        """The answer for a raw, still escaped path below /api/; `have` is the ETag that the asker holds.

        Raises RequestError, and ShoalError for what a view says of a parameter (a filter).
        """
        parts = _unescaped(path)
        match parts:
            case ["runs"]:
                return _answer(self._runs(names(parse_query(query, ("keys",)), "keys", MAX_KEYS)))
            case ["views"]:
                parse_query(query, ())
                return _answer({"views": saved_views()})
            case ["compare"]:
                return self._compare(parse_query(query, ("runs", "points")), have)
            case ["runs", name, *rest]:
                return self._of_run(name, rest, query, have)
        raise _nothing_here(path)

    def _of_run(self, name: str, rest: Sequence[str], query: str, have: str | None) -> Answer:
        found = endpoint_of(rest)
        if found is None:
            raise _nothing_here("runs/{run}/" + "/".join(rest))
        endpoint, parts = found
        values = parse_query(query, endpoint.parameters)
        with self._follower.use(name, rollouts=endpoint.rollouts) as run:
            # Taken before the data is read: should it change meanwhile, the tag is too old and never too new.
            etag = f'"{self._boot}-{run.revision}"'
            if have == etag:
                return Answer(body=None, etag=etag)
            assert run.store is not None
            value = endpoint.view(Asked(run=run, store=run.store, parts=parts, values=values))
            if isinstance(value, dict):
                return Answer(body=encode(value), etag=etag)
            if isinstance(value, Download):
                held = self._held(name, value.parts)
                return Answer(body=None, etag=None, parts=held, media_type=value.media_type, file_name=value.name)
            return Answer(body=None, etag=etag, parts=self._held(name, value))

    def _held(self, name: str, parts: Iterator[Part]) -> Iterator[Part]:
        with self._follower.use(name):
            yield from parts

    def _runs(self, keys: Sequence[str]) -> dict[str, Any]:
        """The list of runs, with the values at some keys of their configurations. Reading the metrics of runs that
        nobody has opened takes a while where there are hundreds: those that have to wait are counted as `unread`."""
        infos, configs, unread, until_s = [], [], 0, time.monotonic() + GLANCES_S
        for name, path in self._follower.paths().items():
            found = self._opened_info(name) or self._unopened_info(name, path, until_s)
            info, config = found
            unread += config is None
            configs += [] if config is None else [config]
            infos.append(info | tags_info(path) | {"values": {key: (config or {}).get(key) for key in keys}})
        infos.sort(key=lambda info: (-(info["started_s"] or 0.0), info["run"]))
        return {"runs": infos, "folders": self._folders, "keys": differing_keys(configs), "unread": unread}

    def _unopened_info(self, name: str, path: Path, until_s: float) -> tuple[dict[str, Any], Mapping[str, Any] | None]:
        info, facts = self._follower.cheap_info(name, path), self._follower.cheap_facts(path)
        with self._glancing:
            glance = self._glances.of(path, until_s=until_s, facts=facts)
        if glance is None:
            return {**info, "curve": [], "doctor": None, "is_opened": False}, None
        return {**info, "curve": glance.curve, "doctor": glance.doctor, "is_opened": False}, glance.config

    def _opened_info(self, name: str) -> tuple[dict[str, Any], Mapping[str, Any]] | None:
        """That of an opened run; None when it is not open, or its store fails: the list is for all runs."""
        if not self._follower.opened(name):
            return None
        try:
            with self._follower.use(name, keep=False) as run:
                assert run.store is not None
                found = counts(finding["severity"] for finding in doctor_of(run)["findings"])
                curve = reward_curve(run.store.metrics())
                info = {**run_info(name, run.store), "curve": curve, "doctor": found, "is_opened": True}
                return info, flattened(run.store.config() or {})
        except RequestError:
            return None

    def _compare(self, values: Mapping[str, str], have: str | None) -> Answer:
        chosen = names(values, "runs", MAX_COMPARED)
        if not chosen:
            raise bad("runs is empty, allowed: 1 to 8 names of runs with commas between")
        points = whole(values, "points", DEFAULT_POINTS, 1, MAX_POINTS)
        with contextlib.ExitStack() as stack:
            runs = [stack.enter_context(self._follower.use(name, rollouts=True)) for name in chosen]
            etag = f'"{self._boot}-{"-".join(str(run.revision) for run in runs)}"'
            if have == etag:
                return Answer(body=None, etag=etag)
            stores = {run.name: run.store for run in runs if run.store is not None}
            return Answer(body=encode(compare(stores, points)), etag=etag)


def _answer(value: dict[str, Any]) -> Answer:
    return Answer(body=encode(value), etag=None)


def _unescaped(path: str) -> list[str]:
    """Parts of an escaped path. Unescaped after the split, so that an escaped slash is part of a name."""
    try:
        return [unquote(part, errors="strict") for part in path.split("/")]
    except UnicodeDecodeError as error:
        raise bad(f"the path {shown(path)} is no UTF-8") from error


def _nothing_here(path: str) -> RequestError:
    return RequestError(404, f"there is nothing at {shown('/api/' + path)}; docs/dashboard-api.md lists what there is")

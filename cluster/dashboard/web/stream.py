"""Follows the runs: one thread reads what is new in every opened run and tells those who listen.

    request -> use(run) ---------------> RunStore (read from any thread)
                  | opens it, waits for the first look
                  v
    the thread: refresh() each opened run -> revision + 1 -> Listener.put -> event loop -> browser

A run is looked at every 0.25 s while it is live and somebody listens, else every 2 s; less often, up to every
1.4 s, where looking would cost more than 0.3 % of a processor. Of a live run's rollouts, whose indexing is the greater
part of the cost, no more is read than 0.2 % of a processor can do, the newest first, unless somebody asks for them:
the first one to ask waits until all are there.
"""

import contextlib
import itertools
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.dashboard.records import SOURCES
from cluster.dashboard.views.frame import RunFacts
from cluster.dashboard.views.runs import RunInfos, find_runs
from cluster.dashboard.web.changes import Change, Listener, change_of, change_unopened
from cluster.dashboard.web.open_run import OpenRun
from cluster.dashboard.web.params import RequestError, shown

if TYPE_CHECKING:
    from cluster.dashboard.index.store import RunStore

LIVE_POLL_S, BUSY_POLL_S, IDLE_POLL_S = 0.25, 1.4, 2.0
MAX_POLL_SHARE = 0.003
REFRESH_S, FIRST_REFRESH_S = 0.5, 2.0
"""Longest that one run keeps the thread from the others while its index is being built; an ordinary run is read at once
and its first page is whole."""
FIRST_LOOK_S = 5.0
"""Longest that the first request for a run, or for its rollouts, waits for files to be read; then it is answered with
what there is."""
MAX_UNASKED_SHARE = 0.002
"""Of a processor, for rollouts that nobody asks for."""
SEARCH_S = 2.0
"""Between two searches for new runs."""
CLOSE_AFTER_S, KEEP_OPEN = 900.0, 8
"""A run that nobody asked for so long is closed when more than this many are open."""


class Follower:
    """The runs below `roots`. `start` before use; `stop` closes every store."""

    def __init__(self, roots: Sequence[Path], open_store: "Callable[[Path], RunStore]") -> None:
        self._roots = tuple(roots)
        self._open_store = open_store
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._follow, name="follower", daemon=True)
        self._open: dict[str, OpenRun] = {}
        self._listeners: set[Listener] = set()
        self._found: dict[str, Path] = {}
        self._found_s = -SEARCH_S
        self._infos = RunInfos()
        self._info_seen: dict[str, Mapping[str, Any]] | None = None
        # One counter for all runs, so that a run that took the name of another never has a revision of that one. From
        # the time in milliseconds: it rises over restarts too, and a page that comes back sees that it missed some.
        self._revisions = itertools.count(int(time.time() * 1000))

    def start(self) -> None:
        """Begins to follow."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread and closes every store."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10.0)

    def paths(self) -> dict[str, Path]:
        """Name -> folder of every run; searched for again when the last search is old."""
        with self._lock:
            if time.monotonic() - self._found_s >= SEARCH_S:
                self._found = find_runs(self._roots)
                self._found_s = time.monotonic()
            return self._found

    def cheap_info(self, name: str, path: Path) -> dict[str, Any]:
        """RunInfo without opening the run."""
        with self._lock:
            return self._infos.info(name, path)

    def cheap_facts(self, path: Path) -> RunFacts:
        """What the small files of a run say, without opening it."""
        with self._lock:
            return self._infos.facts(path)

    def opened(self, name: str) -> bool:
        """Whether the run was opened and looked at."""
        with self._lock:
            run = self._open.get(name)
            return run is not None and run.looked.is_set() and run.error is None

    @contextlib.contextmanager
    def use(self, name: str, *, keep: bool = True, rollouts: bool = False) -> Iterator[OpenRun]:
        """The run, opened and looked at; it stays open within the block, and for long after it if `keep`. With all of
        its rollouts in the index, if `rollouts`.

        Raises RequestError: 404 for no such run, 500 for one that cannot be read, 503 while it is being opened.
        """
        path = self.paths().get(name)
        if path is None:
            raise RequestError(404, f"there is no run {shown(name)} here; /api/runs lists those there are")
        with self._lock:
            run = self._open.get(name)
            if run is None:
                run = self._open[name] = OpenRun(name=name, path=path, revision=next(self._revisions))
            run.users += 1
            run.used_s = time.monotonic() if keep else run.used_s
            run.asked_s = time.monotonic() if rollouts else run.asked_s
        try:
            if not run.looked.is_set():
                self._wake.set()
                run.looked.wait(FIRST_LOOK_S)
            if run.error is not None:
                raise RequestError(500, f"the run {shown(name)} cannot be read: {run.error}") from run.error
            if run.store is None:
                raise RequestError(503, f"the run {shown(name)} is still being opened; ask again in a moment")
            if rollouts and not run.caught_up.is_set():
                run.wanted.set()
                self._wake.set()
                if not run.caught_up.wait(FIRST_LOOK_S):
                    run.is_waited_out = True
                    run.caught_up.set()  # so that the next requests are answered with what there is
            yield run
        finally:
            with self._lock:
                run.users -= 1

    def listen(self, run: str | None, wake: Callable[[], None]) -> Listener:
        """From now on `wake` is called, from another thread, when there is something to `take`."""
        listener = Listener(run, wake)
        with self._lock:
            self._listeners.add(listener)
            for opened in self._open.values():
                opened.wanted.set()
        self._wake.set()
        return listener

    def unlisten(self, listener: Listener) -> None:
        """Nothing more is told to the listener."""
        with self._lock:
            self._listeners.discard(listener)

    def num_listeners(self) -> int:
        """Pages that listen now."""
        with self._lock:
            return len(self._listeners)

    def _follow(self) -> None:
        search_due_s = 0.0
        while not self._stopping:
            now = time.monotonic()
            with self._lock:
                runs, everyone = list(self._open.values()), any(item.run is None for item in self._listeners)
            for run in runs:
                if run.is_due(now):
                    run.wanted.clear()
                    self._guarded(run)
            if everyone and search_due_s <= now:
                self._watch_unopened()
                search_due_s = now + SEARCH_S
            self._close_unused()
            with self._lock:
                due = min((run.due_s for run in self._open.values()), default=now + IDLE_POLL_S)
                if any(run.wanted.is_set() or not run.looked.is_set() for run in self._open.values()):
                    due = 0.0
            self._wake.wait(max(0.0, min(due, now + IDLE_POLL_S) - time.monotonic()))
            self._wake.clear()
        self._close_all()

    def _guarded(self, run: OpenRun) -> None:
        """A run that cannot be read must not end the following of the others."""
        try:
            self._look(run)
        except Exception as error:  # noqa: BLE001 - the boundary of the thread; told to all who ask for the run
            if run.error is None or str(run.error) != str(error):
                print(f"shoal: the run {run.path} cannot be read: {error}", file=sys.stderr)
                traceback.print_exc()
            run.error = error
            run.due_s = time.monotonic() + IDLE_POLL_S
        finally:
            run.looked.set()

    def _look(self, run: OpenRun) -> None:
        started, cpu = time.monotonic(), time.thread_time()
        first = run.store is None
        store = run.store or self._open_store(run.path)
        run.store = store
        max_files = None if run.wants_rollouts(started) else int(started >= run.unasked_due_s)
        if run.was_complete and not run.is_waited_out:
            # A look shows a new line of the metrics before it has read the rollouts of that step. Who saw the one asks
            # for the other, and must not be told that there is no such step.
            run.caught_up.clear()
        changed = store.refresh(max_s=FIRST_REFRESH_S if first else REFRESH_S, max_files=max_files)
        if "rollouts" in changed:
            run.rollouts_s = time.monotonic()
            run.unasked_due_s = started + (time.thread_time() - cpu) / MAX_UNASKED_SHARE
        progress = store.progress()
        # Of a run that takes long to read for the first time, what there is is shown.
        if first or (progress.ready and (max_files is None or not progress.files_later)):
            run.caught_up.set()
            run.is_waited_out = False
        run.was_complete |= progress.complete
        run.error = None
        status = store.status()
        if changed or status != run.status or first:
            run.status = status
            run.revision = next(self._revisions)
            for source in SOURCES if first else changed:
                run.seen[source] = run.revision
            self._put_all(change_of(run, SOURCES if first else changed))
        if (changed and not progress.ready) or (progress.files_later and run.wants_rollouts(time.monotonic())):
            run.due_s = 0.0  # there is more to read: go on at once, after the other runs had their turn
        elif status == "live" and self._is_listened_to(run.name):
            share_s = (time.thread_time() - cpu) / MAX_POLL_SHARE
            run.due_s = started + min(max(share_s, LIVE_POLL_S), BUSY_POLL_S)
        else:
            run.due_s = started + IDLE_POLL_S

    def _is_listened_to(self, name: str) -> bool:
        with self._lock:
            return any(listener.run in (None, name) for listener in self._listeners)

    def _watch_unopened(self) -> None:
        """Tells those who listen to every run of new ones, and of progress in those that nobody opened."""
        paths = self.paths()
        infos: dict[str, Mapping[str, Any]] = {
            name: self.cheap_info(name, path) for name, path in paths.items() if not self.opened(name)
        }
        if self._info_seen is not None:
            for name, info in infos.items():
                if self._info_seen.get(name) != info:
                    self._put_all(change_unopened(name, next(self._revisions), info))
        self._info_seen = infos

    def _put_all(self, change: Change) -> None:
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            listener.put(change)

    def _close_unused(self) -> None:
        """Closes runs that have gone or were not asked for in a long time."""
        before = time.monotonic() - CLOSE_AFTER_S
        with self._lock:
            followed = {listener.run for listener in self._listeners}
            gone = [
                run for name, run in self._open.items() if self._found.get(name) != run.path or not run.path.is_dir()
            ]
            old = [run for name, run in self._open.items() if run.used_s < before and name not in followed]
            closing = [run for run in (*gone, *old[: max(0, len(self._open) - KEEP_OPEN)]) if not run.users]
            for run in closing:
                self._open.pop(run.name, None)
        for run in closing:
            if run.store is not None:
                run.store.close()

    def _close_all(self) -> None:
        with self._lock:
            runs, self._open = list(self._open.values()), {}
        for run in runs:
            if run.store is not None:
                run.store.close()

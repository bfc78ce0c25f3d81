"""What listeners are told of runs."""

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cluster.dashboard.web.open_run import OpenRun


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a listener is told of a run: a message of `/api/stream`."""

    run: str
    revision: int
    step: int
    status: str
    changed: frozenset[str]


class Listener:
    """One browser tab. It holds at most one change for each run: what a slow client missed is joined into it."""

    def __init__(self, run: str | None, wake: Callable[[], None]) -> None:
        self.run = run
        self._wake = wake
        self._lock = threading.Lock()
        self._pending: dict[str, Change] = {}

    def put(self, change: Change) -> None:
        """From the thread that follows runs; a change of another run is left out."""
        if self.run is not None and change.run != self.run:
            return
        with self._lock:
            before = self._pending.get(change.run)
            changed = change.changed | (before.changed if before else frozenset())
            self._pending[change.run] = Change(
                run=change.run, revision=change.revision, step=change.step, status=change.status, changed=changed
            )
        self._wake()

    def take(self) -> list[Change]:
        """What came since the last call."""
        with self._lock:
            changes = list(self._pending.values())
            self._pending.clear()
        return changes


def change_unopened(name: str, revision: int, info: Mapping[str, Any]) -> Change:
    """A message about a run that nobody opened: how far it is."""
    changed = frozenset({"metrics", "summary"})
    return Change(run=name, revision=revision, step=info["step"], status=info["status"], changed=changed)


def change_of(run: OpenRun, changed: Iterable[str]) -> Change:
    """A message about an opened run."""
    assert run.store is not None
    steps = run.store.metrics().steps
    step = steps[-1] + 1 if steps else 0
    return Change(run=run.name, revision=run.revision, step=step, status=run.status, changed=frozenset(changed))

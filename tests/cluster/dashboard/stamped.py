"""A run directory on another clock than the machine's."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cluster.record.instants import checkpoint_instant
from cluster.record.run_directory import RunDirectory
from cluster.types import Event, Instant


class Stamped:
    """A run directory whose events happen on another clock than the machine's."""

    def __init__(self, run: RunDirectory, clock: Callable[[], float]) -> None:
        self._run = run
        self._clock = clock

    def append_event(self, event: Event) -> None:
        self._run.append_event(replace(event, start_s=self._clock(), end_s=self._clock()))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run, name)

    def checkpoint(self, name: Instant) -> Callable[[str, str], None]:
        """What tells of checkpoints that are not there to go on from."""
        return lambda checkpoint, why: self.append_event(checkpoint_instant(name, checkpoint, why))

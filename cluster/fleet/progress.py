"""When a run last achieved something: a scored group, one that a teacher answered about, a trained step."""

import time
from collections.abc import Callable


class Progress:
    """When something was last achieved. Pure: time comes from outside."""

    def __init__(self, stall_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._stall_s = stall_s
        self._clock = clock
        self._last_s = clock()
        self._reported = False
        self.groups_scored = 0
        self.steps_trained = 0

    def group_scored(self) -> None:
        """A group has its scores."""
        self.groups_scored += 1
        self._made()

    def group_taught(self) -> None:
        """A teacher's server has answered about a group: a slow one holds nothing up that could be started again."""
        self._made()

    def step_trained(self) -> None:
        """A training step is done."""
        self.steps_trained += 1
        self._made()

    @property
    def idle_s(self) -> float:
        """Seconds since the last progress."""
        return self._clock() - self._last_s

    def new_stall(self) -> bool:
        """True once for each stall: when there was none for `stall_s`."""
        if self._reported or self.idle_s < self._stall_s:
            return False
        self._reported = True
        return True

    def _made(self) -> None:
        self._last_s = self._clock()
        self._reported = False

"""What was computed from a run's files, kept until they change."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MAX_COMPUTE_SHARE, MAX_COMPUTE_AGE_S = 0.001, 3.0
"""Of a processor, for each thing that is remembered of a live run, unless it would become older than this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """Something computed from a run's files."""

    stamp: tuple[object, ...]
    """Of what it was computed from."""
    news: tuple[object, ...]
    """As `stamp`, of what nobody waits for."""
    value: Any
    due_s: float
    """Monotonic time before which it is not computed anew while the run is live."""

    def serves(self, stamp: tuple[object, ...], news: tuple[object, ...], now_s: float | None) -> bool:
        """Whether it may be told still; `now_s` None where it may not be older than its sources."""
        return self.news == news and (self.stamp == stamp or (now_s is not None and now_s < self.due_s))


class Memo:
    """Called from many threads at once. What two want at the same time is computed twice; the later one stays."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, Remembered] = {}

    def known(self, key: str) -> Remembered | None:
        """What is kept under a name."""
        with self._lock:
            return self._kept.get(key)

    def get(
        self,
        key: str,
        stamp: tuple[object, ...],
        compute: Callable[[], Any],
        *,
        news: tuple[object, ...] = (),
        may_be_older: bool = False,
    ) -> Any:
        """What is kept, computed anew where `stamp` or `news` are others. One that `may_be_older` is used until it is
        due, while `news` are the same."""
        known, now = self.known(key), time.monotonic()
        if known is not None and known.serves(stamp, news, now if may_be_older else None):
            return known.value
        cpu = time.thread_time()
        value = compute()
        due_s = now + min((time.thread_time() - cpu) / MAX_COMPUTE_SHARE, MAX_COMPUTE_AGE_S)
        with self._lock:
            self._kept[key] = Remembered(stamp=stamp, news=news, value=value, due_s=due_s)
        return value

"""One run that is being followed: its store, what was seen of it, who uses it."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.dashboard.web.memo import Memo

if TYPE_CHECKING:
    from cluster.dashboard.index.store import RunStore

ASKED_S = 10.0
"""Who follows the rollouts asks again within this time after they changed."""


@dataclass(slots=True, kw_only=True)
class OpenRun:
    """An opened run. Its fields are written by the follower's thread alone, but for `users`, `asked_s` and `used_s`
    (under the follower's lock) and `is_waited_out`. A request that wants it looked at sets the event `wanted`, and what
    requests keep is in `memo`, which has a lock of its own."""

    name: str
    path: Path
    revision: int
    store: "RunStore | None" = None
    error: BaseException | None = None
    """Why it could not be opened."""
    looked: threading.Event = field(default_factory=threading.Event)
    """Set when the files were read for the first time, or opening failed."""
    status: str = ""
    seen: dict[str, int] = field(default_factory=dict)
    """Source -> revision at which it changed last."""
    was_complete: bool = False
    """Whether all of its rollouts were in the index once."""
    caught_up: threading.Event = field(default_factory=threading.Event)
    """Not set while the files are looked at, and while some of rollouts are left for when somebody asks; set by who has
    waited for them too long."""
    is_waited_out: bool = False
    """Whether somebody has waited too long: what there is is shown then, until all is read."""
    unasked_due_s: float = 0.0
    """Monotonic time before which no file is read that nobody asked for."""
    rollouts_s: float = 0.0
    """Monotonic time at which rollouts changed in the index."""
    users: int = 0
    asked_s: float = 0.0
    """Monotonic time of the last request for rollouts."""
    used_s: float = 0.0
    due_s: float = 0.0
    """Monotonic time of the next look."""
    wanted: threading.Event = field(default_factory=threading.Event)
    """Set by who cannot wait for `due_s`; cleared before the look that follows, so that none is lost."""
    memo: Memo = field(default_factory=Memo)

    def is_due(self, now_s: float) -> bool:
        """Whether the follower is to look at it now."""
        return self.due_s <= now_s or self.wanted.is_set()

    def wants_rollouts(self, now_s: float) -> bool:
        """Whether all are to be read at once: the first time, when it has ended, and while somebody asks for them."""
        if not self.was_complete or self.status != "live":
            return True
        return self.asked_s > self.rollouts_s or now_s - self.asked_s < ASKED_S

    def remember(
        self, key: str, sources: Sequence[str], compute: Callable[[], Any], *, news: tuple[object, ...] = ()
    ) -> Any:
        """What `compute` gave, until one of the sources changes. While the run is live it may be older, up to
        MAX_COMPUTE_AGE_S, so that little of a processor goes into computing it anew; but other `news` never wait."""
        stamp = (self.status, *(self.seen.get(source, 0) for source in sources))
        return self.memo.get(key, stamp, compute, news=news, may_be_older=self.status == "live")

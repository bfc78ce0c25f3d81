"""Whether a run is written still, how it ended, and when: from its lock, its summary and its files' times."""

import contextlib
import fcntl
import json
import math
import time
from pathlib import Path
from typing import Any, get_args

from cluster.dashboard.files.tail import open_inside
from cluster.dashboard.records import RunStatus
from cluster.run_files import CONFIG, LOCK, LOGS, SUMMARY, log_name
from cluster.types import EndStatus

MARKS = (CONFIG, log_name("metrics"), log_name("events"), log_name("ledger"), SUMMARY)
"""Files of which a run has at least one: any of the others may be missing."""
LIVE_S = 60.0
"""A run without run.lock whose logs changed within this time is live."""
_MAX_FIRST_LINE_BYTES = 65_536


def run_times(run: Path) -> tuple[float | None, float | None]:
    """Unix seconds: (when it began, by its first event, else by its oldest file; when one of its files was written
    last). The same of a run that is opened and of one that is only listed."""
    written = []
    for mark in MARKS:
        with contextlib.suppress(OSError):
            written.append((run / mark).stat().st_mtime)
    started = None
    try:
        with open_inside(run / log_name("events")) as file:
            started = json.loads(file.readline(_MAX_FIRST_LINE_BYTES))["start_s"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        pass  # not there, torn, or no event: its files' times have to do
    known = isinstance(started, (int, float)) and math.isfinite(started)
    return started if known else min(written, default=None), max(written, default=None)


def run_status(run: Path, summary: dict[str, Any] | None) -> RunStatus:
    """How the run ended, or whether somebody still writes it."""
    held = _lock_is_held(run / LOCK)
    if held:
        return "live"  # also a finished run that was resumed and has not yet taken its summary away
    status = (summary or {}).get("status")
    ended: EndStatus | None = next((known for known in get_args(EndStatus) if known == status), None)
    if ended is not None:
        return ended
    if held is None:
        newest = max((_modified_s(run / log_name(name)) for name in LOGS), default=0.0)
        return "live" if time.time() - newest < LIVE_S else "stopped"
    return "stopped"


def _lock_is_held(path: Path) -> bool | None:
    """None when there is no such file."""
    try:
        with open_inside(path) as file:
            try:
                fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            fcntl.flock(file.fileno(), fcntl.LOCK_UN)
            return False
    except OSError:
        return None


def _modified_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0

"""The small files of a run, kept in memory: configuration, metrics, evaluations, vocabulary, summary, checkpoints."""

import contextlib
import fcntl
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from cluster.dashboard.files.config_file import read_config
from cluster.dashboard.files.tail import TailState, changed, open_inside, read_batches, was_rewritten
from cluster.dashboard.records import Checkpoint, MetricTable, Problem, RunStatus
from cluster.run_files import CHECKPOINTS, CONFIG, LOCK, LOGS, SUMMARY, checkpoint_step, log_name
from cluster.types import EndStatus
from learner.saving.files import MANIFEST

MARKS = (CONFIG, log_name("metrics"), log_name("events"), log_name("ledger"), SUMMARY)
"""Files of which a run has at least one: any of the others may be missing."""
LIVE_S = 60.0
"""A run without run.lock whose logs changed within this time is live."""
_MAX_FILE_BYTES = 256 << 20
_MAX_FIRST_LINE_BYTES = 65_536
_MAX_PROBLEMS = 20


class WatchedFile:
    """A file that is replaced as a whole; it is read again when its inode, size or time changes."""

    def __init__(self, path: Path, *, required: bool = False, lists: Sequence[str] = ()) -> None:
        """`lists`: names that it must have, with a list each."""
        self.path = path
        self.value: Any = None
        self.text = ""
        self.problem: Problem | None = None
        self._required = required
        self._lists = lists
        self._seen: tuple[int, int, int] | None = (-1, -1, -1)

    def refresh(self) -> bool:
        """Whether it changed."""
        try:
            status = os.lstat(self.path)
            seen: tuple[int, int, int] | None = (status.st_ino, status.st_size, status.st_mtime_ns)
        except OSError:
            seen = None
        if seen == self._seen:
            return False
        self._seen = seen
        self.value, self.text, self.problem = None, "", None
        if seen is None:
            if self._required:
                self.problem = Problem(file=self.path.name, message="is missing")
            return True
        try:
            self._read()
        except OSError as error:
            self._broken(f"cannot be read: {error.strerror or error}")
        except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, no YAML
            self._broken(f"cannot be parsed: {(str(error).splitlines() or ['?'])[0][:200]}")
        return True

    def _read(self) -> None:
        with open_inside(self.path) as file:
            data = file.read(_MAX_FILE_BYTES)
        text = data.decode("utf-8")
        if self.path.suffix == ".yaml":
            self.text = text
            self.value = read_config(text)
        else:
            self.value = json.loads(text)
        if not isinstance(self.value, dict):
            self.value = None
            self._broken("is no mapping of names to values")
        elif absent := [name for name in self._lists if not isinstance(self.value.get(name), list)]:
            self._broken(f"has no list of {absent[0]}")

    def _broken(self, message: str) -> None:
        self.problem = Problem(file=self.path.name, message=message)


class MetricLog:
    """metrics.jsonl or evaluations.jsonl by columns. Of two lines of one step the later one counts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._state = TailState()
        self._lines: dict[int, dict[str, float | None]] = {}
        self._problems: list[Problem] = []
        self._table = MetricTable(steps=[], columns={})

    def refresh(self) -> bool:
        """Whether it changed."""
        if not changed(self._path, self._state):
            return False
        before = self._state
        if was_rewritten(self._path, self._state):
            self._state, self._lines, self._problems = TailState(), {}, []
        known, new = len(self._lines), dict[int, dict[str, float | None]]()
        try:
            for batch in read_batches(self._path, self._state):
                for line in batch.lines:
                    self._take(new, line.number, line.record, line.error)
                self._state = batch.state
        except OSError:
            pass  # gone or not readable now; it is tried again
        if self._state == before:
            return False
        self._lines = self._lines | new
        follows = known == len(self._table.steps) and min(new, default=0) > max(self._table.steps, default=-1)
        table = self._table if follows else MetricTable(steps=[], columns={})
        self._table = _with(table, new if follows else self._lines)
        return True

    def table(self) -> MetricTable:
        """What was read, by columns."""
        return self._table

    def problems(self) -> list[Problem]:
        """Lines that are none, the first of them."""
        return self._problems[:_MAX_PROBLEMS]

    @property
    def num_read(self) -> int:
        """Bytes of the whole lines that were read."""
        return self._state.offset

    def skipped_before(self, step: int) -> int:
        """Training steps before `step` whose update was not applied, so that the version did not rise."""
        lines = self._lines
        return sum(1 for at, line in lines.items() if at < step and line.get("train/skipped"))

    def _take(
        self, lines: dict[int, dict[str, float | None]], number: int, record: dict[str, Any] | None, error: str
    ) -> None:
        step = record.get("step") if record is not None else None
        if record is None or isinstance(step, bool) or not isinstance(step, int) or not 0 <= step < 2**53:
            message = error or f"line {number + 1} has no step; it is left out"
            self._problems.append(Problem(file=self._path.name, message=message))
            return
        lines[step] = {name: _finite(value) for name, value in record.items() if name != "step" and _is_value(value)}


def _with(table: MetricTable, lines: Mapping[int, Mapping[str, float | None]]) -> MetricTable:
    """A table that goes on with later steps; the one before stays as it is."""
    steps, absent = sorted(lines), [None] * len(table.steps)
    names = dict.fromkeys([*table.columns, *(name for step in steps for name in lines[step])])
    columns = {name: [*table.columns.get(name, absent), *(lines[step].get(name) for step in steps)] for name in names}
    return MetricTable(steps=[*table.steps, *steps], columns=columns)


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


def read_checkpoints(folder: Path) -> tuple[tuple[Checkpoint, ...], tuple[Problem, ...]]:
    """(those that are complete, in order of their steps; the others: being written or taken away in a live run)"""
    found: list[Checkpoint] = []
    problems: list[Problem] = []
    try:
        entries = [] if folder.is_symlink() else sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        entries = []
    for entry in entries:
        step = checkpoint_step(entry.name)
        if step is None:
            continue
        try:
            if not entry.is_dir(follow_symlinks=False):
                raise NotADirectoryError(entry.path)
            with open_inside(Path(entry.path) / MANIFEST) as file:
                status = os.fstat(file.fileno())
                files = json.loads(file.read(_MAX_FILE_BYTES))["files"]
            num_bytes = sum(int(about["bytes"]) for about in files.values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            message = f"is no checkpoint to go on from: its {MANIFEST} is missing or damaged"
            problems.append(Problem(file=f"{CHECKPOINTS}/{entry.name}", message=message))
            continue
        found.append(Checkpoint(step=step, name=entry.name, num_bytes=num_bytes, written_s=status.st_mtime))
    return tuple(found), tuple(problems)


def pieces_of(vocabulary: dict[str, Any] | None) -> Sequence[str] | None:
    """Token id -> piece."""
    pieces = (vocabulary or {}).get("pieces")
    return [str(piece) for piece in pieces] if isinstance(pieces, list) else None


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


def _is_value(value: object) -> bool:
    return value is None or isinstance(value, int | float)


def _finite(value: float | None) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None

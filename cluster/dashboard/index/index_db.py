"""The index's SQLite file: where it lies, who may write it, connections to it."""

import contextlib
import fcntl
import hashlib
import os
import queue
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from cluster.dashboard.index.schema import SCHEMA_VERSION, TABLES

_MAX_READERS = 4
"""Connections that read at once; each has its own page cache, so more of them would cost memory."""
_CACHE_KIB = 4096


class IndexDb:
    """One writer (the thread that refreshes) and readers beside it, on a file that no other process uses."""

    def __init__(self, run: Path, index_path: Path | None) -> None:
        self.path, self._lock_descriptor, self._temporary = _take_place(run, index_path)
        self._run = run
        self._idle: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue()
        self._slots = threading.BoundedSemaphore(_MAX_READERS)
        self._generation = 0
        self._closed = False
        self.writer = self._open_writer()

    def is_lost(self) -> bool:
        """Whether somebody removed the file; what is open would go on without it, but no new connection could."""
        return not self.path.exists()

    def rebuild(self) -> None:
        """Drops the file and makes it anew; waits for readers, which get new connections. Raises FileNotFoundError
        when it lies in a run that is gone: the run's folder is never made."""
        for _ in range(_MAX_READERS):
            self._slots.acquire()
        try:
            self.writer.close()
            self._generation += 1
            self._close_idle()
            _remove(self.path)
            _make_folder(self.path, self._run)
            self.writer = self._open_writer()
        finally:
            self._slots.release(_MAX_READERS)

    @contextlib.contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A connection within one read transaction: all that is asked sees the same state. Not to be nested: with all
        slots taken by threads that want another, none would go on."""
        with self._slots:
            generation = self._generation
            try:
                connection = self._idle.get_nowait()
            except queue.Empty:
                connection = _connect(self.path)
                connection.execute("pragma query_only = on")
            try:
                connection.execute("begin")
                yield connection
            finally:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("rollback")
                if generation == self._generation and not self._closed:
                    self._idle.put(connection)
                else:
                    connection.close()

    def close(self) -> None:
        """Notes that the file was closed in order; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(sqlite3.Error):
            self.writer.rollback()
            self.writer.execute("insert or replace into meta values ('open_since_boot', '')")
        self.writer.close()
        self._close_idle()
        os.close(self._lock_descriptor)
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def _close_idle(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()

    def _open_writer(self) -> sqlite3.Connection:
        """A connection to a file of this version; whatever else is there is replaced."""
        try:
            connection = _connect(self.path)
            if _usable(connection):
                return _begin_use(connection)
            connection.close()
        except sqlite3.DatabaseError:
            pass  # not a database, or a damaged one: there is nothing in it that cannot be made again
        _remove(self.path)
        connection = _connect(self.path)
        connection.execute("pragma page_size = 8192")
        connection.execute("pragma journal_mode = wal")
        connection.executescript(TABLES)
        connection.execute("insert into meta values ('open_since_boot', '')")
        connection.execute(f"pragma user_version = {SCHEMA_VERSION}")
        return _begin_use(connection)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10, cached_statements=64)
    connection.execute("pragma synchronous = off")
    connection.execute(f"pragma cache_size = -{_CACHE_KIB}")
    return connection


def _usable(connection: sqlite3.Connection) -> bool:
    """Whether the file has our tables and was not left half-written by a machine that went down."""
    (version,) = connection.execute("pragma user_version").fetchone()
    if version != SCHEMA_VERSION:
        return False
    (mode,) = connection.execute("pragma journal_mode").fetchone()
    (boot,) = connection.execute("select value from meta where key = 'open_since_boot'").fetchone() or ("?",)
    return mode == "wal" and boot in ("", _boot_id())


def _begin_use(connection: sqlite3.Connection) -> sqlite3.Connection:
    """Notes that the file is in use: writes are not flushed to the disk, so it is trusted only while the machine that
    wrote them runs, or when it was closed in order."""
    connection.execute("insert or replace into meta values ('open_since_boot', ?)", (_boot_id(),))
    return connection


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _take_place(run: Path, index_path: Path | None) -> tuple[Path, int, Path | None]:
    """(file, descriptor of its lock, folder to remove at the end). The first place of these that can be written and
    that no other dashboard holds: the one asked for, the run, the user's cache, a temporary folder."""
    places = [index_path] if index_path is not None else []
    if index_path is None and run.is_dir():
        places.append(run / ".index" / "dashboard.sqlite")
    name = hashlib.sha256(str(run.absolute()).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    places.append(cache / "shoal" / "index" / name / "dashboard.sqlite")
    for place in places:
        descriptor = _lock(place, run)
        if descriptor is not None:
            return place, descriptor, None
    folder = Path(tempfile.mkdtemp(prefix="shoal-index-"))
    descriptor = _lock(folder / "dashboard.sqlite", run)
    if descriptor is None:
        raise OSError(f"no index can be written in {folder}")
    return folder / "dashboard.sqlite", descriptor, folder


def _make_folder(place: Path, run: Path) -> None:
    """That of the index, with those above it unless they are the run's, which may have been removed in this moment."""
    place.parent.mkdir(parents=not place.is_relative_to(run), exist_ok=True)


def _lock(place: Path, run: Path) -> int | None:
    """Descriptor of an exclusive lock beside the file; None where it cannot be had."""
    try:
        _make_folder(place, run)
        if place.parent.is_symlink():
            return None
        descriptor = os.open(place.with_name("lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    if place.is_symlink() or not os.access(place if place.exists() else place.parent, os.W_OK):
        os.close(descriptor)
        return None
    return descriptor

"""Keeps the index in step with the folder of rollouts: new files, replaced files, files that went away."""

import os
import sqlite3
import stat
import time
from collections.abc import Callable
from pathlib import Path

from cluster.dashboard.files.file_problems import folder_problem, unread
from cluster.dashboard.files.rollout_file import UnreadableRolloutsError, read_rollout_file
from cluster.dashboard.index.ingest_rollouts import FileKey, insert_file, insert_problem, remove_file
from cluster.dashboard.records import IndexProgress, Problem
from cluster.run_files import ROLLOUTS, table_of

_RESCAN_S = 20.0
"""A file that is written over in place leaves its folder's time as it was, so now and then all are looked at."""


class RolloutFolder:
    """Used by the thread that refreshes alone; `progress` and `problems` are replaced whole and read by any."""

    def __init__(self, path: Path, version_of: Callable[[int], int]) -> None:
        self.progress = IndexProgress(files_done=0, files_total=0, rows=0)
        self.problems: tuple[Problem, ...] = ()
        self.names: frozenset[str] = frozenset()
        """Tables that are there, whole or not."""
        self._strange: tuple[Problem, ...] = ()
        self._path = path
        self._version_of = version_of
        self._folder_ns = -1
        self._next_scan_s = 0.0
        self._num_present = 0
        self._todo: list[FileKey] = []

    def forget(self) -> None:
        """After the index was made anew."""
        self._folder_ns, self._next_scan_s, self._todo = -1, 0.0, []

    def refresh(self, connection: sqlite3.Connection, deadline_s: float, most: int | None = None) -> bool:
        """Whether anything changed. Within the writer's transaction; reads at least one file of those that wait, but
        no more than `most`: then what still waits is left for later."""
        changed, num_read = self._scan(connection), 0
        while self._todo and num_read != most:
            key = self._todo.pop(0)
            num_read += 1
            remove_file(connection, key.name)
            try:
                content = read_rollout_file(self._path / key.name)
                insert_file(connection, key, content, version=self._version_of(key.step))
            except UnreadableRolloutsError as error:
                insert_problem(connection, key, str(error))
            except (ValueError, TypeError, OverflowError, sqlite3.ProgrammingError) as error:
                # A value of a foreign file that the index cannot hold costs this file, and no other.
                remove_file(connection, key.name)
                insert_problem(connection, key, f"has a value that cannot be indexed: {type(error).__name__}: {error}")
            changed = True
            if time.monotonic() > deadline_s:
                break
        later = 0 if most is None else len(self._todo)
        if changed or later != self.progress.files_later or not self.progress.files_total:
            self._note(connection, later)
        return changed

    def _scan(self, connection: sqlite3.Connection) -> bool:
        """Finds what is to be read; whether something was taken out."""
        folder_ns = self._modified_ns()
        if folder_ns == self._folder_ns and time.monotonic() < self._next_scan_s and not self.problems:
            return False
        self._folder_ns, self._next_scan_s = folder_ns, time.monotonic() + _RESCAN_S
        present, strange = self._present()
        self._num_present = len(present)
        self.names = frozenset(present) | {Path(problem.file).name for problem in strange}
        known = {
            name: (inode, size, mtime_ns)
            for name, inode, size, mtime_ns in connection.execute("select name, inode, size, mtime_ns from files")
        }
        gone = [name for name in known if name not in present]
        for name in gone:
            remove_file(connection, name)
        todo = [key for name, key in present.items() if known.get(name) != key.state]
        # The newest first: a page that follows the run is of use before the rest is indexed.
        self._todo = sorted(todo, key=lambda key: (-key.step, key.phase))
        is_other = strange != self._strange
        self._strange = strange
        return bool(gone) or is_other

    def _present(self) -> tuple[dict[str, FileKey], tuple[Problem, ...]]:
        """(tables by name, what has the name of one and is no file, or the folder that cannot be listed)"""
        found: dict[str, FileKey] = {}
        strange = []
        if (problem := folder_problem(self._path)) is not None:
            return {}, (problem,)
        try:
            with os.scandir(self._path) as entries:
                for entry in entries:
                    table = table_of(entry.name)
                    if table is None:
                        continue
                    status = entry.stat(follow_symlinks=False)
                    if not stat.S_ISREG(status.st_mode):
                        why = unread(Path(entry.path), status.st_mode, size=status.st_size)
                        strange.append(Problem(file=f"{ROLLOUTS}/{entry.name}", message=why))
                        continue
                    found[entry.name] = FileKey(
                        phase=table[0],
                        step=table[1],
                        name=entry.name,
                        inode=status.st_ino,
                        size=status.st_size,
                        mtime_ns=status.st_mtime_ns,
                    )
        except OSError:
            pass  # not there yet, or a file went away while it was listed
        return found, tuple(sorted(strange, key=lambda problem: problem.file))

    def _modified_ns(self) -> int:
        try:
            return self._path.lstat().st_mtime_ns
        except OSError:
            return 0

    def _note(self, connection: sqlite3.Connection, later: int) -> None:
        (rows,) = connection.execute("select coalesce(sum(num_rows), 0) from files").fetchone()
        self.progress = IndexProgress(
            files_done=self._num_present - len(self._todo),
            files_total=self._num_present,
            rows=rows,
            files_later=later,
        )
        self.problems = self._strange + tuple(
            Problem(file=f"{ROLLOUTS}/{name}", message=problem)
            for name, problem in connection.execute("select name, problem from files where problem != '' order by name")
        )

"""The small files of a run that are read whole: configuration, vocabulary, summary, checkpoints."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.dashboard.files.config_file import read_config
from cluster.dashboard.files.tail import open_inside
from cluster.dashboard.records import Checkpoint, Problem
from cluster.run_files import CHECKPOINTS, checkpoint_step
from learner.saving.files import MANIFEST

_MAX_FILE_BYTES = 256 << 20


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

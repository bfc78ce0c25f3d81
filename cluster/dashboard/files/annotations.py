"""What people note of completions: labels, notes and bookmarks, in a file beside the run's own.

`annotations.jsonl` is only appended to, a whole line at a time; of several lines about one completion the last counts.
Nothing that trains reads it, and it may be removed at any time.
"""

import json
import os
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from cluster.dashboard.files.tail import open_inside
from cluster.dashboard.records import GroupAddress
from cluster.record.append_log import append_line, write_error
from cluster.run_files import ANNOTATIONS, Phase
from rollout.errors import ShoalError

MAX_LABEL, MAX_NOTE = 100, 4000
"""Characters."""
MAX_FILE_BYTES = 32 << 20
"""A longer file is not read: nobody writes so many by hand."""
MAX_LINE_BYTES = 128 << 10
"""More than any line has: of a character beyond ASCII 12 bytes are written."""
MAX_SHOWN = 80
"""Characters of a text that is no address."""
_ADDRESS = re.compile(r"(train|eval)/([0-9]{1,12})/([^/\ud800-\udfff]{1,200})/([0-9]{1,7})")
"""Its numbers and its text are such as the index can look for."""

Address = tuple[str, int, str, int]
"""(phase, step, group, sample) of a completion."""


class AnnotationError(ShoalError):
    """A note that cannot be kept."""

    exit_code = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """What is noted of one completion."""

    label: str | None = None
    """One word or a few, the same for completions that belong together."""
    note: str | None = None
    bookmarked: bool = False

    def __post_init__(self) -> None:
        for name, text, most in (("label", self.label, MAX_LABEL), ("note", self.note, MAX_NOTE)):
            if text is not None and len(text) > most:
                raise AnnotationError(f"the {name} has {len(text)} characters, allowed: {most}")

    @property
    def is_empty(self) -> bool:
        """Whether nothing is noted (any more)."""
        return self.label is None and self.note is None and not self.bookmarked


class AnnotationFile:
    """The annotations of a run. Read again when the file has changed; safe to use from several threads."""

    def __init__(self, run: Path) -> None:
        self._path = run / ANNOTATIONS
        self._lock = threading.Lock()
        self._stamp: tuple[int, int, int] | None = None
        self._known: Mapping[Address, Annotation] = {}

    def stamp(self) -> tuple[int, int, int] | None:
        """Another where the file is another; None for none."""
        try:
            status = self._path.lstat()
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns

    def all(self) -> Mapping[Address, Annotation]:
        """Address -> what is noted. A line that is none is left out."""
        stamp = self.stamp()
        with self._lock:
            if stamp != self._stamp:
                self._stamp, self._known = stamp, _read(self._path)
            return self._known

    def of(self, address: GroupAddress, sample_index: int) -> Annotation:
        """Of one completion."""
        return self.all().get((address.phase, address.step, address.group_id, sample_index), Annotation())

    def write(self, address: GroupAddress, sample_index: int, annotation: Annotation) -> None:
        """Notes it, in place of what was noted before. Raises AnnotationError, RunWriteError."""
        if self._path.is_symlink():
            raise AnnotationError(f"{self._path} is a link, which may lead out of the run; remove it")
        _prepare(self._path)
        append_line(
            self._path,
            {
                "time_s": time.time(),
                "by": os.environ.get("USER", ""),
                "phase": address.phase,
                "step": address.step,
                "group_id": address.group_id,
                "sample_index": sample_index,
                "label": annotation.label,
                "note": annotation.note,
                "bookmarked": annotation.bookmarked,
            },
        )


def _prepare(path: Path) -> None:
    """Ends a last line that was torn, as by a full disk: it would take the next one with it. Raises AnnotationError for
    a file that another line may make too long to be read, RunWriteError."""
    try:
        with open_inside(path) as file:
            size: int = file.seek(0, os.SEEK_END)
            if size == 0:
                return
            file.seek(-1, os.SEEK_END)
            is_torn = file.read(1) != b"\n"
        if size > MAX_FILE_BYTES - MAX_LINE_BYTES:
            raise AnnotationError(
                f"{path} has {size} bytes, allowed before another line: {MAX_FILE_BYTES - MAX_LINE_BYTES}; of several "
                "lines about one completion keep the last, or move the file away"
            )
        if is_torn:
            with path.open("ab") as end:
                end.write(b"\n")
    except FileNotFoundError:
        return
    except OSError as error:
        raise write_error(path, error) from error


def _read(path: Path) -> dict[Address, Annotation]:
    try:
        with open_inside(path) as file:
            data: bytes = file.read(MAX_FILE_BYTES + 1)
    except OSError:
        return {}
    found: dict[Address, Annotation] = {}
    for line in data.split(b"\n")[:-1] if len(data) <= MAX_FILE_BYTES else ():
        entry = _parsed(line)
        if entry is not None:
            address, annotation = entry
            found.pop(address, None)  # so that the newest come last
            if not annotation.is_empty:
                found[address] = annotation
    return found


def _parsed(line: bytes) -> tuple[Address, Annotation] | None:
    try:
        record: Any = json.loads(line)
        label, note = (None if record.get(name) is None else str(record[name]) for name in ("label", "note"))
        annotation = Annotation(label=label, note=note, bookmarked=record.get("bookmarked") is True)
        where = (str(record["phase"]), int(record["step"]), str(record["group_id"]), int(record["sample_index"]))
        return (where, annotation) if _can_be_looked_for(where) else None
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError, AnnotationError):
        return None


def _can_be_looked_for(address: Address) -> bool:
    """Whether the index takes it: its whole numbers have 64 bits, and its text is UTF-8."""
    phase, step, group_id, sample_index = address
    is_text = group_id.encode("utf-8", "replace").decode() == group_id
    return phase in ("train", "eval") and is_text and all(0 <= number < 1 << 62 for number in (step, sample_index))


def address_of(text: str) -> tuple[GroupAddress, int]:
    """Of `train/4/GROUP/0`, as the page copies it. Raises AnnotationError."""
    found = _ADDRESS.fullmatch(text)
    if found is None:
        named = repr(text[:MAX_SHOWN])
        raise AnnotationError(f"{named} is no address of a completion, as train/4/000032-5f1c09be12aa03d4/0 is")
    phase, step, group_id, sample_index = found.groups()
    return GroupAddress(phase=cast(Phase, phase), step=int(step), group_id=group_id), int(sample_index)

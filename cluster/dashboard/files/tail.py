"""Reads what is new in an append-only file that another process writes, in whole lines and in slices."""

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TAIL_BYTES = 128
_CHUNK_BYTES = 1 << 20
MAX_LINE_BYTES = 64 << 20
"""A longer line is skipped: nobody writes one, and it would have to fit into memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TailState:
    """How far a file was read. `tail` are the last bytes before `offset`: where they differ, the file is another."""

    inode: int = 0
    offset: int = 0
    lines: int = 0
    tail: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line: a record, or why it is none."""

    number: int
    """From 0."""
    offset: int
    record: dict[str, Any] | None
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Lines and the state after them."""

    lines: list[Line]
    state: TailState


def changed(path: Path, state: TailState) -> bool:
    """Whether there may be something new; one stat, for a file that is asked about every second."""
    try:
        status = path.stat()
    except OSError:
        return state != TailState()
    return status.st_ino != state.inode or status.st_size != state.offset


def was_rewritten(path: Path, state: TailState) -> bool:
    """Whether what was read is no longer there: the file is gone, another one, shorter, or has other bytes."""
    if state == TailState():
        return False
    try:
        with open_inside(path) as file:
            status = os.fstat(file.fileno())
            if status.st_ino != state.inode or status.st_size < state.offset:
                return True
            file.seek(state.offset - len(state.tail))
            tail: bytes = file.read(len(state.tail))
            return tail != state.tail
    except OSError:
        return True


def read_batches(path: Path, state: TailState) -> Iterator[Batch]:
    """The new whole lines, about a MiB at a time. A last line without newline waits for it. Raises OSError."""
    with open_inside(path) as file:
        inode = os.fstat(file.fileno()).st_ino
        file.seek(state.offset)
        offset, number, tail = state.offset, state.lines, state.tail
        rest = b""
        while data := file.read(_CHUNK_BYTES):
            rest += data
            end = rest.rfind(b"\n") + 1
            if end == 0:
                if len(rest) > MAX_LINE_BYTES:
                    return
                continue
            lines = []
            for line in rest[:end].splitlines(keepends=True) if b"\r" not in rest[:end] else _split(rest[:end]):
                lines.append(_parse(line, number, offset))
                number += 1
                offset += len(line)
            tail = (tail + rest[:end])[-_TAIL_BYTES:]
            rest = rest[end:]
            yield Batch(lines=lines, state=TailState(inode=inode, offset=offset, lines=number, tail=tail))


def open_inside(path: Path) -> Any:
    """Opens a plain file for reading, not a link (a link may lead out of the run) and no pipe. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(None, "this is no plain file", str(path))
    return os.fdopen(descriptor, "rb")


def _split(data: bytes) -> list[bytes]:
    """By newlines alone: bytes.splitlines would split at carriage returns too."""
    return [line + b"\n" for line in data[:-1].split(b"\n")]


def _parse(line: bytes, number: int, offset: int) -> Line:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return Line(number=number, offset=offset, record=None, error=f"line {number + 1} is no JSON; it is left out")
    if not isinstance(record, dict):
        return Line(number=number, offset=offset, record=None, error=f"line {number + 1} is no JSON object")
    return Line(number=number, offset=offset, record=record)

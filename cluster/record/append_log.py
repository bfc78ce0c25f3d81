"""Append-only JSON-lines files: each line is written whole or not at all, and is always valid JSON."""

import json
import math
import numbers
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from rollout.errors import ShoalError


class RunDirectoryError(ShoalError):
    """A run directory that cannot be made, opened or read."""


class RunWriteError(RunDirectoryError, OSError):
    """A file of the run could not be written, for example because the disk is full."""


def json_line(record: Mapping[str, Any]) -> str:
    """One line of ASCII JSON without its newline.

    Numbers that JSON cannot hold (NaN, infinities) become null. Characters beyond ASCII, lone surrogates of broken
    model output among them, are escaped, so that they come back as they were.
    """
    try:
        return _ENCODER.encode(record)
    except ValueError:  # a number that JSON cannot hold, somewhere in it
        return _ENCODER.encode(_plain(record))


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """Adds one line with one write(2). Raises RunWriteError, with the file as it was."""
    data = (json_line(record) + "\n").encode("ascii")
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            written = os.write(descriptor, data)
            if written != len(data):  # the disk filled up within the line: a torn line would join the next one
                os.ftruncate(descriptor, os.fstat(descriptor).st_size - written)
                raise OSError(None, f"only {written} of {len(data)} bytes fit")
        finally:
            os.close(descriptor)
    except OSError as error:
        raise write_error(path, error) from error


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file; nothing when it does not exist. A last line without newline is still being written or
    was torn by a crash: it is left out. Raises RunDirectoryError for any other line that is no JSON object."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                record = json.loads(line)
            except ValueError as error:
                raise RunDirectoryError(f"{path}, line {number}: this is no JSON: {error}") from error
            if not isinstance(record, dict):
                raise RunDirectoryError(f"{path}, line {number}: got {type(record).__name__}, allowed: a JSON object")
            yield record


def write_atomically(path: Path, data: bytes) -> None:
    """Replaces a file: a reader sees the old content or the new, never a part. Raises RunWriteError."""
    with replacing(path) as file:
        file.write(data)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write what replaces `path`, which it does at the end: a reader sees the old content or the new, never a
    part. Raises RunWriteError."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise write_error(path, error) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sync_folder(path: Path) -> None:
    """Makes renames in a folder survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_error(path: Path, error: OSError) -> RunWriteError:
    """The error for a failed write, saying what to do."""
    return RunWriteError(
        f"cannot write {path}: {error.strerror or error}; make room or fix permissions there, then resume the run"
    )


def _plainer(value: Any) -> Any:
    """What the encoder does not know: numbers of other libraries, mappings that are no dictionary."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    raise TypeError(f"a record of a run holds {type(value).__name__} {value!r}, which is no JSON value")


# Its C part writes a record of plain values ten times as fast as a walk through it in Python.
_ENCODER = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":"), default=_plainer)


def _plain(value: Any) -> Any:
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return str(value) if isinstance(value, str) else value  # str(): a StrEnum is written as its value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(child) for child in value]
    raise TypeError(f"a record of a run holds {type(value).__name__} {value!r}, which is no JSON value")

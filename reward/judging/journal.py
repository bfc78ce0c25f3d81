"""What servers have answered, so that nothing is asked twice: JSON lines in the run directory, a file for each worker.

    verdicts/reward-0.jsonl     written by this worker
    verdicts/reward-1.jsonl     read when it starts, as its own is

A line is written with one write(2) before the answer is used, so that it outlives the process; `sync` makes it outlive
the machine, once for each group, before the group's scores are given. A line that a crash tore is skipped: what it said
is asked again. Of an answer its place is kept in memory, not the answer.
"""

import contextlib
import json
import os
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reward.errors import RewardError

FOLDER = "verdicts"
"""Below the run directory."""


class Journal:
    """Answers by the digest of what was asked. Thread-safe."""

    def __init__(self, run_dir: Path | None, worker: str) -> None:
        """Reads what the workers of the run have written. Without a run directory it lasts as long as this object.

        Errors: `RewardError` where the file cannot be made or read.
        """
        self._files: list[int] = []
        self._places: dict[bytes, tuple[int, int, int]] = {}
        """First half of a digest -> (number of a file, where its line begins, bytes of it)."""
        self._lock = threading.Lock()
        self.num_damaged = 0
        """Lines that are none of ours, or were torn."""
        try:
            if run_dir is None:
                descriptor, name = tempfile.mkstemp(prefix="shoal-verdicts-")
                os.unlink(name)
                self._files.append(descriptor)
                return
            folder = run_dir / FOLDER
            folder.mkdir(parents=True, exist_ok=True)
            own = folder / f"{worker}.jsonl"
            self._files.append(os.open(own, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644))
            self._end_torn_line()
            others = [path for path in sorted(folder.glob("*.jsonl")) if path != own]
            self._files += [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in others]
            for number in range(len(self._files)):
                self._read(number)
        except OSError as error:
            self.close()
            raise _not_written(run_dir, worker, error) from error

    def __len__(self) -> int:
        return len(self._places)

    def find(self, key: str) -> Mapping[str, Any] | None:
        """The line of a digest; None where it was not asked."""
        place = self._places.get(_short(key))
        if place is None:
            return None
        number, start, size = place
        record = _record_of(os.pread(self._files[number], size, start))
        # The line says of what it is: halves of two digests may be the same.
        return record if record is not None and record["key"] == key else None

    def add(self, key: str, facts: Mapping[str, Any]) -> None:
        """Notes an answer. Errors: `RewardError` where the disk refuses."""
        data = (json.dumps({"key": key, **facts}, separators=(",", ":")) + "\n").encode("ascii")
        with self._lock:
            try:
                written = os.write(self._files[0], data)
                end = os.lseek(self._files[0], 0, os.SEEK_CUR)
                if written != len(data):
                    os.write(self._files[0], b"\n")  # a torn line would join the next one
                    raise OSError(None, f"only {written} of {len(data)} bytes fit")
            except OSError as error:
                raise RewardError(f"an answer could not be noted in {FOLDER}/: {error}; make room there") from error
            self._places[_short(key)] = (0, end - len(data), len(data))

    def sync(self) -> None:
        """What was added outlives the machine when this returns. Errors: `RewardError`."""
        try:
            os.fsync(self._files[0])
        except OSError as error:
            raise RewardError(f"answers could not be written to {FOLDER}/: {error}; make room there") from error

    def close(self) -> None:
        """Closes the files. Idempotent."""
        with self._lock:
            files, self._files, self._places = self._files, [], {}
        for descriptor in files:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _end_torn_line(self) -> None:
        size = os.fstat(self._files[0]).st_size
        if size and os.pread(self._files[0], 1, size - 1) != b"\n":
            os.write(self._files[0], b"\n")

    def _read(self, number: int) -> None:
        start = 0
        with open(os.dup(self._files[number]), "rb") as file:
            file.seek(0)
            for line in file:
                record = _record_of(line) if line.endswith(b"\n") else None
                if record is not None:
                    self._places.setdefault(_short(record["key"]), (number, start, len(line)))
                elif line.strip():
                    self.num_damaged += 1
                start += len(line)


def _short(key: str) -> bytes:
    return bytes.fromhex(key)[:16]


def _record_of(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
        _short(record["key"])
    except (ValueError, TypeError, KeyError):
        return None
    return record if isinstance(record, dict) else None


def _not_written(run_dir: Path | None, worker: str, error: OSError) -> RewardError:
    return RewardError(
        f"{worker} cannot keep what servers answer in {run_dir}/{FOLDER}: {error.strerror or error}; the run directory "
        "has to be one that every node writes"
    )

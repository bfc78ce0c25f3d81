"""One process at a time writes a run: two would interleave their lines and save over each other's checkpoints."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.record.append_log import RunDirectoryError, write_error
from cluster.run_files import LOCK

LOCK_FILE = LOCK
"""In the run directory, where it stays. What counts is the lock on it, which ends when its process ends."""
# A reader that asks whether a run is live holds the lock for a moment.
RETRY_S = 1.0


@contextmanager
def run_lock(path: Path) -> Iterator[None]:
    """Holds the lock of the run directory `path`. Raises RunDirectoryError when another process has it."""
    file = path / LOCK_FILE
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise write_error(file, error) from error
    try:
        _acquire(descriptor, path)
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "since_s": time.time()}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(owner).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def is_locked(path: Path) -> bool | None:
    """Whether a process writes the run directory `path` now; None when it has no lock file or cannot be asked."""
    try:
        descriptor = os.open(path / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return None
    finally:
        os.close(descriptor)
    return False


def _acquire(descriptor: int, path: Path) -> None:
    deadline = time.monotonic() + RETRY_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                raise RunDirectoryError(
                    f"{path} is being written by {_owner(descriptor)}; wait until that ends, or stop it first"
                ) from error
            time.sleep(0.05)


def _owner(descriptor: int) -> str:
    try:
        owner = json.loads(os.pread(descriptor, 1000, 0))
        return f"process {owner['pid']} on {owner['host']}"
    except (ValueError, KeyError, TypeError):  # it has the lock and has not written its name yet
        return "another process"

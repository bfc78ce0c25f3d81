"""Two processes cannot write one run; the lock ends with its process, however that ends."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.record.append_log import RunDirectoryError
from cluster.record.run_lock import is_locked, run_lock

HOLDER = """
import sys, time
from pathlib import Path
from cluster.record.run_lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_told_who_writes_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    assert is_locked(tmp_path) is None
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert is_locked(tmp_path) is True
        with pytest.raises(RunDirectoryError, match=rf"being written by process {holder.pid} on "), run_lock(tmp_path):
            pass
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait(timeout=10)
    assert is_locked(tmp_path) is False
    with run_lock(tmp_path):
        assert is_locked(tmp_path) is True
    assert is_locked(tmp_path) is False


def test_a_reader_that_looks_does_not_keep_a_run_from_starting(tmp_path: Path) -> None:
    import fcntl
    import threading

    (tmp_path / "run.lock").touch()
    with (tmp_path / "run.lock").open() as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        timer = threading.Timer(0.2, lambda: fcntl.flock(reader, fcntl.LOCK_UN))
        timer.start()
        with run_lock(tmp_path):
            assert is_locked(tmp_path) is True
        timer.join()

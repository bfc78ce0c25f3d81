"""Stacks of real processes: one that hangs in a loop of C, and ones that are not who they were."""

import dataclasses
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cluster.fleet import stacks
from cluster.fleet.stacks import StackSource, read_stacks

HANGS = """
import dataclasses, json, ray
class Context:
    def get_node_id(self): return "node"
ray.get_runtime_context = Context
from cluster.fleet.stacks import listen
def never_ends() -> None:
    sum(range(10**13))
listen()
print(json.dumps(dataclasses.asdict(listen())), flush=True)
never_ends()
"""


@contextmanager
def hanging() -> Iterator[tuple["subprocess.Popen[str]", StackSource]]:
    process = subprocess.Popen([sys.executable, "-c", HANGS], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process, StackSource(**json.loads(process.stdout.readline()))
    finally:
        process.kill()
        process.wait(timeout=10)


def test_a_process_that_holds_the_gil_says_where_it_is_as_often_as_it_is_asked() -> None:
    with hanging() as (process, source):
        assert source.pid == process.pid
        deadline = time.monotonic() + 20
        while "in never_ends" not in (first := read_stacks(source)):  # it says who it is, and begins only then
            assert time.monotonic() < deadline, first
        second = read_stacks(source)
        assert "in never_ends" in second
        assert first.count("most recent call first") == second.count("most recent call first") == 1
        assert process.poll() is None


def test_a_process_with_the_number_of_a_dead_one_is_not_touched() -> None:
    with hanging() as (process, source):
        other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        try:
            assert "gone" in read_stacks(dataclasses.replace(source, inode=source.inode + 1))
            assert "gone" in read_stacks(dataclasses.replace(source, pid=other.pid, descriptor=1))
            assert other.poll() is None
        finally:
            other.kill()
            other.wait(timeout=10)
        process.kill()
        process.wait(timeout=10)
        assert "is gone or cannot be read" in read_stacks(source)


def test_a_process_that_is_stopped_is_given_up_after_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacks, "ANSWER_DEADLINE_S", 0.3)
    with hanging() as (process, source):
        process.send_signal(signal.SIGSTOP)
        assert read_stacks(source) == f"process {source.pid} wrote nothing within 0.3 s\n"

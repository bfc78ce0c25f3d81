"""What the first and the second Ctrl-C do, in a process of its own."""

import signal
import subprocess
import sys
import time

import pytest

CODE = """
import asyncio, sys
from types import SimpleNamespace
from cluster.commands.train import _signals

reporter = SimpleNamespace(phase=lambda text: print(text, flush=True), close=lambda: print("closed", flush=True))

async def main():
    stop, received = asyncio.Event(), []
    with _signals(stop, received, reporter):
        print("ready", flush=True)
        await stop.wait()
        await asyncio.sleep(30)  # what is finished first

asyncio.run(main())
"""


@pytest.fixture
def child() -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", CODE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_the_first_asks_and_the_second_ends(child: "subprocess.Popen[str]") -> None:
    assert child.stdout is not None
    child.send_signal(signal.SIGINT)
    told = child.stdout.readline()
    assert told == "SIGINT: what the finished steps made is saved; once more ends it at once\n"
    time.sleep(1.1)
    child.send_signal(signal.SIGTERM)
    out, err = child.communicate(timeout=20)
    assert child.returncode == -signal.SIGTERM
    assert out == "closed\n"
    assert err == "shoal: ended at once; what came after the last checkpoint is lost\n"


def test_an_echo_of_the_first_is_no_second(child: "subprocess.Popen[str]") -> None:
    assert child.stdout is not None
    child.send_signal(signal.SIGTERM)
    child.stdout.readline()
    child.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(timeout=0.5)
    child.kill()
    child.wait()

"""Reward functions that do, for a completion that names it, each thing that a reward function must not do."""

import asyncio
import contextlib
import ctypes
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from reward.functions import batched
from reward.types import RewardInput

NOT_CALLABLE = 3


def length_of_text(item: RewardInput) -> float:
    return float(len(item.completion))


def misbehave(item: RewardInput) -> object:
    """1.0 unless the completion names a misdeed."""
    what, _, argument = item.completion.partition(" ")
    if what in _MISDEEDS:
        return _MISDEEDS[what]()
    if what == "grandchildren":
        return _leave_grandchildren(argument)
    return 1.0


async def slow_echo(item: RewardInput, seconds: float = 0.0) -> float:
    await asyncio.sleep(seconds)
    if item.completion == "async raise":
        raise KeyError("missing")
    return float(item.completion)


async def waits_or_blocks(item: RewardInput) -> float:
    """Waits as long as the completion says; "block" holds the event loop for ever."""
    if item.completion == "block":
        time.sleep(1000)  # noqa: ASYNC251
    if item.completion == "stubborn":
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(1000)
    if item.completion == "own deadline":
        raise TimeoutError("the judge did not answer")
    await asyncio.sleep(float(item.completion))
    return float(item.completion)


def imports_inside(item: RewardInput) -> float:
    import tests.reward.slow_to_import as slow

    return slow.VALUE


async def loop_identity(item: RewardInput) -> float:
    """A number that is the same whenever the same event loop runs this."""
    return float(id(asyncio.get_running_loop()) % 2**40)


@batched
def rank_by_length(items: Sequence[RewardInput]) -> object:
    texts = [item.completion for item in items]
    if "wrong length" in texts:
        return [0.0]
    if "not a list" in texts:
        return 1.0
    if "hang" in texts:
        time.sleep(1000)
    return [math.nan if text == "nan" else float(len(text)) for text in texts]


def open_files(item: RewardInput) -> float:
    """How many file descriptors above the standard ones this process has."""
    return float(len([fd for fd in os.listdir("/proc/self/fd") if int(fd) > 2]) - 1)  # one lists the folder


def process_id(item: RewardInput) -> float:
    return float(os.getpid())


def core_limit(item: RewardInput) -> float:
    import resource

    return float(max(resource.getrlimit(resource.RLIMIT_CORE)))


def _busy() -> float:
    while True:
        pass


def _hold_the_interpreter() -> float:
    return float(sum(range(10**13)))


def _backtrack() -> float:
    return float(re.fullmatch(r"(a|aa)+$", "a" * 60 + "b") is not None)


def _raise() -> float:
    raise ValueError("two\nlines " + "x" * 1000)


def _leave_grandchildren(path: str) -> float:
    """One process in our group and one that left it; their ids are written to `path`."""
    code = "import time; time.sleep(1000)"
    ours = subprocess.Popen([sys.executable, "-c", code])
    left = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    with open(path, "w", encoding="ascii") as file:
        file.write(f"{ours.pid} {left.pid}")
    time.sleep(1000)
    return 0.0


_MISDEEDS: dict[str, Callable[[], object]] = {
    "busy": _busy,
    "sleep": lambda: time.sleep(1000),
    "gil": _hold_the_interpreter,
    "backtrack": _backtrack,
    "pow": lambda: float(len(str(9**9**8))),
    "exit": lambda: os._exit(3),
    "sys.exit": lambda: sys.exit(4),
    "segfault": lambda: ctypes.string_at(0),
    "raise": _raise,
    "none": lambda: None,
    "nan": lambda: math.nan,
    "inf": lambda: -math.inf,
    "str": lambda: "1",
    "list": lambda: [1.0],
}

"""Environments for tests: one that works, and those that do what environments should not."""

import ctypes
import os
import random
import subprocess
import sys
import time
from typing import Any

from rollout.episodes.environment import Done, Environment, Limits, Messages, Reply, Task, tool, user


class Parrot(Environment):
    """Says what was said, three times."""

    limits = Limits(turns=5, call_s=2.0)

    def __init__(self, greeting: str = "hello") -> None:
        self.greeting = greeting

    async def start(self, task: Task) -> Messages:
        return [user(f"{self.greeting} {task.seed}")]

    async def respond(self, reply: Reply) -> Messages | Done:
        return Done(scores={"turns": reply.turn}) if reply.turn == 3 else [user(f"you said {reply.text}")]


class Echo(Parrot):
    """The same with tools."""

    @tool
    def slow(self, seconds: float) -> str:
        """Waits.

        Args:
            seconds: How long.
        """
        time.sleep(seconds)
        return f"waited {seconds:g}"

    @tool
    async def broken(self) -> str:
        """Raises."""
        raise KeyError("no such thing")

    @tool
    def long(self) -> str:
        """Says much."""
        return "x" * 10_000_000


class Bad(Environment):
    """Does in `respond` what its name says."""

    def __init__(self, what: str = "", where: str = "respond") -> None:
        self.what, self.where = what, where

    def start(self, task: Task) -> Messages:
        return [user("hello")] if self.where != "start" else getattr(self, self.what)()

    def respond(self, reply: Reply) -> Any:
        return getattr(self, self.what)()

    def sleeps(self) -> Any:
        time.sleep(60)

    def turns_round(self) -> Any:
        while True:
            pass

    def holds_the_interpreter(self) -> Any:
        # No Python thread of this process runs meanwhile.
        ctypes.PyDLL(None).sleep(60)

    def raises(self) -> Any:
        raise ValueError("out of cards")

    def exits(self) -> Any:
        sys.exit(3)

    def dies(self) -> Any:
        os._exit(3)

    def returns_text(self) -> Any:
        return "higher"

    def returns_nothing(self) -> Any:
        return None

    def returns_no_messages(self) -> Any:
        return []

    def returns_much(self) -> Any:
        return [user("x" * 40_000_000)]

    def scores_nan(self) -> Any:
        return Done(scores={"won": float("nan")})

    def leaks(self) -> Any:
        for _ in range(3):
            subprocess.Popen(["sleep", "600"], start_new_session=True)
        return [user("three processes")]

    def draws(self) -> Any:
        return [user(str(random.random()))]


class Stopless(Parrot):
    """Hangs when it is stopped."""

    def stop(self) -> None:
        time.sleep(60)


class Flaky(Environment):
    """Dies as often as its folder has files left."""

    def __init__(self, path: str) -> None:
        self.path = path

    async def start(self, task: Task) -> Messages:
        return [user("hello")]

    def respond(self, reply: Reply) -> Messages | Done:
        for name in os.listdir(self.path):
            try:
                os.remove(os.path.join(self.path, name))
            except FileNotFoundError:
                continue  # another world was faster
            os._exit(1)
        return Done() if reply.turn == 3 else [user("go on")]


class Late(Flaky):
    """Dies in its third turn, and says how often it was asked where `counts` is set."""

    def __init__(self, path: str, counts: bool = False) -> None:
        super().__init__(path)
        self.counts = counts

    def respond(self, reply: Reply) -> Messages | Done:
        if reply.turn == 3:
            return super().respond(reply)
        return [user(f"{len(os.listdir(self.path)) if self.counts else 'go on'} after {reply.text}")]


class Unrepeatable(Late):
    """Is not to be played again."""

    replayable = False


class Moody(Parrot):
    """Begins another way each time."""

    async def start(self, task: Task) -> Messages:
        return [user(f"it is {time.time_ns()}")]

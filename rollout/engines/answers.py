"""Answers of an engine's thread, for callers on an event loop."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any, TypeVar

R = TypeVar("R")


def shielded(done: Future[R]) -> "asyncio.Future[R]":
    """What the thread answers. A caller that is cancelled does not cancel what that thread sets."""
    answer = asyncio.wrap_future(done)
    shield = asyncio.shield(answer)
    # Of a caller that was cancelled nobody takes the answer: an error is not to be reported as one that was lost.
    for future in (answer, shield):
        future.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    return shield


def fail_all(waiting: Sequence[Future[Any]], error: BaseException | None) -> None:
    """Tells those who wait and were told nothing yet; without an error nothing is to tell."""
    for done in waiting if error is not None else ():
        with suppress(InvalidStateError):  # the engine's thread and the event loop may tell the same at once
            done.set_exception(error)

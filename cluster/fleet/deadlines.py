"""The one place where the controller waits for other processes: every wait has a deadline and a typed error."""

import asyncio
from collections.abc import Awaitable, Coroutine, Sequence
from typing import Any, TypeVar

import ray.exceptions

from cluster.errors import ActorFailedError, ObjectLostError, StageTimeoutError
from rollout.errors import EngineError, ShoalError

T = TypeVar("T")


async def finish(work: Awaitable[T], *, deadline_s: float, stage: str, actor: str, item: str) -> T:
    """Awaits a Ray reference (or any awaitable).

    Errors: `StageTimeoutError` past the deadline; the `ShoalError` that the actor raised, as it was; for anything else,
    and for a dead actor, `ActorFailedError` with the cause in one line.
    """
    try:
        # Where it is given up, the wait ends and the remote call goes on.
        async with asyncio.timeout(deadline_s):
            return await work
    # Ray's errors first: one that was caused by a TimeoutError over there is a TimeoutError too, but not our deadline.
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, ShoalError):
            raise cause from None
        if isinstance(cause, ray.exceptions.ObjectLostError):  # an argument: nothing was asked of the actor
            raise ObjectLostError(f"{stage}: {item} was gone before {actor} had it: {first_line(cause)}") from error
        raise ActorFailedError(stage, actor, item, f"{type(cause).__name__}: {first_line(cause)}") from error
    except ray.exceptions.ObjectLostError as error:
        raise ObjectLostError(f"{stage}: {item} was gone before {actor} had it: {first_line(error)}") from error
    except ray.exceptions.RayError as error:
        # Unavailable is a connection that may come back; everything else of the kind is a process that is gone.
        died = isinstance(error, ray.exceptions.RayActorError | ray.exceptions.WorkerCrashedError) and not isinstance(
            error, ray.exceptions.ActorUnavailableError
        )
        raise ActorFailedError(stage, actor, item, f"{type(error).__name__}: {first_line(error)}", died) from error
    except TimeoutError:
        raise StageTimeoutError(stage, actor, item, deadline_s) from None


async def finish_all(
    works: Sequence[Awaitable[T]], *, deadline_s: float, stage: str, actors: Sequence[str], item: str
) -> list[T]:
    """Awaits one reference for each actor; the first to fail decides, and its name is in the error."""
    tasks = [
        asyncio.ensure_future(finish(work, deadline_s=deadline_s, stage=stage, actor=actor, item=item))
        for work, actor in zip(works, actors, strict=True)
    ]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


def first_line(error: object) -> str:
    """The last non-empty line of an error's text: Ray puts the cause after the remote traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:500] if lines else type(error).__name__


async def first_of(work: Coroutine[Any, Any, Any], stop: asyncio.Event) -> tuple[bool, Any]:
    """(True, result) when `work` ends; (False, None) when `stop` is set first, and `work` is then cancelled. A result
    that came in the same moment counts: what `work` took would be lost otherwise."""
    task, stopped = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
        task.cancel()
        await asyncio.wait((task,))
        return (False, None) if task.cancelled() else (True, task.result())
    finally:
        for pending in (task, stopped):
            pending.cancel()
        await asyncio.gather(task, stopped, return_exceptions=True)


RECOVERABLE = (ActorFailedError, StageTimeoutError, EngineError)
"""What another process, or another try, may put right. Anything else ends the run."""

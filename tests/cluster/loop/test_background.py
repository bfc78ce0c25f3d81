"""Tasks beside the loop: the first error ends it, but never in the middle of what must be finished."""

import asyncio
import gc

import pytest

from cluster.loop.background import BackgroundTasks
from rollout.errors import ShoalError


def test_an_error_waits_for_what_must_not_be_interrupted() -> None:
    async def main() -> list[object]:
        background = BackgroundTasks()
        done: list[object] = []

        async def fail() -> None:
            raise ValueError("a sampler died")

        async def loop() -> None:
            async with background.uninterrupted():
                background.spawn(fail())
                for _ in range(5):
                    await asyncio.sleep(0)
                done.append(background.has_failed)
            done.append("next step")

        with pytest.raises(ValueError, match="a sampler died"):
            await background.run_beside(loop())
        return done

    assert asyncio.run(main()) == [True]


def test_what_waits_for_a_task_that_failed_is_given_up() -> None:
    async def main() -> list[bool]:
        tasks, ended = BackgroundTasks(), []

        async def fail() -> None:
            await asyncio.sleep(0.01)
            raise ShoalError("it failed")

        async def work() -> None:
            async with tasks.uninterrupted():
                ended.append(await tasks.unless_failed(asyncio.sleep(0)))
                ended.append(await tasks.unless_failed(forever()))

        tasks.spawn(fail())
        with pytest.raises(ShoalError, match="it failed"):
            await asyncio.wait_for(tasks.run_beside(work()), 5)
        return ended

    assert asyncio.run(main()) == [True, False]


def test_nothing_uninterrupted_begins_after_a_failure() -> None:
    """Between two of them there may be no moment in which the one that cancels is asked."""

    async def main() -> list[int]:
        tasks, begun = BackgroundTasks(), []

        async def fail() -> None:
            raise ShoalError("it failed")

        async def work() -> None:
            for number in range(100):
                async with tasks.uninterrupted():
                    begun.append(number)
                    await asyncio.sleep(0)

        tasks.spawn(fail())
        with pytest.raises(ShoalError, match="it failed"):
            await asyncio.wait_for(tasks.run_beside(work()), 5)
        return begun

    assert asyncio.run(main()) in ([], [0])


def test_no_error_is_left_that_nobody_read(caplog: pytest.LogCaptureFixture) -> None:
    """asyncio prints the trace of each, between the lines of the run, or instead of its one sentence."""

    async def fail(after_s: float) -> None:
        await asyncio.sleep(after_s)
        raise ShoalError("the worker was closed")

    async def main() -> None:
        first = BackgroundTasks()
        for after_s in (0.0, 0.0, 0.01):
            first.spawn(fail(after_s))
        with pytest.raises(ShoalError):
            await first.run_beside(forever())
        await asyncio.sleep(0.02)
        await first.cancel()
        # And of one that fails when nothing runs beside any more.
        late = BackgroundTasks()
        late.spawn(fail(0.0))
        await asyncio.sleep(0.01)
        await late.cancel()

    asyncio.run(main())
    gc.collect()
    assert caplog.records == []


def test_what_is_started_by_a_task_that_is_being_ended_is_ended_too() -> None:
    async def main() -> list[str]:
        tasks, ended = BackgroundTasks(), []

        async def second() -> None:
            try:
                await forever()
            finally:
                ended.append("second")

        async def first() -> None:
            try:
                await forever()
            finally:
                tasks.spawn(second())
                await asyncio.sleep(0)
                ended.append("first")

        tasks.spawn(first())
        await asyncio.sleep(0)
        await tasks.cancel()
        return ended

    assert asyncio.run(main()) == ["first", "second"]


async def forever() -> None:
    await asyncio.Event().wait()

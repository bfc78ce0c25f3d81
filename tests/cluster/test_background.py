"""Tasks beside the loop: the first error ends it, but never in the middle of what must be finished."""

import asyncio

import pytest

from cluster.background import BackgroundTasks


def test_an_error_waits_for_what_must_not_be_interrupted():
    async def main():
        background = BackgroundTasks()
        done: list[object] = []

        async def fail():
            raise ValueError("a sampler died")

        async def loop():
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

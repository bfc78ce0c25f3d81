"""Leases that come again, are taken back, or end while they are asked for."""

import asyncio
import dataclasses

import pytest

from rollout.errors import EngineError
from tests.rollout.fake_engine import FakeEngine
from tests.rollout.test_worker import SAMPLING, request, working


def test_a_lease_that_comes_again_fences_off_the_one_before() -> None:
    """Of a `submit` whose caller stopped waiting, and that reached the worker after all."""

    async def main() -> None:
        engine = FakeEngine(steps=10**9)
        async with working(engine) as worker:
            await worker.submit([request(0), request(1)], SAMPLING)
            before = asyncio.ensure_future(worker.wait_group(request(0).key))
            await asyncio.sleep(0.01)
            again = request(0, attempt=2)
            await worker.submit([again], SAMPLING)
            with pytest.raises(EngineError, match="given up and given anew"):
                await before
            assert (await worker.status()).num_running_groups == 2
            assert "abort 2" in engine.journal
            running = {spec.request_id for spec, _ in engine._running}
            assert running == {
                f"train|{lease.key[1]}|{lease.attempt}|{i}" for lease in (request(1), again) for i in (0, 1)
            }

    asyncio.run(main())


def test_a_question_that_is_asked_again_fences_off_the_attempt_before() -> None:
    async def main() -> None:
        engine = FakeEngine(steps=10**9)
        async with working(engine) as worker:
            first = dataclasses.replace(request(0, purpose="eval"), evaluation=1)
            await worker.submit([first], SAMPLING)
            await worker.submit([dataclasses.replace(first, attempt=2)], SAMPLING)
            assert ((await worker.status()).num_running_groups, len(engine._running)) == (1, 2)
            # Another evaluation's lease on the same question is its own.
            await worker.submit([dataclasses.replace(first, evaluation=2)], SAMPLING)
            assert (await worker.status()).num_running_groups == 2

    asyncio.run(main())


def test_leases_that_are_taken_back_are_not_computed() -> None:
    async def main() -> None:
        engine = FakeEngine(steps=10**9)
        async with working(engine) as worker:
            await worker.submit([request(0), request(1)], SAMPLING)
            waiting = asyncio.ensure_future(worker.wait_group(request(1).key))
            await asyncio.sleep(0.01)
            await worker.give_up([request(1)])
            with pytest.raises(EngineError, match="given up by who asked"):
                await waiting
            assert ((await worker.status()).num_running_groups, len(engine._running)) == (1, 2)
            await worker.give_up([request(1)])  # and again: it is gone already
            assert (await worker.status()).num_running_groups == 1

    asyncio.run(main())


def test_status_and_waits_may_come_while_groups_end() -> None:
    """A11: the loop asks for leases while the engine's thread ends them."""

    async def main() -> None:
        async with working(FakeEngine()) as worker:
            for _ in range(20):
                leases = [request(i) for i in range(30)]
                await worker.submit(leases, SAMPLING)
                waits = [worker.wait_group(lease.key) for lease in leases]
                statuses = asyncio.gather(*(worker.status() for _ in leases))
                assert len(await asyncio.gather(*waits)) == len(await statuses) == 30
            assert (await worker.status()).num_running_groups == 0

    asyncio.run(main())

"""What a sampler is asked: a batch that it does not take in time is given up behind it."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.errors import StageTimeoutError
from cluster.fleet.actors import Actor
from cluster.groups import sampling
from rollout.config import SamplingConfig
from rollout.types import SampleRequest
from tests.cluster.groups.test_pipeline import prompt


def test_a_batch_that_is_not_taken_in_time_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A12: the sampler may get to it later, and would compute for nobody."""
    monkeypatch.setattr(sampling, "SUBMIT_DEADLINE_S", 0.05)
    requests = [SampleRequest(prompt=prompt(i), group_size=2, attempt=1) for i in range(3)]
    given_up: list[Any] = []

    async def main() -> None:
        never = asyncio.get_running_loop().create_future()
        handle: Any = SimpleNamespace(
            submit=SimpleNamespace(remote=lambda *_: never), give_up=SimpleNamespace(remote=given_up.append)
        )
        with pytest.raises(StageTimeoutError, match="sampler-0"):
            await sampling.submit(Actor(name="sampler-0", handle=handle), requests, SamplingConfig())

    asyncio.run(main())
    assert given_up == [requests]


def test_a_batch_that_is_taken_is_not() -> None:
    given_up: list[Any] = []

    async def main() -> None:
        taken = asyncio.get_running_loop().create_future()
        taken.set_result(None)
        handle: Any = SimpleNamespace(
            submit=SimpleNamespace(remote=lambda *_: taken), give_up=SimpleNamespace(remote=given_up.append)
        )
        await sampling.submit(Actor(name="sampler-0", handle=handle), [], SamplingConfig())

    asyncio.run(main())
    assert given_up == []

"""Worlds in processes of their own, and what they do to others: nothing."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

import psutil
import pytest

from rollout.episodes.environment import Done, Message, Reply, Task, ToolCall
from rollout.episodes.hosted import MAX_RESULT_CHARS, HostedWorld, WorldTemplate
from rollout.errors import ConfigError, WorldError
from rollout.types import FinishReason

PATH = "tests.rollout.episodes.worlds"
TASK = Task(question="", seed=7, sample_seed=8)


def said(text: str, turn: int = 1) -> Reply:
    return Reply(text=text, turn=turn, finish_reason=FinishReason.STOP)


def with_world(name: str, play: Callable[[HostedWorld], Awaitable[Any]], *, call_s: float = 2.0, **params: Any) -> Any:
    async def run() -> Any:
        template = await asyncio.to_thread(WorldTemplate, f"{PATH}:{name}", params)
        try:
            world = await template.world(call_s=call_s)
            pid = world.pid
            try:
                return await play(world)
            finally:
                await world.stop()
                await world.stop()
                assert world.pid is None
                assert pid is None or not psutil.pid_exists(pid)
        finally:
            template.close()

    return asyncio.run(run())


def test_a_world_answers_until_it_is_done() -> None:
    async def play(world: HostedWorld) -> list[Any]:
        return [await world.start(TASK), await world.respond(said("a")), await world.respond(said("b", turn=3))]

    opening, heard, end = with_world("Echo", play, greeting="good day")
    assert opening == [Message(role="user", content="good day 7")]
    assert heard == [Message(role="user", content="you said a")]
    assert end == Done(scores={"turns": 3.0})


def test_limits_schemas_and_openings_are_told_by_the_template() -> None:
    template = WorldTemplate(f"{PATH}:Echo", {})
    try:
        assert template.limits.turns == 5
        assert [schema["function"]["name"] for schema in template.schemas] == ["broken", "long", "slow"]
        tasks = [Task(question="", seed=seed, sample_seed=0) for seed in range(50)]
        found = asyncio.run(template.openings(tasks, deadline_s=10.0))
        assert [messages[0].content for messages in found] == [f"hello {seed}" for seed in range(50)]
    finally:
        template.close()


def test_calls_run_side_by_side() -> None:
    async def play(world: HostedWorld) -> tuple[float, list[str]]:
        await world.start(TASK)
        began_s = time.monotonic()
        calls = [world.call(ToolCall(name="slow", arguments={"seconds": 0.4})) for _ in range(4)]
        return time.monotonic() - began_s, list(await asyncio.gather(*calls))

    _, results = with_world("Echo", play)
    assert results == ["waited 0.4"] * 4


def test_a_tool_that_raises_is_read_by_the_model() -> None:
    async def play(world: HostedWorld) -> list[str]:
        await world.start(TASK)
        calls = [
            ToolCall(name="broken", arguments={}),
            ToolCall(name="none", arguments={}),
            ToolCall(name="slow", arguments={}),
        ]
        return [await world.call(call) for call in calls] + [(await world.respond(said("still here")))[0].content]  # type: ignore[index]

    broken, unknown, missing, answer = with_world("Echo", play)
    assert broken == "Error: KeyError: 'no such thing'"
    assert unknown.startswith("Error: there is no tool 'none'")
    assert missing == "Error: missing a required argument: 'seconds'"
    assert answer == "you said still here"


def test_a_long_result_is_cut_visibly() -> None:
    async def play(world: HostedWorld) -> str:
        await world.start(TASK)
        return await world.call(ToolCall(name="long", arguments={}))

    result = with_world("Echo", play)
    assert len(result) < MAX_RESULT_CHARS + 100
    assert result.endswith("[... 9,980,000 of 10,000,000 characters left out]")


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("sleeps", "respond did not answer within 1 s"),
        ("turns_round", "respond did not answer within 1 s"),
        ("holds_the_interpreter", "respond did not answer within 1 s"),
        ("raises", "respond raised ValueError: out of cards"),
        ("exits", "respond raised SystemExit: 3"),
        ("dies", "its process died"),
        ("returns_text", "it returned a str instead of a list of messages or Done"),
        ("returns_nothing", "it returned a NoneType instead of a list"),
        ("returns_no_messages", "it returned no message"),
        ("returns_much", "bytes, more than"),
        ("scores_nan", "its score 'won' is nan"),
    ],
)
def test_what_a_world_should_not_do_ends_it_in_time(what: str, words: str) -> None:
    async def play(world: HostedWorld) -> float:
        await world.start(TASK)
        began_s = time.monotonic()
        with pytest.raises(WorldError) as raised:
            await world.respond(said("go"))
        assert words in str(raised.value)
        assert "\n" not in str(raised.value)
        return time.monotonic() - began_s

    call_s = 1.0 if what in ("sleeps", "turns_round", "holds_the_interpreter") else 10.0
    assert with_world("Bad", play, what=what, call_s=call_s) < call_s + 5.0


def test_what_a_world_has_started_ends_with_it() -> None:
    async def play(world: HostedWorld) -> list[int]:
        await world.start(TASK)
        await world.respond(said("go"))
        assert world.pid is not None
        return [child.pid for child in psutil.Process(world.pid).children(recursive=True)]

    pids = with_world("Bad", play, what="leaks")
    assert len(pids) == 3
    assert [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"] == []


def test_a_world_that_does_not_stop_is_ended() -> None:
    async def play(world: HostedWorld) -> None:
        await world.start(TASK)

    began_s = time.monotonic()
    with_world("Stopless", play)
    assert time.monotonic() - began_s < 30.0


def test_the_global_generator_is_of_the_episode_alone() -> None:
    async def play(world: HostedWorld) -> str:
        await world.start(TASK)
        answer = await world.respond(said("go"))
        assert not isinstance(answer, Done)
        return answer[0].content

    assert with_world("Bad", play, what="draws") == with_world("Bad", play, what="draws")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (f"{PATH}:Nowhere", "has no attribute 'Nowhere'"),
        (f"{PATH}:Any", "is no class that is derived from Environment"),
        ("rollout.episodes.environment:Environment", "has no method `start`"),
    ],
)
def test_what_is_no_environment_is_refused(path: str, words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        WorldTemplate(path, {})
    assert words in str(raised.value)


def test_params_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"params\.greeting: got 3, allowed: text"):
        WorldTemplate(f"{PATH}:Echo", {"greeting": 3})
    with pytest.raises(ConfigError, match=r"params\.colour"):
        WorldTemplate(f"{PATH}:Echo", {"colour": "red"})


def test_worlds_are_forked_by_the_hundred() -> None:
    async def run() -> int:
        template = await asyncio.to_thread(WorldTemplate, f"{PATH}:Echo", {})
        try:
            worlds = [await template.world(call_s=20.0) for _ in range(100)]
            openings = await asyncio.gather(*(world.start(TASK) for world in worlds))
            await asyncio.gather(*(world.stop() for world in worlds))
            return len(openings)
        finally:
            template.close()

    before = len(os.listdir("/proc/self/fd"))
    assert asyncio.run(run()) == 100
    assert len(os.listdir("/proc/self/fd")) < before + 10

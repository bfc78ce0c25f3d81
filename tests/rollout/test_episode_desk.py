"""A sampler that plays episodes: worlds in processes of their own, replies from an engine without a model."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from rollout.config import EnvironmentTask, SamplingConfig
from rollout.engines.protocol import EngineOutput, SampleSpec
from rollout.episode_desk import EpisodeSetup
from rollout.episodes.conversation import check_spans, digest_of
from rollout.episodes.environment import ToolCall, user
from rollout.episodes.tool_calls import Parsed
from rollout.errors import ConfigError, EngineError, WorldError
from rollout.prompts.environments import OPENING, openings
from rollout.prompts.model_template import load_template
from rollout.types import FinishReason, Prompt, RolloutGroup, SampleRequest
from rollout.worker import RolloutWorker
from tests.rollout.byte_tokenizer import byte_tokenizer
from tests.rollout.fake_engine import FakeEngine

SAMPLING = SamplingConfig(max_tokens=20)
WORLDS = "tests.rollout.episodes.worlds"


class Talking(FakeEngine):
    """Says a number that it draws by the seed."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(steps=2)
        self._tokenizer = tokenizer
        self.reads_well = True

    def _output(self, spec: SampleSpec) -> EngineOutput:
        text = f"{(spec.seed or 0) % 1000}"
        token_ids = [*self._tokenizer(text, add_special_tokens=False)["input_ids"], self._tokenizer.eos_token_id]
        return EngineOutput(
            request_id=spec.request_id,
            token_ids=np.array(token_ids, np.int32),
            logprobs=np.full(len(token_ids), -1.0, np.float32),
            text=text,
            finish_reason=FinishReason.STOP,
            versions=((self.policy_version, 0, len(token_ids)),),
            read=digest_of(spec.token_ids) if self.reads_well else "0",
        )


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    byte_tokenizer().save_pretrained(folder)
    return folder


def request(model_dir: Path, task: EnvironmentTask, *, attempt: int = 1, group_size: int = 4) -> SampleRequest:
    columns: Any = next(iter(openings(task))).columns
    message, template = columns["question"][0], load_template(str(model_dir))
    prompt = Prompt(
        uid=f"{3:016x}",
        epoch=0,
        index=3,
        token_ids=tuple(template.opening([user(message["content"])])),
        text="",
        question=message["content"],
        ground_truth=None,
        task="worlds",
        row={"seed": columns["seed"], OPENING: columns[OPENING]},
    )
    return SampleRequest(prompt=prompt, attempt=attempt, group_size=group_size)


@asynccontextmanager
async def working(
    model_dir: Path, task: EnvironmentTask, *, engine_of: type[Talking] = Talking, **named: Any
) -> AsyncIterator[tuple[RolloutWorker, Talking]]:
    engine = engine_of(byte_tokenizer())
    setup = EpisodeSetup(tasks={"worlds": task}, model_dir=str(model_dir), context_tokens=4000, **named)
    worker = RolloutWorker(lambda: engine, name="sampler-0", run_seed=5, episodes=setup)
    try:
        async with asyncio.timeout(60):
            await worker.ready()
            await worker.serve(0)
            yield worker, engine
    finally:
        await worker.close()


def parrot(**fields: Any) -> EnvironmentTask:
    return EnvironmentTask(environment=f"{WORLDS}:Parrot", size=1, data_seed=7, **fields)


async def group_of(worker: RolloutWorker, asked: SampleRequest) -> RolloutGroup:
    await worker.submit([asked], SAMPLING)
    _, group = await worker.wait_group(asked.key)
    return group


def test_a_group_of_episodes_is_a_group(model_dir: Path) -> None:
    async def run() -> tuple[RolloutGroup, list[SampleSpec]]:
        async with working(model_dir, parrot()) as (worker, engine):
            return await group_of(worker, request(model_dir, parrot())), engine.specs

    group, specs = asyncio.run(run())
    assert [completion.sample_index for completion in group.completions] == [0, 1, 2, 3]
    assert len({spec.seed for spec in specs}) == 12, "each reply has a seed of its own"
    for completion in group.completions:
        assert completion.episode is not None
        assert (completion.episode.outcome, completion.episode.scores) == ("done", {"turns": 3.0})
        assert len(completion.episode.turns) == 3
        check_spans(group.prompt.token_ids, completion.token_ids, completion.episode.turns)
        sampled = sum(turn.end - turn.start for turn in completion.episode.turns)
        assert np.count_nonzero(completion.loss_mask) == sampled
        assert completion.finish_reason is FinishReason.STOP
        assert completion.text.count("<|assistant|>") == 2, "the first is the end of the opening"
        assert "<|user|>you said " in completion.text
        assert not completion.text.endswith("<|end|>")
    fed = {spec.token_ids for spec in specs}
    whole = [(*group.prompt.token_ids, *completion.token_ids.tolist()) for completion in group.completions]
    assert all(any(row[: len(ids)] == ids for row in whole) for ids in fed), "the engine read nothing but what is kept"


def test_limits_of_the_configuration_take_the_place_of_the_worlds(model_dir: Path) -> None:
    task = parrot(limits={"turns": 2})

    async def run() -> RolloutGroup:
        async with working(model_dir, task) as (worker, _):
            return await group_of(worker, request(model_dir, task))

    for completion in asyncio.run(run()).completions:
        assert completion.episode is not None
        assert (completion.episode.outcome, len(completion.episode.turns)) == ("turns", 2)
        assert completion.finish_reason is FinishReason.STOP, "the last reply is whole"


@pytest.mark.parametrize(("num_deaths", "attempts"), [(1, {1, 2}), (2, {1, 2, 3})])
def test_a_world_that_dies_is_begun_anew(model_dir: Path, tmp_path: Path, num_deaths: int, attempts: set[int]) -> None:
    for number in range(num_deaths):
        (tmp_path / f"death-{number}").touch()
    task = EnvironmentTask(environment=f"{WORLDS}:Flaky", params={"path": str(tmp_path)}, size=1)

    async def run() -> RolloutGroup:
        async with working(model_dir, task) as (worker, _):
            return await group_of(worker, request(model_dir, task, group_size=2))

    episodes = [completion.episode for completion in asyncio.run(run()).completions]
    assert all(episode is not None and episode.outcome == "done" for episode in episodes)
    assert {episode.num_attempts for episode in episodes if episode is not None} <= attempts
    assert sum(episode.num_attempts - 1 for episode in episodes if episode is not None) == num_deaths


def play_late(model_dir: Path, path: Path, name: str = "Late", **params: Any) -> tuple[RolloutGroup, list[str]]:
    """A group of two, of which one world dies in its third turn; and the replies that were sampled."""
    (path / "death").touch()
    task = EnvironmentTask(environment=f"{WORLDS}:{name}", params={"path": str(path), **params}, size=1)

    async def run() -> tuple[RolloutGroup, list[str]]:
        async with working(model_dir, task) as (worker, engine):
            group = await group_of(worker, request(model_dir, task, group_size=2))
            return group, [spec.request_id for spec in engine.specs]

    return asyncio.run(run())


def test_an_episode_goes_on_in_a_fresh_world_with_what_was_said(model_dir: Path, tmp_path: Path) -> None:
    group, sampled = play_late(model_dir, tmp_path)
    assert len(sampled) == len(set(sampled)) == 6, "no reply is sampled twice"
    facts = [completion.episode for completion in group.completions if completion.episode is not None]
    assert sorted((of.outcome, of.num_attempts, of.num_replayed, len(of.turns)) for of in facts) == [
        ("done", 1, 0, 3),
        ("done", 2, 3, 3),
    ]


def test_a_world_that_answers_otherwise_is_begun_anew(model_dir: Path, tmp_path: Path) -> None:
    group, sampled = play_late(model_dir, tmp_path, counts=True)
    facts = [completion.episode for completion in group.completions if completion.episode is not None]
    assert sorted((of.num_attempts, of.num_replayed) for of in facts) == [(1, 0), (3, 0)]
    assert len(sampled) == 9


def test_a_world_that_is_not_to_be_played_again_is_begun_anew(model_dir: Path, tmp_path: Path) -> None:
    group, sampled = play_late(model_dir, tmp_path, "Unrepeatable")
    facts = [completion.episode for completion in group.completions if completion.episode is not None]
    assert sorted((of.num_attempts, of.num_replayed) for of in facts) == [(1, 0), (2, 0)]
    assert len(sampled) == 9


def test_in_rounds_the_engine_is_given_the_same_together(model_dir: Path, tmp_path: Path) -> None:
    """Whether a world died or not."""

    async def run(num_deaths: int) -> list[str]:
        (tmp_path / str(num_deaths)).mkdir()
        for number in range(num_deaths):
            (tmp_path / str(num_deaths) / f"death-{number}").touch()
        task = EnvironmentTask(environment=f"{WORLDS}:Late", params={"path": str(tmp_path / str(num_deaths))}, size=1)
        async with working(model_dir, task, in_rounds=True) as (worker, engine):
            await group_of(worker, request(model_dir, task))
            return [line for line in engine.journal if line.startswith("step")] + [of.request_id for of in engine.specs]

    assert asyncio.run(run(0)) == asyncio.run(run(2))


def test_in_rounds_worlds_are_to_be_replayable(model_dir: Path, tmp_path: Path) -> None:
    task = EnvironmentTask(environment=f"{WORLDS}:Unrepeatable", params={"path": str(tmp_path)}, size=1)

    async def run() -> None:
        async with working(model_dir, task, in_rounds=True):
            pass

    with pytest.raises(ConfigError, match=r"deterministic is true and environment .*Unrepeatable' is not `replayable`"):
        asyncio.run(run())


@pytest.mark.parametrize(
    ("name", "params", "words"),
    [
        ("Bad", {"what": "raises"}, "respond raised ValueError: out of cards"),
        ("Moody", {}, "start gave another opening than when the prompts were made"),
    ],
)
def test_a_world_that_always_fails_fails_its_group(
    model_dir: Path, name: str, params: dict[str, Any], words: str
) -> None:
    task = EnvironmentTask(environment=f"{WORLDS}:{name}", params=params, size=1)

    async def run() -> None:
        async with working(model_dir, task) as (worker, engine):
            asked = request(model_dir, task)
            with pytest.raises(WorldError) as raised:
                await group_of(worker, asked)
            assert words in str(raised.value)
            assert "world 3 of the episode" in str(raised.value)
            with pytest.raises(EngineError, match="handed out already"):
                await worker.wait_group(asked.key)
            assert (await worker.status()).num_running_groups == 0
            # Others are sampled as if nothing had been.
            while engine.has_unfinished():
                await asyncio.sleep(0.01)

    asyncio.run(run())


def test_an_evaluation_goes_on_without_a_world_that_fails(model_dir: Path) -> None:
    task = EnvironmentTask(environment=f"{WORLDS}:Bad", params={"what": "raises"}, size=1)

    async def run() -> RolloutGroup:
        async with working(model_dir, task) as (worker, _):
            return await group_of(worker, replace(request(model_dir, task), purpose="eval", evaluation=1))

    for completion in asyncio.run(run()).completions:
        assert completion.episode is not None
        assert completion.episode.outcome == "failed"
        assert (completion.num_tokens, completion.finish_reason) == (0, FinishReason.ERROR)
        assert "out of cards" in completion.text


def test_an_engine_that_read_something_else_gives_no_group(model_dir: Path) -> None:
    async def run() -> None:
        async with working(model_dir, parrot()) as (worker, engine):
            engine.reads_well = False
            with pytest.raises(EngineError, match="the engine read other tokens than it was given"):
                await group_of(worker, request(model_dir, parrot()))

    asyncio.run(run())


def test_nothing_is_kept_of_a_group_that_has_ended(model_dir: Path) -> None:
    async def run() -> int:
        async with working(model_dir, parrot()) as (worker, _):
            await group_of(worker, request(model_dir, parrot()))
            await asyncio.sleep(0.1)
            return len(worker._desk._tasks) + len(worker._replies)

    assert asyncio.run(run()) == 0


def test_a_lease_that_is_given_up_leaves_no_world_behind(model_dir: Path) -> None:
    async def run() -> list[psutil.Process]:
        async with working(model_dir, parrot()) as (worker, engine):
            engine.is_held = True
            asked = request(model_dir, parrot())
            await worker.submit([asked], SAMPLING)
            while len(engine.specs) < 4:
                await asyncio.sleep(0.01)
            worlds: list[psutil.Process] = psutil.Process(worker._desk._worlds["worlds"]._template.pid).children(
                recursive=True
            )
            assert len(worlds) == 4
            waiting = asyncio.ensure_future(worker.wait_group(asked.key))
            await asyncio.sleep(0)
            await worker.give_up([asked])
            with pytest.raises(EngineError, match="given up"):
                await waiting
            ends_s = time.monotonic() + 10
            while any(world.is_running() for world in worlds) and time.monotonic() < ends_s:
                await asyncio.sleep(0.05)
            engine.is_held = False
            again = await group_of(worker, request(model_dir, parrot(), attempt=2))
            assert len(again.completions) == 4
            return worlds

    assert [world for world in asyncio.run(run()) if world.is_running() and world.status() != "zombie"] == []


class Calling(Talking):
    """Calls a tool in its first reply, and ends with the second."""

    def _output(self, spec: SampleSpec) -> EngineOutput:
        turn = int(spec.request_id.rpartition("|")[2])
        call = '<tool_call>\n{"name": "slow", "arguments": {"seconds": 0.01}}\n</tool_call>'
        text = call if turn == 1 else "done"
        token_ids = [*self._tokenizer(text, add_special_tokens=False)["input_ids"], self._tokenizer.eos_token_id]
        return replace(
            super()._output(spec),
            token_ids=np.array(token_ids, np.int32),
            logprobs=np.full(len(token_ids), -1.0, np.float32),
            text=text,
            versions=((self.policy_version, 0, len(token_ids)),),
        )


def test_a_call_of_a_tool_is_answered_and_its_result_is_not_trained_on(model_dir: Path) -> None:
    """The parser is a plain one here; vLLM's are tried in tests/rollout/episodes/test_tool_parsers."""

    def make(name: str, _: Any, schemas: Any) -> Any:
        assert (name, sorted(one["function"]["name"] for one in schemas)) == ("hermes", ["broken", "long", "slow"])
        return read_call

    def read_call(text: str) -> Parsed:
        inner = re.search(r"<tool_call>\n(.*)\n</tool_call>", text)
        return Parsed(calls=(ToolCall(**json.loads(inner[1])),)) if inner else Parsed()

    task = EnvironmentTask(environment=f"{WORLDS}:Echo", size=1, data_seed=7)

    async def run() -> RolloutGroup:
        async with working(model_dir, task, engine_of=Calling, make_parser=make) as (worker, _):
            return await group_of(worker, request(model_dir, task))

    for completion in asyncio.run(run()).completions:
        assert completion.episode is not None
        assert completion.episode.num_tool_calls == 1
        assert completion.text.count("<tool_response>\nwaited 0.01\n</tool_response>") == 1
        sampled = byte_tokenizer().decode(completion.token_ids[completion.loss_mask])
        assert "waited" not in sampled
        assert sampled.endswith("done<|end|>")


class Failing(Talking):
    """Cannot finish a reply."""

    def _output(self, spec: SampleSpec) -> EngineOutput:
        return replace(super()._output(spec), finish_reason=FinishReason.ERROR)


def test_an_engine_that_cannot_finish_the_first_reply_gives_nothing_to_train_on(model_dir: Path) -> None:
    async def run() -> RolloutGroup:
        async with working(model_dir, parrot(), engine_of=Failing) as (worker, _):
            return await group_of(worker, request(model_dir, parrot()))

    for completion in asyncio.run(run()).completions:
        assert completion.episode is not None
        assert completion.episode.outcome == "engine"
        assert completion.finish_reason is FinishReason.ERROR
        assert not completion.loss_mask.any()

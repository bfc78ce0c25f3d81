import asyncio
import dataclasses
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.config import DynamicSamplingConfig, RunConfig
from cluster.errors import RewardFailureError
from cluster.fleet.deadlines import first_of
from cluster.groups.buffer import GroupBuffer
from cluster.groups.ledger import Ledger
from cluster.groups.pipeline import MAX_UNSCORED_BATCHES, GroupPipeline, PipelineParts
from cluster.groups.reward_router import RewardRouter
from cluster.groups.sampling import deal
from cluster.record.run_directory import RunDirectory
from learner.config import LearnerConfig
from learner.teacher import TeacherConfig
from reward.types import GroupScores, RewardOutcome, RewardResult
from rollout.config import ReasoningGymTask, RolloutConfig
from rollout.errors import WorldError
from rollout.types import Prompt, RolloutGroup, facts_of, read_only
from tests.cluster.examples import episode_completion, failed, ok, scored
from tests.cluster.fakes import FakeReward, FakeSampler, Journal, fleet_of, recovery_of

BROKEN = failed(RewardOutcome.ERROR)


def prompt(index: int) -> Prompt:
    return dataclasses.replace(scored(index, [ok(1), ok(0)]).group.prompt, index=index)


@dataclass
class Loop:
    """A pipeline whose rewards of the n-th prompt are `rewards[n]`, with the parts that it moves groups through."""

    folder: Path
    rewards: Sequence[Sequence[RewardResult]]
    dynamic: DynamicSamplingConfig = field(default_factory=DynamicSamplingConfig)
    journal: Journal = field(default_factory=list)
    sampler: type[FakeSampler] = FakeSampler
    teachers: Sequence[object] = ()
    deterministic: bool = False

    def __post_init__(self) -> None:
        num = len(self.rewards)
        teacher = TeacherConfig(base_url="http://a/v1") if self.teachers else None
        config = RunConfig(
            task=ReasoningGymTask(generator="chain_sum"),
            rollout=RolloutConfig(group_size=2, prompts_per_step=2),
            learner=LearnerConfig(teacher=teacher),
            max_policy_lag=0 if self.deterministic else num,
            dynamic_sampling=self.dynamic,
            deterministic=self.deterministic,
        )
        fleet = fleet_of(
            samplers=[self.sampler(self.journal, name=f"sampler-{i}") for i in range(2)],
            rewards=[FakeReward(self._results)],
            teachers=self.teachers,
        )
        self.fleet = fleet
        self.run = RunDirectory.create(self.folder / "run", config)
        self.buffer = GroupBuffer(prompts_per_step=2, max_policy_lag=num)
        self.ledger = Ledger(self.run.append_ledger, lambda: 0.0)
        self.tasks: list[asyncio.Task[None]] = []
        self.warnings: list[str] = []
        self.pipeline = GroupPipeline(
            config,
            fleet,
            PipelineParts(
                buffer=self.buffer,
                ledger=self.ledger,
                router=RewardRouter(config, fleet),
                recovery=recovery_of(fleet),
                run=self.run,
                spawn=self._spawn,
            ),
            warn=self.warnings.append,
        )

    async def sample(self) -> None:
        prompts = [prompt(i) for i in range(len(self.rewards))]
        for one in prompts:
            await self.buffer.admit(one.group_id)
        await self.pipeline.launch(prompts)
        await asyncio.wait_for(asyncio.gather(*self.tasks), 5)

    async def sample_again(self) -> None:
        """One group more, with rewards as the first one's."""
        one = dataclasses.replace(prompt(0), index=len(self.rewards))
        self.rewards = [*self.rewards, self.rewards[0]]
        await self.buffer.admit(one.group_id)
        await self.pipeline.launch([one])
        await asyncio.wait_for(asyncio.gather(*self.tasks), 5)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.ensure_future(work))

    def _results(self, group: RolloutGroup) -> Sequence[RewardResult]:
        return self.rewards[group.prompt.index]


def test_a_group_goes_from_prompt_to_buffer_and_is_on_record(tmp_path: Path) -> None:
    loop = Loop(tmp_path, [[ok(1), ok(0)], [ok(0), ok(1)], [ok(1), BROKEN]])
    asyncio.run(loop.sample())
    assert [entry for entry in loop.journal if entry[0] == "submit"] == [
        ("submit", "sampler-0", "2"),
        ("submit", "sampler-1", "1"),
    ]
    waiting = loop.buffer.waiting()
    assert [group is not None for _, group in waiting] == [True, True]
    assert [group_id for group_id, _ in waiting] == [prompt(0).group_id, prompt(1).group_id]
    assert (loop.ledger.dispatched, loop.ledger.in_flight, loop.ledger.rejected) == (3, 2, {"too_few_scored": 1})
    loop.ledger.check()
    kinds = [event["kind"] for event in loop.run.read_log("events")]
    assert (kinds.count("generate"), kinds.count("score")) == (3, 3)
    span = next(event for event in loop.run.read_log("events") if event["kind"] == "score")
    assert (span["extra"]["judge_calls"], span["extra"]["judge_waited_s"]) == (2, 0.5)
    assert [(group.group.prompt.index, reason) for group, reason in loop.pipeline.take_rejected()] == [
        (2, "too_few_scored")
    ]
    assert loop.pipeline.take_rejected() == []


def test_tokens_that_cannot_be_trained_on_are_another_reason(tmp_path: Path) -> None:
    class Masking(FakeSampler):
        def wait_group(self, key: Any) -> Any:
            _, group = super().wait_group(key)
            masked = dataclasses.replace(group.completions[0], loss_mask=read_only((False, False), np.bool_))
            group = dataclasses.replace(group, completions=(masked, *group.completions[1:]))
            return facts_of(group), group

    loop = Loop(tmp_path, [[ok(1), ok(0)]], sampler=Masking)
    asyncio.run(loop.sample())
    assert loop.ledger.rejected == {"nothing_to_train": 1}
    assert loop.buffer.num_waiting == 0


class Failing(FakeSampler):
    """The world of its group 1 fails, each time."""

    def wait_group(self, key: Any) -> Any:
        if key[1] == prompt(1).group_id:
            raise WorldError("the environment failed: out of cards")
        return super().wait_group(key)


def test_a_group_whose_world_fails_is_rejected_with_that_reason(tmp_path: Path) -> None:
    loop = Loop(tmp_path, [[ok(1), ok(0)]] * 3, sampler=Failing)
    asyncio.run(loop.sample())
    assert loop.ledger.rejected == {"environment": 1}
    assert loop.buffer.num_waiting == 2
    assert loop.warnings == ["the environment failed: out of cards"]


def test_a_deterministic_run_ends_with_what_the_world_says(tmp_path: Path) -> None:
    loop = Loop(tmp_path, [[ok(1), ok(0)]] * 3, sampler=Failing, deterministic=True)
    with pytest.raises(WorldError, match=r"out of cards; a deterministic run cannot go on without the group"):
        asyncio.run(loop.sample())


def test_what_samplers_did_is_told_in_tokens_that_were_sampled(tmp_path: Path) -> None:
    """Of the episode of `examples` 6 tokens of 10, in 3 turns, with 0.5 s of waiting for its world."""

    class Playing(FakeSampler):
        def wait_group(self, key: Any) -> Any:
            _, group = super().wait_group(key)
            group = dataclasses.replace(group, completions=(group.completions[0], episode_completion(1)))
            return facts_of(group), group

    loop = Loop(tmp_path, [[ok(1), ok(0)]], sampler=Playing)
    asyncio.run(loop.sample())
    extra = {event["kind"]: event["extra"] for event in loop.run.read_log("events")}
    assert extra["generate"] == {"tokens": 2 + 6, "policy_version": 0, "turns": 3, "world_s": 0.5}
    told = {name: value for name, value in extra["score"].items() if not name.startswith("judge_")}
    assert told == {"tokens": 2 + 6, "policy_version": 0}


def test_equal_rewards_are_kept_without_dynamic_sampling(tmp_path: Path) -> None:
    loop = Loop(tmp_path, [[ok(1), ok(1)], [ok(0), ok(0)]])
    asyncio.run(loop.sample())
    assert (loop.ledger.rejected, loop.buffer.num_waiting) == ({}, 2)


def test_dynamic_sampling_drops_equal_rewards_within_its_budget_of_each_step(tmp_path: Path) -> None:
    # P = 2 and a factor of 2.5: 3 groups may be sampled again before a step.
    dynamic = DynamicSamplingConfig(enabled=True, max_resample_factor=2.5)
    loop = Loop(tmp_path, [[ok(1), ok(1)]] * 5 + [[ok(1), ok(0)]], dynamic=dynamic)
    asyncio.run(loop.sample())
    assert loop.ledger.rejected == {"equal_rewards": 3}
    assert loop.buffer.num_waiting == 3
    assert len(loop.pipeline.take_rejected()) == 3
    rounded = [[ok(0.1 + 0.2), ok(0.3)], [ok(1), ok(1 - 1e-9)]]
    again = Loop(tmp_path / "rounded", rounded, dynamic=DynamicSamplingConfig(enabled=True))
    asyncio.run(again.sample())
    assert again.ledger.rejected == {"equal_rewards": 1}, "no more than what has no advantage"
    again = Loop(tmp_path / "again", [[ok(0), ok(0)]] * 2, dynamic=DynamicSamplingConfig(enabled=True))
    asyncio.run(again.sample())
    assert again.ledger.rejected == {"equal_rewards": 2}


def test_rewards_that_never_work_end_the_run_after_two_batches(tmp_path: Path) -> None:
    loop = Loop(tmp_path, [[BROKEN, BROKEN]] * 3)
    asyncio.run(loop.sample())
    assert loop.ledger.rejected == {"too_few_scored": 3}
    assert loop.warnings == [
        "4 of the 4 rewards of the last 2 groups failed (4 error), the last one with: took too long"
    ]
    last = Loop(tmp_path / "more", [[BROKEN, BROKEN]] * 4)
    with pytest.raises(RewardFailureError, match=r"4 of the 4 rewards .* second time in a row that more than 50% do"):
        asyncio.run(last.sample())
    assert last.buffer.waiting() != []
    assert all(group is None for _, group in last.buffer.waiting()), "nothing was trained as a zero"


def test_groups_that_can_never_be_trained_on_end_the_run_with_their_cause(tmp_path: Path) -> None:
    limit = MAX_UNSCORED_BATCHES * 2
    loop = Loop(tmp_path, [[ok(1), BROKEN]] * (limit - 1))
    asyncio.run(loop.sample())
    assert loop.ledger.rejected == {"too_few_scored": limit - 1}
    last = Loop(tmp_path / "more", [[ok(1), BROKEN]] * limit)
    with pytest.raises(RewardFailureError, match=rf"{limit} groups in a row .* failed with error: took too long"):
        asyncio.run(last.sample())


def test_a_group_that_can_be_trained_on_ends_the_row_and_a_step_does_not(tmp_path: Path) -> None:
    almost = [[ok(1), BROKEN]] * (MAX_UNSCORED_BATCHES * 2 - 1)
    # Scored in the order of the samplers: every other group, of which the last is the eighth, then the rest.
    loop = Loop(tmp_path, [*almost, *almost, [ok(1), ok(0)]])
    asyncio.run(loop.sample())
    assert loop.ledger.rejected == {"too_few_scored": 2 * len(almost)}
    last = Loop(tmp_path / "more", almost)
    asyncio.run(last.sample())
    assert len(last.pipeline.take_rejected()) == len(almost)
    last.tasks.clear()
    with pytest.raises(RewardFailureError, match=rf"{len(almost) + 1} groups in a row"):
        asyncio.run(last.sample_again())


def test_every_slot_has_scores_or_a_prompt_after_rewards_ended_the_run(tmp_path: Path) -> None:
    loop = Loop(tmp_path, [[BROKEN, BROKEN]] * 8)
    with pytest.raises(RewardFailureError):
        asyncio.run(loop.sample())
    open_groups = loop.ledger.state().open_groups
    unscored = [group_id for group_id, group in loop.buffer.waiting() if group is None]
    assert unscored
    assert dict.fromkeys(unscored, ("pending", 1)) == open_groups
    assert [loop.pipeline.prompt_of(group_id).group_id for group_id in unscored] == unscored


def test_a_router_sends_each_group_to_the_worker_with_the_fewest() -> None:
    config = RunConfig(task=ReasoningGymTask(generator="chain_sum"))
    gate = asyncio.Event()
    seen: list[int] = []

    class Waiting(FakeReward):
        def __init__(self, number: int) -> None:
            super().__init__(lambda _: [ok(1), ok(0)])
            self._number = number

        async def score_later(self, group: RolloutGroup) -> GroupScores:
            seen.append(self._number)
            await gate.wait()
            return super().score(group)

        def score(self, group: RolloutGroup, *, with_steps: bool = True) -> Any:
            return self.score_later(group)

    async def main() -> None:
        router = RewardRouter(config, fleet_of(rewards=[Waiting(0), Waiting(1)]))
        group = scored(0, [ok(1), ok(0)]).group
        tasks = [asyncio.ensure_future(router.score(group)) for _ in range(4)]
        await asyncio.sleep(0.01)
        gate.set()
        await asyncio.wait_for(asyncio.gather(*tasks), 5)
        assert router._load == {"reward-0": 0, "reward-1": 0}

    asyncio.run(main())
    assert sorted(seen) == [0, 0, 1, 1]


def test_prompts_are_dealt_in_turn_and_each_sampler_has_its_share_together() -> None:
    samplers = fleet_of(samplers=[FakeSampler([], name=f"sampler-{i}") for i in range(3)]).samplers
    prompts = [prompt(i) for i in range(5)]
    shares = [(actor.name, [one.index for one in share]) for actor, share in deal(samplers, prompts)]
    assert shares == [("sampler-0", [0, 3]), ("sampler-1", [1, 4]), ("sampler-2", [2])]
    assert [actor.name for actor, _ in deal(samplers, prompts[:1])] == ["sampler-0"]


def test_first_of_gives_the_result_or_says_that_it_was_stopped() -> None:
    async def main() -> None:
        stop = asyncio.Event()
        assert await first_of(asyncio.sleep(0, "done"), stop) == (True, "done")
        with pytest.raises(ZeroDivisionError):
            await first_of(_divide(), stop)
        stop.set()
        assert await asyncio.wait_for(first_of(asyncio.sleep(30), stop), 5) == (False, None)

    asyncio.run(main())


async def _divide() -> float:
    return 1 / 0


def test_what_was_taken_at_the_moment_of_the_stop_is_not_lost() -> None:
    async def main(num_turns: int) -> None:
        buffer = GroupBuffer(prompts_per_step=1, max_policy_lag=0)
        stop, group = asyncio.Event(), scored(0, [ok(1), ok(0)])
        await buffer.admit(group.group_id)

        async def work() -> list[object]:
            return list(await asyncio.wait_for(buffer.take(), 5))

        running = asyncio.ensure_future(first_of(work(), stop))
        await asyncio.sleep(0.01)
        stop.set()
        for _ in range(num_turns):
            await asyncio.sleep(0)
        await buffer.put(group)
        in_time, groups = await running
        kept = [scored for _, scored in buffer.waiting()]
        assert kept == [group], "a checkpoint holds it until it was trained on"
        assert not in_time or groups == [group]

    for num_turns in range(6):
        asyncio.run(main(num_turns))
        asyncio.run(main(num_turns))

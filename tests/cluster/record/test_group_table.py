import dataclasses
import random
import struct
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from cluster.config import RunConfig
from cluster.record.append_log import RunDirectoryError
from cluster.record.group_table import read_groups, tables_of, write_tables
from cluster.record.run_directory import RunDirectory
from reward.types import RewardOutcome, RewardResult, ScoredGroup, StepReward
from rollout.config import ReasoningGymTask
from rollout.types import Completion, FinishReason, VersionSpan, read_only
from tests.cluster.examples import failed, ok, opened, scored, scored_of, values_of


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "run", RunConfig(task=ReasoningGymTask(generator="chain_sum")))


def random_completion(rng: random.Random, sample_index: int) -> Completion:
    """Awkward numbers: what an engine gives is float32, from denormal to minus infinity's neighbourhood."""
    length = rng.randint(1, 9)
    values = [
        struct.unpack("<f", struct.pack("<f", -rng.random() * 10 ** rng.randint(-40, 3)))[0] for _ in range(length)
    ]
    cut = rng.randint(0, length)
    return Completion(
        sample_index=sample_index,
        token_ids=read_only(tuple(rng.randrange(2**31) for _ in range(length)), np.int32),
        logprobs=read_only(tuple(values), np.float32),
        loss_mask=read_only(tuple(rng.random() < 0.8 for _ in range(length)), np.bool_),
        text="x\ud800\u202e",
        finish_reason=rng.choice(list(FinishReason)),
        version_spans=(
            VersionSpan(policy_version=3, start=0, end=cut),
            VersionSpan(policy_version=4, start=cut, end=length),
        ),
    )


def random_group(rng: random.Random, index: int) -> ScoredGroup:
    steps = tuple(StepReward(end=end, reward=rng.uniform(-1, 1) / 3) for end in range(1, 4))
    scored_by_steps = dataclasses.replace(ok(1 / 3), steps=steps)
    without_steps = dataclasses.replace(ok(0.1 + 0.2), steps=())
    rewards: list[RewardResult] = [ok(rng.random() * 3), failed(RewardOutcome.ERROR), scored_by_steps, without_steps]
    group = scored(index, rewards, [random_completion(rng, i) for i in range(4)]).group.payload
    sampled = dataclasses.replace(group, attempt=rng.randint(1, 3), worker=f"sampler-{index % 2}")
    return scored_of(sampled, rewards, worker="reward-1")


def bits(values: np.ndarray) -> tuple[str, bytes]:
    return str(values.dtype), values.tobytes()


def test_what_is_read_is_what_was_trained_on_to_the_last_bit(run: RunDirectory) -> None:
    rng = random.Random(0)
    # Not in the order of their ids: the order of a batch is its own.
    groups = [random_group(rng, index) for index in (7, 2, 9, 4, 0)]
    run.write_rollouts(5, [opened(group) for group in groups])
    batch = run.read_batch(5)
    assert [of.group.group_id for of in batch] == [group.group_id for group in groups]
    for before, after in zip(groups, batch, strict=True):
        facts = after.scored.group.facts
        assert after.group.prompt.token_ids == before.group.prompt.token_ids
        assert (after.group.attempt, after.group.worker) == (before.group.facts.attempt, before.group.facts.worker)
        assert facts == dataclasses.replace(before.group.facts, started_s=0.0, finished_s=0.0)
        assert after.scored.scores.worker == before.scores.worker
        assert [(r.outcome, r.reward, r.steps) for r in after.scored.rewards] == [
            (r.outcome, r.reward, r.steps) for r in before.rewards
        ]
        for ours, theirs in zip(before.group.payload.completions, after.group.completions, strict=True):
            for name in ("token_ids", "logprobs", "loss_mask"):
                assert bits(getattr(theirs, name)) == bits(getattr(ours, name)), name
                assert not getattr(theirs, name).flags.writeable
            assert (theirs.version_spans, theirs.finish_reason) == (ours.version_spans, ours.finish_reason)


def test_everything_of_an_ordinary_group_comes_back_but_times(run: RunDirectory) -> None:
    group = scored(3, [ok(1), ok(0)])
    run.write_rollouts(0, [opened(group)])
    whole = dataclasses.replace(group.group.payload, started_s=0.0, finished_s=0.0)
    assert run.read_batch(0) == [opened(scored_of(whole, group.rewards, started_s=0.0, finished_s=0.0))]


def test_a_group_that_waits_in_a_checkpoint_comes_back_whole(tmp_path: Path) -> None:
    rng = random.Random(1)
    rewards = [dataclasses.replace(ok(1), vote="3", answer="3"), failed()]
    samples = [dataclasses.replace(random_completion(rng, i), text="3", num_nonfinite_logprobs=i) for i in range(2)]
    plain = scored(4, rewards, samples).group.payload
    row = {"tests": ["assert f(1) == 2"], "limit": 2.5, "nested": {"a": None}}
    group = scored_of(dataclasses.replace(plain, prompt=dataclasses.replace(plain.prompt, row=row)), rewards)
    path = tmp_path / "waiting.parquet"
    with path.open("wb") as file:
        write_tables(file, tables_of(3, [opened(group)], waiting=True), waiting=True)
    assert read_groups(path) == [opened(group)]


def test_a_long_step_is_written_in_pieces_and_read_as_one(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.record.group_table.MAX_TOKENS_IN_TABLE", 20)
    rng = random.Random(2)
    groups = [random_group(rng, index) for index in range(9)]
    path = run.write_rollouts(0, [opened(group) for group in groups])
    assert pyarrow.parquet.ParquetFile(path).num_row_groups > 3
    assert [of.group.completions for of in run.read_batch(0)] == [
        # A lone surrogate is written as its escape.
        tuple(dataclasses.replace(c, text="x\\ud800\u202e") for c in group.group.payload.completions)
        for group in groups
    ]


def test_groups_that_were_rejected_are_left_out(run: RunDirectory) -> None:
    trained, rejected = scored(1, [ok(1), ok(0)]), scored(0, [ok(1), ok(1)])
    values = {(trained.group_id, i): values_of([-0.5, -0.5]) for i in range(2)}
    run.write_rollouts(0, [opened(trained), opened(rejected, "equal_rewards")], dict.fromkeys(values, 0.5), values)
    assert [of.group.group_id for of in run.read_batch(0)] == [trained.group_id]


def test_a_step_that_cannot_be_read_is_named(run: RunDirectory) -> None:
    with pytest.raises(RunDirectoryError, match=r"the groups of step 3 cannot be read from .*step-000003\.parquet"):
        run.read_batch(3)
    (run.path / "rollouts" / "step-000003.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(RunDirectoryError, match="the groups of step 3 cannot be read"):
        run.read_batch(3)
    run.write_rollouts(4, [opened(scored(0, [ok(1), ok(1)]), "equal_rewards")])
    with pytest.raises(RunDirectoryError, match="it has no group that was trained on"):
        run.read_batch(4)

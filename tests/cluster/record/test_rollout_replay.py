import dataclasses
import random
import struct

import numpy as np
import pytest

from cluster.config import RunConfig
from cluster.record.append_log import RunDirectoryError
from cluster.record.run_directory import RunDirectory
from learner.types import SequenceOutput
from reward.types import RewardOutcome, RewardResult, ScoredGroup
from rollout.config import ReasoningGymTask
from rollout.types import Completion, FinishReason, VersionSpan
from tests.cluster.examples import failed, ok, scored


@pytest.fixture
def run(tmp_path):
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
        token_ids=tuple(rng.randrange(2**31) for _ in range(length)),
        logprobs=tuple(values),
        loss_mask=tuple(rng.random() < 0.8 for _ in range(length)),
        text="x\ud800\u202e",
        finish_reason=rng.choice(list(FinishReason)),
        version_spans=(
            VersionSpan(policy_version=3, start=0, end=cut),
            VersionSpan(policy_version=4, start=cut, end=length),
        ),
    )


def random_group(rng: random.Random, index: int) -> ScoredGroup:
    rewards: list[RewardResult] = [ok(rng.random() * 3), failed(RewardOutcome.ERROR), ok(1 / 3), ok(0.1 + 0.2)]
    group = scored(index, rewards, [random_completion(rng, i) for i in range(4)])
    sampled = dataclasses.replace(group.group, attempt=rng.randint(1, 3), worker=f"sampler-{index % 2}")
    return dataclasses.replace(group, group=sampled, worker="reward-1")


def bits(values: tuple[float, ...]) -> bytes:
    return np.array(values, dtype=np.float64).tobytes()


def test_what_is_read_is_what_was_trained_on_to_the_last_bit(run):
    rng = random.Random(0)
    # Not in the order of their ids: the order of a batch is its own.
    groups = [random_group(rng, index) for index in (7, 2, 9, 4, 0)]
    run.write_rollouts(5, groups)
    batch = run.read_batch(5, 4)
    assert (batch.step, batch.policy_version) == (5, 4)
    assert [group.group_id for group in batch.groups] == [group.group_id for group in groups]
    for before, after in zip(groups, batch.groups, strict=True):
        assert after.group.prompt.token_ids == before.group.prompt.token_ids
        assert (after.group.attempt, after.group.worker) == (before.group.attempt, before.group.worker)
        assert after.worker == before.worker
        assert [(r.outcome, r.reward) for r in after.rewards] == [(r.outcome, r.reward) for r in before.rewards]
        for ours, theirs in zip(before.group.completions, after.group.completions, strict=True):
            assert bits(theirs.logprobs) == bits(ours.logprobs)
            assert (theirs.token_ids, theirs.loss_mask) == (ours.token_ids, ours.loss_mask)
            assert (theirs.version_spans, theirs.finish_reason) == (ours.version_spans, ours.finish_reason)


def test_everything_of_an_ordinary_group_comes_back_but_times(run):
    group = scored(3, [ok(1), ok(0)])
    run.write_rollouts(0, [group])
    expected = dataclasses.replace(
        group, group=dataclasses.replace(group.group, started_s=0.0, finished_s=0.0), started_s=0.0, finished_s=0.0
    )
    assert run.read_batch(0, 0).groups == (expected,)


def test_groups_that_were_rejected_are_left_out(run):
    trained, rejected = scored(1, [ok(1), ok(0)]), scored(0, [ok(1), ok(1)])
    outputs = [
        SequenceOutput(group_id=trained.group_id, sample_index=i, advantage=0.5, policy_logprobs=(-0.5, -0.5))
        for i in range(2)
    ]
    run.write_rollouts(0, [trained], outputs, [(rejected, "equal_rewards")])
    assert [group.group_id for group in run.read_batch(0, 0).groups] == [trained.group_id]


def test_a_step_that_cannot_be_read_is_named(run):
    with pytest.raises(RunDirectoryError, match=r"the groups of step 3 cannot be read from .*step-000003\.parquet"):
        run.read_batch(3, 0)
    (run.path / "rollouts" / "step-000003.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(RunDirectoryError, match="the groups of step 3 cannot be read"):
        run.read_batch(3, 0)
    run.write_rollouts(4, [], (), [(scored(0, [ok(1), ok(1)]), "equal_rewards")])
    with pytest.raises(RunDirectoryError, match="it has no group that was trained on"):
        run.read_batch(4, 0)

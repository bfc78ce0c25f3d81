"""Gradients of some groups, added up by all ranks before the training step that has the rest."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.weights import rank_steps
from learner.types import ComputedTokens, RankShare, TrainBatch
from reward.types import ScoredGroup
from rollout.errors import StepGivenUpError
from rollout.types import RolloutGroup
from tests.cluster.examples import ok, scored
from tests.cluster.weights import test_learner_group
from tests.cluster.weights.test_learner_group import CONFIG, Rank, Scene, die

STREAMING = CONFIG.model_copy(update={"learner": CONFIG.learner.model_copy(update={"streaming": True})})
NO_NUMBERS = np.zeros(0, np.float32)


class StreamedRank(Rank):
    """Holds gradients until its next step, as a real one."""

    early_trouble: Callable[[], Any] | None = None

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.held: set[str] = set()

    async def accumulate(self, share: RankShare, *groups: RolloutGroup) -> ComputedTokens:
        assert [group.group_id for group in groups] == list(share.group_ids)
        self._journal.append(("accumulate", self._name, str(share.step), *share.group_ids))
        trouble, StreamedRank.early_trouble = StreamedRank.early_trouble, None
        if trouble is not None:
            await trouble()
        assert not self.held & set(share.group_ids), "a gradient came twice"
        self.held |= set(share.group_ids)
        return ComputedTokens(
            keys=tuple(sequence.key for sequence in share.sequences),
            lengths=(2,) * len(share.sequences),
            policy_logprobs_N=np.zeros(2 * len(share.sequences), np.float32),
            ref_logprobs_N=NO_NUMBERS,
            entropies_N=NO_NUMBERS,
        )

    async def train_step(self, share: RankShare, *groups: RolloutGroup) -> Any:
        assert not self.held & set(share.group_ids), "a gradient came twice"
        self._journal.append(("holds", self._name, *sorted(self.held)))
        self.held = set()
        return await super().train_step(share, *groups)


@pytest.fixture(autouse=True)
def ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.kill", lambda handle, **_: None)
    monkeypatch.setattr(test_learner_group, "Rank", StreamedRank)
    monkeypatch.setattr(StreamedRank, "early_trouble", None)


def groups_of(number: int) -> list[ScoredGroup]:
    return [scored(i, [ok(1), ok(0)]) for i in range(number)]


def batch_of(groups: list[ScoredGroup], step: int = 0) -> TrainBatch:
    return TrainBatch(step=step, policy_version=step, groups=tuple(groups))


async def accumulate(scene: Scene, groups: list[ScoredGroup]) -> None:
    await scene.group.accumulate(batch_of(groups), [of.group.payload for of in groups])


def calls(scene: Scene, name: str = "learner-0") -> list[tuple[str, ...]]:
    return [(entry[0], *entry[3 - (entry[0] == "holds") :]) for entry in scene.journal if entry[1:2] == (name,)]


def test_the_step_has_what_is_left(tmp_path: Path) -> None:
    scene, groups = Scene(tmp_path, STREAMING), groups_of(3)
    ids = [of.group_id for of in groups]

    async def main() -> Any:
        await accumulate(scene, [groups[2]])
        await accumulate(scene, [groups[0]])
        return await scene.group.train(batch_of(groups), [of.group.payload for of in groups])

    trained = asyncio.run(main())
    seen = {name: [call for call in calls(scene, name) if len(call) > 1] for name in ("learner-0", "learner-1")}
    assert {call for of in seen.values() for call in of if call[0] == "accumulate"} == {
        ("accumulate", ids[2]),
        ("accumulate", ids[0]),
    }
    assert {call for of in seen.values() for call in of if call[0] == "train"} == {("train", ids[1])}
    # What was computed of each completion is there once, wherever it was computed.
    keys = [key for tokens in trained.tokens for key in tokens.keys]
    assert sorted(keys) == sorted((group_id, i) for group_id in ids for i in range(2))
    assert scene.told == []


def test_ranks_that_were_replaced_are_given_all_of_it(tmp_path: Path) -> None:
    scene, groups = Scene(tmp_path, STREAMING), groups_of(3)
    ids = [of.group_id for of in groups]

    async def main() -> None:
        await accumulate(scene, [groups[0]])
        StreamedRank.early_trouble = die
        await accumulate(scene, [groups[1]])  # a rank is lost in it: all start again, and this one is computed anew
        await scene.group.train(batch_of(groups), [of.group.payload for of in groups])

    asyncio.run(main())
    (told,) = scene.told
    assert "all ranks were restarted and 0 steps trained again" in told
    start = scene.journal.index(("start",))
    after = [entry for entry in scene.journal[start:] if entry[0] in ("accumulate", "train")]
    assert {group_id for entry in after for group_id in entry[3:]} == set(ids)
    assert {entry[3:] for entry in after if entry[0] == "accumulate"} == {(ids[1],)}


def test_ranks_that_hold_a_gradient_of_other_completions_are_replaced(tmp_path: Path) -> None:
    """The group was sampled again since: it is not that of the batch."""
    scene, groups = Scene(tmp_path, STREAMING), groups_of(2)
    facts = replace(groups[0].group.facts, attempt=2)
    again = replace(groups[0], group=replace(groups[0].group, facts=facts))

    async def main() -> None:
        await accumulate(scene, [groups[0]])
        await scene.group.train(batch_of([again, groups[1]]), [of.group.payload for of in groups])

    asyncio.run(main())
    (told,) = scene.told
    assert f"it has the gradient of group {groups[0].group_id}" in told


async def given_up() -> None:
    raise StepGivenUpError("step 0 was given up")


def test_ranks_that_gave_a_part_up_can_be_saved(tmp_path: Path) -> None:
    """One did, and the other had done its part of it: the weights of both are as they were."""
    scene, groups = Scene(tmp_path, STREAMING), groups_of(1)
    StreamedRank.early_trouble = given_up
    with pytest.raises(StepGivenUpError):
        asyncio.run(accumulate(scene, groups))
    assert scene.group.is_whole
    assert not scene.group.is_accumulating
    assert scene.told == []


def test_a_rank_that_hangs_where_another_gave_up_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, groups = Scene(tmp_path, STREAMING), groups_of(1)
    monkeypatch.setattr(rank_steps, "GIVE_UP_DEADLINE_S", 0.05)
    first = StreamedRank.accumulate

    async def accumulated(self: StreamedRank, share: RankShare, *of: RolloutGroup) -> ComputedTokens:
        if not scene.told and self._name == "learner-0":
            await asyncio.sleep(0.15)  # alone in a collective call
        elif not scene.told:
            await given_up()
        return await first(self, share, *of)

    monkeypatch.setattr(StreamedRank, "accumulate", accumulated)
    asyncio.run(accumulate(scene, groups))
    (told,) = scene.told
    assert "the end of step 0" in told


def test_a_group_without_a_gradient_is_not_sent(tmp_path: Path) -> None:
    config = STREAMING.model_copy(deep=True)
    config.learner.objective.kl.__dict__["coef"] = 0.0
    scene, equal = Scene(tmp_path, config), scored(0, [ok(1), ok(1)])
    asyncio.run(accumulate(scene, [equal]))
    assert scene.journal == []

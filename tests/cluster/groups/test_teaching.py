"""Groups that a teacher's server is asked about: taught, rejected, or the end of the run."""

import asyncio
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.config import RunConfig
from cluster.errors import ActorFailedError, ObjectLostError, TeacherFailureError
from cluster.groups.deadlines import batch_deadline_s, teacher_deadline_s
from cluster.groups.teaching import MAX_UNTAUGHT_BATCHES
from learner.config import LearnerConfig
from learner.teacher import EndpointConfig, TeacherConfig
from learner.types import Taught
from rollout.config import ReasoningGymTask
from rollout.endpoint.client import EndpointError
from rollout.types import RolloutGroup, read_only
from tests.cluster.examples import ok
from tests.cluster.groups.test_pipeline import BROKEN, Loop, prompt


class FakeTeacher:
    """Says -0.125 of every token, or what `why` says of a group."""

    def __init__(self, why: Callable[[RolloutGroup, int], str] = lambda _group, _call: "") -> None:
        self._why = why
        self.asked: list[int] = []

    def score(self, group: RolloutGroup) -> tuple[Taught, RolloutGroup]:
        self.asked.append(group.prompt.index)
        reason = self._why(group, len(self.asked))
        if not reason:
            taught = [
                dataclasses.replace(c, teacher_logprobs=read_only([-0.125] * c.num_tokens, np.float32))
                for c in group.completions
            ]
            group = dataclasses.replace(group, completions=tuple(taught))
        return Taught(reason=reason, started_s=1.0, finished_s=2.0), group


def raising(*errors: Exception) -> Callable[[RolloutGroup, int], str]:
    """The n-th call raises the n-th error; those after them answer."""

    def why(_group: RolloutGroup, call: int) -> str:
        if call <= len(errors):
            raise errors[call - 1]
        return ""

    return why


def test_what_the_teacher_says_waits_with_the_completions(tmp_path: Path) -> None:
    teacher = FakeTeacher()
    loop = Loop(tmp_path, [[ok(1), ok(0)], [ok(1), ok(1)], [ok(1), BROKEN]], teachers=[teacher])
    asyncio.run(loop.sample())
    assert sorted(teacher.asked) == [0, 1], "a group that is rejected is not asked about"
    for _, scored in loop.buffer.waiting():
        assert scored is not None
        (group,) = loop.fleet.objects.get([scored.group.payload], deadline_s=1.0)
        for completion in group.completions:
            assert completion.teacher_logprobs.tolist() == [-0.125] * completion.num_tokens
    assert loop.ledger.rejected == {"too_few_scored": 1}
    loop.ledger.check()


def test_a_group_that_it_cannot_score_is_rejected_and_said_once(tmp_path: Path) -> None:
    teacher = FakeTeacher(lambda group, _call: "" if group.prompt.index == 3 else "no answer in 6 attempts")
    loop = Loop(tmp_path, [[ok(1), ok(0)]] * 4, teachers=[teacher])
    asyncio.run(loop.sample())
    assert loop.ledger.rejected == {"teacher_failed": 3}
    assert [group_id for group_id, _ in loop.buffer.waiting()] == [prompt(3).group_id]
    assert [reason for _, reason in loop.pipeline.take_rejected()] == ["teacher_failed"] * 3
    told = [text for text in loop.warnings if "the teacher did not score it: no answer in 6 attempts" in text]
    assert 1 <= len(told) <= 2, "one for each streak"
    loop.ledger.check()


def test_too_many_in_a_row_end_the_run(tmp_path: Path) -> None:
    most = MAX_UNTAUGHT_BATCHES * 2
    loop = Loop(tmp_path, [[ok(1), ok(0)]] * most, teachers=[FakeTeacher(lambda _group, _call: "status 500")])
    with pytest.raises(TeacherFailureError, match=rf"^{most} groups in a row .* the last one: status 500; mend"):
        asyncio.run(loop.sample())
    assert loop.ledger.rejected == {"teacher_failed": most - 1}, "the last one is as it was: a resume samples it again"
    fewer = Loop(tmp_path / "b", [[ok(1), ok(0)]] * (most - 1), teachers=[FakeTeacher(lambda _group, _call: "no")])
    asyncio.run(fewer.sample())


def test_a_wrong_key_ends_the_run_at_once(tmp_path: Path) -> None:
    teacher = FakeTeacher(raising(EndpointError("status 401", is_final=True)))
    loop = Loop(tmp_path, [[ok(1), ok(0)]], teachers=[teacher])
    with pytest.raises(EndpointError, match="status 401"):
        asyncio.run(loop.sample())
    assert (loop.ledger.rejected, loop.ledger.in_flight) == ({}, 1)


def test_a_process_that_fails_is_asked_again(tmp_path: Path) -> None:
    first, second = FakeTeacher(raising(ActorFailedError("teach", "teacher-0", "group", "lost"))), FakeTeacher()
    loop = Loop(tmp_path, [[ok(1), ok(0)]], teachers=[first, second])
    asyncio.run(loop.sample())
    assert (first.asked, second.asked) == ([0], [0])
    assert (loop.buffer.num_unscored, loop.ledger.rejected) == (0, {})


def test_completions_that_are_gone_are_sampled_again(tmp_path: Path) -> None:
    teacher = FakeTeacher(raising(ObjectLostError("gone")))
    loop = Loop(tmp_path, [[ok(1), ok(0)]], teachers=[teacher])

    async def until_taught() -> None:
        await loop.sample()
        while loop.buffer.num_unscored:
            await asyncio.wait_for(asyncio.gather(*loop.tasks), 5)

    asyncio.run(until_taught())
    assert teacher.asked == [0, 0]
    assert loop.ledger.attempt(prompt(0).group_id) == 2
    loop.ledger.check()


def config_of(**teacher: Any) -> RunConfig:
    learner = LearnerConfig(teacher=TeacherConfig(**teacher), objective={"kl": {"coef": 0.0}})
    return RunConfig(task=ReasoningGymTask(generator="chain_sum"), learner=learner)


def test_its_deadline_holds_for_all_that_wait_before_it() -> None:
    endpoint = EndpointConfig(max_requests=4, max_attempts=2, deadline_s=10)
    config = config_of(base_url="http://a/v1", endpoint=endpoint)
    # 9 completions, 4 at a time: three turns, each of two attempts of 10 s and two waits of 300 s at most.
    assert teacher_deadline_s(config, 9) == 60 + 3 * 2 * (10 + 300)
    own = config_of(path="./a")
    assert teacher_deadline_s(own, 9) == 0
    assert batch_deadline_s(config) > batch_deadline_s(own)

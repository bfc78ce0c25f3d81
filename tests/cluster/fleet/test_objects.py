"""What is gone from the object store is named, and nothing else is."""

import asyncio
from typing import Any

import pytest
import ray.exceptions

from cluster.errors import ClusterError, GroupsLostError, ObjectLostError, StageTimeoutError
from cluster.fleet.deadlines import finish
from cluster.fleet.objects import RayObjects, open_groups
from rollout.types import RolloutGroup, SampledGroup, facts_of
from tests.cluster.examples import ok, scored
from tests.cluster.fakes import FakeObjects, Stored, Vanishing

LOST = ray.exceptions.OwnerDiedError("ab" * 14, None, "call site")


def stored(index: int, *, is_gone: bool = False) -> tuple[RolloutGroup, SampledGroup]:
    group: RolloutGroup = scored(index, [ok(1), ok(0)]).group.payload
    payload = Stored(Vanishing(group, lambda: is_gone))
    return group, SampledGroup(prompt=group.prompt, facts=facts_of(group), payload=payload)


def test_groups_are_opened_in_their_order() -> None:
    pairs = [stored(index) for index in (3, 1, 2)]
    opened = asyncio.run(open_groups(FakeObjects(), [sampled for _, sampled in pairs]))
    assert opened == [group for group, _ in pairs]


def test_every_group_that_is_gone_is_named_and_no_other() -> None:
    pairs = [stored(index, is_gone=index in (1, 3)) for index in range(4)]
    with pytest.raises(GroupsLostError, match=r"the completions of 000001-.*, 000003-.* are gone") as caught:
        asyncio.run(open_groups(FakeObjects(), [sampled for _, sampled in pairs]))
    assert caught.value.group_ids == tuple(pairs[index][1].group_id for index in (1, 3))


def test_what_came_back_meanwhile_is_not_lost() -> None:
    """Ray finds another copy, on a node that had fetched it."""
    asked = []

    class Healing(FakeObjects):
        def get(self, references: Any, *, deadline_s: float) -> list[Any]:
            asked.append(len(references))
            if len(asked) == 1:
                raise ObjectLostError("gone")
            return super().get(references, deadline_s=deadline_s)

    group, sampled = stored(0)
    assert asyncio.run(open_groups(Healing(), [sampled])) == [group]
    assert asked == [1, 1, 1]


@pytest.mark.parametrize("error", [LOST, ray.exceptions.ObjectLostError("ab" * 14, None, "call site")])
def test_an_answer_or_an_argument_that_is_gone_is_nobodys_failure(error: Exception) -> None:
    async def answer() -> None:
        raise error

    async def call() -> None:
        raise ray.exceptions.RayTaskError("score", "Traceback", error)

    for work in (answer, call):
        with pytest.raises(ObjectLostError, match="score: group 7 was gone before reward-0 had it"):
            asyncio.run(finish(work(), deadline_s=1.0, stage="score", actor="reward-0", item="group 7"))


def test_rays_errors_are_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(error: Exception) -> None:
        def get(_references: Any, *, timeout: float) -> None:
            assert timeout == 2.0
            raise error

        monkeypatch.setattr("ray.get", get)

    monkeypatch.setattr("ray.is_initialized", lambda: True)
    raises(LOST)
    with pytest.raises(ObjectLostError, match="gone with the process or node"):
        RayObjects().get(["reference"], deadline_s=2.0)
    raises(ray.exceptions.OutOfDiskError("no room"))
    with pytest.raises(ClusterError, match="did not give 1 objects: OutOfDiskError"):
        RayObjects().get(["reference"], deadline_s=2.0)
    raises(ray.exceptions.GetTimeoutError())
    with pytest.raises(StageTimeoutError, match="fetch: Ray did not finish 1 objects within 2 s"):
        RayObjects().get(["reference"], deadline_s=2.0)


def test_no_cluster_is_joined_by_asking_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray._private.auto_init_hook.enable_auto_connect", True)
    monkeypatch.setattr("ray.init", lambda *_, **__: pytest.fail("a cluster was looked for"))
    assert RayObjects().get([], deadline_s=1.0) == []
    for ask in (lambda: RayObjects().get(["reference"], deadline_s=1.0), lambda: RayObjects().put(1)):
        with pytest.raises(ClusterError, match="before this process joined a Ray session"):
            ask()

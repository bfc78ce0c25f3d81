"""Ray's object store: where groups and weights lie while the controller only knows of them."""

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from cluster.errors import GroupsLostError, ObjectLostError, StageTimeoutError
from rollout.types import RolloutGroup, SampledGroup

OPEN_DEADLINE_S = 300.0
"""For the groups of a step to reach this node: seconds where they lie on others, none where they lie here."""


class Objects(Protocol):
    """A store of values that processes refer to."""

    def put(self, value: Any) -> Any:
        """A reference to a value, which this process owns."""

    def get(self, references: Sequence[Any], *, deadline_s: float) -> list[Any]:
        """The values. Arrays in them are views of shared memory. Blocks, so it is called in a thread.

        Errors: `ObjectLostError` where one is gone with its owner or its node; `StageTimeoutError`.
        """
        ...


class RayObjects:
    """The store of the Ray session that this process is in."""

    def put(self, value: Any) -> Any:
        """See `Objects`."""
        import ray

        return ray.put(value)

    def get(self, references: Sequence[Any], *, deadline_s: float) -> list[Any]:
        """See `Objects`."""
        import ray
        import ray.exceptions

        try:
            return list(ray.get(list(references), timeout=deadline_s))
        except ray.exceptions.GetTimeoutError:
            raise StageTimeoutError("fetch", "Ray", f"{len(references)} objects", deadline_s) from None
        except ray.exceptions.ObjectLostError as error:
            raise ObjectLostError(f"an object is gone with the process or node that had it: {error}") from error


async def open_groups(objects: Objects, groups: Sequence[SampledGroup]) -> list[RolloutGroup]:
    """The completions of each group. From here on they are held on this node, wherever they came from.

    Errors: `GroupsLostError` naming every group whose completions are gone; `StageTimeoutError`.
    """

    def fetch() -> list[RolloutGroup]:
        try:
            return objects.get([group.payload for group in groups], deadline_s=OPEN_DEADLINE_S)
        except ObjectLostError as error:
            lost = [group.group_id for group in groups if _is_lost(objects, group)]
            # It may have come back meanwhile, from a copy that another node had: then the second try is the answer.
            if lost:
                raise GroupsLostError(tuple(lost)) from error
            return objects.get([group.payload for group in groups], deadline_s=OPEN_DEADLINE_S)

    return await asyncio.to_thread(fetch)


def _is_lost(objects: Objects, group: SampledGroup) -> bool:
    try:
        objects.get([group.payload], deadline_s=OPEN_DEADLINE_S)
    except ObjectLostError:
        return True
    return False

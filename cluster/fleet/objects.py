"""Ray's object store: where groups and weights lie while the controller only knows of them."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Protocol

from cluster.errors import ClusterError, GroupsLostError, ObjectLostError, StageTimeoutError
from cluster.fleet.deadlines import first_line
from rollout.types import RolloutGroup, SampledGroup

OPEN_DEADLINE_S = 300.0
"""For the groups of a step to reach this node: seconds where they lie on others, none where they lie here."""
LEAST_DEADLINE_S = 1.0
"""For what is asked when that time is over: what is here already comes at once."""


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
    """The store of the Ray session that this process is in.

    Errors: `ClusterError` where it is in none. Left alone, Ray would join whichever cluster it finds on the machine,
    and end this process 60 s after that one ends.
    """

    def put(self, value: Any) -> Any:
        """See `Objects`."""
        import ray

        _check_session(ray)
        return ray.put(value)

    def get(self, references: Sequence[Any], *, deadline_s: float) -> list[Any]:
        """See `Objects`."""
        import ray
        import ray.exceptions

        if not references:
            return []
        _check_session(ray)
        try:
            return list(ray.get(list(references), timeout=deadline_s))
        except ray.exceptions.GetTimeoutError:
            raise StageTimeoutError("fetch", "Ray", f"{len(references)} objects", deadline_s) from None
        except ray.exceptions.ObjectLostError as error:
            raise ObjectLostError(f"an object is gone with the process or node that had it: {error}") from error
        except ray.exceptions.RayError as error:
            cause = f"{type(error).__name__}: {first_line(error)}"
            raise ClusterError(f"Ray's object store did not give {len(references)} objects: {cause}") from error


def _check_session(ray: Any) -> None:
    if not ray.is_initialized():
        raise ClusterError("Ray's object store was asked before this process joined a Ray session")


async def open_groups(objects: Objects, groups: Sequence[SampledGroup]) -> list[RolloutGroup]:
    """The completions of each group. From here on they are held on this node, wherever they came from.

    Errors: `GroupsLostError` naming every group whose completions are gone; `StageTimeoutError`.
    """

    def fetch() -> list[RolloutGroup]:
        # One end for all of it: a node that is silent is waited for once, however many groups it has.
        end_s = time.monotonic() + OPEN_DEADLINE_S

        def get(some: Sequence[SampledGroup]) -> list[RolloutGroup]:
            left_s = max(LEAST_DEADLINE_S, end_s - time.monotonic())
            return objects.get([group.payload for group in some], deadline_s=left_s)

        def is_lost(group: SampledGroup) -> bool:
            try:
                get([group])
            except (ObjectLostError, StageTimeoutError):
                return True
            return False

        try:
            return get(groups)
        except ObjectLostError as error:
            lost = tuple(group.group_id for group in groups if is_lost(group))
            # It may have come back meanwhile, from a copy that another node had: then the second try is the answer.
            if lost:
                raise GroupsLostError(lost) from error
            return get(groups)

    return await asyncio.to_thread(fetch)

"""What a run asks of Ray: a pure plan of bundles, then a placement group, waited for with a deadline."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cluster.config import RunConfig
from cluster.errors import ClusterError, StageTimeoutError
from cluster.fleet.deadlines import finish
from cluster.fleet.roles import LEARNER, ROLES, TEACHER

PLACEMENT_DEADLINE_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """The resources of one actor.

    Example:
        Bundle(role="learner", index=0, cpus=1.0, gpus=0.0)
    """

    role: str
    """Its name in `cluster.fleet.roles`."""
    index: int
    cpus: float
    gpus: float

    @property
    def name(self) -> str:
        """Of the actor, for people and for `cluster.fleet.roles.role_of`."""
        return f"{self.role}-{self.index}"

    @property
    def resources(self) -> dict[str, float]:
        """As Ray is asked for them."""
        wanted = {"CPU": self.cpus, "GPU": self.gpus}
        # Ray refuses an empty bundle, and a reward worker that shares cores asks for none.
        return {name: amount for name, amount in wanted.items() if amount > 0} or {"CPU": 0.001}


def plan_bundles(config: RunConfig, *, with_learner: bool = True) -> tuple[Bundle, ...]:
    """One bundle for each actor of a run; an evaluation alone has no learner, and asks no teacher."""
    return tuple(
        Bundle(role=role.name, index=index, cpus=asked.cpus, gpus=asked.gpus)
        for role in ROLES
        if with_learner or role not in (LEARNER, TEACHER)
        for asked in (role.asks(config),)
        for index in range(asked.count)
    )


def total_resources(bundles: tuple[Bundle, ...]) -> dict[str, float]:
    """Resource name -> sum over all bundles."""
    total: dict[str, float] = {}
    for bundle in bundles:
        for name, amount in bundle.resources.items():
            total[name] = total.get(name, 0.0) + amount
    return total


async def place(bundles: tuple[Bundle, ...]) -> Any:
    """Reserves all bundles, or none.

    Errors: `ClusterError` that says what is asked for and what the cluster has.
    """
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group

    cluster_has: Callable[[], Mapping[str, float]] = ray.cluster_resources
    cluster_has_free: Callable[[], Mapping[str, float]] = ray.available_resources
    wanted, has = total_resources(bundles), cluster_has()
    _refuse_impossible(wanted, has)
    group = placement_group([bundle.resources for bundle in bundles], strategy="PACK")
    try:
        await finish(
            group.ready(), deadline_s=PLACEMENT_DEADLINE_S, stage="start", actor="Ray", item="the placement group"
        )
    except StageTimeoutError:
        remove_placement_group(group)
        raise ClusterError(
            f"the cluster had no room within {PLACEMENT_DEADLINE_S:g} s: the run asks for {_amounts(wanted)}, free are "
            f"{_amounts(cluster_has_free())} of {_amounts(has)}; wait for other jobs or ask for less"
        ) from None
    return group


def _refuse_impossible(wanted: Mapping[str, float], has: Mapping[str, float]) -> None:
    for name, amount in wanted.items():
        if amount > has.get(name, 0.0) + 1e-9:
            raise ClusterError(
                f"the run asks for {_amounts(wanted)}, but the whole cluster has {_amounts(has)}; use fewer or smaller "
                "actors (rollout.num_engines, rollout.cpus_per_engine, learner.num_ranks, learner.cpus_per_rank)"
            )


def _amounts(resources: Mapping[str, float]) -> str:
    return (
        ", ".join(f"{resources.get(name, 0.0):g} {name}" for name in ("CPU", "GPU") if name in resources) or "nothing"
    )

"""The only place where a worker becomes a Ray actor: launches them, holds their handles, ends them.

The stages are plain classes; `ray.remote(Class)` is applied here, where they are placed. What differs from role to role
is in `cluster.fleet.roles`.
"""

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeAlias

from cluster.config import RunConfig
from cluster.errors import ActorFailedError, StageTimeoutError
from cluster.fleet.deadlines import finish, finish_all
from cluster.fleet.environment import cores_of_nodes, threads_variables, with_ours
from cluster.fleet.handles import LearnerHandle, RewardHandle, RewardModelHandle, SamplerHandle, TeacherHandle
from cluster.fleet.objects import Objects, RayObjects
from cluster.fleet.placement import Bundle, place, plan_bundles
from cluster.fleet.roles import LEARNER, REWARD, REWARD_MODEL, SAMPLER, TEACHER, H, Restart, Role, Seat, Site, role_of
from cluster.fleet.stacks import StackSource, listen, read_stacks
from learner.types import FoundTeacher

CLOSE_DEADLINE_S = 15.0
STACKS_DEADLINE_S = 20.0


@dataclass(slots=True, kw_only=True, eq=False)
class Actor(Generic[H]):
    """A place in the fleet with a name for people. Its process may be replaced: then the handle is another one."""

    name: str
    handle: H
    incarnation: int = 1
    """How many processes there have been in this place."""


SamplerActor: TypeAlias = Actor[SamplerHandle]
LearnerActor: TypeAlias = Actor[LearnerHandle]
RewardActor: TypeAlias = Actor[RewardHandle]
RewardModelActor: TypeAlias = Actor[RewardModelHandle]
TeacherActor: TypeAlias = Actor[TeacherHandle]


class Launches(Protocol):
    """Starts the processes of a fleet; `Launcher` does."""

    def start(self, name: str) -> Any:
        """The handle of a new process in the place of that name; it is not waited for."""

    def start_together(self, role: Role[Any, Any]) -> Sequence[Any]:
        """Handles of new processes for all places of a role, in their order."""
        ...

    def start_deadline_s(self, name: str) -> float:
        """Seconds that the process of that name may take to start."""
        ...

    async def stacks(self, name: str) -> str:
        """What every thread of an actor is doing, also of one that hangs; a sentence where that cannot be known."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Every actor of a run."""

    samplers: tuple[SamplerActor, ...]
    learners: tuple[LearnerActor, ...]
    """In the order of ranks; empty in an evaluation alone."""
    rewards: tuple[RewardActor, ...]
    reward_models: tuple[RewardModelActor, ...] = ()
    teachers: tuple[TeacherActor, ...] = ()
    """Who asks the server of a teacher; empty where there is none."""
    placement_group: Any
    launcher: Launches
    objects: Objects = field(default_factory=RayObjects)
    """Where what the actors give each other lies."""

    @property
    def actors(self) -> list[Actor[Any]]:
        """Everyone, ranks first."""
        return [*self.learners, *self.samplers, *self.rewards, *self.reward_models, *self.teachers]

    @property
    def others(self) -> dict[str, Actor[Any]]:
        """By name, those that hold no weights and are restarted alone."""
        others: list[Actor[Any]] = [*self.rewards, *self.reward_models, *self.teachers]
        return {actor.name: actor for actor in others}

    async def restart(self, actor: Actor[Any]) -> None:
        """Ends what is left of the process of an actor that is restarted alone, and starts another in its place.

        Errors: that of the new process when it cannot start in time.
        """
        assert role_of(actor.name).restart is Restart.ALONE, actor.name
        self._end(actor)
        actor.handle = self.launcher.start(actor.name)
        actor.incarnation += 1
        await self._ready((actor,))

    async def restart_learners(self) -> None:
        """Ends all ranks and starts them again."""
        for learner in self.learners:
            self._end(learner)
        for learner, handle in zip(self.learners, self.launcher.start_together(LEARNER), strict=True):
            learner.handle = handle
            learner.incarnation += 1
        await self._ready(self.learners)

    async def ready(self) -> None:
        """Returns when everyone has started. Errors: of the first who could not."""
        groups: tuple[Sequence[Actor[Any]], ...] = (
            self.samplers,
            self.learners,
            self.rewards,
            self.reward_models,
            self.teachers,
        )
        await asyncio.gather(*(self._ready(actors) for actors in groups if actors))

    async def _ready(self, actors: Sequence[Actor[Any]]) -> None:
        """Returns when these, of one role, have started."""
        name = actors[0].name
        await finish_all(
            [role_of(name).ready(actor.handle) for actor in actors],
            deadline_s=self.launcher.start_deadline_s(name),
            stage="start",
            actors=[actor.name for actor in actors],
            item="start-up",
        )

    @staticmethod
    def _end(actor: Actor[Any]) -> None:
        import ray

        ray.kill(actor.handle, no_restart=True)

    async def close_sampling(self) -> None:
        """What ends samplers and reward workers, of which nothing is wanted any more: they take a second or two, which
        a save need not wait for. `close` may follow."""
        actors: list[Actor[Any]] = [*self.samplers, *self.rewards]
        await asyncio.gather(*(_close(actor) for actor in actors))

    async def close(self) -> None:
        """Ends every actor: asks first, so that children are ended and files closed, then kills."""
        await asyncio.gather(*(_close(actor) for actor in self.actors))
        self.kill()

    def kill(self) -> None:
        """Ends every actor at once, for those that hold nothing yet: one that is starting would answer only then."""
        import ray
        from ray.util.placement_group import remove_placement_group

        for actor in self.actors:
            ray.kill(actor.handle)
        remove_placement_group(self.placement_group)


async def launch_fleet(
    config: RunConfig,
    *,
    model_dir: str,
    teacher: FoundTeacher | None = None,
    with_learner: bool = True,
    run_dir: Path | None = None,
) -> Fleet:
    """Places and starts all actors side by side; returns when every one is ready. `run_dir` is where reward workers
    note what servers answer; without one they forget it.

    Errors: `ClusterError` without room; the error of the actor that could not start.
    """
    bundles = plan_bundles(config, with_learner=with_learner)
    group = await place(bundles)
    site = Site(
        config=config,
        model_dir=model_dir,
        teacher=teacher or FoundTeacher(),
        fleet_name=uuid.uuid4().hex,
        run_dir=run_dir,
    )
    launcher = Launcher(site, bundles, group, await _nodes(group))

    def started(role: Role[Any, H]) -> tuple[Actor[H], ...]:
        names = launcher.names(role)
        if role.restart is Restart.TOGETHER:
            handles = launcher.start_together(role) if names else []
        else:
            handles = [launcher.start(name) for name in names]
        return tuple(Actor(name=name, handle=handle) for name, handle in zip(names, handles, strict=True))

    fleet = Fleet(
        samplers=started(SAMPLER),
        reward_models=started(REWARD_MODEL),
        learners=started(LEARNER),
        rewards=started(REWARD),
        teachers=started(TEACHER),
        placement_group=group,
        launcher=launcher,
    )
    try:
        await fleet.ready()
    except BaseException:
        fleet.kill()
        raise
    return fleet


@dataclass(frozen=True, slots=True, kw_only=True)
class _Nodes:
    """Where the bundles of a fleet are."""

    of_bundle: Mapping[int, str]
    """Index of a bundle -> Ray's id of its node."""
    cores: Mapping[str, int]
    """Id of a node -> its cores."""


async def _nodes(group: Any) -> _Nodes:
    import ray
    from ray.util.placement_group import placement_group_table

    of_bundle = placement_group_table(group)["bundles_to_node_id"]
    here = ray.get_runtime_context().get_node_id()
    return _Nodes(of_bundle=of_bundle, cores=await cores_of_nodes(sorted(set(of_bundle.values())), here=here))


class Launcher:
    """Starts the processes of a fleet, each in its bundle of the placement group; also again, when one was lost."""

    def __init__(self, site: Site, bundles: tuple[Bundle, ...], group: Any, nodes: _Nodes) -> None:
        self._site = site
        self._bundles = bundles
        self._group = group
        self._nodes = nodes
        self._meetings: dict[str, Any] = {}
        self._num_started = 0
        self._stack_sources: dict[str, Any] = {}

    def names(self, role: Role[Any, Any]) -> list[str]:
        """Of the places of a role, in their order."""
        return [bundle.name for bundle in self._bundles if bundle.role == role.name]

    def start_deadline_s(self, name: str) -> float:
        """Seconds that the process of that name may take to start."""
        return role_of(name).start_deadline_s(self._site.config)

    def start(self, name: str) -> Any:
        """The handle of a new process; it is not waited for."""
        return self._start(name, role_of(name).meeting())

    def start_together(self, role: Role[Any, Any]) -> list[Any]:
        """Handles of new processes for all places of a role, in their order."""
        meeting = self._meetings[role.name] = role.meeting()
        return [self._start(name, meeting) for name in self.names(role)]

    def _start(self, name: str, meeting: Any) -> Any:
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        config, role, seat = self._site.config, role_of(name), self._seat(name)
        bundle = self._bundles[self._bundle_index(name)]
        options = {
            "num_cpus": bundle.resources.get("CPU", 0),
            "num_gpus": bundle.resources.get("GPU", 0),
            "scheduling_strategy": PlacementGroupSchedulingStrategy(
                self._group, placement_group_bundle_index=self._bundle_index(name)
            ),
            "max_concurrency": role.calls_at_once(config),
            "runtime_env": {"env_vars": with_ours({**role.environment(config), **threads_variables(seat.threads)})},
            # Lost ones are replaced by `Fleet`, which knows what they must be given.
            "max_restarts": 0,
        }
        if role.is_looked_up:
            # Another name for each process: that of one that was killed is free again when Ray gets to it.
            self._num_started += 1
            options["name"] = f"{self._site.fleet_name}.{name}.{self._num_started}"
        arguments = role.arguments(self._site, seat, meeting)
        beside: Any = {"concurrency_groups": {"beside": 1}} if role.answers_beside else {}
        actor_class: Any = ray.remote(**beside)(role.worker()) if beside else ray.remote(role.worker())
        handle = actor_class.options(**options).remote(**arguments)
        self._stack_sources[name] = handle.__ray_call__.remote(listen)
        return handle

    def _seat(self, name: str) -> Seat:
        role = role_of(name)
        names = self.names(role)
        node = self._nodes.of_bundle[self._bundle_index(name)]
        neighbours = sum(self._nodes.of_bundle[self._bundle_index(other)] == node for other in names)
        threads = role.threads(self._site.config, self._nodes.cores[node], neighbours)
        return Seat(name=name, index=names.index(name), count=len(names), threads=threads)

    def _bundle_index(self, name: str) -> int:
        return next(index for index, bundle in enumerate(self._bundles) if bundle.name == name)

    async def stacks(self, name: str) -> str:
        """What every thread of an actor is doing, also of one that hangs; a sentence where that cannot be known."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        async def ask(work: Any, item: str) -> Any:
            return await finish(work, deadline_s=STACKS_DEADLINE_S, stage="stacks", actor=name, item=item)

        try:
            source: StackSource = await ask(self._stack_sources[name], "its start")
            on_its_node = NodeAffinitySchedulingStrategy(source.node_id, soft=False)
            ours = {"env_vars": with_ours({})}
            task = ray.remote(read_stacks).options(num_cpus=0, scheduling_strategy=on_its_node, runtime_env=ours)
            return str(await ask(task.remote(source), "its stacks"))
        except (ActorFailedError, StageTimeoutError) as error:
            return f"there are no stacks of {name}: {error}\n"


async def _close(actor: Actor[Any]) -> None:
    try:
        await finish(
            actor.handle.close.remote(), deadline_s=CLOSE_DEADLINE_S, stage="close", actor=actor.name, item="close"
        )
    except (ActorFailedError, StageTimeoutError):
        return  # It is dead or stuck already: the kill that follows is what is left to do.

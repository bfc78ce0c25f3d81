"""The only place where a worker becomes a Ray actor: launches them, holds their handles, ends them.

The stages are plain classes; `ray.remote(Class)` is applied here, where they are placed.
"""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

from cluster.config import RunConfig
from cluster.errors import ActorFailedError, StageTimeoutError
from cluster.fleet.deadlines import finish, finish_all
from cluster.fleet.handles import Handle, LearnerHandle, RewardHandle, RewardModelHandle, SamplerHandle
from cluster.fleet.placement import Bundle, place, plan_bundles
from cluster.fleet.stacks import StackSource, listen, read_stacks
from reward.types import RewardInput
from reward.worker import RewardWorker
from rollout.config import ModelConfig, RolloutConfig
from rollout.engines.protocol import Engine
from rollout.module_loading import loading_modules
from rollout.worker import RolloutWorker

CLOSE_DEADLINE_S = 15.0
STACKS_DEADLINE_S = 20.0
REWARD_START_DEADLINE_S = 180.0
REWARD_MODEL_RESTARTS = 3
# Calls that an actor may have at once: far above the groups in flight, so that none waits behind another's wait.
MAX_CALLS = 10_000

# glibc gives large tensors back to the system, or cannot use a freed one for the next of its size, and each new one
# is page-faulted in: forward and backward of a 135M model took 16 s a step with it and 8 s with jemalloc, which Ray
# ships, told to keep what is freed.
JEMALLOC = {"MALLOC_CONF": "dirty_decay_ms:-1,muzzy_decay_ms:-1,oversize_threshold:0"}


H = TypeVar("H", bound=Handle)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Every actor of a run."""

    samplers: tuple[SamplerActor, ...]
    learners: tuple[LearnerActor, ...]
    """In the order of ranks; empty in an evaluation alone."""
    rewards: tuple[RewardActor, ...]
    reward_model: RewardModelActor | None
    placement_group: Any
    launcher: "Launcher"

    @property
    def actors(self) -> "list[Actor[Any]]":
        """Everyone, ranks first."""
        return [*self.learners, *self.samplers, *self.rewards, *([self.reward_model] if self.reward_model else [])]

    async def restart(self, actor: Actor[Any]) -> None:
        """Ends what is left of a sampler's or reward worker's process and starts another in its place.

        Errors: that of the new process when it cannot start in time.
        """
        self._end(actor)
        actor.handle = self.launcher.start(actor.name)
        actor.incarnation += 1
        await _ready((actor,), *self.launcher.ready_call(actor.name))

    async def restart_learners(self) -> None:
        """Ends all ranks and starts them again: those that are left wait for the lost one in a collective call."""
        for learner in self.learners:
            self._end(learner)
        for learner, handle in zip(self.learners, self.launcher.start_learners(), strict=True):
            learner.handle = handle
            learner.incarnation += 1
        await _ready(self.learners, *self.launcher.ready_call(self.learners[0].name))

    @staticmethod
    def _end(actor: Actor[Any]) -> None:
        import ray

        ray.kill(actor.handle, no_restart=True)

    async def close(self) -> None:
        """Ends every actor: asks first, so that children are ended and files closed, then kills."""
        import ray
        from ray.util.placement_group import remove_placement_group

        actors: list[Actor[Any]] = [*self.rewards, *self.samplers, *self.learners]
        closing = [asyncio.ensure_future(_close(actor)) for actor in actors]
        await asyncio.gather(*closing)
        for actor in [*actors, *([self.reward_model] if self.reward_model else [])]:
            ray.kill(actor.handle)
        remove_placement_group(self.placement_group)


def build_vllm_engine(model_dir: str, model: ModelConfig, rollout: RolloutConfig, seed: int) -> Engine:
    """Runs in the sampler's process: vLLM is imported there and nowhere else."""
    with loading_modules():
        from rollout.engines.vllm import VLLMEngine

    return VLLMEngine(model_dir, model, rollout, seed=seed)


class RewardModelActorCall:
    """What a reward worker calls to reach the reward model's actor."""

    def __init__(self, handle: Any, deadline_s: float) -> None:
        self._handle = handle
        self._deadline_s = deadline_s

    def __call__(self, inputs: Sequence[RewardInput]) -> Sequence[float]:
        import ray

        return ray.get(self._handle.score.remote(inputs), timeout=self._deadline_s)


async def launch_fleet(config: RunConfig, *, model_dir: str, with_learner: bool = True) -> Fleet:
    """Places and starts all actors side by side; returns when every one is ready.

    Errors: `ClusterError` without room; the error of the actor that could not start.
    """
    bundles = plan_bundles(config, with_learner=with_learner)
    group = await place(bundles)
    launcher = Launcher(config, model_dir, bundles, group)

    def started(role: str) -> tuple[Actor[Any], ...]:
        return tuple(Actor(name=name, handle=launcher.start(name)) for name in launcher.names(role))

    samplers, reward_models = started("sampler"), started("reward_model")
    learners = launcher.names("learner")
    handles = launcher.start_learners() if learners else []
    fleet = Fleet(
        samplers=samplers,
        learners=tuple(Actor(name=name, handle=handle) for name, handle in zip(learners, handles, strict=True)),
        rewards=started("reward"),
        reward_model=reward_models[0] if reward_models else None,
        placement_group=group,
        launcher=launcher,
    )
    try:
        groups = (fleet.samplers, fleet.learners, fleet.rewards, reward_models)
        await asyncio.gather(*(_ready(actors, *launcher.ready_call(actors[0].name)) for actors in groups if actors))
    except BaseException:
        await fleet.close()
        raise
    return fleet


class Launcher:
    """Starts the processes of a fleet, each in its bundle of the placement group; also again, when one was lost."""

    def __init__(self, config: RunConfig, model_dir: str, bundles: tuple[Bundle, ...], group: Any) -> None:
        self._config = config
        self._model_dir = model_dir
        self._bundles = bundles
        self._group = group
        self._reward_model: Any = None
        self._rendezvous: Any = None
        self._stack_sources: dict[str, Any] = {}

    def names(self, role: str) -> list[str]:
        return [bundle.name for bundle in self._of(role)]

    def ready_call(self, name: str) -> tuple[str, float]:
        """The method that answers once an actor has started, and the seconds that it may take."""
        return {
            "sampler": ("ready", self._config.rollout.start_deadline_s),
            "learner": ("__ray_ready__", self._config.learner.start_deadline_s),
            "reward": ("start", REWARD_START_DEADLINE_S),
            "reward_model": ("__ray_ready__", REWARD_START_DEADLINE_S),
        }[self._bundle(name).role]

    def start(self, name: str) -> Any:
        """The handle of a new process; it is not waited for. Not for learners, whose ranks start together."""
        bundle = self._bundle(name)
        start = {"sampler": self._sampler, "reward": self._reward, "reward_model": self._start_reward_model}[
            bundle.role
        ]
        return start(bundle)

    def start_learners(self) -> list[Any]:
        """Handles of new processes for all ranks, in their order."""
        import ray.util

        # Imported here: torch and DeepSpeed take seconds, in which the samplers start already.
        from learner.backend.engine import Rendezvous
        from learner.worker import LearnerWorker

        config = self._config
        bundles = self._of("learner")
        # One for each start: what the ranks before left in theirs would be taken for news.
        self._rendezvous = Rendezvous(ray.util.get_node_ip_address())
        env = {
            "DS_ACCELERATOR": "cuda" if config.learner.gpus_per_rank else "cpu",
            **_threads(config.learner.threads, share=len(bundles)),
            **({} if config.learner.gpus_per_rank else _keep_memory()),
        }
        shared = {
            "config": config.learner,
            "model_dir": self._model_dir,
            "world_size": len(bundles),
            "rendezvous": self._rendezvous.address,
            "seed": config.seed,
            "temperature": config.rollout.sampling.temperature,
            "total_steps": config.steps,
            "weight_dtype": config.rollout.dtype,
            "chunk_mib": config.weight_sync.chunk_mib,
            "deterministic": config.deterministic,
            "trust_remote_code": config.model.trust_remote_code,
        }
        return [self._start(LearnerWorker, b, {**shared, "rank": b.index}, env, 1) for b in bundles]

    def _sampler(self, bundle: Bundle) -> Any:
        config = self._config
        env = {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_LOGGING_LEVEL": "ERROR",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_NO_USAGE_STATS": "1",
            **_threads(config.rollout.threads, share=1),
        }
        rollout = config.rollout
        if config.deterministic:
            # What lies in the prefix cache depends on what ran before, and decides the last bits: a resumed run has
            # an empty one.
            rollout = rollout.model_copy(update={"prefix_caching": False})
        build = partial(build_vllm_engine, self._model_dir, config.model, rollout, config.seed)
        kwargs = {"build_engine": build, "name": bundle.name, "run_seed": config.seed}
        return self._start(RolloutWorker, bundle, kwargs, env, MAX_CALLS)

    def _reward(self, bundle: Bundle) -> Any:
        config = self._config.reward
        call = None
        if config.reward_model is not None:
            call = RewardModelActorCall(self._reward_model, config.timeout_s * 10)
        kwargs = {
            "config": config,
            "name": bundle.name,
            "reward_model": call,
            "max_tokens": self._config.rollout.sampling.max_tokens,
        }
        return self._start(RewardWorker, bundle, kwargs, _threads(1, share=1), config.children_per_worker + 2)

    def _start_reward_model(self, bundle: Bundle) -> Any:
        from reward.models.classifier import RewardModelScorer

        assert self._config.reward.reward_model is not None
        self._reward_model = self._start(RewardModelScorer, bundle, {"config": self._config.reward.reward_model}, {}, 1)
        return self._reward_model

    def _bundle(self, name: str) -> Bundle:
        return next(bundle for bundle in self._bundles if bundle.name == name)

    def _of(self, role: str) -> list[Bundle]:
        return [bundle for bundle in self._bundles if bundle.role == role]

    def _start(
        self, cls: type, bundle: Bundle, kwargs: dict[str, Any], env: dict[str, str], max_concurrency: int
    ) -> Any:
        import ray

        options = {
            **self._options(bundle),
            "max_concurrency": max_concurrency,
            "runtime_env": {"env_vars": _env(env)},
            # A scoring model has no state, and its handle is with every reward worker: Ray may replace it. Everything
            # else is replaced by `Fleet.restart`, which knows what it must be given.
            "max_restarts": REWARD_MODEL_RESTARTS if bundle.role == "reward_model" else 0,
        }
        handle = ray.remote(cls).options(**options).remote(**kwargs)
        self._stack_sources[bundle.name] = handle.__ray_call__.remote(listen)
        return handle

    async def stacks(self, name: str) -> str:
        """What every thread of an actor is doing, also of one that hangs; a sentence where that cannot be known."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        async def ask(work: Any, item: str) -> Any:
            return await finish(work, deadline_s=STACKS_DEADLINE_S, stage="stacks", actor=name, item=item)

        try:
            source: StackSource = await ask(self._stack_sources[name], "its start")
            on_its_node = NodeAffinitySchedulingStrategy(source.node_id, soft=False)
            task = ray.remote(read_stacks).options(num_cpus=0, scheduling_strategy=on_its_node)
            return str(await ask(task.remote(source), "its stacks"))
        except (ActorFailedError, StageTimeoutError) as error:
            return f"there are no stacks of {name}: {error}\n"

    def _options(self, bundle: Bundle) -> dict[str, Any]:
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        return {
            "num_cpus": bundle.resources.get("CPU", 0),
            "num_gpus": bundle.resources.get("GPU", 0),
            "scheduling_strategy": PlacementGroupSchedulingStrategy(
                self._group, placement_group_bundle_index=self._bundles.index(bundle)
            ),
        }


def _threads(threads: int, *, share: int) -> dict[str, str]:
    """OMP_NUM_THREADS, which torch and vLLM read when they are imported; 0 shares this node's cores."""
    count = threads or max(1, (os.cpu_count() or 1) // share)
    return {"OMP_NUM_THREADS": str(count)}


def _keep_memory() -> dict[str, str]:
    """Preloads Ray's jemalloc; where this build of Ray has none, the system's allocator stays."""
    import ray

    library = Path(ray.__file__).parent / "core" / "libjemalloc.so"
    return {"LD_PRELOAD": str(library), **JEMALLOC} if library.is_file() else {}


def _env(extra: dict[str, str]) -> dict[str, str]:
    """Passed on explicitly, since an actor inherits the environment of Ray's node, not of this program."""
    passed = ("HF_HUB_OFFLINE", "HF_HOME", "SHOAL_CACHE", "TRANSFORMERS_OFFLINE", "PYTHONPATH")
    return {**{name: os.environ[name] for name in passed if name in os.environ}, **extra}


async def _ready(actors: Sequence[Actor[Any]], method: str, deadline_s: float) -> None:
    await finish_all(
        [getattr(actor.handle, method).remote() for actor in actors],
        deadline_s=deadline_s,
        stage="start",
        actors=[actor.name for actor in actors],
        item="start-up",
    )


async def _close(actor: Actor[Any]) -> None:
    try:
        await finish(
            actor.handle.close.remote(), deadline_s=CLOSE_DEADLINE_S, stage="close", actor=actor.name, item="close"
        )
    except (ActorFailedError, StageTimeoutError):
        return  # It is dead or stuck already: the kill that follows is what is left to do.

"""The only place where a worker becomes a Ray actor: launches them, holds their handles, ends them.

The stages are plain classes; `ray.remote(Class)` is applied here, where they are placed.
"""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cluster.config import RunConfig
from cluster.deadlines import finish, finish_all
from cluster.placement import Bundle, place, plan_bundles
from reward.functions import RewardInput
from reward.worker import RewardWorker
from rollout.config import ModelConfig, RolloutConfig
from rollout.engine import Engine
from rollout.worker import RolloutWorker

CLOSE_DEADLINE_S = 15.0
REWARD_START_DEADLINE_S = 180.0
# Calls that an actor may have at once: far above the groups in flight, so that none waits behind another's wait.
MAX_CALLS = 10_000

# glibc gives large tensors back to the system, or cannot use a freed one for the next of its size, and each new one
# is page-faulted in: forward and backward of a 135M model took 16 s a step with it and 8 s with jemalloc, which Ray
# ships, told to keep what is freed.
JEMALLOC = {"MALLOC_CONF": "dirty_decay_ms:-1,muzzy_decay_ms:-1,oversize_threshold:0"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """A Ray handle with a name for people."""

    name: str
    handle: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Every actor of a run."""

    samplers: tuple[Actor, ...]
    learners: tuple[Actor, ...]
    """In the order of ranks; empty in an evaluation alone."""
    rewards: tuple[Actor, ...]
    reward_model: Actor | None
    placement_group: Any

    async def close(self) -> None:
        """Ends every actor: asks first, so that children are ended and files closed, then kills."""
        import ray
        from ray.util.placement_group import remove_placement_group

        actors = [*self.rewards, *self.samplers, *self.learners]
        closing = [asyncio.ensure_future(_close(actor)) for actor in actors]
        await asyncio.gather(*closing)
        for actor in [*actors, *([self.reward_model] if self.reward_model else [])]:
            ray.kill(actor.handle)
        remove_placement_group(self.placement_group)


def build_vllm_engine(model_dir: str, model: ModelConfig, rollout: RolloutConfig, seed: int) -> Engine:
    """Runs in the sampler's process: vLLM is imported there and nowhere else."""
    from rollout.vllm_engine import VLLMEngine

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
    launcher = _Launcher(config, model_dir, bundles, group)
    samplers = launcher.samplers()
    reward_model = launcher.reward_model()
    fleet = Fleet(
        samplers=samplers,
        learners=await launcher.learners() if with_learner else (),
        rewards=launcher.rewards(reward_model),
        reward_model=reward_model,
        placement_group=group,
    )
    try:
        await asyncio.gather(
            _ready(fleet.samplers, "ready", config.rollout.start_deadline_s),
            _ready(fleet.learners, "__ray_ready__", config.learner.start_deadline_s),
            _ready(fleet.rewards, "check", REWARD_START_DEADLINE_S),
            _ready((reward_model,) if reward_model else (), "__ray_ready__", REWARD_START_DEADLINE_S),
        )
    except BaseException:
        await fleet.close()
        raise
    return fleet


class _Launcher:
    def __init__(self, config: RunConfig, model_dir: str, bundles: tuple[Bundle, ...], group: Any) -> None:
        self._config = config
        self._model_dir = model_dir
        self._bundles = bundles
        self._group = group

    def samplers(self) -> tuple[Actor, ...]:
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
        return tuple(
            self._start(
                RolloutWorker,
                bundle,
                {"build_engine": build, "name": bundle.name, "run_seed": config.seed},
                env,
                MAX_CALLS,
            )
            for bundle in self._of("sampler")
        )

    async def learners(self) -> tuple[Actor, ...]:
        config = self._config
        bundles = self._of("learner")
        address, port = await self._rank_0_address(bundles[0])
        env = {
            "DS_ACCELERATOR": "cuda" if config.learner.gpus_per_rank else "cpu",
            **_threads(config.learner.threads, share=len(bundles)),
            **({} if config.learner.gpus_per_rank else _keep_memory()),
        }
        shared = {
            "config": config.learner,
            "model_dir": self._model_dir,
            "world_size": len(bundles),
            "master_addr": address,
            "master_port": port,
            "seed": config.seed,
            "temperature": config.rollout.sampling.temperature,
            "total_steps": config.steps,
            "weight_dtype": config.rollout.dtype,
            "chunk_mib": config.weight_sync.chunk_mib,
            "deterministic": config.deterministic,
            "trust_remote_code": config.model.trust_remote_code,
        }
        # Imported here: torch and DeepSpeed take seconds, in which the samplers start already.
        from learner.worker import LearnerWorker

        return tuple(self._start(LearnerWorker, b, {**shared, "rank": b.index}, env, 1) for b in bundles)

    def rewards(self, reward_model: Actor | None) -> tuple[Actor, ...]:
        config = self._config.reward
        max_tokens = self._config.rollout.sampling.max_tokens
        call = None
        if reward_model is not None:
            call = RewardModelActorCall(reward_model.handle, config.timeout_s * 10)
        return tuple(
            self._start(
                RewardWorker,
                bundle,
                {"config": config, "name": bundle.name, "reward_model": call, "max_tokens": max_tokens},
                _threads(1, share=1),
                config.children_per_worker + 2,
            )
            for bundle in self._of("reward")
        )

    def reward_model(self) -> Actor | None:
        for bundle in self._of("reward_model"):
            from reward.reward_model import RewardModelScorer

            assert self._config.reward.reward_model is not None
            return self._start(RewardModelScorer, bundle, {"config": self._config.reward.reward_model}, {}, 1)
        return None

    def _of(self, role: str) -> list[Bundle]:
        return [bundle for bundle in self._bundles if bundle.role == role]

    def _start(
        self, cls: type, bundle: Bundle, kwargs: dict[str, Any], env: dict[str, str], max_concurrency: int
    ) -> Actor:
        import ray

        options = {**self._options(bundle), "max_concurrency": max_concurrency, "runtime_env": {"env_vars": _env(env)}}
        return Actor(name=bundle.name, handle=ray.remote(cls).options(**options).remote(**kwargs))

    def _options(self, bundle: Bundle) -> dict[str, Any]:
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        return {
            "num_cpus": bundle.resources.get("CPU", 0),
            "num_gpus": bundle.resources.get("GPU", 0),
            "scheduling_strategy": PlacementGroupSchedulingStrategy(
                self._group, placement_group_bundle_index=self._bundles.index(bundle)
            ),
        }

    async def _rank_0_address(self, bundle: Bundle) -> tuple[str, int]:
        """Address and a free port of the node on which rank 0 will run: the ranks meet there."""
        import ray

        task = ray.remote(free_address).options(**self._options(bundle))
        return await finish(task.remote(), deadline_s=60.0, stage="start", actor=bundle.name, item="its address")


def free_address() -> tuple[str, int]:
    """This node's address as Ray knows it, and a port that was free a moment ago."""
    import socket

    import ray.util

    address = ray.util.get_node_ip_address()
    with socket.socket() as probe:
        probe.bind((address, 0))
        return address, probe.getsockname()[1]


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


async def _ready(actors: Sequence[Actor], method: str, deadline_s: float) -> None:
    await finish_all(
        [getattr(actor.handle, method).remote() for actor in actors],
        deadline_s=deadline_s,
        stage="start",
        actors=[actor.name for actor in actors],
        item="start-up",
    )


async def _close(actor: Actor) -> None:
    from cluster.errors import ActorFailedError, StageTimeoutError

    try:
        await finish(
            actor.handle.close.remote(), deadline_s=CLOSE_DEADLINE_S, stage="close", actor=actor.name, item="close"
        )
    except (ActorFailedError, StageTimeoutError):
        return  # It is dead or stuck already: the kill that follows is what is left to do.

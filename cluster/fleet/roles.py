"""The roles of a fleet: a row says all that makes the processes of one role different from those of another.

    placement   asks               how many processes, of what
    launcher    worker, arguments, environment, calls_at_once
    fleet       ready, start_deadline_s, restart
    recovery    probe, is_synced

A row names the worker's class and the Protocol that it keeps (`cluster.fleet.handles`), so mypy compares the two.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from cluster.config import RunConfig
from cluster.fleet.environment import SAFE_PATH, keep_memory
from cluster.fleet.handles import (
    Handle,
    Learner,
    LearnerHandle,
    Reward,
    RewardHandle,
    RewardModel,
    RewardModelHandle,
    Sampler,
    SamplerHandle,
    Teacher,
    TeacherHandle,
)
from cluster.fleet.reward_models import RewardModels, model_deadline_s
from learner.teacher import api_key_of as teacher_key_of
from learner.types import FoundTeacher, TrainingSetup
from reward.judging.asked import AskingSite, api_key_of
from reward.worker import RewardWorker
from rollout.config import ModelConfig, RolloutConfig, task_name
from rollout.engines.protocol import Engine
from rollout.episode_desk import EpisodeSetup
from rollout.episodes.tool_calls import Parse
from rollout.module_loading import loading_modules
from rollout.worker import RolloutWorker

REWARD_PROCESS_S = 60.0
"""Of the start of a reward worker, the part that is not the import of its functions."""
REWARD_MODEL_START_S = 180.0
TEACHER_START_S = 180.0
# Calls that an actor may have at once: far above the groups in flight, so that none waits behind another's wait.
MAX_CALLS = 10_000

W = TypeVar("W")
H = TypeVar("H", bound=Handle)


class Restart(StrEnum):
    """What is started again when a process is lost."""

    ALONE = "alone"
    TOGETHER = "together"
    """All processes of the role: those that are left wait for the lost one in a collective call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a role asks of Ray."""

    count: int
    """Processes."""
    cpus: float
    """Of each."""
    gpus: float = 0.0
    """Of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What the processes of a fleet have in common."""

    config: RunConfig
    model_dir: str
    fleet_name: str
    """Unique: actors that others look up have names that begin with it."""
    teacher: FoundTeacher = field(default_factory=FoundTeacher)
    run_dir: Path | None = None
    """Of the run that the fleet is for; None for an evaluation alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """The place of one process."""

    name: str
    index: int
    """0 to count - 1, among those of its role."""
    count: int
    threads: int
    """Of its libraries; 0 where Ray decides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Role(Generic[W, H]):
    """A kind of process. `W` is what is called of its worker, `H` that from outside."""

    name: str
    worker: Callable[[], type[W]]
    """Imports and returns the class: those that load torch are imported when the others are on their way already."""
    asks: Callable[[RunConfig], Ask]
    arguments: Callable[[Site, Seat, Any], Mapping[str, Any]]
    """The worker's, as keywords. The third is what `meeting` made."""
    ready: Callable[[H], Awaitable[object]]
    """The call that is answered once a process has started."""
    start_deadline_s: Callable[[RunConfig], float]
    environment: Callable[[RunConfig], Mapping[str, str]] = lambda _: {}
    threads: Callable[[RunConfig, int, int], int] = lambda _config, _cores, _neighbours: 0
    """From the cores of the process's node, and the processes of the role on it; 0 leaves them to Ray."""
    calls_at_once: Callable[[RunConfig], int] = lambda _: 1
    answers_beside: bool = False
    """Whether some of its methods (`RemoteBeside`) are answered while another call goes on."""
    restart: Restart = Restart.ALONE
    meeting: Callable[[], Any] = lambda: None
    """Made anew for each start of all processes together, and kept as long as they live."""
    probe: Callable[[H], Awaitable[object]] | None = None
    """A call that shows that the worker works, also when nobody gives it work. None where what it is asked has
    deadlines, and while it is idle there is nothing to lose."""
    is_synced: bool = False
    """Whether a process that has started is used only after a weight sync of its own."""
    is_looked_up: bool = False
    """Whether other actors find it by a name."""


def build_vllm_engine(model_dir: str, model: ModelConfig, rollout: RolloutConfig, seed: int) -> Engine:
    """Runs in the sampler's process: vLLM is imported there and nowhere else."""
    with loading_modules():
        from rollout.engines.vllm import VLLMEngine

    return VLLMEngine(model_dir, model, rollout, seed=seed)


def make_vllm_parser(name: str, tokenizer: Any, schemas: Sequence[Mapping[str, Any]]) -> Parse:
    """What reads calls of tools; in the sampler's process too."""
    with loading_modules():
        from rollout.engines.vllm import tool_parser

    return tool_parser(name, tokenizer, schemas)


def _sampler_arguments(site: Site, seat: Seat, _: Any) -> Mapping[str, Any]:
    config = site.config
    rollout = config.rollout
    if config.deterministic:
        # What lies in the prefix cache depends on what ran before, and decides the last bits: a resumed run has an
        # empty one.
        rollout = rollout.model_copy(update={"prefix_caching": False})
    build = partial(build_vllm_engine, site.model_dir, config.model, rollout, config.seed)
    has_seeds = rollout.sample_seeds
    if has_seeds is None:
        has_seeds = config.deterministic or rollout.gpus_per_engine == 0
    episodes = EpisodeSetup(
        tasks={task_name(task): task for task in config.environments},
        model_dir=site.model_dir,
        context_tokens=config.model.max_context_tokens,
        trust_remote_code=config.model.trust_remote_code,
        make_parser=make_vllm_parser,
        in_rounds=config.deterministic,
    )
    return {
        "build_engine": build,
        "name": seat.name,
        "run_seed": config.seed,
        "has_seeds": has_seeds,
        "episodes": episodes,
    }


def _sampler_start_s(config: RunConfig) -> float:
    """The engine starts beside the environments, which are imported one after the other."""
    worlds = sum(task.start_deadline_s for task in config.environments)
    return max(config.rollout.start_deadline_s, worlds)


SAMPLER: Role[Sampler, SamplerHandle] = Role(
    name="sampler",
    worker=lambda: RolloutWorker,
    asks=lambda config: Ask(
        count=config.rollout.num_engines, cpus=config.rollout.cpus_per_engine, gpus=config.rollout.gpus_per_engine
    ),
    arguments=_sampler_arguments,
    environment=lambda _: {
        **SAFE_PATH,
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
    },
    threads=lambda config, cores, _neighbours: config.rollout.threads or cores,
    calls_at_once=lambda _: MAX_CALLS,
    ready=lambda handle: handle.ready.remote(),
    start_deadline_s=_sampler_start_s,
    # A token, from between two steps of the engine: a wedged engine's process still answers pings.
    probe=lambda handle: handle.probe.remote(),
    is_synced=True,
)


def _learner_worker() -> type[Learner]:
    from learner.worker import LearnerWorker

    return LearnerWorker


def _rendezvous() -> Any:
    """One for each start: what the ranks before left in theirs would be taken for news."""
    import ray.util

    from learner.backend.engine import Rendezvous

    own_address: Callable[[], str] = ray.util.get_node_ip_address
    return Rendezvous(own_address())


def _learner_arguments(site: Site, seat: Seat, rendezvous: Any) -> Mapping[str, Any]:
    from learner.backend.engine import RankPlace

    config = site.config
    return {
        "config": config.learner.model_copy(update={"threads": seat.threads}),
        "setup": TrainingSetup(
            model_dir=site.model_dir,
            seed=config.seed,
            temperature=config.rollout.sampling.temperature,
            total_steps=config.steps,
            weight_dtype=config.rollout.dtype,
            chunk_mib=config.weight_sync.chunk_mib,
            weight_delta=config.weight_sync.delta,
            deterministic=config.deterministic,
            trust_remote_code=config.model.trust_remote_code,
            teacher_dirs=site.teacher.folders,
        ),
        "place": RankPlace(
            rank=seat.index,
            world_size=seat.count,
            local_rank=0,  # Ray shows a rank its own accelerators alone
            on_gpu=config.learner.gpus_per_rank > 0,
            rendezvous=rendezvous.address,
        ),
    }


LEARNER: Role[Learner, LearnerHandle] = Role(
    name="learner",
    worker=_learner_worker,
    asks=lambda config: Ask(
        count=config.learner.num_ranks, cpus=config.learner.cpus_per_rank, gpus=config.learner.gpus_per_rank
    ),
    arguments=_learner_arguments,
    environment=lambda config: {
        **SAFE_PATH,
        "DS_ACCELERATOR": "cuda" if config.learner.gpus_per_rank else "cpu",
        **({} if config.learner.gpus_per_rank else keep_memory()),
    },
    threads=lambda config, cores, ranks: config.learner.threads or max(1, cores // ranks),
    ready=lambda handle: handle.__ray_ready__.remote(),
    start_deadline_s=lambda config: config.learner.start_deadline_s,
    answers_beside=True,
    restart=Restart.TOGETHER,
    meeting=_rendezvous,
)


def reward_start_deadline_s(config: RunConfig) -> float:
    """Seconds that a reward worker may take to start, the import of its functions included."""
    return config.reward.import_timeout_s + REWARD_PROCESS_S


def read_token_bytes(model_dir: str, model: ModelConfig) -> list[bytes]:
    """Runs in a reward worker's process, where steps are scored."""
    with loading_modules():
        from rollout.prompts.chat import load_tokenizer
        from rollout.prompts.vocabulary import token_bytes

    return token_bytes(load_tokenizer(model_dir, trust_remote_code=model.trust_remote_code))


def _reward_arguments(site: Site, seat: Seat, _: Any) -> Mapping[str, Any]:
    config = site.config.reward
    models = None
    if config.reward_model is not None:
        models = RewardModels(
            f"{site.fleet_name}.{REWARD_MODEL.name}-",
            deadline_s=model_deadline_s(config),
            patience_s=REWARD_MODEL_START_S,
        )
    return {
        "config": config,
        "name": seat.name,
        "reward_model": models,
        "max_tokens": site.config.rollout.sampling.max_tokens,
        "load_token_bytes": partial(read_token_bytes, site.model_dir, site.config.model),
        "asking": AskingSite(
            seed=site.config.seed,
            run_dir=site.run_dir,
            num_workers=seat.count,
            # Keys go to the process and into no environment that Ray keeps a record of.
            api_keys={name: key for name, of in config.asked.items() if (key := api_key_of(name, of)) is not None},
        ),
    }


REWARD: Role[Reward, RewardHandle] = Role(
    name="reward",
    worker=lambda: RewardWorker,
    asks=lambda config: Ask(count=config.reward.num_workers, cpus=config.reward.cpus_per_worker),
    arguments=_reward_arguments,
    threads=lambda _config, _cores, _neighbours: 1,
    calls_at_once=lambda config: config.reward.groups_at_once,
    ready=lambda handle: handle.start.remote(),
    start_deadline_s=reward_start_deadline_s,
)


def _reward_model_worker() -> type[RewardModel]:
    from reward.models.worker import RewardModelWorker

    return RewardModelWorker


def _asked_of_reward_models(config: RunConfig) -> Ask:
    model = config.reward.reward_model
    return Ask(count=0, cpus=0) if model is None else Ask(count=model.num_workers, cpus=model.cpus, gpus=model.gpus)


REWARD_MODEL: Role[RewardModel, RewardModelHandle] = Role(
    name="reward_model",
    worker=_reward_model_worker,
    asks=_asked_of_reward_models,
    # What is computed together decides the last bits: in a deterministic run every group is computed alone.
    arguments=lambda site, _seat, _: {
        "config": site.config.reward.reward_model,
        "across_groups": not site.config.deterministic,
    },
    # All calls that there may be, and who asks whether it gets on with them.
    calls_at_once=lambda config: 2 * config.reward.num_workers * REWARD.calls_at_once(config) + 8,
    ready=lambda handle: handle.__ray_ready__.remote(),
    start_deadline_s=lambda _: REWARD_MODEL_START_S,
    probe=lambda handle: handle.probe.remote(),
    is_looked_up=True,
)


def _teacher_worker() -> type[Teacher]:
    from learner.endpoint.worker import TeacherWorker

    return TeacherWorker


def _is_asked(config: RunConfig) -> bool:
    return config.learner.teacher is not None and config.learner.teacher.base_url is not None


def _teacher_arguments(site: Site, _seat: Seat, _: Any) -> Mapping[str, Any]:
    teacher = site.config.learner.teacher
    assert teacher is not None
    # The key goes to the process and into no environment that Ray keeps a record of.
    return {"config": teacher, "model": site.teacher.served_model, "api_key": teacher_key_of(teacher.endpoint)}


TEACHER: Role[Teacher, TeacherHandle] = Role(
    name="teacher",
    worker=_teacher_worker,
    # It waits for a server, and computes nothing.
    asks=lambda config: Ask(count=int(_is_asked(config)), cpus=0),
    arguments=_teacher_arguments,
    threads=lambda _config, _cores, _neighbours: 1,
    calls_at_once=lambda _: MAX_CALLS,
    ready=lambda handle: handle.ready.remote(),
    start_deadline_s=lambda _: TEACHER_START_S,
)

ROLES: tuple[Role[Any, Any], ...] = (SAMPLER, LEARNER, REWARD, REWARD_MODEL, TEACHER)
"""In the order in which a run asks for them."""


def role_of(name: str) -> Role[Any, Any]:
    """The role of the actor of that name, such as "reward_model-0"."""
    return next(role for role in ROLES if role.name == name.rpartition("-")[0])

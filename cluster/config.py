"""The configuration of a run: composes the stages' configurations and owns every check that spans two of them."""

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from learner.config import LearnerConfig
from learner.objective import GroupAdvantage, PassAtKAdvantage, ReinforcePlusPlusAdvantage
from reward.config import RewardConfig, RewardFunctionConfig
from reward.judging.config import COMPARING, HttpConfig, JudgeConfig
from rollout.config import (
    AnyTask,
    Config,
    CurriculumConfig,
    EnvironmentTask,
    ModelConfig,
    RolloutConfig,
    SamplingConfig,
    task_name,
    tasks_of,
)


class EvalConfig(Config):
    """Evaluation on held-out prompts."""

    every: int = Field(default=0, ge=0)
    """Training steps between evaluations; 0 evaluates before the first step and after the last only."""
    at_start: bool = True
    """Evaluate before the first step."""
    at_end: bool = True
    """Evaluate after the last step."""
    num_prompts: int = Field(default=64, ge=1)
    """Held-out questions of each task, the same ones each time; fewer where a task has fewer."""
    num_samples: int = Field(default=4, ge=1)
    """k: completions for each question, for pass@1 (their mean), pass@k and maj@k."""
    sampling: SamplingConfig = SamplingConfig()
    """How completions are drawn for evaluation."""
    deadline_s: float = Field(default=1800.0, gt=0)
    """An evaluation that takes longer ends the run with an error."""


class CheckpointConfig(Config):
    """Everything that a run needs to go on exactly."""

    every: int = Field(default=20, ge=0)
    """Training steps between checkpoints: as many are trained again, at most, when a learner rank is lost or the run is
    resumed. There is always one at the end; 0 writes no other, so that a lost rank costs all steps since the start."""
    keep: int = Field(default=2, ge=1)
    """How many to keep; older ones are removed after a newer one is complete."""
    deadline_s: float = Field(default=600.0, gt=0)
    """Time for all ranks to write one, or to load one. One that is not written in time is told, and tried again."""


class WeightSyncConfig(Config):
    """How new weights reach the engines."""

    chunk_mib: int = Field(default=64, ge=1)
    """Size of a flattened bucket of tensors."""
    delta: bool = False
    """Send what changed since the sync before, exactly: of weights in bfloat16 and a learning rate of 1e-6 a few
    hundredths of the bytes. Rank 0 and every sampler keep the weights of the last sync for it, in main memory. Worth it
    where a network lies between them; on one machine memory is faster. All is sent to all where a process was started
    since, and a chunk of which more than a quarter changed."""
    deadline_s: float = Field(default=600.0, gt=0)
    """Time for each part of it, such as one chunk to all engines; who has not answered by then is restarted."""
    canary_max_error: float | None = Field(default=None, gt=0)
    """Largest difference allowed between the engine's and the learner's log-probabilities on fixed prompts after
    each sync (nats); null takes 1e-4 in fp32 and, where either side computes in bf16, 8 times what rounding alone makes
    of these prompts."""
    canary_mean_error: float | None = Field(default=None, gt=0)
    """Largest mean difference; null takes 1e-5 in fp32 and, where either side computes in bf16, 2.5 times what rounding
    alone makes."""


class TrackerConfig(Config):
    """Where metrics go besides metrics.jsonl."""

    tensorboard: bool = True
    """TensorBoard, into the run directory; a resumed run writes it anew, so that it has each step once."""
    wandb: bool = False
    """Weights & Biases; needs the package wandb. A resumed run goes on in the same run there, and so with the others.
    Steps that are trained again take the place of those of before where the server can rewind a run."""
    mlflow: bool = False
    """MLflow; needs the package mlflow."""
    trackio: bool = False
    """trackio; needs the package trackio."""
    project: str = "shoal"
    """Name under which Weights & Biases, MLflow and trackio keep the run."""
    rollouts: int = Field(default=0, ge=0, le=1000)
    """Completions of each step that Weights & Biases and trackio get as a table, question and reward with them; 0 sends
    no text. The run's own tables have all of them."""


AlertKind = Literal["finding", "stall", "end"]


class AlertConfig(Config):
    """Who is told, without looking, that the doctor found something, that the run stalls, or that it ended. A process
    beside the run does it: one try for each message, and nothing that goes wrong with it touches the run."""

    webhook: str | None = None
    """Web address that gets a POST with JSON: `text` (Slack, Mattermost), `content` (Discord), `run`, `kind`. It is a
    secret that no file of the run has; `webhook_env` is for a recipe that is shared."""
    webhook_env: str | None = None
    """Name of the environment variable that holds the address, in place of `webhook`."""
    command: tuple[str, ...] = ()
    """Program and arguments, without a shell: the message is added as the last argument, the JSON is its input."""
    on: tuple[AlertKind, ...] = ("finding", "stall", "end")
    """Of what."""
    severity: Literal["error", "warning", "info"] = "warning"
    """The least severe finding that is told."""
    deadline_s: float = Field(default=10.0, gt=0, le=300)
    """Time for a message to be taken."""

    @property
    def is_on(self) -> bool:
        """Whether anybody is to be told."""
        return self.webhook is not None or self.webhook_env is not None or bool(self.command)

    @model_validator(mode="after")
    def _check_one_address(self) -> Self:
        if self.webhook is not None and self.webhook_env is not None:
            raise ValueError("webhook and webhook_env are both set; leave one of them out")
        return self


class RecoveryConfig(Config):
    """What happens when an actor fails."""

    max_restarts: int = Field(default=10, ge=0)
    """Restarts of all actors together over the run; one more failure ends it, with a checkpoint. 0 ends it at the
    first."""
    max_attempts: int = Field(default=3, ge=1)
    """Times that a group is sampled when its engine fails; then it is rejected, so that a prompt that breaks engines
    does not use up the restarts. A deterministic run rejects none: which groups share an engine is fixed there."""
    unhealthy_after: int = Field(default=3, ge=1)
    """Failures in a row after which an actor is taken for dead and restarted. A process that ended is dead at once."""
    probe_every_s: float = Field(default=10.0, gt=0)
    """Time between probes of a sampler: each is a token that it has to generate."""
    probe_deadline_s: float = Field(default=60.0, gt=0)
    """Time for a probe: longer than the longest step of an engine."""
    stall_s: float = Field(default=1800.0, gt=0)
    """Without a scored group or a training step for so long, the run is stalled: the stacks of all actors are written
    into the run directory."""
    on_stall: Literal["warn", "restart", "abort"] = "warn"
    """And then: say so, restart the samplers, or end the run with a checkpoint."""


class DynamicSamplingConfig(Config):
    """Resample groups in which all rewards are equal (DAPO, arXiv 2503.14476, section 3.2)."""

    enabled: bool = False
    """Whether it is done."""
    max_resample_factor: float = Field(default=3.0, ge=1)
    """At most this many times P groups are sampled for a step; then groups with equal rewards are trained as well."""


class RunConfig(Config):
    """One run."""

    name: str | None = None
    """Name of the run directory; null makes one from recipe and time."""
    runs_dir: str = "runs"
    """Folder of run directories."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of prompt order and sampling."""
    steps: int = Field(default=10, ge=1)
    """Training steps."""
    max_policy_lag: int = Field(default=0, ge=0)
    """Versions between sampling and training that a group may have. 0 is synchronous, on-policy; k > 0 lets sampling
    run ahead of training by up to k versions."""
    deterministic: bool = False
    """Fix what each engine computes together and use deterministic kernels, so that the same run gives the same
    weights bit for bit. Needs `max_policy_lag` 0."""
    task: AnyTask
    """Where the questions come from; with `kind: mix` from several tasks."""
    eval_task: AnyTask | None = None
    """Another task, or several, to evaluate on; null evaluates on the held-out questions of `task`."""
    curriculum: CurriculumConfig = CurriculumConfig()
    model: ModelConfig = ModelConfig()
    rollout: RolloutConfig = RolloutConfig()
    reward: RewardConfig = RewardConfig()
    learner: LearnerConfig = LearnerConfig()
    dynamic_sampling: DynamicSamplingConfig = DynamicSamplingConfig()
    eval: EvalConfig = EvalConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    recovery: RecoveryConfig = RecoveryConfig()
    weight_sync: WeightSyncConfig = WeightSyncConfig()
    trackers: TrackerConfig = TrackerConfig()
    alerts: AlertConfig = AlertConfig()

    @model_validator(mode="after")
    def _check_relations(self) -> Self:
        for where, sampling in (("rollout", self.rollout.sampling), ("eval", self.eval.sampling)):
            if sampling.max_tokens >= self.model.max_context_tokens:
                raise ValueError(
                    f"{where}.sampling.max_tokens is {sampling.max_tokens}, which leaves no room for a prompt in "
                    f"model.max_context_tokens = {self.model.max_context_tokens}; lower the first or raise the second"
                )
        if self.deterministic and self.max_policy_lag > 0:
            raise ValueError(
                f"deterministic is true and max_policy_lag is {self.max_policy_lag}: sampling that runs ahead has no "
                "fixed order; set max_policy_lag to 0"
            )
        self._check_worlds(self.environments)
        for where, of in (("task", self.task), ("eval_task", self.eval_task)):
            kinds = {isinstance(task, EnvironmentTask) for task in (tasks_of(of) if of is not None else ())}
            if self.deterministic and len(kinds) > 1:
                raise ValueError(
                    f"deterministic is true and {where} has environments and single answers: which of their tokens are "
                    "computed together, and with it the last bits, would follow from how fast worlds start; set "
                    "deterministic to false, or train on them apart"
                )
        if self.deterministic and self.learner.streaming:
            raise ValueError(
                "deterministic is true and learner.streaming is true: which groups share a pass, and with it the last "
                "bits, would follow from who was faster; set one of them to false"
            )
        if self.learner.micro_batch_tokens < self.model.max_context_tokens:
            raise ValueError(
                f"learner.micro_batch_tokens is {self.learner.micro_batch_tokens}, less than one sequence of "
                f"model.max_context_tokens = {self.model.max_context_tokens} tokens; raise the first"
            )
        if self.weight_sync.delta and self.rollout.dtype == "float32":
            raise ValueError(
                "weight_sync.delta is true and rollout.dtype is float32, in which every step changes nearly every "
                "weight; set the first to false or the second to bfloat16"
            )
        if self.rollout.gpus_per_engine and self.model.path.startswith("tiny:"):
            raise ValueError("model.path is tiny:, a toy for CPUs; set rollout.gpus_per_engine to 0")
        return self

    @model_validator(mode="after")
    def _check_judges(self) -> Self:
        evaluates = self.eval.at_start or self.eval.at_end or self.eval.every > 0
        sizes = {"rollout.group_size": self.rollout.group_size}
        sizes |= {"eval.num_samples": self.eval.num_samples} if evaluates else {}
        for function in self.reward.functions:
            asked = function.asked
            # One that is for some rows may have none in the evaluation.
            is_for_all = not function.tasks and not function.rows
            if isinstance(asked, JudgeConfig) and asked.mode in COMPARING and is_for_all:
                key = next((key for key, size in sizes.items() if size == 1), None)
                if key is not None:
                    raise ValueError(
                        f"reward function {function.component!r}: params.mode is {asked.mode}, which compares the "
                        f"completions of a group, and {key} is 1; set it to 2 or more, or take another mode"
                    )
            if asked is not None:
                self._check_pace(function.component, asked)
        return self

    def _check_pace(self, component: str, asked: JudgeConfig | HttpConfig) -> None:
        """Raises ValueError where the limits leave no time for the groups that are scored together."""
        limit = asked.limits.requests_per_minute
        if limit is None:
            return
        pending = (self.max_policy_lag + 1) * self.rollout.prompts_per_step
        groups = min(self.reward.groups_at_once, -(-pending // self.reward.num_workers))
        requests = groups * asked.num_requests(self.rollout.group_size)
        takes_s = 60.0 * requests / (limit // self.reward.num_workers)
        if takes_s > asked.limits.deadline_s + 60.0:  # those of the first minute do not wait
            raise ValueError(
                f"reward function {component!r}: params.limits.requests_per_minute is {limit} and "
                f"params.limits.deadline_s {asked.limits.deadline_s:g}: the {requests} requests that a reward worker "
                f"has on its hands at a time take {takes_s:.0f} s; raise one of the two"
            )

    @property
    def environments(self) -> list[EnvironmentTask]:
        """Those of training and of evaluation."""
        tasks = [*tasks_of(self.task), *(tasks_of(self.eval_task) if self.eval_task is not None else ())]
        return [task for task in tasks if isinstance(task, EnvironmentTask)]

    def _check_worlds(self, worlds: Sequence[EnvironmentTask]) -> None:
        """Raises ValueError for what does not go with episodes."""
        by_name = {task_name(task): task for task in worlds}
        for task in worlds:
            if task != by_name[task_name(task)]:
                raise ValueError(
                    f"task and eval_task have two environments that are named {task_name(task)!r}: give one of them "
                    "another `name`"
                )
        of_length = [of.function for of in self.reward.functions if of.function in ("overlong", "length_penalty")]
        if worlds and (of_length or self.reward.steps is not None):
            what = f"reward.functions has {of_length[0]}" if of_length else "reward.steps is set"
            raise ValueError(
                f"task is an environment and {what}, which is of one answer: an episode has what the world says in it "
                "too; leave it out"
            )

    @staticmethod
    def _may_be_negative(function: RewardFunctionConfig) -> bool:
        return function.weight < 0 or (function.function in ("overlong", "length_penalty") and function.weight > 0)

    @model_validator(mode="after")
    def _check_advantage(self) -> Self:
        advantage, group_size = self.learner.objective.advantage, self.rollout.group_size
        if isinstance(advantage, PassAtKAdvantage) and advantage.k >= group_size:
            raise ValueError(
                f"learner.objective.advantage.k is {advantage.k} and rollout.group_size is {group_size}: all "
                "completions of a group are in every set of k, and none stands out; set k below the group size"
            )
        reference = self.learner.objective.reference
        if reference.update != "never" and reference.every >= self.steps:
            raise ValueError(
                f"learner.objective.reference.every is {reference.every} and steps is {self.steps}: the reference "
                "would stay what it is at the start; lower `every`, or set reference.update to `never`"
            )
        is_share = isinstance(advantage, GroupAdvantage) and advantage.scale == "group_mean"
        if is_share and any(self._may_be_negative(function) for function in self.reward.functions):
            raise ValueError(
                "learner.objective.advantage.scale is `group_mean`, which is of use for rewards of at least 0 alone, "
                "and reward.functions has one that gives less; leave it out, or take another scale"
            )
        is_process = advantage.kind == "process"
        if is_process and self.reward.steps is None:
            raise ValueError(
                "learner.objective.advantage is `process`, and reward.steps is null: nothing scores the steps; set "
                "reward.steps.function, as to `arithmetic_steps`"
            )
        if self.reward.steps is not None and not is_process:
            raise ValueError(
                f"reward.steps is set and learner.objective.advantage is `{advantage.kind}`, which "
                "does not look at steps; set learner.objective.advantage.kind to `process`, or reward.steps to "
                "null"
            )
        teacher = self.learner.teacher
        learns_from_equal = advantage.kind == "gdpo" or (
            isinstance(advantage, ReinforcePlusPlusAdvantage) and advantage.baseline == "none"
        )
        if self.dynamic_sampling.enabled and learns_from_equal:
            raise ValueError(
                "dynamic_sampling.enabled is true, which samples groups of equal rewards again, and "
                f"learner.objective.advantage `{advantage.kind}` learns from some of them; turn it off"
            )
        if teacher is not None and teacher.base_url is not None:
            self._check_asked_teacher()
        if teacher is not None and self.dynamic_sampling.enabled:
            raise ValueError(
                "dynamic_sampling.enabled is true, which samples groups of equal rewards again, and there is a "
                "learner.teacher, which learns from every group; turn one of them off"
            )
        return self

    def _check_asked_teacher(self) -> None:
        temperature = self.rollout.sampling.temperature
        if temperature != 1.0:
            raise ValueError(
                f"rollout.sampling.temperature is {temperature:g} and learner.teacher.base_url is a server, which "
                "scores given tokens at temperature 1 alone; set the temperature to 1, or take a teacher by its path"
            )
        if self.deterministic:
            raise ValueError(
                "deterministic is true and learner.teacher.base_url is a server, which computes together what happens "
                "to come together; set deterministic to false, or take a teacher by its path"
            )

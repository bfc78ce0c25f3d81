"""Configuration of rewards."""

from typing import Any, Literal, TypeAlias

from pydantic import Field, ValidationError, field_validator, model_validator

from reward.judging.config import ASKED, HttpConfig, JudgeConfig
from rollout.config import Config
from rollout.sandbox.limits import deadline_s

CODE_TOTAL_LIMIT_S = 60.0
"""Default of the `code` function's `total_limit_s`: processor time for all tests of one completion."""


RowValue: TypeAlias = str | int | float | bool | None


class ScoredRows(Config):
    """Which rows a component of the reward scores. A component that scores a row has no part in the others."""

    tasks: tuple[str, ...] = ()
    """Names of tasks (`task.name`) whose rows it scores; empty scores those of all."""
    rows: dict[str, tuple[RowValue, ...]] = Field(default_factory=dict)
    """Column of the row -> the values with which it scores the row, as in `rows: {source: [gsm8k, math]}`; empty scores
    all. `a.b` is key `b` in column `a`."""

    @field_validator("rows", mode="before")
    @classmethod
    def _one_value_is_a_list(cls, rows: Any) -> Any:
        if not isinstance(rows, dict):
            return rows
        # Tuples, since what a validator returns is checked as strictly as what stands in JSON, but as Python.
        return {column: tuple(v) if isinstance(v, (list, tuple)) else (v,) for column, v in rows.items()}


class RewardFunctionConfig(ScoredRows):
    """One component of the reward."""

    function: str
    """A registered name ("math", "exact_match", ...) or an import path `module:function`."""
    name: str | None = None
    """Name of the component in records; null takes the function's."""
    weight: float = 1.0
    """Factor in the weighted sum; 0 records the component without training on it."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the function."""

    @property
    def component(self) -> str:
        """Name of the component in records."""
        return self.name or self.function.rsplit(":", 1)[-1]

    @property
    def asked(self) -> JudgeConfig | HttpConfig | None:
        """Of a function that asks a server: its params; None for others, and where they are refused when it is
        loaded."""
        kind = ASKED.get(self.function)
        try:
            return None if kind is None else kind.model_validate(self.params)
        except ValidationError:
            return None

    @property
    def own_time_s(self) -> float:
        """What it may take of a completion beside `timeout_s`. A slow program is a 0, of which `code` says why, by
        limits and deadlines of its own; one that came first would call it a `timeout`."""
        limit_s = self.params.get("total_limit_s", CODE_TOTAL_LIMIT_S)
        # What is no number is refused when the function is loaded.
        is_limited = self.function == "code" and isinstance(limit_s, (int, float)) and limit_s > 0
        return deadline_s(float(limit_s)) if is_limited else 0.0


class StepsConfig(Config):
    """What scores the steps of a completion's reasoning: process supervision."""

    function: str
    """`arithmetic_steps`, or an import path `module:function`. It is called as a reward function is, and gives one
    number for each of `item.steps`."""
    splitter: Literal["line", "sentence", "paragraph"] = "line"
    """What a step is: a line that is not blank; a sentence, which the end of a line ends too; what stands between blank
    lines."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the function."""

    @property
    def component(self) -> str:
        """How its answers are named where one went wrong."""
        return self.function.rsplit(":", 1)[-1]

    @property
    def own_time_s(self) -> float:
        """What it may take of a completion beside `timeout_s`."""
        return 0.0


class RewardModelConfig(ScoredRows):
    """A sequence-classification model as a component of the reward, in actors of its own."""

    path: str
    """A Hugging Face directory or hub id with one output label."""
    name: str = "reward_model"
    """Name of the component in records."""
    weight: float = 1.0
    """Factor in the weighted sum; 0 records the component without training on it."""
    batch_size: int = Field(default=16, ge=1)
    """Completions that the model reads together."""
    max_tokens: int = Field(default=1024, ge=1)
    """Prompt and completion are cut on the left to this length."""
    num_workers: int = Field(default=1, ge=1)
    """Actors with the model. Reward workers spread their calls over them, and go to another when one is lost."""
    cpus: float = Field(default=1.0, gt=0)
    """What the model's actor asks of Ray."""
    gpus: float = Field(default=0.0, ge=0)
    """What the model's actor asks of Ray."""

    @property
    def component(self) -> str:
        """Name of the component in records."""
        return self.name


class RewardConfig(Config):
    """Scoring: which functions, how long they may take, who does it."""

    functions: tuple[RewardFunctionConfig, ...] = (RewardFunctionConfig(function="math"),)
    """Components of the reward: the weighted sum of their values is what the policy is trained on. One run may have a
    reward for each task, or for each kind of row (`tasks`, `rows`)."""
    reward_model: RewardModelConfig | None = None
    """One more component: a scoring model; null has none."""
    steps: StepsConfig | None = None
    """What scores the steps of each completion, where `learner.objective.advantage` is `process`: the policy is then
    trained on these scores, and the components are recorded. Null scores none."""
    accuracy: str | None = None
    """Component that decides whether a completion is right; null takes the first that scores the row."""
    accuracy_threshold: float = 1.0
    """A completion is right when that component is at least this."""
    num_workers: int = Field(default=1, ge=1)
    """Reward actors. Each scores in child processes of its own."""
    children_per_worker: int = Field(default=2, ge=1)
    """Child processes of one reward actor."""
    import_timeout_s: float = Field(default=120.0, gt=0)
    """Time for importing the functions, with what they prepare, in each process that runs them; a run whose functions
    take longer does not start."""
    timeout_s: float = Field(default=5.0, gt=0)
    """Time for one completion; then its child process is killed and the outcome is `timeout`. `code`, `judge` and
    `http` have limits of their own, for which this waits."""
    warn_failure_fraction: float = Field(default=0.01, ge=0, le=1)
    """Share of the rewards of a step that may fail (time out, raise, be no number) before the run warns of it."""
    max_failure_fraction: float = Field(default=0.5, gt=0, le=1)
    """Above this share in two steps in a row the run ends: what is left would teach the model who fails, not who is
    right. 1 never ends it for that."""
    cpus_per_worker: float = Field(default=0.0, ge=0)
    """What a reward actor asks of Ray. Scoring is short, so by default it shares cores."""

    @model_validator(mode="after")
    def _check_components(self) -> "RewardConfig":
        names = [component.component for component in self.components]
        if not names:
            raise ValueError("no reward: give at least one entry in functions, or a reward_model")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two components are named {twice[0]!r}: give one of them another `name`")
        if self.accuracy is not None and self.accuracy not in names:
            raise ValueError(f"accuracy is {self.accuracy!r}, which is no component; components are {names}")
        self._check_asked(names)
        return self

    def _check_asked(self, names: list[str]) -> None:
        """Raises ValueError for what does not go together with functions that ask a server."""
        for component, asked in self.asked.items():
            try:
                asked.limits.share(self.num_workers)
            except ValueError as error:
                raise ValueError(f"reward function {component!r}: params.{error}") from error
            gold = asked.gold if isinstance(asked, JudgeConfig) else None
            if gold is not None and (gold == component or gold not in names):
                raise ValueError(
                    f"reward function {component!r}: params.gold is {gold!r}, which is no other component; components "
                    f"are {names}"
                )

    @property
    def components(self) -> tuple[RewardFunctionConfig | RewardModelConfig, ...]:
        """All components: the functions in their order, then the model."""
        return (*self.functions, *([self.reward_model] if self.reward_model is not None else []))

    @property
    def called(self) -> tuple[RewardFunctionConfig | StepsConfig, ...]:
        """What runs in the scoring children: the functions in their order, then what scores steps."""
        return (*self.functions, *([self.steps] if self.steps is not None else []))

    @property
    def asked(self) -> dict[str, JudgeConfig | HttpConfig]:
        """Component -> its params, of those that ask a server."""
        return {of.component: asked for of in self.functions if (asked := of.asked) is not None}

    @property
    def groups_at_once(self) -> int:
        """That a reward worker scores at a time: enough for its children, and for all requests that it may have on
        their way."""
        requests = max((asked.limits.requests_at_once for asked in self.asked.values()), default=0)
        return self.children_per_worker + 2 + requests

    @property
    def longest_s(self) -> float:
        """For one completion, when every function takes all the time it has, but those that ask a server."""
        called = [function for function in self.called if function.function not in ASKED]
        return sum(self.timeout_s + function.own_time_s for function in called)

    @property
    def asking_s(self) -> float:
        """For one group, when every server takes all the time it has; 0 where none is asked."""
        return max((asked.limits.deadline_s for asked in self.asked.values()), default=0.0)

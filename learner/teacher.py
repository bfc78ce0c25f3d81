"""Configuration of a teacher: on-policy distillation and self-distillation. `docs/algorithms/distillation.md`."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from rollout.config import Config
from rollout.endpoint.address import checked_address, key_of_environment

LONGEST_RETRY_AFTER_S = 300.0
"""A server that asks for a longer wait (`Retry-After`) is not waited for."""


class EndpointConfig(Config):
    """How a teacher behind `base_url` is asked."""

    model: str | None = None
    """Name under which the server has it; null takes the only one that it has."""
    api_key_env: str | None = None
    """Name of the environment variable with the key that the server wants; null sends none. The key itself is in no
    file."""
    max_requests: int = Field(default=32, ge=1)
    """Completions that are asked about at the same time."""
    max_attempts: int = Field(default=6, ge=1)
    """Times that a completion is asked about while the server is busy, fails or cannot be reached. After that the group
    is rejected."""
    deadline_s: float = Field(default=120.0, gt=0)
    """Time for one answer."""

    @property
    def longest_s(self) -> float:
        """For one completion, when every attempt and every wait takes all the time it may."""
        return self.max_attempts * (self.deadline_s + LONGEST_RETRY_AFTER_S)


def api_key_of(config: EndpointConfig) -> str | None:
    """The key, out of the environment of this process. Errors: `ConfigError` where it is not there."""
    key = "learner.teacher.endpoint.api_key_env"
    return key_of_environment(config.api_key_env, key=key, whose="the teacher's server")


class TeacherConfig(Config):
    """A teacher scores the tokens that the policy sampled, and the policy moves towards it (on-policy distillation)."""

    path: str | None = None
    """The teacher's weights, named as in `model.path`; whole on every rank. It must share the policy's tokenizer."""
    paths: dict[str, str] = Field(default_factory=dict)
    """In place of `path`: several teachers, value of `column` -> weights as in `path`. Each row is taught by the one
    that its column names; every row needs one."""
    column: str | None = None
    """With `paths`: the column of the row; a dot leads into a column of objects."""
    base_url: str | None = None
    """In place of `path`: the address of a vLLM server that has the teacher, as `http://host:8000/v1`. It is asked for
    the log-probabilities of the sampled tokens (`kind: sampled`), while the policy samples."""
    endpoint: EndpointConfig = EndpointConfig()
    policy_with: str | None = None
    """In place of `path`: the teacher is the policy itself, with the weights before the step, that reads more: what
    stands in this column of the row (self-distillation). `ground_truth` is the row's expected answer."""
    weights: Literal["current", "start"] = "current"
    """With `policy_with`: the weights that teach. `current`: those before the step, so that the teacher learns too, and
    may forget to read what it is shown. `start`: those that the run began with, whole on every rank."""
    template: str = "{question}\n\nA correct solution is:\n\n{demonstration}\n\nNow give your own solution."
    """With `policy_with`: the last user turn as the teacher reads it. `{question}` is that turn as the policy reads it,
    `{demonstration}` the text of the column."""
    few_shot: tuple[tuple[str, str], ...] = ()
    """With `policy_with`: [question, answer] pairs that the teacher reads in place of `task.few_shot`, to show it what
    to do with a demonstration. `task.template` is applied to the questions; empty: it reads those of the task."""
    kind: Literal["sampled", "reverse", "forward", "jsd"] = "sampled"
    """What is learnt from the teacher. `sampled`: each sampled token has log p(teacher) - log p(policy) as an
    advantage. The others are a loss over the whole vocabulary: KL(policy || teacher), KL(teacher || policy), or the
    generalised Jensen-Shannon divergence (GKD, arXiv 2306.13649)."""
    coef: float = Field(default=1.0, gt=0)
    """What it is multiplied by."""
    beta: float = Field(default=0.5, gt=0, lt=1)
    """Share of the teacher in the mixture of `jsd`: near 0 it is like `forward`, near 1 like `reverse`."""
    alone: bool = True
    """Learn from the teacher alone. Else it is added to what is learnt from the rewards."""

    @property
    def models(self) -> dict[str, str]:
        """Name -> weights of every model of its own; one alone has the name ""."""
        return {"": self.path} if self.path is not None else self.paths

    @property
    def is_policy(self) -> bool:
        """Whether the weights that are trained teach."""
        return self.policy_with is not None and self.weights == "current"

    @property
    def is_start(self) -> bool:
        """Whether the weights that the run began with teach."""
        return self.policy_with is not None and self.weights == "start"

    @property
    def is_exact(self) -> bool:
        """Whether it is a loss over the whole vocabulary."""
        return self.kind != "sampled"

    @field_validator("template")
    @classmethod
    def _check_template(cls, template: str) -> str:
        if "{demonstration}" not in template:
            raise ValueError(
                f"template has no {{demonstration}}, so that the teacher would read what the policy reads; got "
                f"{template!r}"
            )
        return template

    @model_validator(mode="after")
    def _check_who_teaches(self) -> Self:
        given = [name for name in ("path", "paths", "base_url", "policy_with") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(
                "exactly one of path, paths, base_url and policy_with says who teaches; got "
                f"{' and '.join(given) or 'none'}"
            )
        if bool(self.paths) != (self.column is not None):
            raise ValueError(
                "paths and column go together: the column of a row names which of the paths teaches it; got "
                f"{'paths' if self.paths else 'column'} alone"
            )
        if self.weights == "start" and self.policy_with is None:
            raise ValueError(
                "weights is `start`, which says which weights of the policy teach, and policy_with is not set; set it "
                "to the column that the teacher reads, or leave weights out"
            )
        if self.few_shot and self.policy_with is None:
            raise ValueError(
                "few_shot is what the policy reads as its own teacher, and policy_with is not set; set it to the "
                "column that the teacher reads, or leave few_shot out"
            )
        if self.base_url is not None and self.is_exact:
            raise ValueError(
                f"kind is `{self.kind}`, which compares whole vocabularies, and base_url is a server, which tells the "
                "log-probability of the sampled token alone; set kind to `sampled`, or take a teacher by its path"
            )
        return self

    @field_validator("base_url")
    @classmethod
    def _check_address(cls, base_url: str | None) -> str | None:
        if base_url is None:
            return None
        return checked_address(base_url, key="base_url", mend="endpoint.api_key_env")

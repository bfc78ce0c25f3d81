"""Configuration of a teacher: on-policy distillation and self-distillation. `docs/algorithms/distillation.md`."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from rollout.config import Config


class TeacherConfig(Config):
    """A teacher scores the tokens that the policy sampled, and the policy moves towards it (on-policy distillation)."""

    path: str | None = None
    """The teacher's weights, named as in `model.path`; whole on every rank. It must share the policy's tokenizer."""
    policy_with: str | None = None
    """In place of `path`: the teacher is the policy itself, with the weights before the step, that reads more: what
    stands in this column of the row (self-distillation). `ground_truth` is the row's expected answer."""
    template: str = "{question}\n\nA correct solution is:\n\n{demonstration}\n\nNow give your own solution."
    """With `policy_with`: the last user turn as the teacher reads it. `{question}` is that turn as the policy reads it,
    `{demonstration}` the text of the column."""
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
        given = [name for name in ("path", "policy_with") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"exactly one of path and policy_with says who teaches; got {' and '.join(given) or 'neither'}"
            )
        return self

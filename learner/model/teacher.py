"""Teachers of distillation: models of their own, a server that was asked, or the policy that reads more.

Dimension: N completion tokens of a micro-batch.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from learner.algorithm.batching import MicroBatch
from learner.model.divergences import Predictions
from learner.model.frozen import FrozenModel
from learner.model.policy import LogprobModel


class Teacher(Protocol):
    """Nothing of it has a gradient. Every rank asks for as many micro-batches as the others."""

    @property
    def can_pack(self) -> bool:
        """Whether it computes sequences that share a row."""
        ...

    def logprobs(self, tokens: MicroBatch, temperature: float) -> Tensor:
        """[N] log-probabilities (nats) of the completion tokens."""
        ...

    def predictions(self, tokens: MicroBatch, temperature: float) -> Predictions:
        """Its distributions at the completion tokens."""
        ...


class SeveralTeachers:
    """Models of their own, by name: the sequences of a micro-batch name one of them."""

    def __init__(self, teachers: Mapping[str, FrozenModel]) -> None:
        """At least one."""
        self._teachers = teachers

    @property
    def can_pack(self) -> bool:
        """As `Teacher`: every one of them."""
        return all(teacher.can_pack for teacher in self._teachers.values())

    def logprobs(self, tokens: MicroBatch, temperature: float) -> Tensor:
        """As `Teacher`."""
        return self._of(tokens).logprobs(tokens, temperature)

    def predictions(self, tokens: MicroBatch, temperature: float) -> Predictions:
        """As `Teacher`."""
        return self._of(tokens).predictions(tokens, temperature)

    def _of(self, tokens: MicroBatch) -> FrozenModel:
        names = {sequence.teacher for sequence in tokens.sequences}
        assert len(names) <= 1, names
        # What only keeps a rank in step has no teacher, and no loss whoever says something of it.
        return self._teachers[names.pop()] if names else next(iter(self._teachers.values()))


class AskedTeacher:
    """A teacher that was asked while the policy sampled: what it said came with the completions."""

    can_pack = True

    def logprobs(self, tokens: MicroBatch, temperature: float) -> Tensor:  # noqa: ARG002  # it was asked at 1
        """As `Teacher`."""
        if not tokens.sequences:
            return torch.zeros_like(tokens.rollout_logprobs_N)
        assert tokens.teacher_logprobs_N is not None, "a group that the teacher did not score is not trained on"
        return tokens.teacher_logprobs_N

    def predictions(self, tokens: MicroBatch, temperature: float) -> Predictions:  # noqa: ARG002  # there are none
        """Of the sampled tokens alone it said anything; the configuration asks for no more."""
        raise AssertionError("a teacher that is asked over HTTP has no distributions")


class StartTeacher(FrozenModel):
    """The policy as it was when the run began, behind the prompts with demonstrations."""

    def logprobs(self, tokens: MicroBatch, temperature: float) -> Tensor:
        """As `Teacher`."""
        return super().logprobs(tokens.demonstrated or tokens, temperature)

    def predictions(self, tokens: MicroBatch, temperature: float) -> Predictions:
        """As `Teacher`."""
        return super().predictions(tokens.demonstrated or tokens, temperature)


class PolicyTeacher:
    """The policy itself by its current weights, behind the prompts with demonstrations. Collective under ZeRO-3."""

    def __init__(self, engine: Any, policy: LogprobModel) -> None:
        """`engine`: the policy under DeepSpeed, through which it must be called."""
        self._engine = engine
        self._policy = policy

    @property
    def can_pack(self) -> bool:
        """As `Teacher`."""
        return self._policy.can_pack

    @torch.no_grad()
    def logprobs(self, tokens: MicroBatch, temperature: float) -> Tensor:
        """As `Teacher`."""
        shown = tokens.demonstrated or tokens
        logprobs_N: Tensor = self._engine(shown.inputs, shown.targets_N, temperature)[0]
        return logprobs_N

    @torch.no_grad()
    def predictions(self, tokens: MicroBatch, temperature: float) -> Predictions:
        """As `Teacher`. Its matrix is the policy's own, which under ZeRO-3 is whole in the policy's pass alone."""
        shown = tokens.demonstrated or tokens
        (states_N,) = self._engine(shown.inputs, None, temperature)
        return self._policy.predictions_of(states_N, with_matrix=False)

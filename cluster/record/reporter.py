"""What a person is told of a run, and of which records: whoever tells it knows no terminal."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cluster.config import RunConfig
from cluster.types import RunSummary


@dataclass(frozen=True, slots=True, kw_only=True)
class StepView:
    """A finished training step. None is a value that the step did not have."""

    step: int
    """From 0."""
    num_steps: int
    policy_version: int
    reward: float | None
    """Mean over scored completions."""
    accuracy: float | None
    lag_mean: float | None
    lag_max: float | None
    sampler_tokens_per_s: float | None
    learner_tokens_per_s: float | None
    step_s: float
    skipped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalView:
    """A finished evaluation."""

    step: int
    """Training steps before it."""
    accuracy: float | None
    """pass@1; None when nothing could be scored."""
    num_prompts: int
    num_samples: int
    duration_s: float


class Reporter(Protocol):
    """Where the controller says what happens. Methods return at once and do not raise for a closed terminal."""

    def start(self, config: RunConfig, run_dir: Path) -> None:
        """The run has a folder, and its processes are about to be started."""

    def phase(self, text: str) -> None:
        """What is being waited for, such as "starting 3 actors"."""

    def step(self, view: StepView) -> None:
        """A training step is done."""

    def evaluation(self, view: EvalView) -> None:
        """An evaluation is done."""

    def warn(self, text: str) -> None:
        """Something that a person should know; the run goes on."""

    def finish(self, summary: RunSummary) -> None:
        """The end, good or bad; the last call."""


def step_view(step: int, num_steps: int, metrics: Mapping[str, float]) -> StepView:
    """The view of a step from its metrics (`cluster.record.metrics`)."""
    return StepView(
        step=step,
        num_steps=num_steps,
        policy_version=int(metrics["train/policy_version"]),
        reward=metrics.get("reward/mean"),
        accuracy=metrics.get("reward/accuracy"),
        lag_mean=metrics.get("lag/mean"),
        lag_max=metrics.get("lag/max"),
        sampler_tokens_per_s=metrics.get("rollout/tokens_per_s"),
        learner_tokens_per_s=metrics.get("train/tokens_per_s"),
        step_s=metrics["time/step_s"],
        skipped=metrics.get("train/skipped", 0.0) > 0,
    )

"""What a person is told of a run, and of which records: whoever tells it knows no terminal."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from cluster.config import RunConfig
from cluster.types import RunSummary


class Part(StrEnum):
    """What a run spends its time with, one after the other; the values are what a person reads."""

    INPUTS = "model and data"
    START = "start"
    EVALUATION = "evaluation"
    TRAINING = "training"
    SAVING = "saving"


class PartClock:
    """Seconds of each part. A part may come several times."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._part, self._since_s = Part.INPUTS, clock()
        self._seconds: dict[Part, float] = {}

    def enter(self, part: Part) -> None:
        """The part before ends here."""
        now_s = self._clock()
        self._seconds[self._part] = self._seconds.get(self._part, 0.0) + now_s - self._since_s
        self._part, self._since_s = part, now_s

    def seconds(self) -> dict[Part, float]:
        """Of each part until now, in the order in which they first began."""
        self.enter(self._part)
        return dict(self._seconds)


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

    def phase(self, text: str, part: Part | None = None) -> None:
        """What is being waited for, such as "starting 3 actors". `part` is what its time counts as from here on; None
        where that does not change."""

    def progress(self, text: str, done: float) -> None:
        """How far a long piece of work is, from 0 to 1."""

    def step(self, view: StepView) -> None:
        """A training step is done."""

    def evaluation(self, view: EvalView) -> None:
        """An evaluation is done."""

    def warn(self, text: str) -> None:
        """Something that a person should know; the run goes on."""

    def close(self) -> None:
        """Gives the terminal back without a summary."""

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

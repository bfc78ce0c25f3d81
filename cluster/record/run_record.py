"""What the controller puts on record: files of the run, trackers, and what a person sees, from one place."""

from collections.abc import Sequence
from typing import Any

from cluster.config import RunConfig
from cluster.configuration.redact import redact_text
from cluster.record.metrics import step_metrics
from cluster.record.run_directory import RunDirectory
from cluster.record.terminal import EvalView, Reporter, step_view
from cluster.record.trackers import Trackers
from cluster.types import (
    ActorState,
    Evaluation,
    Event,
    EventKind,
    GroupCounts,
    Instant,
    StepTimings,
    Transition,
    now_s,
)
from learner.types import SequenceOutput, StepOutput, TrainBatch
from reward.types import ScoredGroup


class RunRecord:
    """Writes what happened. Errors of every method: `RunWriteError` when the disk refuses."""

    def __init__(self, config: RunConfig, run: RunDirectory, reporter: Reporter, trackers: Trackers) -> None:
        self._config = config
        self._run = run
        self._reporter = reporter
        self._trackers = trackers

    def span(self, kind: EventKind, actor: str, started_s: float, **facts: Any) -> None:
        """An actor's time from `started_s` (Unix) to now."""
        self._run.append_event(Event(kind=kind, actor=actor, start_s=started_s, end_s=now_s(), **facts))

    def step(
        self,
        batch: TrainBatch,
        outputs: Sequence[StepOutput],
        rejected: Sequence[tuple[ScoredGroup, str]],
        counts: GroupCounts,
        timings: StepTimings,
    ) -> None:
        """A training step that was taken, with the groups rejected since the one before."""
        metrics = step_metrics(
            batch.groups, outputs[0], timings=timings, counts=counts, policy_version=batch.policy_version
        )
        sequences: list[SequenceOutput] = [sequence for output in outputs for sequence in output.sequences]
        self._run.write_rollouts(batch.step, batch.groups, sequences, rejected)
        self._run.append_metrics(batch.step, metrics)
        self._trackers.log(batch.step, metrics)
        self._reporter.step(step_view(batch.step, self._config.steps, metrics))

    def evaluation(self, step: int, evaluation: Evaluation, policy_version: int, started_s: float) -> None:
        """An evaluation after `step` training steps."""
        metrics = {**evaluation.metrics, "eval/policy_version": float(policy_version)}
        self._run.append_evaluation(step, metrics)
        self._run.write_eval_rollouts(step, evaluation.groups)
        self._trackers.log(step, metrics)
        self.span(EventKind.EVAL, "controller", started_s, step=step)
        view = EvalView(
            step=step,
            accuracy=evaluation.accuracy,
            num_prompts=len(evaluation.groups),
            num_samples=self._config.eval.num_samples,
            duration_s=evaluation.duration_s,
        )
        self._reporter.evaluation(view)

    def transition(self, change: Transition, step: int) -> None:
        """An actor's health changed."""
        text, at_s = redact_text(change.reason), now_s()
        extra = {"name": Instant.STATE, "state": str(change.new), "before": str(change.old), "reason": text}
        self._run.append_event(
            Event(kind=EventKind.INSTANT, actor=change.actor, start_s=at_s, end_s=at_s, step=step, extra=extra)
        )
        if change.new is ActorState.DEAD:
            self._reporter.warn(f"{change.actor} is given up: {text}")

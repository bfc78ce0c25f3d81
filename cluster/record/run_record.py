"""What the controller puts on record: files of the run, trackers, and what a person sees, from one place."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.config import RunConfig
from cluster.configuration.redact import redact_text
from cluster.record.group_table import OpenGroup
from cluster.record.judge_metrics import cost_metrics, judge_metrics
from cluster.record.metrics import step_metrics
from cluster.record.reporter import EvalView, Reporter, step_view
from cluster.record.run_directory import RunDirectory
from cluster.record.tracker_tables import tracker_table
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
from learner.types import CompletionKey, ComputedTokens, StepOutput, TokenValues, TrainBatch
from rollout.prompts.stream import StreamFacts
from rollout.types import RolloutGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedStep:
    """A training step that every rank has taken, with all that belongs on record."""

    batch: TrainBatch
    groups: tuple[RolloutGroup, ...]
    """[P] the completions of the batch's groups."""
    advantages: Mapping[CompletionKey, float | None]
    """Of every completion of the batch."""
    outputs: tuple[StepOutput, ...]
    """[rank]"""
    tokens: tuple[ComputedTokens, ...]
    """[rank]"""


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

    async def step(
        self,
        trained: TrainedStep,
        rejected: Sequence[OpenGroup],
        counts: GroupCounts,
        timings: StepTimings,
        stream: StreamFacts,
    ) -> None:
        """A training step that was taken, with the groups rejected since the one before. Counting and writing are done
        in a thread: the loop goes on meanwhile."""
        batch = trained.batch
        metrics = await asyncio.to_thread(self._write_step, trained, rejected, counts, timings, stream)
        self._run.append_metrics(batch.step, metrics)
        self._trackers.log(batch.step, metrics)
        self._reporter.step(step_view(batch.step, self._config.steps, metrics))

    def _write_step(
        self,
        trained: TrainedStep,
        rejected: Sequence[OpenGroup],
        counts: GroupCounts,
        timings: StepTimings,
        stream: StreamFacts,
    ) -> dict[str, float]:
        batch = trained.batch
        metrics = step_metrics(
            batch.groups,
            trained.outputs[0],
            timings=timings,
            counts=counts,
            policy_version=batch.policy_version,
            stream=stream,
        )
        # What was rejected has cost as much as what was trained on.
        metrics |= cost_metrics([*batch.groups, *(of.scored for of in rejected)])
        metrics |= judge_metrics(batch.groups, self._config.reward)
        values: dict[CompletionKey, TokenValues] = {}
        for tokens in trained.tokens:
            values |= tokens.by_completion()
        opened = [OpenGroup(scored=s, group=g) for s, g in zip(batch.groups, trained.groups, strict=True)]
        self._run.write_rollouts(batch.step, [*opened, *rejected], trained.advantages, values)
        if num_rows := self._config.trackers.rollouts:
            self._trackers.table(tracker_table(batch.step, opened, trained.advantages, num_rows))
        return metrics

    async def evaluation(self, step: int, evaluation: Evaluation, policy_version: int, started_s: float) -> None:
        """An evaluation after `step` training steps."""
        metrics = {**evaluation.metrics, "eval/policy_version": float(policy_version)}
        opened = [OpenGroup(scored=s, group=g) for s, g in zip(evaluation.groups, evaluation.completions, strict=True)]
        await asyncio.to_thread(self._run.write_eval_rollouts, step, opened)
        self._run.append_evaluation(step, metrics)
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

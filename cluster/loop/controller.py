"""The loop of a run.

    _sample_loop --prompts--> GroupPipeline (sample, score) --scored groups--> GroupBuffer --P groups--> _train_loop
         ^                                                                         ^                        |
         |                                                                         +--- release, after -----+
         +----------------------------- free slots ------------------------------------ WeightSync.publish

    _sample_loop  consumes prompts            waits for a free slot               unblocked by release, or a rejection
    pipeline      consumes one leased prompt  waits for sampler, reward worker    unblocked by them
    _train_loop   consumes P scored groups    waits for the P oldest groups       unblocked by the pipeline

With `max_policy_lag` 0 there are P slots, so the three take turns; with k there are (k + 1) * P and sampling runs
ahead.
A step ends in this order: train, drain, sync, record, evaluate, release, save. What a checkpoint holds is noted before
the release, when the logs end with a step, so it is exact; it is written while the engines sample for the next one.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from cluster.errors import DivergenceError, UnsavedError
from cluster.fleet.deadlines import first_of
from cluster.fleet.progress import Progress
from cluster.fleet.recovery import Recovery
from cluster.fleet.stack_files import StackFiles
from cluster.fleet.watchdog import Watchdog
from cluster.groups.buffer import GroupBuffer
from cluster.groups.ledger import Ledger
from cluster.groups.pipeline import GroupPipeline, PipelineParts
from cluster.groups.reward_router import RewardRouter
from cluster.loop.background import BackgroundTasks
from cluster.loop.batches import Batches, BatchParts, TakenBatch
from cluster.loop.boundary import Boundary
from cluster.loop.drain import Drain
from cluster.loop.evaluation import evaluate
from cluster.loop.parts import RunParts
from cluster.loop.publisher import Publisher
from cluster.record.reporter import Part
from cluster.record.run_record import RunRecord, TrainedStep
from cluster.types import EventKind, GroupCounts, RunSummary, StepTimings, Transition, now_s
from cluster.weights.learner_group import LearnerGroup, LearnerParts
from cluster.weights.run_state import RunState
from cluster.weights.weight_sync import WeightSync
from learner.types import StepOutput, TrainBatch
from reward.types import ScoredGroup
from rollout.errors import StepGivenUpError
from rollout.types import Prompt, RolloutGroup


class Controller:
    """Runs the steps of one run. Everything it waits for has a deadline and a typed error."""

    def __init__(self, parts: RunParts, stop: asyncio.Event) -> None:
        config = parts.config
        self._parts = parts
        self._config = config
        self._stop = stop
        self._state = parts.start
        self._num_taken = parts.start.step
        self._at_boundary = True
        """Whether what was trained is on record: what is between two steps can be saved."""
        self._started_s = now_s()
        self._step_ended_s = time.monotonic()
        self._buffer = GroupBuffer(
            prompts_per_step=config.rollout.prompts_per_step, max_policy_lag=config.max_policy_lag
        )
        self._ledger = Ledger(parts.run.append_ledger, now_s, parts.start.ledger)
        self._record = RunRecord(config, parts.run, parts.reporter, parts.trackers)
        self._background = BackgroundTasks()
        self._recovery = Recovery(config.recovery, parts.fleet, self._background.spawn)
        self._recovery.supervisor.changes.subscribe(self._record_transition)
        self._progress = Progress(config.recovery.stall_s)
        self._router = RewardRouter(config, parts.fleet, self._recovery, on_scored=self._progress.group_scored)
        stacks = StackFiles(parts.fleet, parts.run, parts.warn)
        self._recovery.hung.subscribe(stacks.on_hung)
        self._watchdog = Watchdog(config.recovery, self._recovery, self._progress, stacks, self._router.is_busy)
        self._learners = LearnerGroup(
            config,
            parts.fleet,
            LearnerParts(recovery=self._recovery, checkpoints=parts.checkpoints, run=parts.run),
            start_step=parts.start.step,
            on_restart=parts.warn,
        )
        self._connect(parts, stop)

    def _connect(self, parts: RunParts, stop: asyncio.Event) -> None:
        """What uses the rest: the way of the groups, and that of the weights."""
        config = parts.config
        pipeline_parts = PipelineParts(
            buffer=self._buffer,
            ledger=self._ledger,
            router=self._router,
            recovery=self._recovery,
            run=parts.run,
            spawn=self._background.spawn,
            on_taught=self._progress.group_taught,
        )
        self._pipeline = GroupPipeline(config, parts.fleet, pipeline_parts, warn=parts.warn)
        batch_parts = BatchParts(
            buffer=self._buffer,
            pipeline=self._pipeline,
            learners=self._learners,
            on_accumulated=partial(self._record_training, EventKind.ACCUMULATE),
            warn=parts.warn,
        )
        self._batches = Batches(config, parts.fleet, batch_parts)
        self._boundary = Boundary(parts, self._buffer, self._ledger, self._pipeline)
        drain = Drain(config, self._buffer, self._pipeline, self._background, stop)
        sync = WeightSync(config, parts.fleet, parts.canary_prompts)
        self._publisher = Publisher(sync, self._learners, self._recovery, drain, self._record)

    def _record_transition(self, change: Transition) -> None:
        self._record.transition(change, self._state.step)

    async def run(self) -> RunSummary:
        """Trains until the last step, a stop, or an error; the checkpoint of where it ended is written in each case.

        Shutdown: the loops end first, then the state is saved, so that nothing moves while it is written. After an
        error inside a training step the learner may be half-way, or the step not on record: then the checkpoint before
        stays the newest.

        Errors: `UnsavedError` when the checkpoint could not be written; whatever ended the run before.
        """
        is_saved = False
        self._mark_boundary()
        try:
            await self._background.run_beside(self._train_loop())
        finally:
            await self._background.cancel()
            closing = asyncio.ensure_future(self._close_sampling())
            if self._learners.is_whole and self._at_boundary:
                is_saved = await self._save(self._boundary.snapshot(self._state))
            await closing
        if not is_saved:
            raise UnsavedError(
                f"the run ended after {self._state.step} steps, and no checkpoint of them was written (the warning "
                "before says why): what came after the newest one is lost; mend the cause, and --resume trains it again"
            )
        is_whole = self._state.step == self._config.steps and not self._final_evaluation_is_owed()
        return self.summary("finished" if is_whole else "interrupted")

    async def _close_sampling(self) -> None:
        """Beside the last save. A run that samples ahead saves groups whose completions its samplers hold."""
        if self._config.max_policy_lag == 0:
            await self._parts.fleet.close_sampling()

    def summary(self, status: Any, error: str = "") -> RunSummary:
        """The run as it stands now."""
        return RunSummary(
            status=status,
            num_steps=self._state.step,
            policy_version=self._state.policy_version,
            weights_digest=self._publisher.weights_digest,
            accuracy_before=self._state.accuracy_before,
            accuracy_after=self._state.accuracy if self._state.evaluated_at == self._state.step else None,
            wall_s=now_s() - self._started_s,
            groups_dispatched=self._ledger.dispatched,
            groups_trained=self._ledger.trained,
            groups_rejected=self._ledger.rejected,
            groups_in_flight=self._ledger.in_flight,
            error=error,
        )

    # The loops.

    async def _train_loop(self) -> None:
        self._background.spawn(self._recovery.watch())
        self._background.spawn(self._watchdog.watch())
        in_time, _ = await first_of(self._publisher.publish(self._state.step), self._stop)
        if not in_time:
            return
        if self._state.step == 0 and self._state.evaluated_at is None and self._config.eval.at_start:
            await self._evaluate()
        self._mark_boundary()
        await self._boundary.restore(self._parts.start)
        if self._config.max_policy_lag > 0:
            # In buffer and pipeline now, which a checkpoint asks: kept here they would be kept for the whole run.
            self._state = replace(self._state, scored=(), requeued=())
        if self._evaluation_is_owed():
            await self._evaluate()
            self._mark_boundary()
        self._say_training()
        self._background.spawn(self._sample_loop())
        while self._state.step < self._config.steps and not self._stop.is_set():
            taking = self._batches.take(self._state.step, self._state.policy_version, self._count_taken)
            in_time, batch = await first_of(taking, self._stop)
            if not in_time:
                return
            await self._step(batch)
        if self._final_evaluation_is_owed():
            await self._evaluate()
            self._mark_boundary()

    def _evaluation_is_owed(self) -> bool:
        """Whether the last step that was made is one after which is evaluated, and that was not: a stop may have come
        between the two."""
        state, every = self._state, self._config.eval.every
        return bool(every and state.step and state.step % every == 0 and state.evaluated_at != state.step)

    def _final_evaluation_is_owed(self) -> bool:
        """Whether the last step is done and its evaluation is not: a stop may have come between the two."""
        state, config = self._state, self._config
        at_end = config.eval.at_end and bool(self._parts.eval_prompts)
        return at_end and state.step == config.steps and state.evaluated_at != state.step

    async def _sample_loop(self) -> None:
        while True:
            await self._buffer.wait_until(lambda: self._num_to_dispatch() > 0)
            async with self._pipeline.launching:
                prompts = [self._parts.stream.next() for _ in range(self._num_to_dispatch())]
                for prompt in prompts:
                    await self._buffer.admit(prompt.group_id)
                await self._pipeline.launch(prompts)

    def _num_to_dispatch(self) -> int:
        """Groups to start now: as many as there are slots, and no more than the steps to come will consume."""
        config = self._config
        # Synchronous: a replacement for a rejected group waits for the others, so that what an engine computes
        # together does not depend on who was faster.
        if config.max_policy_lag == 0 and self._buffer.num_unscored > 0:
            return 0
        still_needed = (config.steps - self._num_taken) * config.rollout.prompts_per_step - self._buffer.num_waiting
        return max(0, min(self._buffer.num_free, still_needed))

    def _count_taken(self, batches: int) -> None:
        self._num_taken += batches  # at once: `_num_to_dispatch` counts what is still to come

    # One step.

    async def _step(self, batch: TakenBatch) -> None:
        # A sampler or reward worker that fails meanwhile ends the run only when the step is on record: it was paid for,
        # and a learner that is left half-way cannot be saved.
        async with self._background.uninterrupted():
            try:
                output = await self._train_and_record(batch)
            except StepGivenUpError:
                self._at_boundary = True  # nothing has moved
                return
        self._ledger.check()
        self._end_if_diverged(output)
        step, config = self._state.step, self._config
        if self._evaluation_is_owed():
            await self._evaluate()
        self._mark_boundary()
        state = self._boundary.snapshot(self._state)
        await self._buffer.release()
        # The last one is written by `run`, after everything else has ended.
        if config.checkpoint.every and step % config.checkpoint.every == 0 and step < config.steps:
            # Not cut short: the ranks would go on writing where the last save, of the same step, begins.
            async with self._background.uninterrupted():
                await self._save(state)
            self._say_training()

    async def _train_and_record(self, taken: TakenBatch) -> StepOutput:
        step, version = self._state.step, self._state.policy_version
        started = time.monotonic()
        self._at_boundary = False
        groups = tuple(of.scored for of in taken.groups)
        batch = TrainBatch(step=step, policy_version=version, groups=groups)
        trained = await self._train(batch, [of.group for of in taken.groups])
        train_s = time.monotonic() - started + taken.accumulate_s
        output = trained.outputs[0]
        for scored in groups:
            self._ledger.consume(scored.group_id, scored.group.facts.attempt, step)
        self._buffer.consume()
        self._state = replace(self._state, step=step + 1, policy_version=output.policy_version)
        # Asked to stop: the checkpoint is what matters now, and whoever resumes syncs first anyway.
        started = time.monotonic()
        if not output.skipped:
            self._publisher.weights_digest = ""  # of weights that no engine has yet; known when they are published
        try:
            if not (self._stop.is_set() or self._background.has_failed or output.skipped):
                await first_of(self._publisher.after_step(self._state.step), self._stop)
        finally:
            # The step was taken, so it is on record even if its weights could not be published: what is saved then
            # goes on after it.
            timings = StepTimings(
                step_s=time.monotonic() - self._step_ended_s,
                generate_s=max(s.group.facts.finished_s for s in groups) - min(s.group.facts.started_s for s in groups),
                score_s=sum(s.scores.finished_s - s.scores.started_s for s in groups),
                train_s=train_s,
                sync_s=time.monotonic() - started,
                wait_s=taken.wait_s,
                streamed_s=taken.streamed_s if self._config.learner.streaming else None,
                ended_s=now_s(),
            )
            self._step_ended_s = time.monotonic()
            counts = GroupCounts(
                dispatched=self._ledger.dispatched,
                trained=self._ledger.trained,
                in_flight=self._ledger.in_flight,
                rejected=self._ledger.rejected,
                late_results=self._ledger.late_results,
            )
            stream, rejected = self._parts.stream, self._pipeline.take_rejected()
            # At the end of a step and at no other time, so that who is asked next does not depend on who was faster.
            stream.learn(_pass_rates([*groups, *(scored for scored, _ in rejected)]))
            opened_rejected = await self._boundary.opened(rejected)
            await self._record.step(trained, opened_rejected, counts, timings, stream.facts())
            self._state = replace(self._state, ledger=self._ledger.state(), stream=stream.state())
            self._mark_boundary()
            self._at_boundary = True
        return output

    async def _train(self, batch: TrainBatch, groups: list[RolloutGroup]) -> TrainedStep:
        started_s = now_s()
        work = asyncio.ensure_future(self._learners.train(batch, groups))
        stopped = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait((work, stopped), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                await self._learners.give_up(batch.step)
            trained = await work
        finally:
            for pending in (work, stopped):
                pending.cancel()
            await asyncio.gather(work, stopped, return_exceptions=True)
        self._progress.step_trained()
        self._record_training(EventKind.TRAIN, batch.groups, started_s, batch.step)
        return trained

    def _record_training(self, kind: EventKind, groups: Sequence[ScoredGroup], started_s: float, step: int) -> None:
        ids = tuple(scored.group_id for scored in groups)
        for learner in self._parts.fleet.learners:
            self._record.span(kind, learner.name, started_s, step=step, ids=ids)

    def _end_if_diverged(self, output: StepOutput) -> None:
        if output.reason:
            self._parts.warn(f"step {output.step}: {output.reason}")
        if output.bad_steps_in_a_row >= self._config.learner.max_bad_steps:
            raise DivergenceError(
                f"{output.bad_steps_in_a_row} steps in a row had a loss or gradient that is not finite, the last step "
                f"{output.step}: {output.reason}; the weights before them are in the newest checkpoint: lower "
                "learner.lr, look at the rollouts of these steps, and resume"
            )

    # Evaluation and checkpoints.

    async def _evaluate(self) -> None:
        if not self._parts.eval_prompts or self._stop.is_set():
            return
        parts, step, started_s = self._parts, self._state.step, now_s()
        parts.reporter.phase(f"evaluating on {len(parts.eval_prompts)} held-out questions", Part.EVALUATION)
        work = evaluate(self._config.eval, parts.eval_prompts, parts.fleet, self._router, self._recovery)
        in_time, evaluation = await first_of(work, self._stop)
        if not in_time:
            return
        # On record first: what counts as done and is not there would never be made up for.
        await self._record.evaluation(step, evaluation, self._state.policy_version, started_s)
        accuracy = evaluation.accuracy
        before = accuracy if step == 0 else self._state.accuracy_before
        self._state = replace(self._state, accuracy=accuracy, accuracy_before=before, evaluated_at=step)
        if step:
            self._say_training()

    def _say_training(self) -> None:
        """At the start of the steps, and after what came between two of them."""
        if self._state.step < self._config.steps:
            self._parts.reporter.phase("training", Part.TRAINING)

    async def _save(self, state: RunState) -> bool:
        """Whether there is a checkpoint of `state` now."""
        started_s = now_s()
        self._parts.reporter.phase(f"saving what {state.step} steps have made", Part.SAVING)
        path = await self._learners.use(lambda: self._parts.checkpoints.save(self._parts.fleet, state))
        if path is not None:
            self._ledger.committed(state.step, path.name)
            self._record.span(EventKind.SAVE, "controller", started_s, step=state.step, extra={"checkpoint": path.name})
        return path is not None

    def _mark_boundary(self) -> None:
        """Between two steps: what the logs hold now is what a run that goes on from here keeps of them."""
        self._state = replace(self._state, log_sizes=self._parts.run.sizes())


def _pass_rates(groups: Sequence[ScoredGroup]) -> list[tuple[Prompt, float]]:
    """Of each group of which anything is known."""
    rates = [(scored.group.prompt, scored.pass_rate) for scored in groups]
    return [(prompt, rate) for prompt, rate in rates if rate is not None]

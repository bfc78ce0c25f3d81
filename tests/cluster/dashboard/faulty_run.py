"""A run in which everything failed that can fail and be mended, and then one thing too many.

    python -m tests.cluster.dashboard.faulty_run DIR      writes DIR/ended and DIR/live

Three groups a step, on the clock of `FaultyRun`. What is written comes from the classes that write it in a real run:
ledger, supervisor, run record, checkpoints, watchdog, reward health.

    step 1   sampler-1 is killed while it serves: its group is sampled by sampler-0, attempt 2; restart 1
    step 2   sampler-0 is too slow: two leases run out, sampler-1 samples these groups, both late answers are refused
    step 3   3 of 12 rewards fail; reward-0 is killed: restart 2; checkpoint of step 4
    step 4   the gradient is not finite: skipped; then nothing for 400 s: stacks
    step 5   learner-1 is killed: the checkpoint of step 4 is damaged, steps 2 to 4 are trained again; restart 3
             the disk is full: no checkpoint of step 6
    step 6   sampler-0 is killed. `ended`: no restart is left, and the last checkpoint is not written either.
             `live`: it has started and waits for weights, reward-1 is being started, learner-0 is dead
"""

import argparse
import asyncio
import errno
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cluster.config import RunConfig
from cluster.errors import ActorFailedError, RestartsExhaustedError, StageTimeoutError
from cluster.fleet.actors import Actor
from cluster.fleet.progress import Progress
from cluster.fleet.stack_files import StackFiles
from cluster.fleet.supervisor import HealthPolicy, Supervisor
from cluster.fleet.watchdog import Watchdog
from cluster.groups.ledger import Ledger
from cluster.groups.reward_health import RewardHealth
from cluster.record.instants import run_instant, warner
from cluster.record.run_directory import RunDirectory
from cluster.record.run_record import RunRecord
from cluster.record.terminal import PlainReporter
from cluster.record.trackers import Trackers
from cluster.types import Event, GroupCounts, Instant, RunSummary, StepTimings, Transition
from cluster.weights.checkpointing import Checkpoints
from learner.types import StepOutput, TrainBatch
from reward.types import ScoredGroup
from rollout.prompts.stream import StreamFacts
from tests.cluster.dashboard.small_runs import EQUAL, FAILED, MIXED, RIGHT, WRONG, Sample, config, group, trained_step
from tests.cluster.dashboard.stamped import Stamped
from tests.cluster.examples import scored_of
from tests.cluster.fakes import FakeHandle, FakeLearner, NoLauncher, fleet_of, recovery_of
from tests.cluster.weights.test_checkpoint_faults import flip_one_bit
from tests.cluster.weights.test_checkpointing import state_at

STARTED_S = 1_790_000_000.0
"""Unix time at which `ended` begins."""
LENGTH_S = 660.0
"""Of either run, at the most."""
P, LEASE_S, STALL_S = 3, 60.0, 300.0
SAMPLERS = ("sampler-0", "sampler-1")
OTHERS = ("reward-0", "reward-1", "learner-0", "learner-1")
KILLED = "ActorDiedError: the process was ended by signal 9 (SIGKILL)"
NO_SPACE = "No space left on device"
NOT_FINITE = "the norm of the gradient is not finite"
FAILING = (RIGHT, WRONG, FAILED, FAILED)


class Stacks(NoLauncher):
    async def stacks(self, name: str) -> str:
        return f"{name}: Thread 0x1 (most recent call first): in wait_for_ever\n"


def faulty_config(**changes: object) -> RunConfig:
    values: dict[str, object] = {
        "steps": 8,
        "rollout__prompts_per_step": P,
        "rollout__num_engines": len(SAMPLERS),
        "rollout__group_deadline_s": LEASE_S,
        "reward__num_workers": 2,
        "learner__num_ranks": 2,
        "eval__at_start": False,
        "eval__at_end": False,
        "checkpoint__every": 2,
        "checkpoint__keep": 3,
        "recovery__stall_s": STALL_S,
        "recovery__max_restarts": 3,
    }
    return config(**{**values, **changes})


class FaultyRun:
    """One run on its way to disk."""

    def __init__(self, path: Path, *, started_s: float, **changes: object) -> None:
        self.config = faulty_config(**changes)
        self.run = RunDirectory.create(path, self.config)
        self.now_s = 0.0
        self._started_s = started_s
        self._step = self._version = 0
        stamped: Any = Stamped(self.run, self.clock)
        reporter = PlainReporter(io.StringIO())
        self.warn = warner(stamped, reporter)
        self.ledger = Ledger(self.run.append_ledger, self.clock)
        self._record = RunRecord(self.config, stamped, reporter, Trackers({}, self.warn))
        budget = self.config.recovery.max_restarts
        self.supervisor = Supervisor(HealthPolicy(max_restarts=budget), self.clock, samplers=SAMPLERS, others=OTHERS)
        self.supervisor.changes.subscribe(self._on_change)
        reward = self.config.reward
        self._health = RewardHealth(
            prompts_per_step=P, warn_fraction=reward.warn_failure_fraction, max_fraction=reward.max_failure_fraction
        )
        self.learner = FakeLearner([])
        self._fleet = fleet_of(learners=[self.learner])
        self.checkpoints = Checkpoints(
            self.run.checkpoints_path,
            self.config.checkpoint,
            warn=self.warn,
            on_set_aside=stamped.checkpoint(Instant.CHECKPOINT_SET_ASIDE),
            on_not_written=stamped.checkpoint(Instant.CHECKPOINT_NOT_WRITTEN),
        )
        watched = [Actor(name=name, handle=FakeHandle(None)) for name in (*OTHERS, *SAMPLERS)]
        everybody = replace(fleet_of(), samplers=tuple(watched), launcher=Stacks())  # type: ignore[arg-type]
        watch = self.config.recovery
        self.progress = Progress(watch.stall_s, self.clock)
        stacks = StackFiles(everybody, stamped, self.warn)
        self.watchdog = Watchdog(watch, recovery_of(everybody), self.progress, stacks)

    def clock(self) -> float:
        """Unix time."""
        return self._started_s + self.now_s

    def _on_change(self, change: Transition) -> None:
        self._record.transition(change, self._step)

    def span(self, kind: Any, actor: str, length_s: float, **facts: Any) -> None:
        """One that ends now."""
        now = self.clock()
        self.run.append_event(Event(kind=kind, actor=actor, start_s=now - length_s, end_s=now, **facts))

    # What goes well.

    def sync(self, samplers: Sequence[str] = SAMPLERS) -> None:
        for name in samplers:
            self.supervisor.update_began(name)
        self.now_s += 1.0
        for name in samplers:
            extra = {"policy_version": self._version, "bytes": 1024, "canary_max_error": 0.0}
            self.span("sync", name, 1.0, step=self._step, extra=extra)
            self.supervisor.synced(name, self._version)

    def lease(self) -> list[ScoredGroup]:
        """The groups of a step, dealt out in turn; each sampled and scored as it will be."""
        groups = []
        for i in range(P):
            sampler = SAMPLERS[i % 2]
            index = self._step * P + i
            leased = group(index, MIXED, version=self._version, epoch=self._step, question=i, worker=sampler)
            self.ledger.lease(leased.group_id, sampler, deadline_s=LEASE_S)
            groups.append(leased)
        return groups

    def step(
        self,
        fate: Callable[[list[ScoredGroup]], list[ScoredGroup]] = lambda groups: groups,
        samples: Sequence[Sequence[Sample]] = (MIXED, EQUAL, MIXED),
        *,
        while_training: Callable[[], None] = lambda: None,
        skipped: bool = False,
    ) -> None:
        began_s = self.now_s
        leased = fate(self.lease())
        self.now_s += 4.0
        groups = [self._sample(each, found) for each, found in zip(leased, samples, strict=True)]
        while_training()
        self.now_s += 6.0
        ids = tuple(scored.group_id for scored in groups)
        for learner in ("learner-0", "learner-1"):
            self.span("train", learner, 6.0, step=self._step, ids=ids)
        batch = TrainBatch(step=self._step, policy_version=self._version, groups=tuple(groups))
        for scored in groups:
            self.ledger.consume(scored.group_id, scored.group.facts.attempt, self._step)
        self._version += not skipped
        self._step += 1
        if not skipped:
            self.sync()
        self._put_on_record(batch, samples, self.now_s - began_s, skipped=skipped)
        self.ledger.check()

    def _sample(self, leased: ScoredGroup, samples: Sequence[Sample]) -> ScoredGroup:
        old, lease, now = leased.group, leased.group.facts, self.clock()
        found = group(
            old.prompt.index, samples, version=self._version, epoch=old.prompt.epoch, question=int(old.prompt.uid, 16)
        )
        sampled = replace(
            found.group.payload,
            prompt=old.prompt,
            attempt=lease.attempt,
            worker=lease.worker,
            started_s=now - 3,
            finished_s=now - 1,
        )
        scored = scored_of(sampled, found.rewards, worker="reward-1", started_s=now - 1, finished_s=now)
        assert self.ledger.sampled(sampled.group_id, sampled.attempt, self._version)
        extra = {"tokens": scored.group.facts.num_tokens, "policy_version": self._version}
        self.span("generate", sampled.worker, 3.0, ids=(sampled.group_id,), extra=extra)
        self.span("score", "reward-1", 1.0, ids=(sampled.group_id,), extra=extra)
        self.progress.group_scored()
        if warning := self._health.note(scored):
            self.warn(warning)
        self.ledger.scored(sampled.group_id, sampled.attempt)
        return scored

    def _put_on_record(
        self, batch: TrainBatch, samples: Sequence[Sequence[Sample]], step_s: float, *, skipped: bool
    ) -> None:
        norm = float("nan") if skipped else 1.0
        output = StepOutput(
            step=batch.step,
            policy_version=self._version,
            skipped=skipped,
            bad_steps_in_a_row=int(skipped),
            reason=NOT_FINITE if skipped else "",
            metrics={"grad_norm": norm, "entropy": 1.0, "kl_rollout": 1e-6, "lr": 1e-3, "ratio_mean": 1.0},
        )
        timings = StepTimings(step_s=step_s, generate_s=3.0, score_s=3.0, train_s=6.0, sync_s=1.0, ended_s=self.clock())
        ledger = self.ledger
        counts = GroupCounts(
            dispatched=ledger.dispatched,
            trained=ledger.trained,
            in_flight=ledger.in_flight,
            rejected=ledger.rejected,
            late_results=ledger.late_results,
        )
        stream = StreamFacts(tasks=("sums",))
        asyncio.run(self._record.step(trained_step(batch, samples, output), [], counts, timings, stream))
        if output.reason:
            self.warn(f"step {output.step}: {output.reason}")
        self.progress.step_trained()

    def save(self) -> None:
        state = replace(state_at(self._step), ledger=self.ledger.state(), log_sizes=self.run.sizes())
        path = asyncio.run(self.checkpoints.save(self._fleet, state))
        if path is not None:
            self.now_s += 1.0
            self.ledger.committed(self._step, path.name)
            self.span("save", "controller", 1.0, step=self._step, extra={"checkpoint": path.name})

    # What fails.

    def give_up(self, groups: list[ScoredGroup], sampler: str, error: Exception, to: str | None) -> list[ScoredGroup]:
        """The leases that `sampler` holds are given up, and given `to` another."""
        again = []
        for leased in groups:
            held = leased.group.facts
            if held.worker != sampler:
                again.append(leased)
                continue
            self.ledger.requeue(leased.group_id, held.attempt, str(error))
            if to is not None:
                held = replace(held, attempt=self.ledger.lease(leased.group_id, to, deadline_s=LEASE_S), worker=to)
                leased = replace(leased, group=replace(leased.group, facts=held))
            again.append(leased)
        return again

    def sampler_killed(self, name: str, groups: list[ScoredGroup], to: str | None) -> list[ScoredGroup]:
        self.now_s += 2.0
        error = ActorFailedError("sample", name, f"group {_first(groups, name)}", KILLED, died=True)
        self.supervisor.died(name, str(error))
        return self.give_up(groups, name, error, to)

    def restart(self, name: str, takes_s: float = 5.0) -> None:
        self.supervisor.begin_restart(name)
        self.now_s += takes_s
        self.supervisor.started(name)

    def killed_and_back(self, groups: list[ScoredGroup]) -> list[ScoredGroup]:
        """sampler-1; its group goes to sampler-0."""
        groups = self.sampler_killed("sampler-1", groups, "sampler-0")
        self.restart("sampler-1")
        self.sync(["sampler-1"])
        return groups

    def too_slow(self, groups: list[ScoredGroup]) -> list[ScoredGroup]:
        """sampler-0; it answers after all, three seconds after its leases ran out."""
        self.now_s += LEASE_S
        error = StageTimeoutError("sample", "sampler-0", f"group {_first(groups, 'sampler-0')}", LEASE_S)
        late = [leased.group_id for leased in groups if leased.group.facts.worker == "sampler-0"]
        self.supervisor.work_failed("sampler-0", str(error))
        groups = self.give_up(groups, "sampler-0", error, "sampler-1")
        self.now_s += 3.0
        for group_id in late:
            assert not self.ledger.sampled(group_id, 1, self._version)
        return groups

    def reward_killed(self, groups: list[ScoredGroup]) -> list[ScoredGroup]:
        item = f"group {groups[0].group_id}"
        self.supervisor.died("reward-0", str(ActorFailedError("score", "reward-0", item, KILLED, died=True)))
        self.restart("reward-0")
        return groups

    def stall(self) -> None:
        self.now_s += 400.0
        assert self.progress.new_stall()
        asyncio.run(self.watchdog._act())

    def learner_killed(self) -> None:
        """What `LearnerGroup` does: a restart, the newest checkpoint that is whole, the steps since once more."""
        error = ActorFailedError("train", "learner-1", f"step {self._step}", KILLED, died=True)
        flip_one_bit(self.run.checkpoints_path / "step-00000004")
        self.supervisor.died("learner-1", str(error))
        self.supervisor.begin_restart("learner-1")
        path, state = self.checkpoints.newest()
        assert path.name == "step-00000002"
        self.now_s += 30.0
        self.supervisor.started("learner-1")
        self.warn(f"{error}; all ranks were restarted and {self._step - state.step} steps trained again")

    def until_the_last_fault(self) -> list[ScoredGroup]:
        """Six steps; returns the groups of the seventh, which are leased."""
        self.sync()
        self.step()
        self.step(self.killed_and_back)
        self.save()
        self.step(self.too_slow)
        self.step(self.reward_killed, (FAILING, MIXED, (RIGHT, WRONG, RIGHT, FAILED)))
        self.save()
        self.step(skipped=True)
        self.stall()
        self.step(while_training=self.learner_killed)
        self.learner.save_error = OSError(errno.ENOSPC, NO_SPACE)
        self.save()
        return self.lease()

    def end(self, error: Exception) -> None:
        """What a run does last."""
        self.save()
        Stamped(self.run, self.clock).append_event(run_instant(Instant.ERROR, str(error)))
        ledger = self.ledger
        self.run.write_summary(
            RunSummary(
                status="failed",
                num_steps=self._step,
                policy_version=self._version,
                weights_digest="",
                accuracy_before=None,
                accuracy_after=None,
                wall_s=self.now_s,
                groups_dispatched=ledger.dispatched,
                groups_trained=ledger.trained,
                groups_rejected=ledger.rejected,
                groups_in_flight=ledger.in_flight,
                error=str(error),
                error_type=type(error).__name__,
                error_actor=str(getattr(error, "actor", "")),
            )
        )


def write_ended(path: Path) -> FaultyRun:
    faulty = FaultyRun(path, started_s=STARTED_S)
    faulty.sampler_killed("sampler-0", faulty.until_the_last_fault(), None)
    try:
        faulty.restart("sampler-0")
    except RestartsExhaustedError as error:
        faulty.end(RestartsExhaustedError("sampler-0", error.max_restarts, f"sample: sampler-0 failed: {KILLED}"))
        return faulty
    raise AssertionError("a restart was left")


def write_live(path: Path) -> FaultyRun:
    """As of now; it is live for others while its lock is held."""
    faulty = FaultyRun(path, started_s=time.time() - LENGTH_S, recovery__max_restarts=6)
    faulty.sampler_killed("sampler-0", faulty.until_the_last_fault(), None)
    faulty.restart("sampler-0")
    for name, stage, item in (("reward-1", "score", "a group"), ("learner-0", "train", "step 6")):
        faulty.supervisor.died(name, str(ActorFailedError(stage, name, item, KILLED, died=True)))
    faulty.supervisor.begin_restart("reward-1")
    assert faulty.now_s < LENGTH_S
    return faulty


def _first(groups: Sequence[ScoredGroup], sampler: str) -> str:
    return next(leased.group_id for leased in groups if leased.group.facts.worker == sampler)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write runs in which everything failed.")
    parser.add_argument("folder", type=Path, metavar="DIR")
    folder = parser.parse_args().folder
    write_ended(folder / "ended")
    write_live(folder / "live")


if __name__ == "__main__":
    main()

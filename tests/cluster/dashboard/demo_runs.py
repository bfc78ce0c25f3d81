"""Seeded run directories with one known fault, or none, written as a real run writes them.

    python -m tests.cluster.dashboard.demo_runs DIR [--kind healthy] [--seed 0] [--steps 40] [--live SECONDS_PER_STEP]

Two samplers, one reward worker, two learner ranks, synchronous; stopped once and resumed from its checkpoint. With
`--live` the files grow as time passes, so that a dashboard can be watched while it follows. The same arguments give the
same run, but for the time of day with `--live`.
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cluster.groups.ledger import Ledger, LedgerState
from cluster.record.metrics import evaluation_metrics, maj_at_k, step_metrics
from cluster.record.run_directory import RunDirectory
from cluster.record.run_lock import run_lock
from cluster.types import Event, GroupCounts, RejectReason, RunSummary, StepTimings
from cluster.weights.run_state import Fingerprints, RunState, write_run_state
from learner.saving.files import checkpoint_name, publish, rotate, unfinished_path, write_manifest
from learner.types import StepOutput
from reward.types import ScoredGroup
from rollout.prompts.stream import PromptStreamState
from rollout.types import Prompt, RolloutGroup
from tests.cluster.dashboard.demo_config import LEARNERS, NUM_HELD_OUT, SAMPLERS, demo_config
from tests.cluster.dashboard.demo_faults import KINDS, Conditions, Kind, conditions
from tests.cluster.dashboard.demo_rollouts import Learned, demo_prompt, learn, sample_completions, score
from tests.cluster.dashboard.demo_text import PIECES, Sum, draw_sums
from tests.cluster.dashboard.demo_waves import Lease, Timed, sample_and_score
from tests.cluster.examples import opened, scored_of

STARTED_S = 1_790_000_000.0
"""Unix time at which a run begins that is not live."""
NOMINAL_STEP_S = 15.0
"""What a step takes; `--live` stretches or shrinks all times alike."""
_NUM_QUESTIONS = 96


@dataclass(frozen=True, slots=True, kw_only=True)
class Boundary:
    """Where a stopped run goes on."""

    step: int
    next_index: int
    ledger: LedgerState
    sizes: Mapping[str, int]


@dataclass(slots=True)
class Progress:
    """What changes from step to step."""

    now_s: float = 0.0
    """Seconds since the run began, of a run in which a step takes NOMINAL_STEP_S."""
    next_index: int = 0
    accuracy: dict[int, float] = field(default_factory=dict)
    """Step of an evaluation -> pass@1."""
    boundary: Boundary | None = None


def write_demo_run(
    path: Path, *, kind: Kind = "healthy", seed: int = 0, steps: int = 40, live_s: float | None = None
) -> None:
    """Writes one run; `live_s` is the time of a step that really passes, None writes all at once."""
    demo = DemoRun(path, kind=kind, seed=seed, steps=steps, live_s=live_s)
    with run_lock(path):
        demo.write()


class DemoRun:
    """One run on its way to disk."""

    def __init__(self, path: Path, *, kind: Kind, seed: int, steps: int, live_s: float | None) -> None:
        self._config = demo_config(steps, seed)
        self._run = RunDirectory.create(path, self._config)
        self._kind: Kind = kind
        self._seed, self._steps = seed, steps
        self._is_live = live_s is not None
        self._pace = 1.0 if live_s is None else live_s / NOMINAL_STEP_S
        self._started_s = time.time() if self._is_live else STARTED_S
        rng = np.random.default_rng([seed, 1])
        sums = draw_sums(rng, _NUM_QUESTIONS + NUM_HELD_OUT)
        self._sums, self._held_out = sums[:_NUM_QUESTIONS], sums[_NUM_QUESTIONS:]
        self._at = Progress()
        self._ledger = Ledger(self._run.append_ledger, self._clock)

    def write(self) -> None:
        config, at = self._config, self._at
        self._run.write_vocabulary(PIECES)
        self._sync(0)
        self._evaluate(0)
        every = config.checkpoint.every
        lost = 2 * every + 2  # Two steps after the second checkpoint the run is killed, and resumed from there.
        step = 0
        while step < self._steps:
            self._step(step)
            step += 1
            if step % every == 0 or step == self._steps:
                self._evaluate(step)
            if step % every == 0:
                self._save(step)
            if step == lost and at.boundary is not None and step < self._steps:
                step = self._resume(at.boundary)
                lost = -1
        self._save(step)
        self._run.write_summary(self._summary())

    # Time.

    def _clock(self) -> float:
        """Unix time now."""
        return self._started_s + self._at.now_s * self._pace

    def _wait_until(self, at_s: float) -> None:
        self._at.now_s = max(self._at.now_s, at_s)
        if self._is_live:
            time.sleep(max(0.0, self._clock() - time.time()))

    def _unix(self, at_s: float) -> float:
        return self._started_s + at_s * self._pace

    def _play(self, actions: Sequence[tuple[float, Callable[[], object]]]) -> None:
        """Does each thing at its time, the earliest first."""
        for at_s, action in sorted(actions, key=lambda pair: pair[0]):
            self._wait_until(at_s)
            action()

    def _span(self, kind: Any, actor: str, start_s: float, end_s: float, **facts: Any) -> None:
        self._run.append_event(
            Event(kind=kind, actor=actor, start_s=self._unix(start_s), end_s=self._unix(end_s), **facts)
        )

    # One step.

    def _step(self, step: int) -> None:
        at = self._at
        rng = np.random.default_rng([self._seed, 2, step])
        now = conditions(self._kind, step, self._steps)
        began_s = at.now_s
        groups, rejected = self._sample(rng, step, now)
        batch_s = at.now_s
        learned = learn(rng, groups, now, self._config)
        train_s = 6.5 + learned.metrics["tokens"] / 900 + float(rng.normal(0, 0.25))
        self._train(step, groups, batch_s, train_s)
        sync_s = self._sync(step + 1)
        timings = StepTimings(
            step_s=(at.now_s - began_s) * self._pace,
            generate_s=max(s.group.facts.finished_s for s in groups) - min(s.group.facts.started_s for s in groups),
            score_s=sum(s.scores.finished_s - s.scores.started_s for s in groups),
            train_s=train_s * self._pace,
            sync_s=sync_s * self._pace,
            wait_s=(batch_s - began_s) * self._pace,
            ended_s=self._clock(),
        )
        self._record(step, groups, rejected, learned, timings)

    def _sample(
        self, rng: np.random.Generator, step: int, now: Conditions
    ) -> tuple[list[ScoredGroup], list[ScoredGroup]]:
        """(P groups to train on, rejected groups). What is rejected is replaced in another wave."""
        wanted = self._config.rollout.prompts_per_step
        budget = int((self._config.dynamic_sampling.max_resample_factor - 1) * wanted)
        groups: list[ScoredGroup] = []
        rejected: list[ScoredGroup] = []
        while len(groups) < wanted:
            for scored in self._wave(rng, step, now, wanted - len(groups)):
                reason = None
                if scored.num_scored < 2:
                    reason = RejectReason.TOO_FEW_SCORED
                elif scored.all_rewards_equal and budget > 0:
                    budget -= 1
                    reason = RejectReason.EQUAL_REWARDS
                if reason is None:
                    groups.append(scored)
                else:
                    self._ledger.reject(scored.group_id, scored.group.facts.attempt, reason)
                    rejected.append(scored)
        return sorted(groups, key=lambda scored: scored.group_id), rejected

    def _wave(self, rng: np.random.Generator, step: int, now: Conditions, number: int) -> list[ScoredGroup]:
        """Groups that are sampled together, in the order in which they were scored."""
        leases = []
        for place in range(number):
            sampler = SAMPLERS[place % len(SAMPLERS)]
            prompt, task = self._next_prompt()
            attempt = self._ledger.lease(prompt.group_id, sampler)
            leases.append(Lease(prompt=prompt, task=task, sampler=sampler, attempt=attempt))
        timed = sample_and_score(
            rng,
            leases,
            now,
            version=step,
            group_size=self._config.rollout.group_size,
            start_s=self._at.now_s + 0.02,
            unix=self._unix,
        )
        self._play([action for group in timed for action in self._actions(group)])
        return [group.scored for group in timed]

    def _actions(self, timed: Timed) -> list[tuple[float, Callable[[], object]]]:
        """What is written about a group, each at its time."""
        group = timed.scored.group.facts
        facts: dict[str, Any] = {
            "ids": (group.group_id,),
            "extra": {"tokens": group.num_tokens, "policy_version": group.min_policy_version},
        }

        def sampled() -> None:
            self._ledger.sampled(group.group_id, group.attempt, group.min_policy_version)
            self._span("generate", group.worker, timed.start_s, timed.end_s, **facts)

        def scored() -> None:
            self._span("score", timed.scored.scores.worker, timed.score_start_s, timed.score_end_s, **facts)
            self._ledger.scored(group.group_id, group.attempt)

        return [(timed.end_s, sampled), (timed.score_end_s, scored)]

    def _next_prompt(self) -> tuple[Prompt, Sum]:
        index = self._at.next_index
        self._at.next_index += 1
        epoch, place = divmod(index, len(self._sums))
        order = np.random.default_rng([self._seed, 3, epoch]).permutation(len(self._sums))
        task = self._sums[int(order[place])]
        return demo_prompt(task, index=index, epoch=epoch), task

    def _train(self, step: int, groups: Sequence[ScoredGroup], start_s: float, train_s: float) -> None:
        self._wait_until(start_s + train_s)
        ids = tuple(scored.group_id for scored in groups)
        for learner in LEARNERS:
            self._span("train", learner, start_s, start_s + train_s, step=step, ids=ids)
        for scored in groups:
            self._ledger.consume(scored.group_id, scored.group.facts.attempt, step)

    def _sync(self, version: int) -> float:
        """Returns its seconds."""
        start_s, took_s = self._at.now_s, 0.45
        rng = np.random.default_rng([self._seed, 4, version])
        self._wait_until(start_s + took_s)
        extra = {
            "policy_version": version,
            "bytes": 269_030_016,
            "canary_max_error": 0.2 + 0.1 * float(rng.random()),
            "canary_mean_error": 0.02 + 0.01 * float(rng.random()),
        }
        for sampler in SAMPLERS:
            self._span("sync", sampler, start_s, start_s + took_s, step=version, extra=extra)
        return took_s

    def _record(
        self,
        step: int,
        groups: Sequence[ScoredGroup],
        rejected: Sequence[ScoredGroup],
        learned: Learned,
        timings: StepTimings,
    ) -> None:
        ledger = self._ledger
        counts = GroupCounts(
            dispatched=ledger.dispatched, trained=ledger.trained, in_flight=ledger.in_flight, rejected=ledger.rejected
        )
        output = StepOutput(
            step=step,
            policy_version=step + 1,
            skipped=False,
            bad_steps_in_a_row=0,
            metrics={**learned.metrics, "seconds": timings.train_s},
        )
        metrics = step_metrics(groups, output, timings=timings, counts=counts, policy_version=step)
        written = [opened(scored) for scored in [*groups, *rejected]]
        self._run.write_rollouts(step, written, learned.advantages, learned.values)
        self._run.append_metrics(step, metrics)

    # Evaluations, checkpoints, the end.

    def _evaluate(self, step: int) -> None:
        rng = np.random.default_rng([self._seed, 5])
        now = conditions("healthy" if self._kind == "broken_grader" else self._kind, step, self._steps)
        start_s, took_s = self._at.now_s, 5.0
        groups = []
        for index, task in enumerate(self._held_out):
            prompt = demo_prompt(task, index=index, epoch=0)
            group = RolloutGroup(
                prompt=prompt,
                completions=sample_completions(rng, task, now, number=self._config.eval.num_samples, version=step),
                attempt=1,
                worker=SAMPLERS[index % len(SAMPLERS)],
                started_s=self._unix(start_s),
                finished_s=self._unix(start_s + took_s - 0.1),
            )
            results = tuple(score(rng, task, completion, now) for completion in group.completions)
            ended_s = self._unix(start_s + took_s)
            groups.append(scored_of(group, results, started_s=group.finished_s, finished_s=ended_s))
        self._wait_until(start_s + took_s)
        metrics = evaluation_metrics(groups)
        ballots = [([r.answer for r in g.rewards], [bool(r.correct) for r in g.rewards]) for g in groups]
        metrics["eval/maj_at_4"] = sum(maj_at_k(*ballot) for ballot in ballots) / len(ballots)
        metrics["eval/policy_version"] = float(step)
        self._at.accuracy[step] = metrics["eval/pass_at_1"]
        self._run.append_evaluation(step, metrics)
        self._run.write_eval_rollouts(step, [opened(scored) for scored in groups])
        self._span("eval", "controller", start_s, start_s + took_s, step=step)

    def _save(self, step: int) -> None:
        at, start_s = self._at, self._at.now_s
        at.boundary = Boundary(
            step=step, next_index=at.next_index, ledger=self._ledger.state(), sizes=self._run.sizes()
        )
        final = self._run.checkpoints_path / checkpoint_name(step)
        if final.exists():
            return
        self._wait_until(start_s + 1.2)
        unfinished = unfinished_path(final)
        unfinished.mkdir()
        (unfinished / "model.safetensors").write_bytes(bytes(4096))
        state = RunState(
            step=step,
            policy_version=step,
            stream=PromptStreamState(index=at.next_index, seed=self._seed, fingerprint="demo"),
            ledger=self._ledger.state(),
            fingerprints=Fingerprints(model="demo", tokenizer="demo", data="demo", group_size=8, config="demo"),
            log_sizes=at.boundary.sizes,
        )
        write_run_state(unfinished, state)
        write_manifest(unfinished)
        publish(unfinished, final)
        rotate(self._run.checkpoints_path, self._config.checkpoint.keep)
        self._span("save", "controller", start_s, at.now_s, step=step, extra={"checkpoint": final.name})

    def _resume(self, boundary: Boundary) -> int:
        """Killed and started again: back to the checkpoint; returns the step that comes next."""
        self._wait_until(self._at.now_s + 40.0)
        self._run.rewind(boundary.step, boundary.sizes)
        self._at.next_index = boundary.next_index
        self._ledger = Ledger(self._run.append_ledger, self._clock, boundary.ledger)
        extra = {"name": "resumed", "text": f"from {checkpoint_name(boundary.step)}"}
        self._span("instant", "controller", self._at.now_s, self._at.now_s, step=boundary.step, extra=extra)
        self._sync(boundary.step)
        return boundary.step

    def _summary(self) -> RunSummary:
        at, ledger = self._at, self._ledger
        return RunSummary(
            status="finished",
            num_steps=self._steps,
            policy_version=self._steps,
            weights_digest="0" * 64,
            accuracy_before=at.accuracy[0],
            accuracy_after=at.accuracy[self._steps],
            wall_s=at.now_s * self._pace,
            groups_dispatched=ledger.dispatched,
            groups_trained=ledger.trained,
            groups_rejected=ledger.rejected,
            groups_in_flight=ledger.in_flight,
        )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write demo runs for the dashboard.")
    parser.add_argument("folder", type=Path, metavar="DIR", help="each run becomes a folder in it, named by its kind")
    parser.add_argument("--kind", choices=[*KINDS, "all"], default="all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--live", type=float, metavar="SECONDS_PER_STEP", help="let time pass while it is written")
    arguments = parser.parse_args(argv)
    for kind in KINDS if arguments.kind == "all" else [arguments.kind]:
        path = arguments.folder / kind
        write_demo_run(path, kind=kind, seed=arguments.seed, steps=arguments.steps, live_s=arguments.live)
        print(path)


if __name__ == "__main__":
    main()

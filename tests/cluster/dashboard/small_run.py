"""A run directory of a few groups whose numbers a reader can check by hand."""

from dataclasses import replace
from pathlib import Path

from cluster.configuration.loading import load_config
from cluster.dashboard.records import GroupAddress
from cluster.record.run_directory import RunDirectory
from cluster.types import Event, EventKind
from reward.types import ScoredGroup
from rollout.types import FinishReason
from tests.cluster.examples import completion, failed, ok, opened, scored, values_of


def make_run(path: Path) -> RunDirectory:
    """Three steps of two groups and an evaluation of one: 21 completions."""
    run = RunDirectory.create(path, load_config("tiny"))
    for step in range(3):
        add_step(run, step)
    run.write_eval_rollouts(0, [opened(group(90))])
    run.append_evaluation(0, {"eval/pass_at_1": 0.5})
    return run


def group(index: int) -> ScoredGroup:
    """Three completions: right, wrong though it says the same, and one that could not be scored."""
    texts = ("the answer is 3", "The Answer is 3", "\u202eno \x00 <script>")
    ends = (FinishReason.LENGTH, FinishReason.STOP, FinishReason.STOP)
    completions = [completion(i, text=texts[i], finish=ends[i]) for i in range(3)]
    rewards = [replace(ok(1.0), answer="3"), replace(ok(0.0), answer="3"), failed()]
    return scored(index, rewards, completions, text=f"1 + 2 ({index})")


def add_step(run: RunDirectory, step: int) -> None:
    groups = [group(step * 2 + 1), group(step * 2)]  # not in order of dispatch
    advantages = {(one.group_id, i): 0.5 - i for one in groups for i in range(2)}
    values = dict.fromkeys(advantages, values_of((-0.5, -0.25), (-1.0, -2.0)))
    run.write_rollouts(step, [opened(one) for one in groups], advantages, values)
    run.append_metrics(step, {"reward/mean": 0.5, "train/skipped": 0.0})
    for one in reversed(groups):
        for number, state in enumerate(("leased", "sampled", "scored", "consumed")):
            facts = {"worker": "sampler-0"} if state == "leased" else {"step": step} if state == "consumed" else {}
            record = {"time_s": 10.0 * step + number, "group_id": one.group_id, "state": state, "attempt": 1, **facts}
            run.append_ledger(record)
        span = Event(
            kind=EventKind.GENERATE,
            actor="sampler-0",
            start_s=10.0 * step,
            end_s=10.0 * step + 2,
            ids=(one.group_id,),
            extra={"tokens": 6, "policy_version": step},
        )
        run.append_event(span)
    run.append_event(
        Event(kind=EventKind.TRAIN, actor="learner-0", start_s=10.0 * step + 3, end_s=10.0 * step + 4, step=step)
    )


def address(index: int, step: int) -> GroupAddress:
    return GroupAddress(phase="train", step=step, group_id=group(index).group_id)

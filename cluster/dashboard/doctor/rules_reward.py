"""Rules about rewards: does the grader work, and do its rewards teach anything?"""

from cluster.dashboard.doctor.facts import Chart, Facts, Finding, Link
from cluster.dashboard.doctor.trends import change, mean, percent, recent, short, since, trend
from cluster.dashboard.figures.series import difference, known
from cluster.dashboard.figures.thresholds import EQUAL_GROUPS, FAILED_REWARDS, SOLVED_ACCURACY
from cluster.types import RejectReason
from reward.types import RewardOutcome

FAILED = "reward/failed_share"
LEAST_FAILURES = 3
"""One completion in a small step is a large share and no pattern."""
CONFLICT_SHARE = 0.05
"""Share of the groups with a contradiction from which the rewards of the whole run are in doubt. Ours."""
LONG = 50
FAILED_ROLLOUTS = Link(
    label="failed", page="rollouts", params={"filter": f"outcome!={RewardOutcome.OK}", "sort": "-step"}
)
UNTRAINABLE = (RejectReason.TOO_FEW_SCORED, RejectReason.NOTHING_TO_TRAIN)


def grader_fails(facts: Facts) -> Finding | None:
    """Rewards fail: the grader raises, runs out of time, or returns no number."""
    values = facts.values(FAILED)
    now = recent(values)
    state = FAILED_REWARDS.state(now)
    counts = {
        outcome: sum(known(facts.values(f"reward/outcome_{outcome}")[-5:]))
        for outcome in (RewardOutcome.ERROR, RewardOutcome.TIMEOUT, RewardOutcome.INVALID)
    }
    if now is None or state not in ("watch", "alarm") or sum(counts.values()) < LEAST_FAILURES:
        return None
    told = ", ".join(f"{number:.0f} {outcome}" for outcome, number in counts.items() if number)
    said = f"; the last one said: {facts.rewards_failed_with}" if facts.rewards_failed_with else ""
    worst = max(counts, key=lambda outcome: counts[outcome])
    causes = {
        RewardOutcome.ERROR: "the reward function raises on answers of a form that it does not expect",
        RewardOutcome.TIMEOUT: "the reward function hangs, or needs more time than its deadline",
        RewardOutcome.INVALID: "the reward function returns something that is no finite number",
    }
    return Finding(
        severity="error" if state == "alarm" else "warning",
        title="The grader fails",
        since_step=since(facts.steps, values, lambda v: v > (FAILED_REWARDS.watch_above or 0.0)),
        evidence=f"{percent(now)} of the completions of the last steps have no reward ({told}){said}.",
        causes=(causes.pop(worst), "what the reward function calls (a service, a file) has gone", *causes.values()),
        attempts=(
            "open one of the failed completions: its detail is the grader's error",
            "mend the reward function and resume the run",
            "raise `reward.timeout_s`, or `reward.children_per_worker` where scoring is what takes long",
        ),
        chart=facts.chart("failed rewards", FAILED, FAILED_REWARDS.watch_above),
        links=(
            Link(label="failed", page="rollouts", params={"filter": f"outcome!={RewardOutcome.OK}", "sort": "-step"}),
        ),
    )


def reward_constant(facts: Facts) -> Finding | None:
    """All rewards are the same, while some completions could not be scored."""
    spread, failed = known(facts.values("reward/std")[-5:]), known(facts.values(FAILED)[-5:])
    if len(spread) < 3 or any(spread) or not any(failed):
        return None
    value = known(facts.values("reward/mean"))[-1]
    return Finding(
        severity="error",
        title="The grader gives every completion the same reward",
        since_step=since(facts.steps, facts.values("reward/std"), lambda v: v == 0),
        evidence=f"Every reward of the last {len(spread)} steps is {short(value)}, and {percent(mean(failed))} of the "
        "completions could not be scored.",
        causes=("the reward function catches an error of its own and returns a default", "the ground truth is missing"),
        attempts=("score a completion that is right by hand", "look at the ground truths of the prompts"),
        chart=facts.chart("standard deviation of the reward", "reward/std", keep="least"),
        links=(
            Link(label="failed", page="rollouts", params={"filter": f"outcome!={RewardOutcome.OK}", "sort": "-step"}),
        ),
    )


def same_answer_differs(facts: Facts) -> Finding | None:
    """The same answer to the same question is right in one completion and wrong in another."""
    last = facts.digests[-5:]
    found = [(d.step, conflict) for d in last for conflict in d.conflicts]
    groups = sum(d.num_groups for d in last)
    if len({(step, conflict.group_id) for step, conflict in found}) < 2:
        return None
    share = len({(step, conflict.group_id) for step, conflict in found}) / max(groups, 1)
    step, example = max(found, key=lambda pair: min(pair[1].num_right, pair[1].num_wrong))
    shares = [len({c.group_id for c in d.conflicts}) / max(d.num_groups, 1) for d in facts.digests]
    steps = [d.step for d in facts.digests]
    return Finding(
        severity="error" if share > CONFLICT_SHARE else "warning",
        title="The same answer gets different rewards",
        since_step=since(steps, shares, lambda v: v > 0),
        evidence=f"In {percent(share)} of the groups of the last steps an answer is both right and wrong: "
        f'"{example.answer[:40]}" is right {example.num_right} times and wrong {example.num_wrong} times '
        f"in step {step}.",
        causes=(
            "the grader depends on something other than the answer: time, load, order, chance",
            "the grader reads the answer in another place than where it was found here",
        ),
        attempts=("score the same completion twice by hand", "compare the two completions in the group"),
        chart=Chart(title="groups with a contradiction", step=steps, values=shares, threshold=CONFLICT_SHARE),
        links=(Link(label="an example", page="group", parts=("train", step, example.group_id)),),
    )


def groups_equal(facts: Facts) -> Finding | None:
    """Most groups have rewards that are all equal, so that they teach nothing."""
    values = facts.values("reward/equal_groups_fraction")
    now, accuracy = recent(values), recent(facts.values("reward/accuracy")) or 0.0
    if now is None or EQUAL_GROUPS.state(now) != "alarm":
        return None
    right, wrong = (recent(facts.values(f"reward/all_{side}_share")) or 0.0 for side in ("right", "wrong"))
    too_hard = wrong >= right
    solved = accuracy >= SOLVED_ACCURACY
    return Finding(
        severity="info" if solved else "warning",
        title="The task is learnt: hardly a group teaches anything" if solved
        else f"Most groups teach nothing: their completions are alike, mostly {'wrong' if too_hard else 'right'}",
        since_step=since(facts.steps, values, lambda v: v > (EQUAL_GROUPS.alarm_above or 0.0)),
        evidence=f"In {percent(now)} of the groups of the last steps all rewards are equal ({percent(right)} all "
        f"right, {percent(wrong)} all wrong), at an accuracy of {percent(accuracy)}.",
        causes=("the questions are too hard for the model", "the answer cannot be read from the format that it gives")
        if too_hard
        else ("the questions are too easy for the model by now", "the completions of a group are all alike"),
        attempts=(
            "easier questions, or a warm start" if too_hard else "harder questions",
            "raise `dynamic_sampling.max_resample_factor`"
            if known(facts.values(f"groups/rejected_{RejectReason.EQUAL_REWARDS}"))
            else "`dynamic_sampling.enabled=true`, which samples other groups instead",
            "raise `rollout.group_size`, so that more groups have a difference",
        ),
        chart=facts.chart("groups with equal rewards", "reward/equal_groups_fraction", EQUAL_GROUPS.alarm_above),
        links=(Link(label="prompts", page="ledger"),),
    )  # fmt: skip


def nothing_learnt(facts: Facts) -> Finding | None:
    """The reward has not risen since the run began."""
    rewards = facts.values("reward/mean")
    ends, moves = change(rewards), trend(rewards, least=LONG)
    if ends is None or moves in (None, "rises") or (recent(facts.values("reward/accuracy")) or 0.0) >= SOLVED_ACCURACY:
        return None
    return Finding(
        severity="info",
        title="The reward does not rise",
        since_step=facts.steps[0],
        evidence=f"The mean reward was {short(ends[0])} in the first third of the run, and is {short(ends[1])} in the "
        "last.",
        causes=("the learning rate is too low", "the questions are too hard, or too easy already", "the run is young"),
        attempts=("raise `learner.lr`", "raise `rollout.group_size` or `rollout.prompts_per_step`", "wait"),
        chart=facts.chart("reward", "reward/mean", keep="mean"),
    )


def rejects_many(facts: Facts) -> Finding | None:
    """Groups are sampled and rejected because they could not be scored."""
    columns = [facts.values(f"groups/rejected_{name}") for name in UNTRAINABLE]
    rejected = sum(sum(known(difference(values)[-20:])) for values in columns)
    dispatched = sum(known(difference(facts.values("groups/dispatched"))[-20:]))
    if dispatched == 0 or rejected < LEAST_FAILURES or rejected / dispatched <= CONFLICT_SHARE:
        return None
    return Finding(
        severity="warning",
        title="Groups are rejected because they cannot be trained on",
        evidence=f"{rejected:.0f} of {dispatched:.0f} groups of the last 20 steps had fewer than two completions that "
        "could be scored and trained on.",
        causes=("the grader fails", "the sampler's log-probabilities are not finite"),
        attempts=("see what the failed rewards say", "see `rollout/nonfinite_logprobs` in the metrics"),
        links=(Link(label="ledger", page="ledger"),),
    )

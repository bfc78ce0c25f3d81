"""Rules about what has been learnt and is lost again: a fall of the reward, or of what is held out."""

import math
from collections.abc import Sequence

from cluster.dashboard.doctor.facts import Facts, Finding, Link
from cluster.dashboard.doctor.trends import percent, short
from cluster.dashboard.figures.intervals import FALL_SD, fall, usual_jump
from cluster.dashboard.figures.series import known, last_known

LEAST_SHARE = 0.01
"""Of the reward: what its mean jumps about by at least, where it stood still."""
CONFIRMED_FROM = 4
"""Evaluations from which on a fall must be in two of them: with many, one is low by chance."""
CAUSES = (
    "a step that broke the policy: see the gradient norm, the entropy and the gap of the steps around it",
    "the learning rate is too high for how far it has come",
    "the grader, or what it depends on, changed",
    "other questions than before: a new epoch, or a mixture of tasks",
)
ATTEMPTS = (
    "go on from the last checkpoint before it, with a lower `learner.lr`",
    "read what is wrong now and was right before",
)


def reward_fell(facts: Facts) -> Finding | None:
    """The reward was higher, and has been lower for some steps by more than it jumps about."""
    rewards = facts.values("reward/mean")
    places = [place for place, value in enumerate(rewards) if value is not None]
    values = known(rewards)
    found = fall(values, _step_error(facts, values))
    if found is None:
        return None
    step = facts.steps[places[found.index]]
    return Finding(
        severity="warning",
        title="The reward fell",
        since_step=step,
        evidence=f"The mean reward was {short(found.before)} with a deviation of {short(found.sd)} from step to step; "
        f"since step {step} it is {short(found.now)}, {short((found.before - found.now) / found.sd)} deviations lower.",
        causes=CAUSES,
        attempts=ATTEMPTS,
        chart=facts.chart("reward", "reward/mean", found.before - FALL_SD * found.sd, keep="least"),
        links=(Link(label=f"step {step}", page="step", parts=("train", step)),),
    )


def held_out_fell(facts: Facts) -> Finding | None:
    """Held-out accuracy was higher than it is now, by more than chance."""
    accuracy = [
        (step, value) for step, value in zip(facts.evaluations.steps, facts.held_out, strict=False) if value is not None
    ]
    kept = 2 if len(accuracy) >= CONFIRMED_FROM else 1
    earlier, last = accuracy[:-kept], accuracy[-kept:]
    questions = last_known(facts.evaluations.columns.get("eval/questions", ()))
    if not earlier or not questions:
        return None
    best_step, best = max(earlier, key=lambda pair: pair[1])
    jumps = usual_jump([value for _, value in earlier]) * math.sqrt(2) if len(earlier) >= CONFIRMED_FROM else 0.0
    limits = [best - FALL_SD * max(jumps, _chance(best, value, questions)) for _, value in last]
    if any(value >= limit for (_, value), limit in zip(last, limits, strict=True)):
        return None
    step, now = last[-1]
    return Finding(
        severity="warning",
        title="Held-out accuracy fell",
        since_step=last[0][0],
        evidence=f"Of {questions:.0f} held-out questions {percent(best)} were right after {best_step} steps, and "
        f"{percent(now)} after {step}.",
        causes=CAUSES,
        attempts=ATTEMPTS,
        links=(
            Link(label=f"after {best_step} steps", page="step", parts=("eval", best_step)),
            Link(label=f"after {step} steps", page="step", parts=("eval", step)),
        ),
    )


def _step_error(facts: Facts, values: Sequence[float]) -> float:
    """Standard error of a step's mean reward, from the spread of its completions; a share of the reward at least."""
    spread = last_known(facts.values("reward/std")) or 0.0
    count = last_known(facts.values("rollout/completions")) or math.inf
    return max(spread / math.sqrt(count), LEAST_SHARE * max(map(abs, values), default=0.0))


def _chance(before: float, after: float, questions: float) -> float:
    """Standard error of the difference of two evaluations, by the number of questions."""
    return max(math.sqrt((before * (1 - before) + after * (1 - after)) / questions), 1 / questions)

"""Rules about judges: do they agree with what is known, and do they like anything else than what they are asked for?"""

from cluster.dashboard.doctor.facts import Facts, Finding, Link
from cluster.dashboard.doctor.trends import early, percent, recent, short, since
from cluster.dashboard.figures.thresholds import JUDGE_AGREEMENT, JUDGE_LENGTH

AGREEMENT, LENGTH = "judge/agreement_", "judge/length_correlation_"


def judge_disagrees(facts: Facts) -> Finding | None:
    """A judge orders completions otherwise than the component that is known to be right."""
    name = min(_judges(facts, AGREEMENT), key=lambda name: recent(facts.values(AGREEMENT + name)) or 0.0, default=None)
    if name is None:
        return None
    values = facts.values(AGREEMENT + name)
    now = recent(values)
    state = JUDGE_AGREEMENT.state(now)
    if now is None or state not in ("watch", "alarm"):
        return None
    threshold = JUDGE_AGREEMENT.watch_below
    return Finding(
        severity="error" if state == "alarm" else "warning",
        title="The judge does not agree with what is known",
        since_step=since(facts.steps, values, lambda v: threshold is not None and v < threshold),
        evidence=f"Of two completions of a group that its gold tells apart, {name} puts the better one first in "
        f"{percent(now)} of the cases of the last steps; 50 % is chance.",
        causes=(
            "the judge is not up to the task",
            "its instructions or its rubric ask for something else",
            "the policy has found what the judge likes",
        ),
        attempts=(
            "read verdicts of completions on which the two differ",
            "a judge that thinks before its verdict: raise `max_tokens`, or let its server think",
            "mode `reference`, where the rows have a ground truth",
            "train on the gold, where it is there for every row",
        ),
        chart=facts.chart("agreement with the gold", AGREEMENT + name, threshold, keep="least"),
        links=(Link(label="rollouts", page="rollouts", params={"sort": "-step"}),),
    )


def judge_likes_length(facts: Facts) -> Finding | None:
    """A judge's score goes with the length of completions."""
    name = max(_judges(facts, LENGTH), key=lambda name: abs(recent(facts.values(LENGTH + name)) or 0.0), default=None)
    if name is None:
        return None
    values = facts.values(LENGTH + name)
    now = recent(values)
    size = [None if value is None else abs(value) for value in values]
    state = JUDGE_LENGTH.state(None if now is None else abs(now))
    if now is None or state not in ("watch", "alarm"):
        return None
    threshold = JUDGE_LENGTH.watch_above or 0.0
    before = early(facts.values("rollout/completion_tokens_mean"))
    after = recent(facts.values("rollout/completion_tokens_mean"))
    lengths = "" if before is None or after is None else (
        f"; completions had {short(before)} tokens at the start of the run, and have {short(after)}"
    )  # fmt: skip
    return Finding(
        severity="warning",
        title=f"The judge likes {'long' if now > 0 else 'short'} completions",
        since_step=since(facts.steps, size, lambda v: v > threshold),
        evidence=f"Within groups the correlation of {name} with the number of tokens is {short(now)} over the last "
        f"steps{lengths}.",
        causes=(
            "the judge takes length for quality",
            "longer answers are better here: then their share that is right rises too",
        ),
        attempts=(
            "say in `instructions` that length is no merit",
            "`length_penalty` with a small weight beside it",
            "a rubric of criteria that length does not serve",
            "a component with a weight of 0 as its `gold`, to see which of the two it is",
        ),
        chart=facts.chart("correlation with length", LENGTH + name, keep="mean"),
        links=(Link(label="rollouts", page="rollouts", params={"sort": "-step"}),),
    )


def _judges(facts: Facts, family: str) -> list[str]:
    return [name.removeprefix(family) for name in sorted(facts.table.columns) if name.startswith(family)]

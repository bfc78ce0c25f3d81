"""Rules about what failed and was mended: restarts, stalls, late results, damaged checkpoints."""

from collections import Counter
from collections.abc import Sequence

from cluster.dashboard.doctor_facts import Facts, Finding, Link
from cluster.dashboard.records import Span
from cluster.dashboard.series import last_known

MAX_RESTARTS = 10
"""`recovery.max_restarts` where the configuration does not say."""
NEARLY = 0.7
"""Share of the budget of restarts from which one more fault of the same kind matters."""
FLEET, TIMELINE, LEDGER = (
    Link(label="fleet", page="fleet"),
    Link(label="timeline", page="timeline"),
    Link(label="ledger", page="ledger"),
)


def run_stalled(facts: Facts) -> Finding | None:
    """Nothing was scored and nothing was trained for a long time."""
    stalls = _named(facts, "stall")
    if not stalls:
        return None
    last = stalls[-1]
    more = f" It is stall number {len(stalls)} of this run." if len(stalls) > 1 else ""
    return Finding(
        severity="warning",
        title="The run stalled",
        since_step=_first_step(stalls),
        evidence=f"{_sentence(last)}.{more}",
        causes=(
            "an engine or a reward function hangs",
            "a learner rank waits for another one that is gone",
            "one generation or evaluation takes longer than `recovery.stall_s`",
        ),
        attempts=(
            f"read {last.extra.get('stacks') or 'the folder stacks'} of the run: it says where each thread was",
            "`recovery.on_stall=restart`, so that samplers that hang are replaced",
            "raise `recovery.stall_s`, where the work is really that long",
        ),
        links=(TIMELINE, FLEET),
    )


def checkpoint_set_aside(facts: Facts) -> Finding | None:
    """A checkpoint was damaged and was not used."""
    found = {_sentence(instant): instant for instant in _named(facts, "checkpoint_set_aside")}
    if not found:
        return None
    text = list(found)[-1]
    return Finding(
        severity="warning",
        title="A checkpoint was damaged" if len(found) == 1 else f"{len(found)} checkpoints were damaged",
        since_step=_first_step(list(found.values())),
        evidence=f"It was set aside and the one before it was used: {text}",
        causes=("the disk or the file system fails", "the machine went down while files were on their way to the disk"),
        attempts=(
            "look at the machine's log (`dmesg`) for errors of the disk",
            "read `reason.txt` in `checkpoints/set-aside-...`, then remove the folder: nothing uses it",
        ),
        links=(TIMELINE,),
    )


def restarts_nearly_used(facts: Facts) -> Finding | None:
    """Most of the restarts that a run may have are used."""
    most = facts.setting("recovery.max_restarts", MAX_RESTARTS)
    by_actor = _restarts(facts)
    used = by_actor.total()
    if most == 0 or used < NEARLY * most:
        return None
    worst, times = by_actor.most_common(1)[0]
    return Finding(
        severity="error" if used >= most else "warning",
        title="All restarts are used" if used >= most else "Most restarts are used",
        evidence=f"{used} of at most {most} restarts, {times} of them of {worst}; {_why(facts, worst)}",
        causes=("what made the actors fail is still there", "one node is bad"),
        attempts=(
            f"mend what makes {worst} fail",
            "stop the run and resume it with a higher `recovery.max_restarts`",
        ),
        links=(FLEET, TIMELINE),
    )


def actors_restarted(facts: Facts) -> Finding | None:
    """Actors failed and were started again."""
    by_actor = _restarts(facts)
    if not by_actor:
        return None
    told = ", ".join(f"{actor} {times} {'time' if times == 1 else 'times'}" for actor, times in by_actor.most_common())
    worst = by_actor.most_common(1)[0][0]
    return Finding(
        severity="info",
        title="Actors were restarted",
        since_step=_first_step(_states(facts, "RESTARTING")),
        evidence=f"{told}; {_why(facts, worst)} What they had was sampled or scored again.",
        causes=("a process was killed: out of memory, or by the system", "an engine or a reward function hangs"),
        attempts=("read the reasons on the fleet page", "look at memory and load of the node"),
        links=(FLEET, TIMELINE),
    )


def late_results_refused(facts: Facts) -> Finding | None:
    """Results came from workers that had been given up, and were refused."""
    late = last_known(facts.values("groups/late_results")) or 0.0
    if not late:
        return None
    column = facts.values("groups/late_results")
    return Finding(
        severity="info",
        title="Late results were refused",
        since_step=next((step for step, value in zip(facts.steps, column, strict=True) if value), None),
        evidence=f"{late:.0f} groups came after their lease had been given up; they were sampled again and trained on "
        "once.",
        causes=("`rollout.group_deadline_s` is too short for the longest completions", "an engine is slow at times"),
        attempts=("raise `rollout.group_deadline_s`", "look at the load of the samplers' nodes"),
        chart=facts.chart("late results", "groups/late_results"),
        links=(LEDGER, FLEET),
    )


def _named(facts: Facts, name: str) -> list[Span]:
    return [instant for instant in facts.instants if instant.extra.get("name") == name]


def _states(facts: Facts, state: str) -> list[Span]:
    return [instant for instant in _named(facts, "state") if instant.extra.get("state") == state]


def _restarts(facts: Facts) -> Counter[str]:
    """Actor -> how often it was started again."""
    return Counter(instant.actor for instant in _states(facts, "RESTARTING"))


def _why(facts: Facts, actor: str) -> str:
    reasons = [str(i.extra.get("reason", "")) for i in _states(facts, "DEAD") if i.actor == actor]
    return f"the last reason: {reasons[-1].rstrip('.')}." if reasons and reasons[-1] else "no reason is on record."


def _sentence(instant: Span) -> str:
    return str(instant.extra.get("text", ""))


def _first_step(instants: Sequence[Span]) -> int | None:
    return next((instant.step for instant in instants if instant.step is not None), None)

"""Rules about what failed and was mended: actors, leases, late results, stalls, checkpoints."""

from collections import Counter
from collections.abc import Sequence

from cluster.dashboard.doctor.facts import Facts, Finding, Link, Severity
from cluster.dashboard.figures.series import last_known
from cluster.dashboard.records import Span
from cluster.dashboard.views.fault_records import (
    restarts_used,
    since_resume,
    states_of,
    step_of,
    troubles,
)
from cluster.errors import RestartsExhaustedError
from cluster.types import ActorState, Instant

NEARLY = 0.7
"""Share of the budget of restarts from which one more fault of the same kind matters."""
RETRIED_SHARE = 0.1
"""Share of the groups from which sampling again costs a run more than a mishap would. Ours."""
LONG_S = 60.0
"""A restart, or a checkpoint, usually takes less."""
FLEET, TIMELINE, LEDGER = (
    Link(label="fleet", page="fleet"),
    Link(label="timeline", page="timeline"),
    Link(label="ledger", page="ledger"),
)


def run_stalled(facts: Facts) -> Finding | None:
    """Nothing was scored and nothing was trained for a long time."""
    stalls = _named(facts, Instant.STALL)
    if not stalls:
        return None
    last = stalls[-1]
    more = f" It is stall number {len(stalls)} of this run." if len(stalls) > 1 else ""
    return Finding(
        severity="warning",
        title="The run stalled",
        since_step=_first_step(facts, stalls),
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
    found = {_sentence(instant): instant for instant in _named(facts, Instant.CHECKPOINT_SET_ASIDE)}
    if not found:
        return None
    text = list(found)[-1]
    return Finding(
        severity="warning",
        title="A checkpoint was damaged" if len(found) == 1 else f"{len(found)} checkpoints were damaged",
        since_step=_first_step(facts, list(found.values())),
        evidence=f"It was set aside and the one before it was used: {text}",
        causes=("the disk or the file system fails", "the machine went down while files were on their way to the disk"),
        attempts=(
            "look at the machine's log (`dmesg`) for errors of the disk",
            "read `reason.txt` in `checkpoints/set-aside-...`, then remove the folder: nothing uses it",
        ),
        links=(LEDGER, TIMELINE),
    )


def checkpoint_not_written(facts: Facts) -> Finding | None:
    """Checkpoints could not be written, so that a resumed run would have to train steps again."""
    failed = [trouble for trouble in troubles(facts.instants) if trouble.what == "not written"]
    if not failed:
        return None
    last, done = failed[-1], facts.steps[-1] + 1 if facts.steps else 0
    saved = facts.saved_step or 0
    mended = facts.saved_step is not None and last.step is not None and saved >= last.step
    number = f"{len(failed)} checkpoints were" if len(failed) > 1 else "A checkpoint was"
    newest = "there is none" if facts.saved_step is None else f"the newest is of step {saved}"
    lost = f"a resumed run would train {max(0, done - saved)} of {done} steps again"
    severity: Severity = "info" if mended else "warning" if facts.status == "live" else "error"
    return Finding(
        severity=severity,
        title=f"{number} not written" + ("" if mended or facts.status == "live" else ", and the run ended without it"),
        since_step=max(0, (failed[0].step or 1) - 1),
        evidence=f"That of step {last.step}: {last.reason.rstrip('.')}; {newest}" + ("." if mended else f": {lost}."),
        causes=("the disk is full", "the file system refuses to write, or is gone", "a learner rank did not answer"),
        attempts=(
            "make room on the disk of the run directory",
            "lower `checkpoint.keep`",
            "raise `checkpoint.deadline_s`, where writing is really that slow",
        ),
        links=(LEDGER, TIMELINE),
    )


def last_checkpoint_hangs(facts: Facts) -> Finding | None:
    """All steps are done, and the last checkpoint is still not there."""
    steps = facts.written("steps", int)
    done = facts.steps[-1] + 1 if facts.steps else 0
    evaluates = facts.setting("eval.at_end", bool) and facts.evaluated_at != steps
    if facts.status != "live" or not steps or done < steps or facts.written_s is None or evaluates:
        return None
    silent_s = facts.now_s - facts.written_s
    if silent_s < LONG_S or (facts.saved_step or 0) >= steps:
        return None
    deadline_s = facts.setting("checkpoint.deadline_s", float)
    newest = "there is no older one" if facts.saved_step is None else f"the newest is of step {facts.saved_step}"
    return Finding(
        severity="warning",
        title="The last checkpoint takes long",
        since_step=done - 1,
        evidence=f"All {steps} steps are done, and nothing was written for {silent_s:.0f} s; {newest}. The save is "
        f"given up after {deadline_s:.0f} s, and the run then ends without it.",
        causes=("the disk or the file system is slow, or hangs", "a learner rank does not answer"),
        attempts=(
            "wait until the deadline is over",
            "look at the disk of the run directory",
            "raise `checkpoint.deadline_s`",
        ),
        links=(LEDGER, FLEET),
    )


def actors_down(facts: Facts) -> Finding | None:
    """Actors have been away for long: dead, being started again, or without weights that were verified."""
    if facts.status != "live":
        return None
    newest = {change.actor: change for change in states_of(since_resume(facts.instants))}
    away = [change for change in newest.values() if change.extra.get("state") != ActorState.HEALTHY]
    away = [change for change in away if facts.now_s - change.start_s >= LONG_S]
    if not away:
        return None
    told = ", ".join(
        f"{change.actor} is {change.extra.get('state')} for {facts.now_s - change.start_s:.0f} s" for change in away
    )
    return Finding(
        severity="warning",
        title=f"{away[0].actor} does no work" if len(away) == 1 else f"{len(away)} actors do no work",
        since_step=_first_step(facts, away),
        evidence=f"{told}; {_why(facts, away[0].actor)}",
        causes=("its process takes long to start", "a weight sync hangs", "the node has no room for it"),
        attempts=("read the reasons on the fleet page", "look at memory and load of the node"),
        links=(FLEET, TIMELINE),
    )


def restarts_nearly_used(facts: Facts) -> Finding | None:
    """The restarts that a run may have are used up, or nearly."""
    most, used = facts.setting("recovery.max_restarts", int), restarts_used(facts.instants)
    ended = facts.status == "failed" and facts.error_type == RestartsExhaustedError.__name__
    by_actor = _restarts(since_resume(facts.instants))
    if not ended and (most == 0 or used < NEARLY * most):
        return None
    told = "".join(f", {times} of them of {actor}" for actor, times in by_actor.most_common(1) if times > 1)
    fallen = _states(since_resume(facts.instants), ActorState.DEAD)
    last = f"the last to fail was {fallen[-1].actor}: {_reason(fallen[-1])}" if fallen else "no reason is on record."
    return Finding(
        severity="error" if ended or used >= most else "warning",
        title="One more failure than restarts ended the run"
        if ended
        else ("All restarts are used" if used >= most else "Most restarts are used"),
        since_step=_first_step(facts, fallen[-1:]) if ended else None,
        evidence=f"{used} of at most {most} restarts{told}; {last}",
        causes=("what made the actors fail is still there", "one node is bad"),
        attempts=(
            f"mend what makes {fallen[-1].actor if fallen else 'actors'} fail",
            "resume the run: it then has all its restarts again"
            if ended
            else "stop the run and resume it with a higher `recovery.max_restarts`",
        ),
        links=(FLEET, TIMELINE),
    )


def actors_restarted(facts: Facts) -> Finding | None:
    """Actors failed and were started again."""
    by_actor = _restarts(facts.instants)
    if not by_actor:
        return None
    told = ", ".join(f"{actor} {times} {'time' if times == 1 else 'times'}" for actor, times in by_actor.most_common())
    worst = by_actor.most_common(1)[0][0]
    return Finding(
        severity="info",
        title="Actors were restarted",
        since_step=_first_step(facts, _states(facts.instants, ActorState.RESTARTING)),
        evidence=f"{told}; {_why(facts, worst)} What they had was sampled or scored again.",
        causes=("a process was killed: out of memory, or by the system", "an engine or a reward function hangs"),
        attempts=("read the reasons on the fleet page", "look at memory and load of the node"),
        links=(FLEET, TIMELINE),
    )


def leases_given_up(facts: Facts) -> Finding | None:
    """Groups had to be sampled again, since their sampler failed or took too long."""
    if not facts.num_retried:
        return None
    many = facts.num_retried > RETRIED_SHARE * facts.num_dispatched
    why = f" The last one: {facts.retried_for}" if facts.retried_for else ""
    return Finding(
        severity="warning" if many else "info",
        title="Many groups are sampled again" if many else "Groups were sampled again",
        evidence=f"The lease of {facts.num_retried} of {facts.num_dispatched} groups was given up.{why}",
        causes=("a sampler died", "`rollout.group_deadline_s` is too short for the longest completions"),
        attempts=("read the reasons on the ledger page", "raise `rollout.group_deadline_s`, where leases ran out"),
        links=(LEDGER, FLEET),
    )


def late_results_refused(facts: Facts) -> Finding | None:
    """Results came from workers that had been given up, and were refused."""
    column = facts.values("groups/late_results")
    # The journal also has those that came after the last step.
    late = max(facts.num_late, int(last_known(column) or 0))
    if not late:
        return None
    return Finding(
        severity="info",
        title="Late results were refused",
        since_step=next((step for step, value in zip(facts.steps, column, strict=True) if value), None),
        evidence=f"{late} {'answer' if late == 1 else 'answers'} came after the lease had been given up; what came was "
        "not used, so that each group is trained on once.",
        causes=("`rollout.group_deadline_s` is too short for the longest completions", "an engine is slow at times"),
        attempts=("raise `rollout.group_deadline_s`", "look at the load of the samplers' nodes"),
        chart=facts.chart("late results", "groups/late_results"),
        links=(LEDGER, FLEET),
    )


def _named(facts: Facts, name: Instant) -> list[Span]:
    return [instant for instant in facts.instants if instant.extra.get("name") == name]


def _states(instants: Sequence[Span], state: ActorState) -> list[Span]:
    return [change for change in states_of(instants) if change.extra.get("state") == state]


def _restarts(instants: Sequence[Span]) -> Counter[str]:
    """Actor -> how often it was started again."""
    return Counter(change.actor for change in _states(instants, ActorState.RESTARTING))


def _why(facts: Facts, actor: str) -> str:
    deaths = [change for change in _states(facts.instants, ActorState.DEAD) if change.actor == actor]
    return f"the last reason: {_reason(deaths[-1])}" if deaths and _reason(deaths[-1]) else "no reason is on record."


def _reason(change: Span) -> str:
    """As a sentence; "" where there is none."""
    reason = str(change.extra.get("reason", "")).rstrip(".")
    return f"{reason}." if reason else ""


def _sentence(instant: Span) -> str:
    return str(instant.extra.get("text", ""))


def _first_step(facts: Facts, instants: Sequence[Span]) -> int | None:
    return next((step for instant in instants if (step := step_of(instant, facts.table)) is not None), None)

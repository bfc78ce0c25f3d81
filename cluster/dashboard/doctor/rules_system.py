"""Rules about the machinery: who is slow, who waits, whether everything is accounted for."""

from collections.abc import Sequence

from cluster.dashboard.doctor.facts import Facts, Finding, Link
from cluster.dashboard.doctor.trends import mean, percent, recent, short, since
from cluster.dashboard.figures.series import known, last_known
from cluster.dashboard.figures.thresholds import SYNC_SHARE, WAIT_SHARE
from cluster.run_files import VOCABULARY

SLOW, VERY_SLOW = 1.6, 5.0
"""How many times slower than the mean of the others. Ours: a sampler that alone samples what replaces rejected groups
comes to 1.3, because an engine with few sequences has less throughput."""
NOTABLE_SYNC_S = 5.0
"""Seconds: below, a sync is a large share of a step only because the steps are short."""
LATELY = 10
"""Steps that shares of the time are the mean of; the first steps of a run are slow, so there must be as many."""
NEAR_BOUND = 0.9
LEAST_BOUND = 4
"""A lag bound of 1 or 2 is reached as soon as sampling runs ahead at all."""
OPTIONAL_FILES = (VOCABULARY,)
"""Runs of older versions have none, and only the text of single tokens is missed."""


def sampler_slow(facts: Facts) -> Finding | None:
    """One sampler is slower than the others, and everybody waits for it."""
    now = {name: recent(values) for name, values in facts.paces.items()}
    rates = {name: rate for name, rate in now.items() if rate}
    if len(rates) < 2:
        return None
    name = min(rates, key=lambda key: rates[key])
    others = mean(rate for key, rate in rates.items() if key != name)
    if others < SLOW * rates[name]:
        return None
    waits = recent(facts.values("time/wait_share"))
    rest = [key for key in rates if key != name]
    waiting = f"{rest[0]} and the learner wait" if len(rest) == 1 else f"{len(rest)} samplers and the learner wait"
    limit = others / SLOW
    return Finding(
        severity="error" if others > VERY_SLOW * rates[name] else "warning",
        title=f"{name} is slow, and {waiting} for it",
        since_step=since(facts.steps, facts.paces[name], lambda v: v < limit),
        evidence=f"{name} samples {short(rates[name])} tokens/s, the others {short(others)} "
        f"({short(others / rates[name])} times as many)"
        + (f"; the learner spends {percent(waits)} of a step waiting." if waits is not None else "."),
        causes=(
            "its node is busy with something else, or throttles",
            "it swaps or preempts: its KV cache is too small",
            "it was dealt the long completions",
        ),
        attempts=(
            f"look at the node of {name}: load, temperature, memory",
            "raise `rollout.kv_cache_mib`",
            *(("`max_policy_lag=1`, so that the others go on meanwhile",) if not facts.limits.max_policy_lag else ()),
        ),
        chart=facts.chart_of(f"tokens/s of {name}", facts.paces[name], limit, keep="least"),
        links=(Link(label="timeline", page="timeline"), Link(label="fleet", page="fleet")),
    )


def learner_waits(facts: Facts) -> Finding | None:
    """The learner spends much of its time waiting for samples."""
    values = facts.values("time/wait_share")
    now = recent(values, LATELY) if len(known(values)) >= LATELY else None
    state = WAIT_SHARE.state(now)
    if now is None or state not in ("watch", "alarm"):
        return None
    # In a synchronous run the learner waits while a batch is sampled: that is how it works, until it is most of a step.
    synchronous = facts.limits.max_policy_lag == 0
    if synchronous:
        severity = "warning" if state == "alarm" else "info"
    else:
        severity = "error" if state == "alarm" else "warning"
    engines = facts.setting("rollout.num_engines", int)
    return Finding(
        severity=severity,  # type: ignore[arg-type]
        title="The learner waits for samples",
        since_step=since(facts.steps, values, lambda v: v > (WAIT_SHARE.watch_above or 0.0)),
        evidence=f"It spends {percent(now)} of a step waiting for its batch, with {engines} "
        f"{'sampler' if engines == 1 else 'samplers'} and a policy lag of {facts.limits.max_policy_lag}.",
        causes=(
            "too few samplers",
            "one sampler is slow",
            "scoring takes long",
            "a few long completions hold up a batch",
        ),
        attempts=(
            "raise `rollout.num_engines`",
            *(("`max_policy_lag=1`, so that sampling runs ahead",) if synchronous else ()),
            "raise `reward.num_workers`",
        ),
        chart=facts.chart("share of a step spent waiting", "time/wait_share", WAIT_SHARE.watch_above),
        links=(Link(label="timeline", page="timeline"),),
    )


def sync_slow(facts: Facts) -> Finding | None:
    """Weight syncs take a large part of the time."""
    values = facts.values("time/sync_share")
    now = recent(values, LATELY) if len(known(values)) >= LATELY else None
    seconds = recent(facts.values("time/sync_s"), LATELY) or 0.0
    state = SYNC_SHARE.state(now)
    if now is None or state not in ("watch", "alarm"):
        return None
    alarming = "error" if state == "alarm" else "warning"
    return Finding(
        severity=alarming if seconds >= NOTABLE_SYNC_S else "info",  # type: ignore[arg-type]
        title="Weight syncs take long" if seconds >= NOTABLE_SYNC_S else "Steps are short beside a weight sync",
        since_step=since(facts.steps, values, lambda v: v > (SYNC_SHARE.watch_above or 0.0)),
        evidence=f"A sync takes {short(seconds)} s, {percent(now)} of a step; {SYNC_SHARE.text(share=True)}.",
        causes=("what is being sampled is drained first", "the network between learner and samplers is slow"),
        attempts=(
            "`rollout.on_weight_sync=keep`, where sampling runs ahead",
            "raise `weight_sync.chunk_mib`",
            "`weight_sync.delta=true` where a network lies between, in bfloat16",
            "raise `rollout.prompts_per_step`, so that there are fewer syncs",
        ),
        chart=facts.chart("share of a step spent in sync", "time/sync_share", SYNC_SHARE.watch_above),
        links=(Link(label="timeline", page="timeline"),),
    )


def lag_near_bound(facts: Facts) -> Finding | None:
    """Samples are nearly as old as they may be."""
    bound, now = facts.limits.max_policy_lag, recent(facts.values("lag/mean"))
    if now is None or bound == 0 or not NEAR_BOUND * bound <= now <= bound:
        return None
    return Finding(
        severity="warning" if bound >= LEAST_BOUND else "info",
        title="Samples are nearly as old as they may be",
        since_step=since(facts.steps, facts.values("lag/mean"), lambda v: v >= NEAR_BOUND * bound),
        evidence=f"The mean lag of the last steps is {short(now)} versions, the bound is {bound}.",
        causes=("the learner is slower than the samplers, and samples wait for it",),
        attempts=(f"lower `max_policy_lag`: below {bound} nothing would wait longer", "raise `learner.num_ranks`"),
        chart=facts.chart("mean lag", "lag/mean", float(bound)),
    )


def ledger_unbalanced(facts: Facts) -> Finding | None:
    """Groups were lost, or used twice."""
    missing = last_known(facts.values("groups/unaccounted")) or 0.0
    anomalies = ", ".join(f"{name.replace('_', ' ')}: {count}" for name, count in facts.anomalies.items() if count)
    if not missing and not anomalies:
        return None
    parts = [f"{missing:.0f} groups are neither trained, rejected nor in flight"] if missing else []
    return Finding(
        severity="error",
        title="The ledger does not balance",
        since_step=next((s for s, v in zip(facts.steps, facts.values("groups/unaccounted"), strict=True) if v), None),
        evidence="; ".join([*parts, *([anomalies] if anomalies else [])]) + ".",
        causes=(
            "two processes wrote the run",
            "files of the run were edited or restored from a copy",
            "a defect of Shoal",
        ),
        attempts=("look at the journal of these groups", "start the run anew, where the numbers matter"),
        links=(Link(label="ledger", page="ledger"),),
    )


def run_ended_badly(facts: Facts) -> Finding | None:
    """The run failed, or stopped without saying so."""
    if facts.status not in ("stopped", "failed"):
        return None
    steps = facts.written("steps", int)
    done = f"{(facts.steps[-1] + 1) if facts.steps else 0} of {steps or 'its'} steps"
    resume = "`shoal train --resume RUN` goes on from the last checkpoint"
    if facts.status == "failed":
        return Finding(
            severity="error",
            title="The run failed",
            since_step=facts.steps[-1] if facts.steps else None,
            evidence=f"It ended after {done}: {facts.error or 'no reason is on record'}",
            causes=("what the sentence above names",),
            attempts=("mend what the sentence above names", resume),
            links=(Link(label="timeline", page="timeline"),),
        )
    return Finding(
        severity="warning",
        title="The run stopped without a summary",
        since_step=facts.steps[-1] if facts.steps else None,
        evidence=f"It ends after {done}, nobody writes any more, and there is no summary.json.",
        causes=("its process was killed: out of memory, or by the scheduler", "the machine went down"),
        attempts=("look at the machine's log (`dmesg`) for the time of the last line", resume),
        links=(Link(label="timeline", page="timeline"),),
    )


def files_damaged(facts: Facts) -> Finding | None:
    """Files of the run are missing or cannot be read."""
    problems = facts.problems
    if not problems:
        return None
    matter = [problem for problem in problems if problem.file not in OPTIONAL_FILES]
    first = (matter or problems)[0]
    more = len(problems) - 1
    return Finding(
        severity="warning" if matter else "info",
        title="Files of the run are missing or damaged",
        evidence=f"{first.file}: {first.message}" + (f" (and {more} more)" if more else ""),
        causes=("the disk was full", "the copy is not complete", "the run was made by another version"),
        attempts=("copy the run again", "make room on the disk"),
    )


def evaluation_behind(facts: Facts) -> Finding | None:
    """Training accuracy rises and held-out accuracy does not."""
    held_out: Sequence[float] = known(facts.held_out)
    trained = known(facts.values("reward/accuracy"))
    if len(held_out) < 3 or len(trained) < 10:
        return None
    gain, gain_held_out = mean(trained[-5:]) - mean(trained[:5]), held_out[-1] - held_out[0]
    if gain < 0.2 or gain_held_out > 0.25 * gain:
        return None
    return Finding(
        severity="warning",
        title="What is learnt does not carry over to held-out questions",
        evidence=f"Accuracy in training rose by {percent(gain)}, on held-out questions it went from "
        f"{percent(held_out[0])} to {percent(held_out[-1])}.",
        causes=(
            "the questions in training are learnt by heart",
            "the two sets of questions differ",
            "the reward is gamed",
        ),
        attempts=("more questions: `task.size`, where the task is generated", "read what is called right in training"),
        links=(Link(label="overview", page="overview"),),
    )

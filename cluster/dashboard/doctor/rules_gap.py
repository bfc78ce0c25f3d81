"""Rules about the sampler and the learner: do they compute the same policy?

The gap is k3, an estimate of KL(sampler || learner) from the sampled tokens. Thresholds are those of `thresholds`;
what is compared with the run's own history has its factor here.
"""

from cluster.dashboard.doctor.facts import Chart, Facts, Finding, Link
from cluster.dashboard.doctor.trends import change, jump, mean, percent, recent, rises_steadily, short, since, trend
from cluster.dashboard.figures.series import known
from cluster.dashboard.figures.thresholds import CLIP_FRACTION, clip_fraction, gap, lag
from learner.metrics import MAX_LOG_RATIO

GAP = "train/kl_rollout"
JUMP_FACTOR = 10
"""A gap ten times its own median within one step means weights that did not arrive (TRL issue 5312: 0.015 -> 0.201)."""
GROWTH_FACTOR = 3
"""Three times its own level is worth a look (field practice for the mean gap)."""
SAMPLER_FACTOR = 3
"""One sampler's gap, as a multiple of the others'. Ours: in healthy runs samplers differ by less than a tenth."""
KL_RISE, KL_LEAST = 1.5, 0.01
"""What counts as a rise of the KL to the reference, and below what nobody need care (nats). Ours."""
CUT_OFF_SHARE = 0.1
"""Share of the steps with such a token from which it is no accident. Ours."""
LONG = 50
"""Steps without progress after which "flat" is said (practitioners' guides)."""


def gap_jumped(facts: Facts) -> Finding | None:
    """The gap between sampler and learner jumped right after a weight sync, and stayed."""
    values, threshold = facts.values(GAP), gap(facts.limits)
    at = jump(values, factor=JUMP_FACTOR, floor=threshold.watch_above or 0.0)
    if at is None:
        return None
    step = facts.steps[at]
    before, after = mean(known(values[max(0, at - 20) : at])), mean(known(values[at:]))
    culprit = _odd_sampler(facts)
    where = ""
    if culprit is not None:
        name, own, others = culprit
        where = f"; {name} has {short(own)}, the others {short(others)}"
        behind = max((d.lags.get(name, 0) for d in facts.digests), default=0)
        if behind > facts.limits.max_policy_lag:
            where += f", and its tokens are stamped up to {behind} versions behind"
    who = culprit[0] if culprit else "the samplers"
    return Finding(
        severity="error" if after > (threshold.alarm_above or 0.0) else "warning",
        title=f"The gap between sampler and learner jumped after the sync before step {step}",
        since_step=step,
        evidence=f"k3 rose from {short(before)} to {short(after)} at step {step} and stayed there{where}.",
        causes=(
            f"{who} went on with old weights: the sync did not reach it, or was not applied",
            "the prefix cache still holds what the old weights computed",
            "sampler and learner differ in precision or in kernels since then",
        ),
        attempts=(
            "stop the run and resume it: a restart sends all weights to every sampler and verifies them",
            "`rollout.prefix_caching=false` for a few steps: if the gap goes, it was the cache",
            "lower `weight_sync.canary_mean_error`, so that a sync that does not take is refused",
        ),
        chart=facts.chart("gap (k3)", GAP, threshold.watch_above),
        links=(_step(step), *_gap_links(step, culprit[0] if culprit else None)),
    )


def lag_over_bound(facts: Facts) -> Finding | None:
    """Tokens are older than the bound on the policy lag allows."""
    values, bound = facts.values("lag/max"), facts.limits.max_policy_lag
    over = [step for step, v in zip(facts.steps, values, strict=True) if lag(facts.limits).state(v) == "alarm"]
    if not over:
        return None
    return Finding(
        severity="error",
        title="Completions are older than the policy lag allows",
        since_step=over[0],
        evidence=f"{len(over)} steps trained on tokens up to {short(max(known(values)))} versions old, and "
        f"max_policy_lag is {bound}.",
        causes=("a sampler serves weights older than those that it was sent", "a group was kept across several steps"),
        attempts=(
            "look which sampler the oldest tokens are from",
            "stop the run and resume it: a restart sends all weights to every sampler and verifies them",
        ),
        chart=facts.chart("largest lag", "lag/max", float(bound)),
        links=(_step(over[0]), Link(label="the oldest", page="rollouts", params={"filter": f"lag>{bound}"})),
    )


def gap_grows(facts: Facts) -> Finding | None:
    """The gap between sampler and learner grows steadily."""
    values, threshold = facts.values(GAP), gap(facts.limits)
    ends = change(values)
    if ends is None or gap_jumped(facts) is not None or not rises_steadily(values):
        return None
    first, now = ends[0], recent(values) or 0.0
    if now < GROWTH_FACTOR * first or threshold.state(now) == "ok":
        return None
    return Finding(
        severity="error" if threshold.state(now) == "alarm" else "warning",
        title="The gap between sampler and learner grows steadily",
        since_step=since(facts.steps, values, lambda v: v > (threshold.watch_above or 0.0)),
        evidence=f"k3 grew from {short(first)} to {short(now)}, and most steps are above those before.",
        causes=(
            "the policy becomes so sure that rounding in 16 bits matters more",
            "samples become older: lag, or completions that run on across syncs",
            "a part of the weights is not sent, and drifts apart",
        ),
        attempts=(
            "`rollout.dtype` and `learner.dtype` float32 for a few steps: if the gap goes, it was precision",
            *(("lower `max_policy_lag`",) if facts.limits.max_policy_lag else ()),
            "lower `learner.lr`",
        ),
        chart=facts.chart("gap (k3)", GAP, threshold.watch_above),
        links=_gap_links(None, None),
    )


def gap_high(facts: Facts) -> Finding | None:
    """The gap between sampler and learner is large all the time."""
    values, threshold = facts.values(GAP), gap(facts.limits)
    now = recent(values)
    state = threshold.state(now)
    if now is None or state not in ("watch", "alarm") or gap_jumped(facts) or gap_grows(facts):
        return None
    return Finding(
        severity="error" if state == "alarm" else "warning",
        title="Sampler and learner disagree",
        since_step=since(facts.steps, values, lambda v: v > (threshold.watch_above or 0.0)),
        evidence=f"k3 is {short(now)} over the last steps; {threshold.text()}.",
        causes=(
            "sampler and learner compute in different precision",
            "temperature, top-p or top-k are applied on one side alone",
            "the model has parts that the two implement differently",
        ),
        attempts=(
            "`rollout.dtype` and `learner.dtype` alike",
            "`rollout.sampling.top_p=1.0` and `rollout.sampling.top_k=0`",
        ),
        chart=facts.chart("gap (k3)", GAP, threshold.watch_above),
        links=_gap_links(None, None),
    )


def sampler_gap_differs(facts: Facts) -> Finding | None:
    """One sampler's gap is not that of the others."""
    culprit = _odd_sampler(facts)
    if culprit is None:
        return None
    name, own, others = culprit
    steps = [d.step for d in facts.digests]
    values = [d.gaps.get(name) for d in facts.digests]
    limit = max(SAMPLER_FACTOR * others, gap(facts.limits).watch_above or 0.0)
    return Finding(
        severity="error" if gap(facts.limits).state(own) == "alarm" else "warning",
        title=f"{name} samples from another policy than the other samplers",
        since_step=since(steps, values, lambda v: v > limit),
        evidence=f"k3 of what {name} sampled is {short(own)} over the last steps, that of the others {short(others)}.",
        causes=(f"{name} holds old or damaged weights", f"{name} runs on other hardware, kernels or settings"),
        attempts=(f"restart {name}: resume the run from its last checkpoint", "compare its node with the others"),
        chart=Chart(title=f"gap of {name} (k3)", step=steps, values=values, threshold=limit),
        links=_gap_links(None, name),
    )


def ratios_cut_off(facts: Facts) -> Finding | None:
    """Tokens are so far from what the sampler gave them that the loss cuts their ratio off, and they do not train."""
    name = "train/max_abs_log_ratio"
    pairs = list(zip(facts.steps, facts.values(name), strict=True))[-LONG:]
    beyond = [(step, value) for step, value in pairs if value is not None and value > MAX_LOG_RATIO]
    if not beyond:
        return None
    worst = max(value for _, value in beyond)
    return Finding(
        severity="error" if len(beyond) > CUT_OFF_SHARE * len(pairs) else "warning",
        title="Tokens are beyond what the loss can follow",
        since_step=beyond[0][0],
        evidence=f"{len(beyond)} of the last {len(pairs)} steps have a token whose log-ratio is beyond "
        f"{MAX_LOG_RATIO:.0f} nats, the largest {short(worst)}; there the gradient is 0, even where the advantage "
        "pushes the token back.",
        causes=(
            "an engine serves old or damaged weights",
            "sampler and learner treat the token differently: temperature, top-p or top-k, a mask",
            "samples are much older than the policy",
        ),
        attempts=(
            "look at the tokens with the largest gap",
            "`rollout.sampling.top_p=1.0` and `rollout.sampling.top_k=0`",
            *(("lower `max_policy_lag`",) if facts.limits.max_policy_lag else ()),
        ),
        chart=facts.chart("largest gap of a token", name, MAX_LOG_RATIO),
        links=(_step(beyond[0][0]), *_gap_links(beyond[0][0], None)),
    )


def clips_much(facts: Facts) -> Finding | None:
    """A large share of the tokens is clipped, so that it does not train."""
    values = facts.values("train/clip_fraction")
    now = recent(values)
    state = clip_fraction(facts.limits).state(now)
    if now is None or state not in ("watch", "alarm"):
        return None
    return Finding(
        severity="error" if state == "alarm" else "warning",
        title="Many tokens are clipped",
        since_step=since(facts.steps, values, lambda v: v > (CLIP_FRACTION.watch_above or 0.0)),
        evidence=f"{percent(now)} of the tokens of the last steps are outside the clip; "
        f"{CLIP_FRACTION.text(share=True)}.",
        causes=(
            "several updates on each batch move the policy far from the sampler",
            "the learning rate is too high",
            "samples are old, or sampler and learner disagree: see the gap",
        ),
        attempts=(
            *(("`learner.updates_per_batch=1`",) if facts.setting("learner.updates_per_batch", int) > 1 else ()),
            "lower `learner.lr`",
            *(("lower `max_policy_lag`",) if facts.limits.max_policy_lag else ()),
        ),
        chart=facts.chart("clipped tokens", "train/clip_fraction", CLIP_FRACTION.watch_above),
    )


def kl_without_reward(facts: Facts) -> Finding | None:
    """The policy moves away from the reference, and the reward does not rise."""
    kl, reward = facts.values("train/kl_ref")[-LONG:], facts.values("reward/mean")[-LONG:]
    ends, moves = change(kl), trend(reward, least=20)
    if ends is None or moves in (None, "rises") or ends[1] < max(KL_RISE * ends[0], KL_LEAST):
        return None
    falls = moves == "falls"
    return Finding(
        severity="error" if falls else "warning",
        title=f"The policy leaves the reference while the reward {'falls' if falls else 'stays where it is'}",
        since_step=facts.steps[-len(kl)],
        evidence=f"KL to the reference went from {short(ends[0])} to {short(ends[1])} in {len(kl)} steps, the reward "
        f"from {short((change(reward) or (0, 0))[0])} to {short((change(reward) or (0, 0))[1])}.",
        causes=(
            "nothing is left to learn, and noise moves the weights",
            "the reward is being gamed in ways it ignores",
        ),
        attempts=(
            "stop here, and take an earlier checkpoint where the evaluations are better",
            "lower `learner.lr`",
            "raise `learner.objective.kl.coef`",
        ),
        chart=facts.chart("KL to the reference", "train/kl_ref"),
    )


def _odd_sampler(facts: Facts) -> tuple[str, float, float] | None:
    """(sampler, its gap, the others' mean gap) where one stands out over the last steps."""
    last = facts.digests[-5:]
    names = {name for d in last for name in d.gaps}
    gaps = {name: mean(d.gaps[name] for d in last if name in d.gaps) for name in names}
    if len(gaps) < 2:
        return None
    name = max(gaps, key=lambda key: gaps[key])
    others = mean(value for key, value in gaps.items() if key != name)
    stands_out = gaps[name] > max(SAMPLER_FACTOR * others, gap(facts.limits).watch_above or 0.0)
    return (name, gaps[name], others) if stands_out else None


def _step(step: int) -> Link:
    return Link(label=f"step {step}", page="step", parts=("train", step))


def _gap_links(step: int | None, sampler: str | None) -> tuple[Link, ...]:
    parts = [] if step is None else [f"step>={step}"]
    parts += [] if sampler is None else [f'worker="{sampler}"']
    params = {"sort": "-max_gap", **({"filter": " & ".join(parts)} if parts else {})}
    return (Link(label="largest gaps", page="rollouts", params=params),)

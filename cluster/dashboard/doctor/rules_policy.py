"""Rules about the policy itself: its entropy, its lengths, its gradients."""

from cluster.dashboard.doctor.facts import Chart, Facts, Finding, Link
from cluster.dashboard.doctor.trends import change, early, mean, percent, recent, short, since, trend
from cluster.dashboard.figures.series import known, median_known
from cluster.dashboard.figures.thresholds import TRUNCATED, Threshold, entropy_name

ENTROPY_LOW, ENTROPY_COLLAPSED = 0.3, 0.1
ENTROPY_HIGH, ENTROPY_EXPLODED = 2.0, 4.0
"""Of the entropy of the first steps: what is low in nats depends on the model. Ours, as in `thresholds.entropy`."""
MOSTLY_RIGHT = 0.8
"""Accuracy from which on the policy may well be sure of its answers. Ours: the quickstart gets there at 0.15 of its
first entropy, and goes on to 0.97."""
SPIKE, LARGE_SPIKE = 3.0, 10.0
"""Gradient norms in multiples of the median: spikes come before divergence (prime-rl)."""
LONGER = 1.3
"""Growth of the completions that counts (field practice: +30 %)."""
REPEATING = Threshold(watch_above=0.03, alarm_above=0.1)
"""Share of the completions that repeat themselves (slime's metric; the numbers are ours)."""
LATELY = 20
"""Steps in which a skipped step or a spike is news."""


def entropy_collapsed(facts: Facts) -> Finding | None:
    """The entropy collapsed while the reward does not rise."""
    name = entropy_name(facts.table)
    values = facts.values(name)
    first, now = early(values), recent(values, 3)
    if first is None or now is None or first <= 0 or now >= ENTROPY_LOW * first:
        return None
    # Where the answers are right, low entropy is what success looks like. As long as the reward rises while the
    # entropy falls, the one pays for the other.
    began = since(facts.steps, values, lambda v: v < first / 2)
    start = 0 if began is None else list(facts.steps).index(began)
    reward = facts.values("reward/mean")[start:]
    moves = trend(reward)
    accuracy = recent(facts.values("reward/accuracy")) or 0.0
    if accuracy >= MOSTLY_RIGHT or moves in (None, "rises"):
        return None
    return Finding(
        severity="error" if now < ENTROPY_COLLAPSED * first else "warning",
        title="The entropy collapsed",
        since_step=began,
        evidence=f"Entropy fell from {short(first)} to {short(now)} nats while the reward stays at "
        f"{short(recent(reward) or 0.0)}{_alike(facts)}.",
        causes=(
            "the policy gives one answer to each question and explores no more",
            "the learning rate is too high for the batch",
            "nothing holds the policy: no KL term, and a clip that keeps rare tokens down",
        ),
        attempts=(
            "resume from a checkpoint from before (remove the later ones), with a lower `learner.lr`",
            "raise `learner.objective.surrogate.eps_high` above `learner.objective.surrogate.eps` (0.28 in DAPO)",
            "raise `learner.objective.kl.coef`",
        ),
        chart=facts.chart("entropy", name, ENTROPY_LOW * first, keep="least"),
        links=(*_step(began), Link(label="lowest entropy", page="rollouts", params={"sort": "entropy"})),
    )


def entropy_exploded(facts: Facts) -> Finding | None:
    """The entropy rises far above where it began."""
    name = entropy_name(facts.table)
    values = facts.values(name)
    first, now = early(values), recent(values)
    if first is None or now is None or first <= 0 or now <= ENTROPY_HIGH * first:
        return None
    return Finding(
        severity="error" if now > ENTROPY_EXPLODED * first else "warning",
        title="The policy becomes random",
        since_step=since(facts.steps, values, lambda v: v > ENTROPY_HIGH * first),
        evidence=f"Entropy rose from {short(first)} to {short(now)} nats, {short(now / first)} times where it began.",
        causes=("the learning rate is too high", "rewards that do not depend on the answer", "a gap to the sampler"),
        attempts=(
            "resume from a checkpoint from before (remove the later ones), with a lower `learner.lr`",
            "raise `learner.objective.kl.coef`",
        ),
        chart=facts.chart("entropy", name, ENTROPY_HIGH * first),
        links=(Link(label="highest entropy", page="rollouts", params={"sort": "-entropy"}),),
    )


def truncated(facts: Facts) -> Finding | None:
    """Completions are cut off before they end."""
    values = facts.values("rollout/truncated_fraction")
    now = recent(values)
    state = TRUNCATED.state(now)
    if now is None or state not in ("watch", "alarm"):
        return None
    limit = facts.written("rollout.sampling.max_tokens", int)
    return Finding(
        severity="error" if state == "alarm" else "warning",
        title="Many completions are cut off",
        since_step=since(facts.steps, values, lambda v: v > (TRUNCATED.watch_above or 0.0)),
        evidence=f"{percent(now)} of the completions of the last steps reached the limit"
        + (f" of {limit} tokens" if limit else "")
        + f"; {TRUNCATED.text(share=True)}.",
        causes=("the limit is too low for the task", "the policy does not learn to stop", "it repeats itself"),
        attempts=(
            "raise `rollout.sampling.max_tokens` (and `model.max_context_tokens`)",
            "a reward `overlong` or `length_penalty` in `reward.functions`",
        ),
        chart=facts.chart("cut off", "rollout/truncated_fraction", TRUNCATED.watch_above),
        links=(Link(label="right but cut off", page="rollouts", params={"filter": "truncated & correct"}),),
    )


def longer_for_nothing(facts: Facts) -> Finding | None:
    """Completions become longer, and the reward does not rise."""
    lengths, reward = facts.values("rollout/completion_tokens_mean")[-50:], facts.values("reward/mean")[-50:]
    ends, moves = change(lengths), trend(reward, least=LATELY)
    if ends is None or moves in (None, "rises") or trend(lengths) != "rises" or ends[1] < LONGER * ends[0]:
        return None
    rewards = change(reward) or (0.0, 0.0)
    return Finding(
        severity="warning",
        title="Completions become longer without more reward",
        since_step=facts.steps[-len(lengths)],
        evidence=f"The mean length went from {short(ends[0])} to {short(ends[1])} tokens in {len(lengths)} steps, the "
        f"reward from {short(rewards[0])} to {short(rewards[1])}.",
        causes=("length is rewarded by accident", "long wrong answers are punished less for each of their tokens"),
        attempts=("a reward `length_penalty` in `reward.functions`", "read the longest completions"),
        chart=facts.chart("tokens of a completion", "rollout/completion_tokens_mean", keep="mean"),
        links=(Link(label="longest", page="rollouts", params={"sort": "-length"}),),
    )


def repeats(facts: Facts) -> Finding | None:
    """Completions repeat themselves."""
    last = [d.repeating for d in facts.digests[-5:]]
    now = mean(last) if len(last) >= 3 else None
    state = REPEATING.state(now)
    if now is None or state not in ("watch", "alarm"):
        return None
    steps, values = [d.step for d in facts.digests], [d.repeating for d in facts.digests]
    return Finding(
        severity="error" if state == "alarm" else "warning",
        title="Completions repeat themselves",
        since_step=since(steps, values, lambda v: v > (REPEATING.watch_above or 0.0)),
        evidence=f"In {percent(now)} of the completions of the last steps half of what is said was said before.",
        causes=("the policy has lost the end-of-sequence token", "the reward does not mind", "the entropy collapsed"),
        attempts=("read them", "lower `rollout.sampling.max_tokens`", "lower `learner.lr`"),
        chart=Chart(title="repeating", step=steps, values=values, threshold=REPEATING.watch_above),
        links=(Link(label="repeating", page="rollouts", params={"filter": "repetition>0.5", "sort": "-repetition"}),),
    )


def gradient_spikes(facts: Facts) -> Finding | None:
    """The gradient norm spikes."""
    values = facts.values("train/grad_norm")
    usual = median_known(values, at_least=10)
    if not usual:
        return None
    pairs = list(zip(facts.steps, values, strict=True))[-LATELY:]
    spikes = [(step, value) for step, value in pairs if value is not None and value > SPIKE * usual]
    worst = max((value for _, value in spikes), default=0.0)
    if len(spikes) < 2 and worst <= LARGE_SPIKE * usual:
        return None
    return Finding(
        severity="error" if worst > LARGE_SPIKE * usual and len(spikes) >= 2 else "warning",
        title="The gradient norm spikes",
        since_step=spikes[0][0],
        evidence=f"{len(spikes)} of the last {len(pairs)} steps have more than {SPIKE:.0f} times the median of "
        f"{short(usual)}, the largest {short(worst)}.",
        causes=("single completions with extreme ratios", "the learning rate is too high", "a batch that is too small"),
        attempts=("lower `learner.max_grad_norm`", "lower `learner.lr`", "raise `rollout.prompts_per_step`"),
        chart=facts.chart("gradient norm", "train/grad_norm", SPIKE * usual),
        links=_step(spikes[0][0]),
    )


def steps_skipped(facts: Facts) -> Finding | None:
    """Training steps were skipped because a loss or gradient was not finite."""
    pairs = list(zip(facts.steps, facts.values("train/skipped"), strict=True))[-LATELY:]
    skipped = [step for step, value in pairs if value]
    if not skipped:
        return None
    in_a_row = max(known(facts.values("train/bad_steps_in_a_row")[-LATELY:]), default=0.0)
    return Finding(
        severity="error" if len(skipped) > 0.1 * len(pairs) else "warning",
        title="Training steps were skipped",
        since_step=skipped[0],
        evidence=f"{len(skipped)} of the last {len(pairs)} steps changed nothing, {in_a_row:.0f} of them in a row; the "
        f"run ends at {facts.limits.max_bad_steps or 'learner.max_bad_steps'}.",
        causes=("a loss or gradient that is not finite: overflow in 16 bits", "a batch without anything to train on"),
        attempts=("`learner.dtype=float32`", "lower `learner.lr`", "look at the rollouts of those steps"),
        chart=facts.chart("skipped", "train/skipped"),
        links=_step(skipped[0]),
    )


def _alike(facts: Facts) -> str:
    """What else shows that completions have become alike."""
    equal = recent(facts.values("reward/equal_groups_fraction"))
    lengths = facts.values("rollout/completion_tokens_mean")
    before, now = early(lengths), recent(lengths)
    text = "" if equal is None else f"; {percent(equal)} of the groups have equal rewards"
    return text + ("" if before is None or now is None else f"; completions went from {before:.0f} to {now:.0f} tokens")


def _step(step: int | None) -> tuple[Link, ...]:
    return () if step is None else (Link(label=f"step {step}", page="step", parts=("train", step)),)

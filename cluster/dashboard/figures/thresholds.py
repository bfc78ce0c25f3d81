"""When a metric is worth a look, and when it is an alarm; tiles, charts and doctor mean the same by it.

Numbers are the field's where it has any (named below), measured on this project's own runs elsewhere. Where a number
depends on the run (its precision, its first step, its own median), `RunFacts` says on what.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cluster.dashboard.figures.series import column, first_known, median_known
from cluster.dashboard.figures.settings import setting, written
from cluster.dashboard.records import MetricTable

State = Literal["ok", "watch", "alarm", "none"]
SOLVED_ACCURACY = 0.9
"""From here on little is left to learn: low entropy and groups without a difference are what success looks like."""


_SURROGATE = "learner.objective.surrogate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """Where a value leaves what is healthy, upwards and downwards; None where there is no such bound."""

    watch_above: float | None = None
    alarm_above: float | None = None
    watch_below: float | None = None
    alarm_below: float | None = None

    def state(self, value: float | None) -> State:
        """`none` where there is no value."""
        if value is None:
            return "none"
        if _over(value, self.alarm_above) or _under(value, self.alarm_below):
            return "alarm"
        if _over(value, self.watch_above) or _under(value, self.watch_below):
            return "watch"
        return "ok"

    def bands(self) -> list[dict[str, Any]]:
        """The areas of a chart to shade, from low to high; an open end is None."""
        bands: list[dict[str, Any]] = []
        if self.alarm_below is not None:
            bands.append({"from": None, "to": self.alarm_below, "state": "alarm"})
        if self.watch_below is not None:
            bands.append({"from": self.alarm_below, "to": self.watch_below, "state": "watch"})
        if self.watch_above is not None:
            bands.append({"from": self.watch_above, "to": self.alarm_above, "state": "watch"})
        if self.alarm_above is not None:
            bands.append({"from": self.alarm_above, "to": None, "state": "alarm"})
        return bands

    def text(self, *, share: bool = False) -> str:
        """ "watch above 0.001, alarm above 0.01"; with `share` in percent."""

        def shown(value: float) -> str:
            return f"{value * 100:.3g} %" if share else f"{value:.3g}"

        parts = []
        for state, low, high in (
            ("watch", self.watch_below, self.watch_above),
            ("alarm", self.alarm_below, self.alarm_above),
        ):
            bounds = [f"below {shown(low)}"] if low is not None else []
            bounds += [f"above {shown(high)}"] if high is not None else []
            if bounds:
                parts.append(f"{state} {' or '.join(bounds)}")
        return ", ".join(parts)


NO_THRESHOLD = Threshold()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What thresholds and derived series depend on. Anything may be unknown: the configuration may be missing."""

    half_precision: bool
    """Sampler or learner computes in 16 bits, so that the two differ by rounding; also when it is not known."""
    max_policy_lag: int
    group_size: int | None
    clips_tokens: bool
    """Whether the surrogate is PPO's clip of each token's ratio, for which there are figures; also when not known."""
    max_bad_steps: int | None
    first_entropy: float | None
    """Nats, of the first step that has it; see `entropy_name`."""
    median_grad_norm: float | None
    """None before the fifth step: a median of fewer says nothing."""
    median_tokens_per_s: float | None


def facts_of(config: Mapping[str, Any] | None, table: MetricTable) -> RunFacts:
    """Of the plain values of config.yaml, which may lack or hold anything."""
    dtypes = {written(config, "rollout.dtype", str), written(config, "learner.dtype", str)}
    return RunFacts(
        half_precision=dtypes != {"float32"},
        max_policy_lag=setting(config, "max_policy_lag", int),
        group_size=written(config, "rollout.group_size", int) or None,
        clips_tokens=(written(config, f"{_SURROGATE}.kind", str) or "ppo_clip") == "ppo_clip"
        and (written(config, f"{_SURROGATE}.level", str) or "token") == "token",
        max_bad_steps=written(config, "learner.max_bad_steps", int),
        first_entropy=first_known(column(table, entropy_name(table))),
        median_grad_norm=median_known(column(table, "train/grad_norm"), at_least=5),
        median_tokens_per_s=median_known(column(table, "rollout/tokens_per_s"), at_least=5),
    )


def entropy_name(table: MetricTable) -> str:
    """The column that says how uncertain the policy is: the sampler's estimate, the learner's where there is none.

    The estimate is over all sampled tokens. The learner's is over those that it computed: without a KL term completions
    of advantage 0 are left out, so that it moves as prompts are solved, with a policy that stays as it is.
    """
    names = ("rollout/sampled_entropy", "train/entropy")
    return next((name for name in names if first_known(column(table, name)) is not None), names[0])


def gap(facts: RunFacts) -> Threshold:
    """k3 between sampler and learner. Published: below 1e-3 acceptable (NeMo-RL), stable below 1e-2 (tinker).

    In fp32 on both sides rounding alone gives 1e-8; in bf16 this project's healthy runs have 2e-3. With a lag the
    policy's own movement is in it too.
    """
    if facts.max_policy_lag > 0:
        return Threshold(watch_above=1e-2, alarm_above=5e-2)
    if facts.half_precision:
        return Threshold(watch_above=5e-3, alarm_above=1e-2)
    return Threshold(watch_above=1e-4, alarm_above=1e-3)


def largest_gap(facts: RunFacts) -> Threshold:
    """Largest |log p(learner) - log p(sampler)| of a step, nats."""
    if facts.half_precision or facts.max_policy_lag > 0:
        return Threshold(watch_above=1.0, alarm_above=5.0)
    return Threshold(watch_above=0.01, alarm_above=1.0)


def ratio(facts: RunFacts) -> Threshold:
    """Mean of p(learner) / p(sampler): 1 but for rounding and lag. NeMo-RL alarms at 1.05."""
    if facts.half_precision or facts.max_policy_lag > 0:
        return Threshold(watch_above=1.02, alarm_above=1.05, watch_below=0.98, alarm_below=0.95)
    return Threshold(watch_above=1.001, alarm_above=1.01, watch_below=0.999, alarm_below=0.99)


def entropy(facts: RunFacts) -> Threshold:
    """Relative to the first step: what is low in nats depends on the model and its vocabulary."""
    first = facts.first_entropy
    if first is None or first <= 0:
        return NO_THRESHOLD
    return Threshold(watch_above=2 * first, alarm_above=4 * first, watch_below=0.3 * first, alarm_below=0.1 * first)


def clip_fraction(facts: RunFacts) -> Threshold:
    """Of PPO's clip of tokens. Others have no such figures: GSPO clips 15 % of its tokens when all is well (arXiv
    2507.18071, section 5.2), and what CISPO holds at its cap keeps its gradient."""
    return CLIP_FRACTION if facts.clips_tokens else NO_THRESHOLD


def grad_norm(facts: RunFacts) -> Threshold:
    """Relative to the run's own median: spikes precede divergence."""
    median = facts.median_grad_norm
    return NO_THRESHOLD if not median else Threshold(watch_above=3 * median, alarm_above=10 * median)


def throughput(facts: RunFacts) -> Threshold:
    """Relative to the run's own median; longer or shorter completions move it too, so only a fall by half counts."""
    median = facts.median_tokens_per_s
    return NO_THRESHOLD if not median else Threshold(watch_below=0.5 * median, alarm_below=0.2 * median)


def lag(facts: RunFacts) -> Threshold:
    """Admission bounds it, so a lag above the bound is an error of the controller."""
    return Threshold(alarm_above=facts.max_policy_lag + 0.5)


EQUAL_GROUPS = Threshold(watch_above=0.5, alarm_above=0.8)
CLIP_FRACTION = Threshold(watch_above=0.1, alarm_above=0.2)
TRUNCATED = Threshold(watch_above=0.05, alarm_above=0.15)
JUDGE_AGREEMENT = Threshold(watch_below=0.7, alarm_below=0.5)
"""Ours: of pairs that are known; 0.5 is chance. Below it the judge teaches the opposite."""
JUDGE_LENGTH = Threshold(watch_above=0.5)
"""Ours: of the size of the correlation, within groups."""
FAILED_REWARDS = Threshold(watch_above=0.01, alarm_above=0.05)
WAIT_SHARE = Threshold(watch_above=0.3, alarm_above=0.6)
SYNC_SHARE = Threshold(watch_above=0.1, alarm_above=0.25)
SLOWEST_SAMPLER = Threshold(watch_below=0.6)
"""Of the median sampler: lengths alone make a tenth of difference or two."""


def _over(value: float, bound: float | None) -> bool:
    return bound is not None and value > bound


def _under(value: float, bound: float | None) -> bool:
    return bound is not None and value < bound

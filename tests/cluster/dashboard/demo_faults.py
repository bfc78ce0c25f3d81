"""What is wrong in a demo run, and since when. Everything that a fault does not touch is the same in all runs."""

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

Kind = Literal["healthy", "entropy_collapse", "stale_weights", "broken_grader", "slow_sampler"]
KINDS: tuple[Kind, ...] = get_args(Kind)
FAULTY_SAMPLER = "sampler-1"
SLOW_FACTOR = 3.5
"""How much longer the slow sampler takes."""
HEALTHY_GAP = 0.012
"""Typical |log p(learner) - log p(sampler)|, nats: rounding of bf16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What holds during one training step."""

    skill: float
    """Logits: a sum of difficulty d is right with probability sigmoid(skill - d)."""
    entropy: float
    """Mean entropy of a token, nats."""
    brief: float = 0.15
    """Share of answers without working."""
    alike: float = 0.0
    """Chance that a group's samples all give the same answer."""
    drift: float
    """Typical distance of a token's log-probability from the reference's, nats."""
    stale_version: int | None = None
    """Version of the weights that FAULTY_SAMPLER kept; None where all have the newest."""
    stale_gap: float = HEALTHY_GAP
    """Its gap then, nats."""
    error_rate: float = 0.0
    """Share of the completions whose grader raises."""
    timeout_rate: float = 0.0002
    missed_rate: float = 0.0
    """Share of the right answers that the grader calls wrong."""
    slow: float = 1.0
    """How much longer FAULTY_SAMPLER takes."""


def fault_step(steps: int) -> int:
    """First step that shows the fault."""
    return max(2, round(0.4 * steps))


def conditions(kind: Kind, step: int, steps: int) -> Conditions:
    """What holds in `step` of a run of `steps`."""
    done = step / max(steps - 1, 1)
    base = Conditions(skill=-1.1 + 2.6 * done, entropy=0.62 * (1 - 0.35 * done), drift=0.16 * math.sqrt(done))
    since = step - fault_step(steps)
    if kind == "healthy" or since < 0:
        return base
    if kind == "entropy_collapse":
        return _collapsed(base, steps, since)
    if kind == "stale_weights":
        return replace(base, stale_version=fault_step(steps) - 1, stale_gap=0.25 + 0.1 * since / steps)
    if kind == "broken_grader":
        return replace(base, error_rate=0.2, timeout_rate=0.03, missed_rate=0.3)
    return replace(base, slow=SLOW_FACTOR)


def _collapsed(base: Conditions, steps: int, since: int) -> Conditions:
    """Within a quarter of the run the entropy falls to a fifteenth; the policy keeps the skill that it had, and gives
    one answer to each question, without working."""
    part = min(1.0, (since + 1) / (0.25 * steps))
    at_fault = fault_step(steps) / max(steps - 1, 1)
    return replace(
        base,
        skill=-1.1 + 2.6 * at_fault,
        entropy=base.entropy * math.exp(-math.log(15) * part),
        alike=0.9 * part,
        brief=0.15 + 0.8 * part,
    )

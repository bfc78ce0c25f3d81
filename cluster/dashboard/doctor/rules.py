"""All rules of the doctor. A rule is a pure function: the facts of a run -> a finding, or None when all is well.

The order is the order of the findings of equal severity: what explains others comes before what follows from it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from cluster.dashboard.doctor import rules_faults as faults
from cluster.dashboard.doctor import rules_gap as gap
from cluster.dashboard.doctor import rules_judge as judge
from cluster.dashboard.doctor import rules_learning as learning
from cluster.dashboard.doctor import rules_policy as policy
from cluster.dashboard.doctor import rules_reward as reward
from cluster.dashboard.doctor import rules_system as system
from cluster.dashboard.doctor.facts import Facts, Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A check with its name."""

    name: str
    check: Callable[[Facts], Finding | None]

    @property
    def help(self) -> str:
        """What it looks for, in one sentence: the first line of its docstring."""
        assert self.check.__doc__ is not None, self.name
        return self.check.__doc__.splitlines()[0]


RULES = tuple(
    Rule(name=check.__name__, check=check)
    for check in (
        system.run_ended_badly,
        system.ledger_unbalanced,
        faults.run_stalled,
        faults.restarts_nearly_used,
        faults.actors_down,
        faults.checkpoint_not_written,
        faults.last_checkpoint_hangs,
        faults.checkpoint_set_aside,
        policy.steps_skipped,
        reward.grader_fails,
        reward.reward_constant,
        reward.same_answer_differs,
        judge.judge_disagrees,
        learning.held_out_fell,
        learning.reward_fell,
        gap.gap_jumped,
        gap.sampler_gap_differs,
        gap.gap_grows,
        gap.gap_high,
        gap.lag_over_bound,
        gap.ratios_cut_off,
        policy.entropy_collapsed,
        policy.entropy_exploded,
        policy.gradient_spikes,
        gap.clips_much,
        gap.kl_without_reward,
        system.evaluation_behind,
        policy.repeats,
        policy.truncated,
        policy.longer_for_nothing,
        judge.judge_likes_length,
        reward.groups_equal,
        reward.rejects_many,
        faults.actors_restarted,
        faults.leases_given_up,
        faults.late_results_refused,
        system.sampler_slow,
        system.learner_waits,
        system.sync_slow,
        system.lag_near_bound,
        reward.nothing_learnt,
        system.files_damaged,
    )
)

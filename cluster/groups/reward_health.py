"""Whether rewards work: a few failures are masked, many are told of, most of them end the run.

A window is P groups, as many as a training step takes, so that rewards which all fail are noticed although no step can
be made of them. Pure.
"""

from collections import Counter

from cluster.errors import RewardFailureError
from reward.types import RewardOutcome, ScoredGroup

WINDOWS_IN_A_ROW = 2


class RewardHealth:
    """Counts failed rewards. `note` is told of every group that was scored for training."""

    def __init__(self, *, prompts_per_step: int, warn_fraction: float, max_fraction: float) -> None:
        """Fractions are of the rewards of a window; a window is in order up to and including its fraction."""
        self._groups_in_window = prompts_per_step
        self._warn_fraction = warn_fraction
        self._max_fraction = max_fraction
        self._num_groups = self._num_rewards = self._bad_windows = 0
        self._failures: Counter[str] = Counter()
        self._detail = ""
        self._warned = False

    def note(self, scored: ScoredGroup) -> str | None:
        """A sentence to warn with when this group ends a window that is above the first fraction and the one before it
        was not: a warning for each streak. Errors: `RewardFailureError`, above the second one twice in a row."""
        self._num_groups += 1
        for result in scored.rewards:
            self._num_rewards += 1
            if result.outcome is not RewardOutcome.OK:
                self._failures[str(result.outcome)] += 1
                self._detail = result.detail
        return self._end_window() if self._num_groups == self._groups_in_window else None

    def _end_window(self) -> str | None:
        failed, total = self._failures.total(), self._num_rewards
        fraction = failed / total if total else 0.0
        outcomes = ", ".join(f"{number} {outcome}" for outcome, number in self._failures.most_common())
        self._num_groups = self._num_rewards = 0
        self._failures = Counter()
        self._bad_windows = self._bad_windows + 1 if fraction > self._max_fraction else 0
        said = f"{failed} of the {total} rewards of the last {self._groups_in_window} groups failed ({outcomes})"
        if self._bad_windows >= WINDOWS_IN_A_ROW:
            raise RewardFailureError(
                f"{said}, the last one with: {self._detail}; that is the second time in a row that more "
                f"than {self._max_fraction:.0%} do (reward.max_failure_fraction); mend the reward function and resume "
                "the run"
            )
        was_warned, self._warned = self._warned, fraction > self._warn_fraction
        return f"{said}, the last one with: {self._detail}" if self._warned and not was_warned else None

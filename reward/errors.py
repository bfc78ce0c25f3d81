"""The error of the reward stage. What a user configured wrongly is a ConfigError of rollout/errors.py instead."""

from rollout.errors import ShoalError


class RewardError(ShoalError):
    """Scoring itself cannot go on (never: one completion could not be scored; that is an outcome)."""

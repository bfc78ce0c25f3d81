"""Rewards, and the estimators of advantages that TRL and Shoal both have.

Dimensions: B completions in groups, K components of the reward.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ESTIMATORS = ("group", "batch", "none", "gdpo", "rloo")
"""TRL's `scale_rewards`; `multi_objective_aggregation="normalize_then_sum"`; its RLOOTrainer."""
NUM_TABLES = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardTable:
    """The rewards of a step."""

    rewards_BK: NDArray[np.float64]
    """NaN throughout a row: the completion was not scored."""
    weights_K: NDArray[np.float64]
    group: int
    """Completions of each group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvantageCase:
    """One estimator on one table."""

    estimator: str
    table: int


def advantage_cases() -> Iterator[AdvantageCase]:
    """All of them, in the order of the stored values."""
    for table in range(NUM_TABLES):
        for estimator in ESTIMATORS:
            yield AdvantageCase(estimator=estimator, table=table)


def reward_tables(seed: int = 20261129) -> list[RewardTable]:
    """Right and wrong answers, and rewards of any size; with equal groups and completions that were not scored."""
    rng = np.random.default_rng(seed)
    tables = []
    for number in range(NUM_TABLES):
        group, num_components = (2, 4, 5, 8)[number % 4], 1 + number % 3
        shape = (3 * group, num_components)
        if number % 2:
            rewards_BK = rng.integers(0, 2, shape).astype(np.float64)
        else:
            rewards_BK = rng.normal(0.0, 10.0 ** rng.integers(-1, 3), shape)
        if number % 4 in (2, 3):
            rewards_BK[group : 2 * group] = rewards_BK[group]  # equal
        if number % 8 > 4:
            rewards_BK[[0, 2 * group + 1]] = np.nan  # not scored; two are left in each group
        weights_K = np.ones(num_components) if number < NUM_TABLES // 2 else rng.uniform(0.2, 2.0, num_components)
        tables.append(RewardTable(rewards_BK=rewards_BK, weights_K=weights_K, group=group))
    return tables

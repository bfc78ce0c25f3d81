"""Advantages against those of TRL's own code."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import TypeAdapter

from learner.algorithm.advantages import estimator_of
from learner.objective import AdvantageConfig
from learner.types import GroupRewards
from tests.learner.parity.advantage_cases import ESTIMATORS, NUM_TABLES, RewardTable, advantage_cases

TOLERANCE = 1e-10
OPTIONS: dict[str, dict[str, Any]] = {
    "group": {"kind": "group", "scale": "group_std", "eps": 1e-4},
    "batch": {"kind": "group", "scale": "batch_std", "eps": 1e-4},
    "none": {"kind": "group", "scale": "none"},
    "gdpo": {"kind": "gdpo", "eps": 1e-4},
    "rloo": {"kind": "group", "baseline": "leave_one_out", "scale": "none"},
}
"""`learner.objective.advantage` for each estimator of TRL's."""


@pytest.fixture(scope="module")
def stored() -> Mapping[str, NDArray[Any]]:
    with np.load(Path(__file__).with_name("advantages.npz")) as arrays:
        return dict(arrays)


def groups_of(table: RewardTable) -> list[GroupRewards]:
    """With the components' weighted sum as the reward; None for a row that was not scored."""
    rewards: list[float | None] = [
        None if np.isnan(row).all() else float(row @ table.weights_K) for row in table.rewards_BK
    ]
    components = [{str(k): float(value) for k, value in enumerate(row)} for row in table.rewards_BK]
    size = table.group
    return [
        GroupRewards(
            group_id=str(start),
            rewards_G=tuple(rewards[start : start + size]),
            num_tokens_G=(1,) * size,
            components_G=tuple(components[start : start + size]),
        )
        for start in range(0, len(rewards), size)
    ]


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_advantages_are_those_of_trl(stored: Mapping[str, NDArray[Any]], estimator: str) -> None:
    tables = [
        RewardTable(
            rewards_BK=stored[f"{i}/rewards_BK"], weights_K=stored[f"{i}/weights_K"], group=int(stored[f"{i}/group"])
        )
        for i in range(NUM_TABLES)
    ]
    config: AdvantageConfig = TypeAdapter(AdvantageConfig).validate_python(OPTIONS[estimator])
    wrong, end, num_compared = [], 0, 0
    for case in advantage_cases():
        table = tables[case.table]
        start, end = end, end + len(table.rewards_BK)
        expected = stored["advantages"][start:end]
        if case.estimator != estimator:
            continue
        weights = {str(k): float(weight) for k, weight in enumerate(table.weights_K)}
        groups = groups_of(table)
        found = [advantage for of in estimator_of(config, weights)(groups) for advantage in of]
        # TRL gives a completion that was not scored an advantage of 0; here it has none.
        error = float(np.abs(np.array([advantage or 0.0 for advantage in found]) - expected).max())
        num_compared += len(expected)
        if not error <= TOLERANCE:
            wrong.append(f"table {case.table}: off by {error:.2g}")
    assert end == len(stored["advantages"])
    assert num_compared > 300
    assert not wrong, "\n".join(wrong)

from typing import Any

import pytest
import torch

from learner.algorithm.kl_rewards import rewards_less_kl, rewards_to_go
from learner.algorithm.tokens import Completions
from learner.objective import ObjectiveConfig
from learner.types import GroupRewards


def test_a_completion_pays_for_all_of_its_kl_and_one_without_a_score_for_nothing() -> None:
    group = GroupRewards(group_id="g", rewards_G=(1.0, None, 0.5), num_tokens_G=(2, 2, 3))
    (found,) = rewards_less_kl([group], {("g", 0): 2.0, ("g", 1): 9.0, ("other", 2): 4.0}, 0.1)
    first, second, third = found.rewards_G
    assert first == pytest.approx(0.8)
    assert (second, third) == (None, 0.5)


def test_a_token_pays_for_what_comes_from_it_on() -> None:
    """Two completions of 3 and 2 tokens; the second token of the first is not trained on, whatever its KL."""
    completions = Completions(
        index_N=torch.tensor([0, 0, 0, 1, 1]), num=2, mask_N=torch.tensor([True, False, True, True, True])
    )
    kl_N = torch.tensor([1.0, torch.nan, 4.0, -2.0, 8.0], dtype=torch.float64)
    found = rewards_to_go(torch.tensor([1.0, 0.5], dtype=torch.float64), kl_N, completions, 0.1)
    # 1 - 0.1 (1 + 4), -, 1 - 0.1 * 4; 0.5 - 0.1 (-2 + 8), 0.5 - 0.1 * 8
    assert found.tolist() == pytest.approx([0.5, 0.0, 0.6, -0.1, -0.3])


@pytest.mark.parametrize(
    "other", [{"mask_truncated": True}, {"advantage": {"kind": "gdpo"}}, {"advantage": {"kind": "process"}}]
)
def test_what_needs_a_kl_that_is_not_computed_or_belongs_nowhere_is_refused(other: dict[str, Any]) -> None:
    in_reward = {"coef": 0.1, "estimator": "k1", "place": "reward"}
    plain = {"advantage": {"kind": "group", "scale": "none"}}
    ObjectiveConfig.model_validate({"kl": in_reward, **plain})
    ObjectiveConfig.model_validate(other)
    with pytest.raises(ValueError, match=r"set kl\.place to `loss`"):
        ObjectiveConfig.model_validate({"kl": in_reward, **plain, **other})

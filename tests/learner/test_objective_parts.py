"""Parts of the objective that would not do what they say together, and what is made so that they do."""

import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from learner.algorithm.loss import Loss
from learner.algorithm.plan import plan_step
from learner.algorithm.surrogates import Objective, Ratios
from learner.algorithm.tokens import TokenValues
from learner.config import LearnerConfig
from learner.objective import ObjectiveConfig
from learner.types import TrainBatch
from rollout.types import FinishReason
from tests.learner.samples import scored_group, scored_of, settings_of

TRUNCATE = [{"kind": "truncate"}]
TOKENS_DIFFER = [{"kind": "process"}, {"kind": "reinforce_plus_plus"}]
RATIOS_OF_COMPLETIONS = [
    {"kind": "gmpo"},
    {"kind": "ppo_clip", "level": "sequence"},
    {"kind": "ppo_clip", "level": "product"},
]
IN_REWARD = {"place": "reward", "estimator": "k1"}


@pytest.mark.parametrize("surrogate", RATIOS_OF_COMPLETIONS)
@pytest.mark.parametrize("advantage", TOKENS_DIFFER)
def test_one_ratio_for_a_completion_has_no_advantages_of_tokens(surrogate: Any, advantage: Any) -> None:
    kl = IN_REWARD if advantage["kind"] == "reinforce_plus_plus" else {"coef": 0}
    with pytest.raises(ValidationError, match="differs from token to token"):
        ObjectiveConfig.model_validate({"surrogate": surrogate, "advantage": advantage, "kl": kl})
    by_token = {"kind": "ppo_clip", "level": "sequence_token"}
    ObjectiveConfig.model_validate({"surrogate": by_token, "advantage": advantage, "kl": kl})


@pytest.mark.parametrize(
    "advantage",
    [{"kind": "group"}, {"kind": "group", "scale": "group_mean"}, {"kind": "pass_at_k"}],
)
def test_a_kl_in_the_reward_is_not_divided_by_what_it_alone_spreads(advantage: Any) -> None:
    with pytest.raises(ValidationError, match="that is the KL alone, whatever its weight"):
        ObjectiveConfig.model_validate({"advantage": advantage, "kl": IN_REWARD})
    ObjectiveConfig.model_validate({"advantage": {"kind": "group", "scale": "batch_std"}, "kl": IN_REWARD})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"advantage": {"kind": "process"}, "corrections": [{"kind": "off_policy_sequence"}]},
            "sign of a completion's",
        ),
        ({"proximal": "interpolated", "corrections": [{"kind": "ratio_mask"}]}, "nothing would be masked there"),
        ({"aggregation": {"count": "kept"}}, "no correction leaves tokens out"),
        (
            {"aggregation": {"count": "kept"}, "corrections": [{"kind": "ratio_mask"}], "entropy": {"target": 0.2}},
            "entropy of all trained tokens",
        ),
        ({"corrections": [{"kind": "top_entropy"}, {"kind": "top_entropy", "share": 0.5}]}, "top_entropy twice"),
        ({"aggregation": {"max_tokens": 64}}, "max_tokens is the constant of token_sum, and kind is sequence_mean"),
    ],
)
def test_what_would_not_do_what_it_says_is_refused(fields: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ObjectiveConfig.model_validate(fields)


def test_a_reference_that_is_only_measured_may_move() -> None:
    fields = {"kl": {"coef": 0, "measure": True}, "reference": {"update": "copy"}}
    assert ObjectiveConfig.model_validate(fields).needs_reference


def test_weights_of_before_do_not_go_with_an_anchor_that_moves() -> None:
    objective = {"proximal": "interpolated", "corrections": TRUNCATE}
    LearnerConfig.model_validate({"objective": objective})
    with pytest.raises(ValidationError, match="of the policy before the 2 updates of a batch"):
        LearnerConfig.model_validate({"objective": objective, "updates_per_batch": 2})


def mean_of_tokens(ratios: Ratios) -> Objective:
    """A surrogate that divides by the number of trained tokens, and pulls on tokens of no advantage too."""
    never_N = torch.zeros_like(ratios.completions.mask_N)
    pull_N = ratios.ratio_N * (ratios.advantages_N - 1.0) / ratios.completions.mask_N.sum()
    return Objective(objective_N=pull_N, low_N=never_N, high_N=never_N)


def values_of(policy_N: Tensor, mask_N: Tensor) -> TokenValues:
    num = len(policy_N)
    return TokenValues(
        policy_N=policy_N,
        sampler_N=torch.full((num,), -1.0),
        advantages_N=torch.zeros(num),
        token_weights_N=torch.ones(num),
        mask_N=mask_N,
        entropy_N=torch.zeros(num),
        index_N=torch.zeros(num, dtype=torch.int64),
        num_completions=1,
    )


def test_a_surrogate_of_one_s_own_is_not_asked_where_nothing_is_trained() -> None:
    own = {"kind": "own", "function": f"{__name__}:mean_of_tokens"}
    objective = ObjectiveConfig.model_validate({"surrogate": own, "kl": {"coef": 0}})
    assert objective.computes_all, "it may pull on completions whose advantage is 0"
    policy_N = torch.full((2,), -1.0, requires_grad=True)
    loss, _ = Loss(objective)(values_of(policy_N, torch.zeros(2, dtype=torch.bool)))
    loss.backward()
    assert loss.item() == 0.0
    assert policy_N.grad is not None
    assert policy_N.grad.tolist() == [0.0, 0.0]
    loss, _ = Loss(objective)(values_of(policy_N, torch.ones(2, dtype=torch.bool)))
    assert loss.item() == pytest.approx(1.0)


def test_means_of_the_batch_are_over_the_tokens_that_are_trained() -> None:
    # A wrong completion of 9 tokens was cut off and is not trained: over the other three, of two tokens each, the
    # rewards 1, 0, 1 have mean 2/3 and deviation sqrt(2)/3, so that their advantages are 1/sqrt(2) and -sqrt(2).
    group = scored_group(0, [1.0, 0.0, 1.0, 0.0], rng=random.Random(0), lengths=[2, 2, 2, 9])
    whole = group.group.payload
    cut = replace(whole.completions[3], finish_reason=FinishReason.LENGTH)
    group = scored_of(replace(whole, completions=(*whole.completions[:3], cut)), group.rewards)
    settings = settings_of(advantage={"kind": "reinforce_plus_plus", "eps": 0.0}, kl={"coef": 0.0}, mask_truncated=True)
    plan = plan_step(TrainBatch(step=0, policy_version=0, groups=(group,)), settings)
    assert [s.advantage for s in plan.sequences] == pytest.approx([0.5**0.5, -(2**0.5), 0.5**0.5])


@pytest.mark.parametrize(("kind", "is_whole"), [("prompt_mean", True), ("token_mean", False)])
def test_a_mean_over_prompts_keeps_each_prompt_in_one_mini_batch(kind: str, is_whole: bool) -> None:
    rng = random.Random(1)
    groups = tuple(scored_group(i, [1.0, 0.0, 0.0, 1.0], rng=rng) for i in range(6))
    settings = settings_of(aggregation={"kind": kind}, kl={"coef": 0.0})
    settings = replace(settings, learner=settings.learner.model_copy(update={"mini_batches": 3}))
    plan = plan_step(TrainBatch(step=0, policy_version=0, groups=groups), settings)
    parts = [Counter(sequence.group_id for sequence in part) for part in plan.mini_batches]
    assert [sum(part.values()) for part in parts] == [8, 8, 8]
    assert all(count == 4 for part in parts for count in part.values()) == is_whole

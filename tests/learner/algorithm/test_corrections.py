"""Weights and masks by hand. The gap of a token is log p(anchor) - log p(sampler), so that its ratio is exp(gap)."""

import math

import pytest
import torch
from torch import Tensor

from learner.algorithm.corrections import (
    NOT_CORRECTED,
    Corrected,
    correct,
    entropy_threshold,
    fixed_corrections,
    moving_corrections,
)
from learner.algorithm.tokens import TokenValues
from learner.objective import (
    CorrectionConfig,
    ObjectiveConfig,
    OffPolicySequenceMask,
    RatioMask,
    TopEntropyMask,
    TruncateWeight,
)
from tests.learner.algorithm.values import tensor, token_values

LENGTHS = [2, 2]
RATIOS = [4.0, 0.25, 1.9, 1.9]
"""Of tokens: products of completions 1 and 3.61, geometric means 1 and 1.9."""


def tokens(ratios: list[float], lengths: list[int], **others: object) -> tuple[TokenValues, Tensor]:
    sampler = torch.full((len(ratios),), -2.0, dtype=torch.float64)
    anchor = sampler + tensor(ratios).log()
    return token_values(anchor.clone().requires_grad_(), sampler, lengths, **others), anchor


def corrected(
    *corrections: CorrectionConfig, ratios: list[float] | None = None, mask: list[bool] | None = None
) -> Corrected:
    others = {} if mask is None else {"mask_N": torch.tensor(mask)}
    values, anchor = tokens(ratios or RATIOS, LENGTHS, **others)
    return correct(values, anchor, corrections, entropy_threshold=None)


def weights(*corrections: CorrectionConfig, mask: list[bool] | None = None) -> list[float]:
    found = corrected(*corrections, mask=mask)
    assert found.weights_N is not None
    assert found.keep_N is None
    assert not found.weights_N.requires_grad
    return list(found.weights_N.tolist())


def kept(*corrections: CorrectionConfig, mask: list[bool] | None = None) -> list[bool]:
    found = corrected(*corrections, mask=mask)
    assert found.keep_N is not None
    assert found.weights_N is None
    return list(found.keep_N.tolist())


def test_without_corrections_there_is_nothing() -> None:
    assert corrected() == NOT_CORRECTED == Corrected(weights_N=None, keep_N=None)


def test_weights_of_tokens_are_cut_to_their_bounds() -> None:
    assert weights(TruncateWeight()) == pytest.approx([2, 0.25, 1.9, 1.9])
    assert weights(TruncateWeight(min=0.5)) == pytest.approx([2, 0.5, 1.9, 1.9])
    assert weights(TruncateWeight(max=None)) == pytest.approx([4, 0.25, 1.9, 1.9])


def test_weights_of_completions_are_products_of_their_trained_tokens() -> None:
    assert weights(TruncateWeight(level="sequence")) == pytest.approx([1, 1, 2, 2])
    assert weights(TruncateWeight(level="sequence", max=None)) == pytest.approx([1, 1, 3.61, 3.61])
    # without the first token: 0.25
    assert weights(TruncateWeight(level="sequence", max=None), mask=[False, True, True, True]) == pytest.approx(
        [0.25, 0.25, 3.61, 3.61]
    )


def test_tokens_outside_the_bounds_are_left_out() -> None:
    assert kept(RatioMask()) == [False, False, True, True]
    assert kept(RatioMask(min=0.2, max=1.8)) == [False, True, False, False]
    assert kept(RatioMask(min=0.2, max=4.1)) == [True, True, True, True]


def test_the_bounds_themselves_are_kept() -> None:
    found = corrected(RatioMask(min=1.0, max=2.0), ratios=[1, 1, 1, 1])
    assert found.keep_N is not None
    assert found.keep_N.all()
    found = corrected(RatioMask(min=0.5, max=1.0), ratios=[1, 1, 1, 1])
    assert found.keep_N is not None
    assert found.keep_N.all()


def test_completions_outside_the_bounds_are_left_out_whole() -> None:
    # products 1 and 3.61; geometric means 1 and 1.9
    assert kept(RatioMask(level="sequence")) == [True, True, False, False]
    assert kept(RatioMask(level="sequence", max=3.7)) == [True] * 4
    assert kept(RatioMask(level="geometric")) == [True] * 4
    assert kept(RatioMask(level="geometric", max=1.8)) == [True, True, False, False]
    # without its first token the first completion's mean and product are 0.25
    for level in ("sequence", "geometric"):
        config = RatioMask.model_validate({"level": level, "max": 4.0})
        assert kept(config, mask=[False, True, True, True]) == [False, False, True, True]


def test_several_weights_are_multiplied_and_several_masks_all_keep() -> None:
    # tokens cut at 2, times completions cut at 3: [2 * 1, 0.25 * 1, 1.9 * 3, 1.9 * 3]
    both = weights(TruncateWeight(), TruncateWeight(level="sequence", max=3.0))
    assert both == pytest.approx([2, 0.25, 5.7, 5.7])
    assert kept(RatioMask(min=0.2, max=5), RatioMask(level="sequence")) == [True, True, False, False]
    assert kept(RatioMask(min=0.5, max=5), RatioMask(level="sequence")) == [True, False, False, False]


def test_weights_and_masks_are_kept_apart() -> None:
    found = corrected(RatioMask(), TruncateWeight())
    assert found.keep_N is not None
    assert found.weights_N is not None
    assert found.keep_N.tolist() == [False, False, True, True]
    assert found.weights_N.tolist() == pytest.approx([2, 0.25, 1.9, 1.9])


def off_policy(advantages: list[float], *, before: Tensor | None = None, threshold: float = 0.5) -> list[bool]:
    """Three completions of which the policy gives 0.3 nats, 0.6 nats and 0.6 nats less than the sampler per token."""
    policy = tensor([-2.3, -2.3, -2.0, -3.2, -2.6])
    values = token_values(
        policy, torch.full((5,), -2.0, dtype=torch.float64), [2, 2, 1], advantages_N=tensor(advantages), before_N=before
    )
    config = OffPolicySequenceMask(threshold=threshold)
    found = correct(values, values.sampler_N, [config], entropy_threshold=None)
    assert found.keep_N is not None
    return list(found.keep_N.tolist())


def test_completions_of_negative_advantage_that_the_policy_left_are_left_out() -> None:
    assert off_policy([-1, -1, -1, -1, -1]) == [True, True, False, False, False]
    assert off_policy([-1, -1, 1, 1, 0]) == [True] * 5
    assert off_policy([-1] * 5, threshold=0.29) == [False] * 5
    assert off_policy([-1] * 5, threshold=0.61) == [True] * 5


def test_the_policy_as_it_is_now_decides_whatever_it_was_before_the_step() -> None:
    before = torch.full((5,), -2.0, dtype=torch.float64)
    for values in (before, before - 1):
        assert off_policy([-1] * 5, before=values) == [True, True, False, False, False]


def test_a_token_that_is_not_trained_on_does_not_move_its_completion() -> None:
    values = token_values(
        tensor([-2.0, math.nan]),
        torch.full((2,), -2.0, dtype=torch.float64),
        [2],
        advantages_N=tensor([-1, -1]),
        mask_N=torch.tensor([True, False]),
    )
    found = correct(values, values.sampler_N, [OffPolicySequenceMask()], entropy_threshold=None)
    assert found.keep_N is not None
    assert found.keep_N.tolist() == [True, True]


def test_the_least_certain_tokens_are_kept() -> None:
    values = token_values(tensor([-1] * 4), tensor([-1] * 4), LENGTHS, entropy_N=tensor([0.1, 2.0, 1.0, 0.5]))
    found = correct(values, values.sampler_N, [TopEntropyMask()], entropy_threshold=1.0)
    assert found.keep_N is not None
    assert found.keep_N.tolist() == [False, True, True, False]


@pytest.mark.parametrize(
    ("entropies", "share", "threshold"),
    [
        ([0.1, 2.0, 1.0, 0.5], 0.5, 1.0),  # 2 of 4
        ([0.1, 2.0, 1.0, 0.5], 0.51, 0.5),  # 2.04 -> 3
        ([0.1, 2.0, 1.0, 0.5], 0.99, 0.1),  # 3.96 -> all
        ([0.1, 2.0, 1.0, 0.5], 0.01, 2.0),  # at least one
        ([1.0, 1.0, 1.0, 0.5], 0.25, 1.0),  # the highest is shared by three: all of them are kept
        ([7.0], 0.2, 7.0),
        ([], 0.2, math.inf),
    ],
)
def test_the_threshold_of_the_least_certain_share(entropies: list[float], share: float, threshold: float) -> None:
    assert entropy_threshold(tensor(entropies), share) == threshold


def test_a_share_is_the_decimal_number_that_was_written() -> None:
    # 0.07 * 100 = 7.000000000000001 in binary; the 7th highest of 0 to 99 is 93
    assert entropy_threshold(torch.arange(100.0), 0.07) == 93.0


def test_extreme_gaps_stay_finite() -> None:
    values = token_values(tensor([500.0, -500.0]), tensor([0.0, 0.0]), [1, 1])
    found = correct(values, values.policy_N, [TruncateWeight(max=None)], entropy_threshold=None)
    assert found.weights_N is not None
    assert found.weights_N.tolist() == pytest.approx([math.exp(20), math.exp(-20)])


def test_a_mask_that_looks_at_the_policy_moves_only_where_the_trained_tokens_are_counted() -> None:
    corrections = [{"kind": "ratio_mask"}, {"kind": "off_policy_sequence"}]
    for count, moving in (("trained", 1), ("kept", 0)):
        objective = ObjectiveConfig.model_validate({"corrections": corrections, "aggregation": {"count": count}})
        ratio_mask, sequence_mask = objective.corrections
        assert moving_corrections(objective) == (sequence_mask,) * moving
        assert fixed_corrections(objective) == ((ratio_mask,) if moving else (ratio_mask, sequence_mask))


def test_a_completion_that_moved_by_exactly_the_threshold_is_kept() -> None:
    policy = tensor([-2.5, -2.5])
    values = token_values(policy, torch.full((2,), -2.0, dtype=torch.float64), [2], advantages_N=tensor([-1, -1]))
    found = correct(values, values.sampler_N, [OffPolicySequenceMask(threshold=0.5)], entropy_threshold=None)
    assert found.keep_N is not None
    assert found.keep_N.tolist() == [True, True]

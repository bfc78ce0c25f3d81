import math

import pytest
import torch

from learner.algorithm.tokens import bounded_exp
from tests.learner.algorithm.values import completions, tensor, token_values

VALUES = tensor([1.0, 2.0, 6.0, math.nan, 5.0])
MASK = [True, True, True, False, False]
"""Completions of 2, 2 and 1 tokens: sums 3, 6 and 0 of 2, 1 and 0 trained tokens."""


def test_sums_and_means_are_over_trained_tokens() -> None:
    of = completions([2, 2, 1], MASK)
    assert of.sums(VALUES).tolist() == [3.0, 6.0, 0.0]
    assert of.means(VALUES).tolist() == [1.5, 6.0, 0.0]


def test_values_of_completions_are_spread_over_their_tokens() -> None:
    assert completions([2, 2, 1], MASK).spread(tensor([7, 8, 9])).tolist() == [7, 7, 8, 8, 9]


def test_a_completion_without_tokens_has_a_place() -> None:
    of = completions([1, 0, 2])
    assert of.sums(tensor([1, 2, 3])).tolist() == [1, 0, 5]
    assert of.means(tensor([1, 2, 3])).tolist() == [1, 0, 2.5]


def test_values_know_their_completions() -> None:
    values = token_values(VALUES, VALUES, [2, 2, 1], mask_N=torch.tensor(MASK))
    assert values.known(values.policy_N).tolist() == [1.0, 2.0, 6.0, 0.0, 0.0]
    assert values.completions.sums(values.policy_N).tolist() == [3.0, 6.0, 0.0]
    assert values.completions.num == 3


def test_what_is_not_known_has_no_gradient() -> None:
    policy = tensor([1.0, 800.0]).requires_grad_()
    values = token_values(policy, policy.detach(), [2], mask_N=torch.tensor([True, False]))
    (grad,) = torch.autograd.grad(values.known(policy).exp().sum(), [policy])
    assert grad.tolist() == [pytest.approx(math.e), 0.0]


def test_exponentials_are_bounded_on_both_sides() -> None:
    found = bounded_exp(tensor([-30, -20, 1, 20, 30]))
    assert found.tolist() == pytest.approx([math.exp(x) for x in (-20, -20, 1, 20, 20)], rel=1e-15)
    outside = tensor([-30, 30]).requires_grad_()
    (grad,) = torch.autograd.grad(bounded_exp(outside).sum(), [outside])
    assert grad.tolist() == [0.0, 0.0]

"""Surrogates where something is exactly, or nearly, at an edge."""

import torch

from learner.algorithm.surrogates import _bernoulli_kl, surrogate_of
from learner.surrogate_config import Gmpo, PpoClip
from tests.learner.algorithm.test_surrogates import check
from tests.learner.algorithm.values import ratios_of


def test_an_advantage_below_1_is_held_at_the_same_bounds() -> None:
    check(PpoClip(), ratios_of([1.4, 0.5], [0.5, -0.5]), objective=[0.6, -0.4], grad=[0, 0], low=[1], high=[0])
    check(PpoClip(dual_clip=3.0), ratios_of([1.1], [0.5]), objective=[0.55], grad=[0.55])


def test_without_an_advantage_nothing_is_pushed_up() -> None:
    # GMPO holds a ratio on the side that its advantage pushes to; one of 0 counts as one that pushes down.
    found = surrogate_of(Gmpo(eps=0.4))(ratios_of([2.0, 0.5], [0, 0]))
    assert found.objective_N.tolist() == [0, 0]
    assert (found.low_N.tolist(), found.high_N.tolist()) == ([False, True], [False, False])


def test_a_probability_that_rounding_puts_above_1_is_1() -> None:
    above = torch.tensor([1.0 + 1e-6])
    for pair in ((above, torch.tensor([0.5])), (torch.tensor([0.5]), above)):
        exact = [value.clamp(max=1.0) for value in pair]
        assert torch.equal(_bernoulli_kl(*pair), _bernoulli_kl(*exact))
        assert not _bernoulli_kl(*pair).isnan().any()

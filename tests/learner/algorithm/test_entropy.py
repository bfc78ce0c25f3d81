"""The coefficient of the entropy bonus by hand."""

import pytest
import torch
from torch import Tensor

from learner.algorithm.entropy import EntropyControl
from learner.algorithm.loss import SUM_NAMES
from learner.objective import EntropyConfig


def sums(entropy: float, num_tokens: int) -> Tensor:
    """Of an update: the mean entropy of `num_tokens` tokens; other sums are 99, which must not matter."""
    found = torch.full((len(SUM_NAMES),), 99.0, dtype=torch.float64)
    found[SUM_NAMES.index("num_tokens")] = num_tokens
    found[SUM_NAMES.index("entropy")] = entropy * num_tokens
    return found


def test_a_fixed_coefficient_stays() -> None:
    control = EntropyControl.of(EntropyConfig(coef=0.01))
    assert control.coef_now == 0.01
    assert control.after(sums(5.0, 10)) is control


def test_an_adaptive_coefficient_grows_while_entropy_is_low_and_falls_while_it_is_high() -> None:
    control = EntropyControl.of(EntropyConfig(coef=0.01, target=0.2, step=0.004))
    assert control.coef_now == 0.01
    control = control.after(sums(0.15, 10))  # below: 0.01 + 0.004
    assert (control.coef, control.coef_now) == pytest.approx((0.014, 0.014))
    control = control.after(sums(0.25, 10))  # above: 0.014 - 0.004, and the bonus rests
    assert control.coef == pytest.approx(0.010)
    assert control.coef_now == 0.0
    control = control.after(sums(0.2, 7))  # at the target it acts
    assert control.last_entropy == pytest.approx(0.2)
    assert (control.coef, control.coef_now) == pytest.approx((0.014, 0.014))


def test_an_adaptive_coefficient_stays_within_its_bounds() -> None:
    control = EntropyControl.of(EntropyConfig(coef=0.0, target=0.2, step=0.4, max_coef=0.5))
    assert control.after(sums(9.0, 1)).coef == 0.0
    assert control.after(sums(0.1, 1)).coef == pytest.approx(0.4)
    assert control.after(sums(0.1, 1)).after(sums(0.1, 1)).coef == 0.5


def test_an_update_without_tokens_says_nothing() -> None:
    control = EntropyControl.of(EntropyConfig(target=0.2))
    assert control.after(sums(0.1, 0)) is control
    assert control.last_entropy is None
    assert control.config.is_on
    assert not EntropyConfig().is_on
    assert EntropyConfig(coef=0.1).is_on


def test_an_adaptive_coefficient_goes_on_where_it_was_saved_and_a_fixed_one_is_that_of_the_configuration() -> None:
    config = EntropyConfig(coef=0.01, target=0.2, step=0.004)
    control = EntropyControl.of(config).after(sums(0.15, 10))
    state = control.state()
    assert state == {"entropy_coef": control.coef, "last_entropy": control.last_entropy}
    assert state["entropy_coef"] == pytest.approx(0.014)
    assert EntropyControl.of(config).restored(**state) == control
    fixed = EntropyControl.of(EntropyConfig(coef=0.03))
    assert fixed.state() == {}
    assert fixed.restored(**state) is fixed
    assert control.restored(None, None) is control

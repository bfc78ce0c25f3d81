"""Every surrogate by hand: its value, its gradient by each log-probability, and where the ratio is held at a bound.

The gradient of r A by log p is r A, since r = p / p(anchor).
"""

import math
from pathlib import Path

import pytest
import torch

from learner.algorithm.loss import Loss
from learner.algorithm.surrogates import Objective, Ratios, surrogate_of
from learner.objective import ObjectiveConfig
from learner.surrogate_config import (
    Cispo,
    Dppo,
    Gmpo,
    OwnSurrogate,
    PolicyGradient,
    PpoClip,
    Sapo,
    SurrogateConfig,
)
from rollout.errors import ConfigError, LearnerError
from tests.learner.algorithm.values import grad_of, ratios_of


def check(
    config: SurrogateConfig,
    ratios: Ratios,
    *,
    objective: list[float],
    grad: list[float],
    low: list[int] | None = None,
    high: list[int] | None = None,
) -> None:
    """`low` and `high`: places of the tokens that are held there."""
    found = surrogate_of(config)(ratios)
    assert found.objective_N.tolist() == pytest.approx(objective, abs=1e-6)
    assert grad_of(found, ratios) == pytest.approx(grad, abs=1e-6)
    assert found.low_N.nonzero().flatten().tolist() == (low or [])
    assert found.high_N.nonzero().flatten().tolist() == (high or [])


def test_ppo_clip_of_a_positive_advantage() -> None:
    # min(r, clip(r, 0.8, 1.2)): 1.4 -> 1.2 without a gradient; 1.1 and 0.5 are the lower of the two as they are
    check(
        PpoClip(),
        ratios_of([1.4, 1.1, 0.5], [1, 1, 1]),
        objective=[1.2, 1.1, 0.5],
        grad=[0, 1.1, 0.5],
        low=[],
        high=[0],
    )


def test_ppo_clip_of_a_negative_advantage() -> None:
    # min(-2 r, -2 clip(r)): 1.4 stays; 0.5 -> 0.8 without a gradient
    check(
        PpoClip(),
        ratios_of([1.4, 1.1, 0.5], [-2, -2, -2]),
        objective=[-2.8, -2.2, -1.6],
        grad=[-2.8, -2.2, 0],
        low=[2],
    )


def test_an_advantage_of_zero_is_held_nowhere() -> None:
    config = PpoClip(delta=1.5, dual_clip=3.0)
    check(config, ratios_of([1.4, 5.0, 0.5], [0, 0, 0]), objective=[0, 0, 0], grad=[0, 0, 0])


def test_clip_higher_moves_the_upper_bound_alone() -> None:
    # bounds 1 - 0.2 and 1 + 0.28
    check(
        PpoClip(eps=0.2, eps_high=0.28),
        ratios_of([1.4, 1.25, 0.7], [1, 1, -1]),
        objective=[1.28, 1.25, -0.8],
        grad=[0, 1.25, 0],
        low=[2],
        high=[0],
    )


def test_dual_clip_bounds_the_loss_of_a_negative_advantage() -> None:
    # A = -2, c = 3: at least -6. r = 4: min(-8, -2.4) = -8 -> -6; r = 2.5: -5; r = 0.5: -1.6 by the plain clip.
    # A = 2, r = 4: min(8, 2.4) = 2.4; the bound 6 does not lift it.
    check(
        PpoClip(dual_clip=3.0),
        ratios_of([4, 2.5, 0.5, 4], [-2, -2, -2, 2]),
        objective=[-6, -5, -1.6, 2.4],
        grad=[0, -5, 0, 0],
        low=[2],
        high=[0, 3],
    )


def test_delta_bounds_the_unclipped_ratio() -> None:
    # A = -1, delta 1.5: r = 2 -> min(-1.5, -1.2) = -1.5 without a gradient; 1.4 stays; 0.5 -> -0.8.
    # A = 1, r = 2: min(1.5, 1.2) = 1.2. r = 1.5 itself is not beyond delta.
    check(
        PpoClip(delta=1.5),
        ratios_of([2, 1.4, 0.5, 2], [-1, -1, -1, 1]),
        objective=[-1.5, -1.4, -0.8, 1.2],
        grad=[0, -1.4, 0, 0],
        low=[2],
        high=[0, 3],
    )


def test_a_sequence_has_the_geometric_mean_of_its_ratios() -> None:
    # s = sqrt(0.5 * 1.62) = 0.9, A = 2: 1.8 at both tokens. d s / d log p_t = s / 2; two tokens sum to s A = 1.8.
    # The second completion has one token: r = 4, A = -1: min(-4, -1.2) = -4.
    # The third: s = sqrt(1 * 4) = 2 > 1.2: held above, without a gradient.
    check(
        PpoClip(level="sequence"),
        ratios_of([0.5, 1.62, 4, 1, 4], [2, 2, -1, 1, 1], lengths=[2, 1, 2]),
        objective=[1.8, 1.8, -4, 1.2, 1.2],
        grad=[1.8, 1.8, -4, 0, 0],
        high=[3, 4],
    )


def test_a_token_that_is_not_trained_on_is_not_in_the_mean_of_its_sequence() -> None:
    # s = sqrt(0.5 * 1.62) = 0.9 again: the 1000 between them does not count
    ratios = ratios_of([0.5, 1000, 1.62], [1, 1, 1], lengths=[3], mask=[True, False, True])
    found = surrogate_of(PpoClip(level="sequence"))(ratios)
    assert found.objective_N.tolist() == pytest.approx([0.9] * 3)
    # three tokens hold s, each of the two trained ones half of it: 3 * 0.9 / 2
    assert grad_of(found, ratios) == pytest.approx([1.35, 0.0, 1.35])


def test_a_sequence_with_gradients_of_tokens() -> None:
    # sg[s] p / sg[p] with s = 0.9 and advantages 1 and 3: values s A_t, gradients s A_t of each token alone, where the
    # plain sequence has s / 2 * (1 + 3) = 1.8 at both
    ratios = ratios_of([0.5, 1.62], [1, 3], lengths=[2])
    check(PpoClip(level="sequence_token"), ratios, objective=[0.9, 2.7], grad=[0.9, 2.7])
    ratios = ratios_of([0.5, 1.62], [1, 3], lengths=[2])
    check(PpoClip(level="sequence"), ratios, objective=[0.9, 2.7], grad=[1.8, 1.8])


def test_a_sequence_with_gradients_of_tokens_is_clipped_as_a_whole() -> None:
    # s = sqrt(1 * 4) = 2, eps_high 0.5: held at 1.5, though one of the ratios is 1
    check(
        PpoClip(level="sequence_token", eps_high=0.5),
        ratios_of([1, 4], [1, 1], lengths=[2]),
        objective=[1.5, 1.5],
        grad=[0, 0],
        high=[0, 1],
    )


def test_gmpo_clips_on_the_side_that_the_advantage_pushes_to() -> None:
    # logs 0.6 -> 0.4 and 0.1: exp(0.25) = 1.284025. Token 1 has half of it, at two tokens; token 0 is held.
    # A = -1, logs -0.6 -> -0.4 and 0.6: exp(0.1) = 1.105171
    ratios = ratios_of([1.8221188, 1.1051709, 0.5488116, 1.8221188], [1, 1, -1, -1], lengths=[2, 2])
    check(
        Gmpo(),
        ratios,
        objective=[1.284025, 1.284025, -1.105171, -1.105171],
        grad=[0, 1.284025, 0, -1.105171],
        low=[2],
        high=[0],
    )


def test_gmpo_lets_a_ratio_go_against_its_advantage() -> None:
    # A = 1, log -0.6; A = -1, log 0.6: both as they are.
    check(
        Gmpo(),
        ratios_of([0.5488116, 1.8221188], [1, -1], lengths=[1, 1]),
        objective=[0.5488116, -1.8221188],
        grad=[0.5488116, -1.8221188],
        low=[],
        high=[],
    )


def test_gmpo_has_two_bounds() -> None:
    # eps_high 0.5: logs 0.6 -> 0.5 and 0.1: exp(0.3) = 1.349859. eps stays for A < 0: exp(-0.4) = 0.670320
    check(
        Gmpo(eps_high=0.5),
        ratios_of([1.8221188, 1.1051709, 0.5488116], [1, 1, -1], lengths=[2, 1]),
        objective=[1.349859, 1.349859, -0.670320],
        grad=[0, 1.349859, 0],
        low=[2],
        high=[0],
    )


def test_cispo_weighs_and_keeps_every_gradient() -> None:
    # log p = -1 + ln r. Weights clip(r, 0.5, 1.2): 1.2, 0.5, 1; objective w A log p, gradient w A.
    # 2.4 (-1 + 0.693147) = -0.736447; 1 (-1 - 1.386294) = -2.386294; 2 (-1) = -2
    check(
        Cispo(cap=1.2, floor=0.5),
        ratios_of([2, 0.25, 1], [2, 2, 2]),
        objective=[-0.736447, -2.386294, -2],
        grad=[2.4, 1, 2],
        low=[1],
        high=[0],
    )


def test_the_cap_of_cispo_is_the_ratio_itself() -> None:
    # cap 5: r = 6 -> 5 (-2 + ln 6) = -1.041203; r = 4 stays, where 1 + eps would have cut it: -4 (-2 + ln 4)
    check(
        Cispo(),
        ratios_of([6, 4], [1, -1], anchor=-2.0),
        objective=[-1.041203, 2.454823],
        grad=[5, -4],
        high=[0],
    )


def test_sapo_closes_softly() -> None:
    # tau 1, r = 1: 4 sigmoid(0) = 2, gradient 4 * 0.25 * 1 = 1. r = 2: 4 sigmoid(1) = 2.924234; 4 * 0.196612 * 2
    # tau_negative 2, r = 2: (4 / 2) sigmoid(2) = 1.761594; 4 * 0.104994 * 2 = 0.839949. A = 0 has nothing.
    check(
        Sapo(tau=1.0, tau_negative=2.0),
        ratios_of([1, 2, 2, 3], [1, 1, -1, 0]),
        objective=[2, 2.924234, -1.761594, 0],
        grad=[1, 1.572895, -0.839949, 0],
    )


def test_sapo_computes_in_the_precision_of_the_ratios() -> None:
    # 1.05 is 1.0499999523 in fp32
    found = surrogate_of(Sapo())(ratios_of([2], [-1]))
    assert found.objective_N.dtype is torch.float64
    expected = -(4 / 1.05) * torch.sigmoid(torch.tensor(1.05, dtype=torch.float64)).item()
    assert found.objective_N.item() == pytest.approx(expected, rel=1e-15)


HALF = -0.69314718056


def test_dppo_leaves_out_what_moved_too_far_in_the_advantages_direction() -> None:
    # from 0.5 to 0.8, 0.6, 0.25: moved by 0.3, 0.1, 0.25 against 0.2
    ratios = ratios_of([1.6, 1.2, 0.5, 1.6, 1.2, 0.5], [1, 1, 1, -1, -1, -1], anchor=HALF)
    check(
        Dppo(),
        ratios,
        objective=[0, 1.2, 0.5, -1.6, -1.2, 0],
        grad=[0, 1.2, 0.5, -1.6, -1.2, 0],
        low=[5],
        high=[0],
    )


def test_dppo_by_bernoulli_kl() -> None:
    # 0.5 -> 0.8: 0.5 ln(0.5 / 0.8) + 0.5 ln(0.5 / 0.2) = 0.223144
    # 0.5 -> 0.7: 0.5 ln(0.5 / 0.7) + 0.5 ln(0.5 / 0.3) = 0.087177
    ratios = ratios_of([1.6, 1.4], [1, 1], anchor=HALF)
    check(Dppo(divergence="kl", threshold=0.223), ratios, objective=[0, 1.4], grad=[0, 1.4], high=[0])
    ratios = ratios_of([1.6, 1.4], [1, 1], anchor=HALF)
    check(Dppo(divergence="kl", threshold=0.224), ratios, objective=[1.6, 1.4], grad=[1.6, 1.4])
    ratios = ratios_of([1.6, 1.4], [1, 1], anchor=HALF)
    check(Dppo(divergence="kl", threshold=0.087), ratios, objective=[0, 0], grad=[0, 0], high=[0, 1])


@pytest.mark.parametrize("divergence", ["tv", "kl"])
def test_dppo_keeps_what_did_not_move_and_a_token_that_is_certain(divergence: str) -> None:
    # p = 1 before and after: 0 log 0 is 0, not NaN. An advantage of 0 leaves nothing out.
    config = Dppo.model_validate({"divergence": divergence})
    check(config, ratios_of([1], [1], anchor=0.0), objective=[1], grad=[1])
    check(config, ratios_of([1.9, 0.1], [0, 0], anchor=HALF), objective=[0, 0], grad=[0, 0])
    # from 1/2 to certainty: tv 0.5; KL(1/2 || 1) is infinite
    check(config, ratios_of([2], [1], anchor=HALF), objective=[0], grad=[0], high=[0])
    # from certainty to 1/2: tv 0.5; KL = ln 2
    check(config, ratios_of([0.5], [-1], anchor=0.0), objective=[0], grad=[0], low=[0])


def test_dppo_says_nothing_of_tokens_that_are_not_trained_on() -> None:
    ratios = ratios_of([1.6, 1.6], [1, 1], mask=[True, False], anchor=HALF)
    assert surrogate_of(Dppo())(ratios).high_N.tolist() == [True, False]


HALF_MORE = math.exp(0.5)
"""A ratio whose logarithm is exactly 0.5."""


def test_a_ratio_at_a_bound_is_not_held_there() -> None:
    ratio = ratios_of([HALF_MORE], [1]).ratio_N.item()
    assert ratios_of([HALF_MORE, 1 / HALF_MORE], [1, 1]).log_ratio_N.tolist() == [0.5, -0.5]
    for config, ratios in (
        (Cispo(cap=ratio), ratios_of([HALF_MORE], [1])),
        (Cispo(cap=9.0, floor=ratio), ratios_of([HALF_MORE], [1])),
        (Gmpo(eps=0.5), ratios_of([HALF_MORE, 1 / HALF_MORE], [1, -1])),
        (PpoClip(delta=ratio), ratios_of([HALF_MORE], [-1])),
        (PpoClip(dual_clip=ratio), ratios_of([HALF_MORE], [-1])),
        (PpoClip(eps_high=ratio - 1.0), ratios_of([HALF_MORE], [1])),
    ):
        found = surrogate_of(config)(ratios)
        assert not found.low_N.any()
        assert not found.high_N.any()
    distance = abs(ratios_of([1.6], [1], anchor=HALF).policy_N.exp() - ratios_of([1], [1], anchor=HALF).anchor_N.exp())
    assert not surrogate_of(Dppo(threshold=distance.item()))(ratios_of([1.6], [1], anchor=HALF)).high_N.any()


def test_policy_gradient_is_not_clipped() -> None:
    check(PolicyGradient(), ratios_of([3, 0.1], [2, -1]), objective=[6, -0.1], grad=[6, -0.1])


OWN = """
import torch
from learner.algorithm.surrogates import Objective, Ratios

def scaled(ratios: Ratios, factor: float, shift: float = 0.0) -> Objective:
    never_N = torch.zeros_like(ratios.advantages_N, dtype=torch.bool)
    return Objective(objective_N=factor * ratios.ratio_N * ratios.advantages_N + shift, low_N=never_N, high_N=never_N)

def a_tensor(ratios):
    return ratios.ratio_N

def a_number(ratios):
    never_N = torch.zeros_like(ratios.advantages_N, dtype=torch.bool)
    return Objective(objective_N=ratios.ratio_N.sum(), low_N=never_N, high_N=never_N)

def no_flags(ratios):
    return Objective(objective_N=ratios.ratio_N, low_N=None, high_N=None)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_losses.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return "my_losses"


def test_a_surrogate_of_ones_own_is_called_with_its_params(own: str) -> None:
    # 3 * 2 * A + 1
    config = OwnSurrogate(function=f"{own}:scaled", params={"factor": 3, "shift": 1.0})
    check(config, ratios_of([2, 2], [1, -1]), objective=[7, -5], grad=[6, -6])


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("absent", {}, "learner.objective.surrogate.function 'my_losses:absent': module 'my_losses' has no attribute"),
        ("scaled", {}, "params.factor: missing; this parameter has no default"),
        ("scaled", {"factor": "2"}, "params.factor: got '2', allowed: a number"),
        ("scaled", {"factr": 2.0}, "params.factr: no such key; did you mean params.factor?"),
    ],
)
def test_what_cannot_be_called_is_one_sentence(own: str, name: str, params: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        surrogate_of(OwnSurrogate(function=f"{own}:{name}", params=params))
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a_tensor", "my_losses:a_tensor gave a Tensor, expected a learner.algorithm.surrogates.Objective"),
        ("a_number", r"objective_N has the shape torch.Size\(\[\]\), expected torch.Size\(\[2\]\): one value for each"),
        ("no_flags", "low_N has the shape None, expected"),
    ],
)
def test_what_is_no_objective_is_one_sentence(own: str, name: str, message: str) -> None:
    with pytest.raises(LearnerError, match=message):
        surrogate_of(OwnSurrogate(function=f"{own}:{name}"))(ratios_of([2, 2], [1, -1]))


def test_an_objective_has_a_place_for_each_token() -> None:
    found: Objective = surrogate_of(PpoClip())(ratios_of([1, 1], [1, 1]))
    assert found.low_N.dtype is found.high_N.dtype is torch.bool


def test_what_cannot_be_called_with_ratios_says_so(own: str, tmp_path: Path) -> None:
    (tmp_path / "my_empty_losses.py").write_text("def nothing(): ...\n")
    with pytest.raises(ConfigError, match="cannot be called with ratios and its params: "):
        surrogate_of(OwnSurrogate(function="my_empty_losses:nothing"))


def test_a_surrogate_of_ones_own_is_not_called_where_nothing_is_trained(own: str) -> None:
    objective = ObjectiveConfig.model_validate(
        {"surrogate": {"kind": "own", "function": f"{own}:scaled", "params": {"factor": 3, "shift": 1.0}}}
    )
    ratios = ratios_of([2, 2], [1, -1], mask=[False, False])
    found = Loss(objective)._surrogate_of(ratios)
    assert found.objective_N.tolist() == [0.0, 0.0]
    assert grad_of(found, ratios) == [0.0, 0.0]
    assert found.low_N.tolist() == found.high_N.tolist() == [False, False]
    called = Loss(objective)._surrogate_of(ratios_of([2, 2], [1, -1], mask=[True, False]))
    assert called.objective_N.tolist() == pytest.approx([7, -5])
    assert Loss(ObjectiveConfig())._surrogate_of(ratios).objective_N.tolist() == [1.2, -2.0]

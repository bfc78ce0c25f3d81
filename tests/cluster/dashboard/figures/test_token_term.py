"""Whether a token's term of the objective can be told, against the loss that the learner computes."""

import math
import re
from typing import Any

import pytest
import torch

from cluster.dashboard.figures.token_term import token_term
from learner.algorithm.loss import Loss
from learner.algorithm.tokens import TokenValues
from learner.objective import ObjectiveConfig

OTHERS: dict[str, dict[str, Any]] = {
    "the surrogate is cispo": {"surrogate": {"kind": "cispo"}},
    "the surrogate is sapo": {"surrogate": {"kind": "sapo"}},
    "the surrogate is own": {"surrogate": {"kind": "own", "function": "a:b"}},
    "ratio is that of the whole completion": {"surrogate": {"kind": "ppo_clip", "level": "sequence"}},
    "has a further bound": {"surrogate": {"kind": "ppo_clip", "dual_clip": 3.0}},
    "a further bound": {"surrogate": {"kind": "ppo_clip", "delta": 4.0}},
    r"another probability than the sampler's \(recomputed\)": {"proximal": "recomputed"},
    r"leave them out \(ratio_mask\)": {"corrections": [{"kind": "ratio_mask"}]},
    "an entropy bonus": {"entropy": {"coef": 0.01}},
    "taken off the rewards": {
        "kl": {"place": "reward", "estimator": "k1"},
        "advantage": {"kind": "group", "scale": "none"},
    },
    "to the reference is k2": {"kl": {"estimator": "k2"}},
    "to the reference is k3 times the ratio": {"kl": {"unbiased": True}},
    "advantages of their own": {"advantage": {"kind": "process"}},
}


def of(objective: Any) -> Any:
    return token_term({"learner": {"objective": objective}})


@pytest.mark.parametrize("why", OTHERS)
def test_of_another_objective_no_term_is_told_and_why(why: str) -> None:
    ObjectiveConfig.model_validate(OTHERS[why])  # it is one that a run can have
    term = of(OTHERS[why])
    assert term.clip is None
    assert len(term.differs) == 1
    assert re.search(why, term.differs[0]), term.differs


def test_what_a_teacher_adds_is_no_term_of_the_page() -> None:
    assert token_term({"learner": {"teacher": {"kind": "any"}}}).clip is None
    assert token_term({"learner": {"teacher": None}}).clip is not None


def test_k3_is_told_only_where_the_loss_has_it() -> None:
    assert [of({"kl": kl}).kl_coef for kl in ({}, {"coef": 0.1}, {"coef": 0.0})] == [0.04, 0.1, 0.0]
    for kl in ({"place": "reward"}, {"estimator": "k2"}, {"estimator": "exact"}, {"unbiased": True}):
        found = of({"kl": kl, "advantage": {"kind": "group", "scale": "none"}})
        assert (found.kl_coef, found.has_reference) == (0.0, True)
    assert of({"kl": {"coef": 0.0}}).has_reference is False


def test_a_run_without_a_configuration_is_told_as_unknown() -> None:
    for config in (None, {"learner": None}, {"learner": {"objective": {"surrogate": "x"}}}):
        term = token_term(config)
        assert (term.clip, term.differs) == (None, ("its configuration is not known",))
    assert token_term({}).clip == pytest.approx((0.8, 1.2))  # a run of before the objective was configured
    assert of({"surrogate": {"kind": "ppo_clip", "eps": 0.1, "eps_high": 0.3}}).clip == pytest.approx((0.9, 1.3))


@pytest.mark.parametrize(
    "objective",
    [
        {},
        {"kl": {"coef": 0.0}},
        {"surrogate": {"kind": "ppo_clip", "eps_high": 0.28}, "kl": {"coef": 0.5}},
        {"advantage": {"kind": "gdpo"}, "aggregation": {"kind": "token_mean"}},
    ],
)
def test_where_one_is_told_it_is_what_the_loss_adds_up(objective: dict[str, Any]) -> None:
    """One token a completion, weight 1: the loss is the negated sum of the terms."""
    term = of(objective)
    policy, sampler, ref = (
        torch.tensor([-0.5, -1.0, -2.0]),
        torch.tensor([-1.0, -0.9, -1.5]),
        torch.tensor([-0.7, -1.4, -2.0]),
    )
    advantages = torch.tensor([1.5, -0.5, -1.0])
    tokens = TokenValues(
        policy_N=policy,
        sampler_N=sampler,
        ref_N=ref if term.has_reference else None,
        advantages_N=advantages,
        token_weights_N=torch.ones(3),
        mask_N=torch.ones(3, dtype=torch.bool),
        entropy_N=torch.zeros(3),
        index_N=torch.arange(3),
        num_completions=3,
    )
    loss, _ = Loss(ObjectiveConfig.model_validate(objective))(tokens)
    assert term.clip is not None
    low, high = term.clip
    told = 0.0
    for p, s, q, a in zip(policy.tolist(), sampler.tolist(), ref.tolist(), advantages.tolist(), strict=True):
        ratio, d = math.exp(p - s), q - p
        k3 = math.expm1(d) - d
        told += min(a * ratio, a * min(max(ratio, low), high)) - term.kl_coef * k3
    assert float(loss) == pytest.approx(-told, rel=1e-5)

"""What the configuration of the objective refuses, with the reason, and what follows from it."""

from typing import Any

import pytest
from pydantic import ValidationError

from cluster.configuration.loading import load_config
from learner.objective import ObjectiveConfig
from rollout.errors import ConfigError

MASK = {"kind": "ratio_mask"}
GSPO = {"kind": "ppo_clip", "level": "sequence"}


def objective(**fields: Any) -> ObjectiveConfig:
    return ObjectiveConfig.model_validate(fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"corrections": [{"kind": "truncate"}]},
            "corrections has `truncate`, and proximal is `sampler`: the surrogate's ratio is against the sampler "
            "already, so that the gap would count twice; set proximal to `recomputed`",
        ),
        (
            {"surrogate": {"kind": "gmpo"}, "aggregation": {"kind": "prompt_mean"}},
            "surrogate gmpo has one value for a completion, and aggregation prompt_mean counts it once for each token, "
            "which no paper does; set aggregation.kind to `sequence_mean`",
        ),
        ({"kl": {"unbiased": True, "estimator": "k2"}}, "kl.unbiased is about k3 in the loss; leave it out"),
        ({"kl": {"unbiased": True, "place": "reward"}}, "kl.unbiased is about k3 in the loss; leave it out"),
        (
            {"kl": {"estimator": "exact", "place": "reward"}},
            "kl.estimator is `exact` and kl.place is `reward`, which has one number for the sampled token; set "
            "kl.estimator to `k1`, or kl.place to `loss`",
        ),
        (
            {"kl": {"estimator": "k1"}},
            "kl.estimator `k1` in the loss has an expected gradient of 0: it would do nothing but noise; set kl.place "
            "to `reward`, or kl.estimator to `k2` or `k3`",
        ),
        (
            {"kl": {"place": "reward"}, "advantage": {"kind": "process"}},
            "advantage process has rewards of several parts, and kl.place is `reward`: to which part the KL belongs is "
            "not defined; set kl.place to `loss`",
        ),
        (
            {"kl": {"place": "reward"}, "advantage": {"kind": "gdpo"}},
            "advantage gdpo has rewards of several parts, and kl.place is `reward`",
        ),
        (
            {"kl": {"place": "reward"}, "advantage": {"kind": "reinforce_plus_plus", "baseline": "group_mean"}},
            "advantage reinforce_plus_plus with a group baseline has its KL in the loss (k2 in the paper), and kl.place"
            " is `reward`; set kl.place to `loss` and kl.estimator to `k2`",
        ),
        (
            {"kl": {"coef": 0}, "reference": {"update": "copy"}},
            "reference.update has nothing to update: kl.coef is 0, so there is no reference",
        ),
        ({"entropy": {"coef": 2.0, "target": 0.5}}, "entropy.coef is 2, above max_coef = 1"),
        ({"corrections": [{**MASK, "min": 2.0}]}, "ratio_mask: min is 2 and max is 2; min must be below max"),
        (
            {"proximal": "recomputed", "corrections": [MASK, {"kind": "truncate", "min": 3.0}]},
            "truncate: min is 3 and max is 2; min must be below max",
        ),
        (
            {"surrogate": {"kind": "cispo", "cap": 0.5, "floor": 0.5}},
            "floor is 0.5 and cap is 0.5; floor must be",
        ),
        (
            {"surrogate": {"kind": "ppo_clip", "delta": 1.2}},
            "delta is 1.2 and the clip ends at 1 + 0.2: delta would bound ratios that the clip lets through; set it",
        ),
        ({"surrogate": {"kind": "ppo_clip", "delta": 1.25, "eps_high": 0.28}}, "the clip ends at 1 + 0.28"),
        ({"surrogate": {"kind": "own", "function": "no_path"}}, "surrogate.own.function"),
        ({"advantage": {"kind": "own", "function": "a:b c"}}, "advantage.own.function"),
    ],
)
def test_what_does_not_go_together_is_refused_with_the_reason(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as raised:
        objective(**fields)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"proximal": "recomputed", "corrections": [{"kind": "truncate"}]},
        {"proximal": "interpolated", "corrections": [{"kind": "truncate", "max": None, "min": 5.0}]},
        {"corrections": [MASK]},
        {"surrogate": GSPO},
        {"surrogate": GSPO, "aggregation": {"kind": "sequence_sum"}},
        {"surrogate": {**GSPO, "level": "product"}, "aggregation": {"kind": "token_mean"}},
        {"kl": {"unbiased": True}},
        {"kl": {"place": "reward", "estimator": "k1"}, "advantage": {"kind": "group", "scale": "none"}},
        {"kl": {"coef": 0, "estimator": "k1"}},
        {"kl": {"place": "reward"}, "advantage": {"kind": "reinforce_plus_plus"}},
        {"kl": {"coef": 0, "place": "reward"}, "advantage": {"kind": "gdpo"}},
        {"entropy": {"coef": 2.0}},
        {"surrogate": {"kind": "ppo_clip", "delta": 1.3, "eps_high": 0.28}},
    ],
)
def test_what_is_next_to_a_refusal_is_allowed(fields: dict[str, Any]) -> None:
    objective(**fields)


def test_pass_at_k_needs_more_completions_than_k() -> None:
    with pytest.raises(
        ConfigError, match=r"learner.objective.advantage.k is 4 and rollout.group_size is 4: all completi"
    ):
        load_config("tiny", ["rollout.group_size=4", "learner.objective.advantage={kind: pass_at_k, k: 4}"])
    load_config("tiny", ["rollout.group_size=5", "learner.objective.advantage={kind: pass_at_k, k: 4}"])


NO_KL = {"kl": {"coef": 0}}
KEPT = {"aggregation": {"count": "kept"}}
TOP = {"kind": "top_entropy", "share": 0.3}


@pytest.mark.parametrize(
    ("fields", "computes_all", "whole_step", "before_one", "before_two"),
    [
        ({}, True, False, False, False),
        (NO_KL, False, False, False, False),
        ({**NO_KL, "entropy": {"coef": 0.1}}, True, False, False, False),
        ({**NO_KL, "entropy": {"target": 0.1}}, True, False, False, False),
        ({**NO_KL, "corrections": [MASK]}, False, False, False, True),
        ({**NO_KL, **KEPT, "corrections": [MASK]}, True, True, True, True),
        ({**NO_KL, "corrections": [TOP]}, True, False, True, True),
        ({**NO_KL, "proximal": "recomputed"}, False, False, False, True),
        ({**NO_KL, "proximal": "interpolated"}, False, False, False, False),
        ({"kl": {"place": "reward"}, "advantage": {"kind": "group", "scale": "none"}}, True, True, True, True),
        ({"kl": {"place": "reward", "coef": 0}}, False, False, False, False),
    ],
)
def test_what_follows_from_an_objective(
    fields: dict[str, Any], computes_all: bool, whole_step: bool, before_one: bool, before_two: bool
) -> None:
    found = objective(**fields)
    assert found.computes_all is computes_all
    assert found.needs_whole_step is whole_step
    assert found.needs_values_before(1) is before_one
    assert found.needs_values_before(2) is before_two


def test_the_share_of_a_top_entropy_mask() -> None:
    assert objective(corrections=[MASK, TOP]).top_entropy_share == 0.3
    assert objective(corrections=[MASK]).top_entropy_share is None
    assert objective(corrections=[MASK]).has_masks
    assert not objective(proximal="recomputed", corrections=[{"kind": "truncate"}]).has_masks

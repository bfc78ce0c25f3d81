"""Shoal's side: the objective that a combination of TRL's options is, and its loss and gradient on a scene.

Dimensions: B completions, T token positions, N tokens, laid end to end.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from learner.algorithm.advantages import group_relative
from learner.algorithm.aggregation import token_weights
from learner.algorithm.corrections import NOT_CORRECTED, correct, entropy_threshold
from learner.algorithm.kl import estimated_kl
from learner.algorithm.loss import Loss, anchor_of
from learner.algorithm.tokens import TokenValues
from learner.objective import GroupAdvantage, ObjectiveConfig
from learner.types import GroupRewards
from tests.learner.parity.loss_cases import GROUP, MAX_TOKENS, ON_POLICY, Correction, LossCase, Scene

AGGREGATIONS = {
    "grpo": "sequence_mean",
    "bnpo": "token_mean",
    "dapo": "token_mean",
    "dr_grpo": "token_sum",
    "luspo": "sequence_sum",
    "cispo": "token_mean",
    "sapo": "sequence_mean",
    "gmpo": "sequence_mean",
    "rloo": "sequence_mean",
}


def objective_of(case: LossCase) -> ObjectiveConfig:
    """`learner.objective` for TRL's options; refused combinations raise as they do for a user."""
    clip: dict[str, Any] = {"eps": case.clip.epsilon, "eps_high": case.clip.epsilon_high}
    surrogates: dict[str, dict[str, Any]] = {
        "cispo": {"kind": "cispo", "cap": case.clip.epsilon_high},
        "sapo": {"kind": "sapo", "tau": case.temperatures[0], "tau_negative": case.temperatures[1]},
        "gmpo": {"kind": "gmpo", **clip},
        "rloo": {"kind": "ppo_clip", "level": "product", **clip},
    }
    aggregation = {"kind": AGGREGATIONS[case.loss]}
    if case.loss == "gmpo" and case.correction.top_entropy_quantile < 1:
        aggregation["count"] = "kept"  # a token that the mask leaves out is not in the geometric mean
    kl: dict[str, Any] = {"coef": case.kl.beta, "unbiased": case.kl.unbiased}
    if case.loss == "rloo":
        kl |= {"estimator": "k1", "place": "reward"}
    return ObjectiveConfig.model_validate(
        {
            "advantage": {"kind": "group", "baseline": "leave_one_out", "scale": "none"},
            "aggregation": aggregation,
            "surrogate": surrogates.get(case.loss)
            or {"kind": "ppo_clip", "level": case.level, "delta": case.clip.delta, **clip},
            "proximal": "recomputed" if case.correction.knows_sampler or case.scene == ON_POLICY else "sampler",
            "corrections": _corrections(case.correction),
            "kl": kl,
            "entropy": {"coef": case.entropy_coef},
        }
    )


def _corrections(correction: Correction) -> list[dict[str, Any]]:
    """TRL's masked importance weights are a weight without a bound and a mask."""
    found: list[dict[str, Any]] = []
    mode = correction.vllm_importance_sampling_mode
    if mode is not None:
        level, what = mode.split("_")
        low, high = correction.vllm_importance_sampling_clip_min or 0.0, correction.vllm_importance_sampling_clip_max
        if what == "truncate":
            found.append({"kind": "truncate", "level": level, "min": low, "max": high})
        else:
            found.append({"kind": "truncate", "level": level, "max": None})
            found.append({"kind": "ratio_mask", "level": level, "min": low, "max": high})
    if correction.off_policy_mask_threshold is not None:
        found.append({"kind": "off_policy_sequence", "threshold": correction.off_policy_mask_threshold})
    if correction.top_entropy_quantile < 1:
        found.append({"kind": "top_entropy", "share": correction.top_entropy_quantile})
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Shoal's loss and its gradient."""

    loss: float
    gradient_BT: Tensor
    """By the logits."""
    counts_B: Tensor
    """bool; True for completions that are in the denominators."""


def loss_and_gradient(case: LossCase, scene: Scene) -> Found:
    """Of an optimizer step, by the functions that the learner calls, in float64."""
    objective = objective_of(case)
    logits_BT = torch.from_numpy(scene.logits_BT.copy()).requires_grad_()
    rows_N, places_N = torch.nonzero(
        torch.arange(scene.mask_BT.shape[1]) < torch.from_numpy(scene.lengths_B)[:, None], as_tuple=True
    )
    logits_N = logits_BT[rows_N, places_N]
    policy_N, other_N = torch.nn.functional.logsigmoid(logits_N), torch.nn.functional.logsigmoid(-logits_N)
    old_N, sampler_N, ref_N, mask_N = (
        torch.from_numpy(values_BT)[rows_N, places_N]
        for values_BT in (scene.old_BT, scene.sampler_BT, scene.ref_BT, scene.mask_BT)
    )
    tokens = TokenValues(
        policy_N=policy_N,
        sampler_N=sampler_N if case.correction.knows_sampler else old_N,
        before_N=None if case.scene == ON_POLICY else old_N,
        ref_N=ref_N if objective.needs_reference else None,
        advantages_N=torch.from_numpy(scene.advantages_B)[rows_N],
        token_weights_N=_weights(objective, rows_N[mask_N], len(scene.lengths_B))[rows_N] * mask_N,
        mask_N=mask_N,
        entropy_N=-(policy_N.exp() * policy_N + other_N.exp() * other_N),
        index_N=rows_N,
        num_completions=len(scene.lengths_B),
    )
    if objective.rewards_hold_kl or case.loss == "rloo":
        tokens = _with_advantages(tokens, objective, scene)
    corrected = NOT_CORRECTED
    if objective.corrections:
        share = objective.top_entropy_share
        threshold = None if share is None else entropy_threshold(tokens.entropy_N.detach()[mask_N], share)
        anchor_N = old_N if objective.proximal == "sampler" else anchor_of(tokens, objective)
        corrected = correct(tokens, anchor_N, objective.corrections, entropy_threshold=threshold)
    if objective.aggregation.count == "kept":
        assert corrected.keep_N is not None
        kept_N = mask_N & corrected.keep_N
        weights_N = _weights(objective, rows_N[kept_N], len(scene.lengths_B))[rows_N]
        tokens = replace(tokens, mask_N=kept_N, token_weights_N=weights_N)
    loss, _ = Loss(objective)(tokens, corrected)
    loss.backward()
    assert logits_BT.grad is not None
    counts_B = torch.bincount(rows_N[tokens.mask_N], minlength=len(scene.lengths_B)) > 0
    return Found(loss=loss.item(), gradient_BT=logits_BT.grad, counts_B=counts_B)


def _weights(objective: ObjectiveConfig, rows: Tensor, num_completions: int) -> Tensor:
    """[B] of the tokens that count; `rows`: which completion each of them is of."""
    counts = torch.bincount(rows, minlength=num_completions).tolist()
    prompts = [str(row // GROUP) for row in range(num_completions)]
    weights = token_weights(counts, prompts, objective.aggregation, max_tokens=MAX_TOKENS)
    return torch.tensor(weights, dtype=torch.float64)


def _with_advantages(tokens: TokenValues, objective: ObjectiveConfig, scene: Scene) -> TokenValues:
    """With those of the rewards, less the KL of the policy before the step."""
    kl_B = torch.zeros(len(scene.lengths_B), dtype=torch.float64)
    if objective.rewards_hold_kl:
        assert tokens.ref_N is not None
        before_N = tokens.policy_N.detach() if tokens.before_N is None else tokens.before_N
        kl_B = tokens.completions.sums(estimated_kl(before_N, tokens.ref_N, "k1"))
    rewards = (torch.from_numpy(scene.rewards_B) - objective.kl.coef * kl_B).tolist()
    groups = [
        GroupRewards(group_id=str(start), rewards_G=tuple(rewards[start : start + GROUP]), num_tokens_G=(1,) * GROUP)
        for start in range(0, len(rewards), GROUP)
    ]
    assert isinstance(objective.advantage, GroupAdvantage)
    found = [advantage for of in group_relative(groups, objective.advantage) for advantage in of]
    return replace(tokens, advantages_N=torch.tensor(found, dtype=torch.float64)[tokens.index_N])

"""The loss of every shipped objective on one fixed batch: a stored value, and the paper's equation in NumPy.

The learner's way is plan, corrections and loss, in fp64; the other way is `paper_losses`.

Dimension: N tokens of all completions that are computed.
"""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from cluster.configuration.loading import list_objectives, load_config
from learner.algorithm.advantages import estimator_of
from learner.algorithm.corrections import correct
from learner.algorithm.kl import estimated_kl
from learner.algorithm.loss import Loss, anchor_of
from learner.algorithm.plan import PlanSettings, plan_step
from learner.algorithm.tokens import TokenValues
from learner.config import LearnerConfig
from learner.objective import ObjectiveConfig
from learner.types import GroupRewards, StepPlan, TrainBatch, TrainSequence
from reward.types import StepReward
from tests.learner.algorithm.paper_losses import (
    BREVITY,
    CENTRED,
    EQUATIONS,
    EVERY,
    LENGTHS,
    MAX_TOKENS,
    REWARDS,
    STEPS,
    TOKENS,
    WEIGHTS,
    divergence_mask,
)
from tests.learner.samples import scored_group

OVERRIDES = {"pass_at_k": ["learner.objective.advantage.k=2"]}
"""Four completions of a group are one set of four, in which nothing stands out."""
STORED: dict[str, float] = {
    "async": 0.031382977274500595,
    "cispo": 0.02476756496619021,
    "cispo_scale_rl": 0.0492904194856252,
    "dapo": 0.0007680952832172724,
    "deepseekmath": 0.029578391769281318,
    "deepseekmath_iterative": 0.029578391769281318,
    "deepseekmath_process": 0.3757668460189306,
    "dppo": -0.014885679850393168,
    "dr_grpo": 0.0009317871639975862,
    "gdpo": -0.058014527527621235,
    "gmpo": -0.007787179225787946,
    "gspo": 0.03461444264999736,
    "maxrl": 0.03829590957675108,
    "opo": -0.2762231772333679,
    "pass_at_k": 0.009732863837463504,
    "reinforce_plus_plus": 0.0723503427807118,
    "rloo": -0.44650988986217166,
    "sapo": -0.09532427641283725,
}


def batch() -> TrainBatch:
    rng = random.Random(0)
    groups = []
    for number, (rewards, lengths) in enumerate(zip(REWARDS, LENGTHS, strict=True)):
        group = scored_group(number, rewards, rng=rng, lengths=lengths)
        results = tuple(
            replace(
                result,
                components={"math": rewards[i], "brevity": BREVITY[number][i]},
                steps=tuple(StepReward(end=end, reward=reward) for end, reward in STEPS[number][i]),
            )
            for i, result in enumerate(group.rewards)
        )
        groups.append(replace(group, scores=replace(group.scores, rewards=results)))
    return TrainBatch(step=0, policy_version=0, groups=tuple(groups))


def learner_loss(objective: ObjectiveConfig) -> float:
    step = batch()
    settings = PlanSettings(
        learner=LearnerConfig(objective=objective), max_tokens=MAX_TOKENS, component_weights=WEIGHTS
    )
    plan = plan_step(step, settings)
    numbers = {group.group_id: number for number, group in enumerate(step.groups)}
    of = [TOKENS[numbers[s.group_id]][s.sample_index] for s in plan.sequences]

    def joined(name: str) -> Tensor:
        return torch.from_numpy(np.concatenate([getattr(one, name) for one in of]))

    counts = torch.tensor([s.num_completion_tokens for s in plan.sequences])
    index_N = torch.repeat_interleave(torch.arange(len(of)), counts)
    advantages = [torch.tensor(spread(s), dtype=torch.float64) for s in plan.sequences]
    if objective.rewards_hold_kl:
        found = with_kl(objective, plan, numbers)
        advantages = [torch.full_like(a, found[s.key]) for s, a in zip(plan.sequences, advantages, strict=True)]
    weights = torch.tensor([s.token_weight for s in plan.sequences], dtype=torch.float64)
    values = TokenValues(
        policy_N=joined("policy"),
        sampler_N=joined("sampler"),
        before_N=joined("before"),
        ref_N=joined("ref") if objective.needs_reference else None,
        advantages_N=torch.cat(advantages),
        token_weights_N=weights[index_N],
        mask_N=torch.ones(len(index_N), dtype=torch.bool),
        entropy_N=torch.zeros(len(index_N), dtype=torch.float64),
        index_N=index_N,
        num_completions=len(of),
    )
    corrected = correct(values, anchor_of(values, objective), objective.corrections, entropy_threshold=None)
    loss, _ = Loss(objective)(values, corrected)
    return float(loss)


def spread(sequence: TrainSequence) -> list[float]:
    """The advantage of each token."""
    if not sequence.advantage_spans:
        return [sequence.advantage] * sequence.num_completion_tokens
    values: list[float] = []
    for span in sequence.advantage_spans:
        values += [span.advantage] * (span.end - len(values))
    return values


def with_kl(objective: ObjectiveConfig, plan: StepPlan, numbers: dict[str, int]) -> dict[tuple[str, int], float]:
    """Advantages of rewards less the KL, as the ranks make them."""
    assert objective.kl.estimator != "exact"
    rewards: list[GroupRewards] = []
    for group in plan.rewards:
        less: list[float | None] = []
        for i, reward in enumerate(group.rewards_G):
            assert reward is not None
            of = TOKENS[numbers[group.group_id]][i]
            kl_N = estimated_kl(torch.from_numpy(of.before), torch.from_numpy(of.ref), objective.kl.estimator)
            less.append(reward - objective.kl.coef * float(kl_N.sum()))
        rewards.append(replace(group, rewards_G=tuple(less)))
    found = estimator_of(objective.advantage, WEIGHTS)(rewards)
    return {
        (group.group_id, i): advantage
        for group, of in zip(rewards, found, strict=True)
        for i, advantage in enumerate(of)
        if advantage is not None
    }


@pytest.mark.parametrize("name", [path.stem for path in list_objectives()])
def test_loss_is_the_stored_one_and_the_papers(name: str) -> None:
    objective = load_config("tiny", [f"objective={name}", *OVERRIDES.get(name, [])]).learner.objective
    loss = learner_loss(objective)
    assert loss == pytest.approx(EQUATIONS[name](), abs=1e-12, rel=0)
    assert loss == pytest.approx(STORED[name], abs=1e-12, rel=0)


def test_the_batch_tells_the_objectives_apart() -> None:
    """Clips, caps and masks have something to do: a batch on which they do nothing would prove little."""
    x = np.concatenate([of.policy - of.sampler for group in TOKENS for of in group])
    assert (np.exp(x) > 1.28).sum() >= 3
    assert (np.exp(x) < 0.8).sum() >= 3
    assert (np.exp(x) > 5.0).sum() >= 1
    products = [np.exp(np.sum(of.before - of.sampler)) for group in TOKENS for of in group]
    assert 1 <= sum(product > 3.0 for product in products) <= 4
    weights = np.concatenate([np.exp(of.before - of.sampler) for group in TOKENS for of in group])
    assert (weights > 2.0).sum() >= 1
    masked = [divergence_mask(TOKENS[g][i], CENTRED[g][i]) == 0.0 for g, i in EVERY if CENTRED[g][i]]
    assert np.concatenate(masked).sum() >= 1
    same = {"deepseekmath", "deepseekmath_iterative"}
    assert len({round(value, 9) for value in STORED.values()}) == len(STORED) - len(same) + 1

"""Runs of a few steps that TRL and Shoal both make: from the same weights, on the same completions.

Dimensions: P prompts, G completions of a group.
"""

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from learner.types import TrainBatch
from rollout.types import RolloutGroup, read_only
from tests.learner.samples import groups_of, save_toy_model, scored_group, scored_of

NUM_STEPS, NUM_GROUPS, GROUP, MAX_TOKENS, TEMPERATURE = 3, 3, 4, 12, 0.9
BETAS, LR = (0.9, 0.999), 5e-4
NUM_KEPT = 2000
"""Weights of each matrix that are stored, spread evenly over it; of smaller ones all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingCase:
    """The same run, in the words of both."""

    name: str
    trl: dict[str, Any]
    """Fields of `GRPOConfig`."""
    shoal: dict[str, Any]
    """`learner.objective`."""
    updates_per_batch: int = 1
    learner: dict[str, Any] = field(default_factory=dict)
    """Other fields of `learner`."""


_GROUP_STD = {"kind": "group", "scale": "group_std", "eps": 1e-4}
CASES = (
    TrainingCase(
        name="grpo",
        trl={"loss_type": "grpo", "beta": 0.04, "use_bias_correction_kl": False},
        shoal={"advantage": _GROUP_STD, "kl": {"coef": 0.04}},
    ),
    TrainingCase(
        name="dapo_two_updates",
        trl={"loss_type": "dapo", "beta": 0.0, "epsilon_high": 0.28, "num_iterations": 2},
        shoal={
            "advantage": _GROUP_STD,
            "aggregation": {"kind": "token_mean"},
            "surrogate": {"kind": "ppo_clip", "eps_high": 0.28},
            "kl": {"coef": 0.0},
        },
        updates_per_batch=2,
    ),
    TrainingCase(
        name="gspo_micro_batches",
        trl={
            "loss_type": "grpo",
            "importance_sampling_level": "sequence",
            "epsilon": 0.03,
            "scale_rewards": "batch",
            "beta": 0.1,
            "use_bias_correction_kl": False,
            "per_device_train_batch_size": GROUP,
            "gradient_accumulation_steps": NUM_GROUPS,
            "max_grad_norm": 0.05,
        },
        shoal={
            "advantage": {"kind": "group", "scale": "batch_std", "eps": 1e-4},
            "surrogate": {"kind": "ppo_clip", "level": "sequence", "eps": 0.03},
            "kl": {"coef": 0.1},
        },
        learner={"max_grad_norm": 0.05, "micro_batch_tokens": 48},
    ),
)


def model_in(folder: Path) -> str:
    """The weights that both start from."""
    return save_toy_model(folder, seed=3)


def batches(model_dir: str) -> list[TrainBatch]:
    """[step] groups whose sampler was near the starting weights, so that ratios are on both sides of the clip."""
    rng, noise = random.Random(5), np.random.default_rng(5)
    found = []
    for step in range(NUM_STEPS):
        groups = []
        for number in range(NUM_GROUPS):
            rewards = [float(rng.random() < 0.5), rng.random(), 1.0, 0.0]
            scored = scored_group(NUM_GROUPS * step + number, rewards, rng=rng, masked_first=number == 1)
            group = groups_of(TrainBatch(step=0, policy_version=0, groups=(scored,)))[scored.group_id]
            groups.append(scored_of(_sampled_near(group, model_dir, noise), scored.rewards))
        found.append(TrainBatch(step=step, policy_version=step, groups=tuple(groups)))
    return found


def _sampled_near(group: RolloutGroup, model_dir: str, noise: np.random.Generator) -> RolloutGroup:
    """With log-probabilities of the model in `model_dir`, and noise."""
    from dataclasses import replace

    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32).eval()
    completions = []
    for completion in group.completions:
        ids = torch.tensor([[*group.prompt.token_ids, *completion.token_ids.tolist()]])
        with torch.no_grad():
            logits_TV = model(input_ids=ids).logits[0, len(group.prompt.token_ids) - 1 : -1] / TEMPERATURE
        targets_T = torch.tensor(completion.token_ids.tolist())
        exact_T = torch.log_softmax(logits_TV.double(), -1).gather(-1, targets_T[:, None])[:, 0].numpy()
        # Two digits: the same on every machine, whatever the last bits of the model are.
        logprobs = tuple(np.round(exact_T + noise.normal(0.0, 0.15, len(exact_T)), 2).tolist())
        completions.append(replace(completion, logprobs=read_only(logprobs, np.float32)))
    return replace(group, completions=tuple(completions))


def kept(values: np.ndarray) -> np.ndarray:
    """What is stored of one weight."""
    flat = values.reshape(-1)
    return flat[:: max(1, -(-len(flat) // NUM_KEPT))]

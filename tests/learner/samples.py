"""Recorded groups and toy models for the learner's tests."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from learner.algorithm.plan import PlanSettings, plan_step, shares
from learner.config import LearnerConfig
from learner.objective import ObjectiveConfig
from learner.types import ComputedTokens, StepOutput, TrainBatch, TrainSequence
from reward.types import GroupScores, RewardOutcome, RewardResult, ScoredGroup
from rollout.types import Completion, FinishReason, Prompt, RolloutGroup, SampledGroup, VersionSpan, facts_of, read_only

if TYPE_CHECKING:
    from learner.algorithm.batching import MicroBatch

VOCABULARY = 32


def save_toy_model(directory: Path, *, tied: bool = True, seed: int = 0) -> str:
    """A Llama of two layers with random weights, as a Hugging Face directory."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=tied,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
        initializer_range=0.2,
        attention_dropout=0.1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(directory)
    return str(directory)


def scored_group(
    index: int,
    rewards: Sequence[float | None],
    *,
    rng: random.Random,
    lengths: Sequence[int] | None = None,
    masked_first: bool = False,
) -> ScoredGroup:
    """A group of random tokens; None stands for a reward that failed."""
    prompt_ids = tuple(rng.randrange(2, VOCABULARY) for _ in range(rng.randrange(2, 7)))
    completions = []
    for sample_index in range(len(rewards)):
        length = lengths[sample_index] if lengths else rng.randrange(1, 12)
        completions.append(
            Completion(
                sample_index=sample_index,
                token_ids=read_only(tuple(rng.randrange(1, VOCABULARY) for _ in range(length)), np.int32),
                logprobs=read_only(tuple(-3.5 + rng.uniform(-0.5, 0.5) for _ in range(length)), np.float32),
                loss_mask=read_only(
                    tuple(not (masked_first and i == 0 and length > 1) for i in range(length)), np.bool_
                ),
                text="",
                finish_reason=FinishReason.STOP,
                version_spans=(VersionSpan(policy_version=0, start=0, end=length),),
            )
        )
    prompt = Prompt(
        uid=f"{index:016x}",
        epoch=0,
        index=index,
        token_ids=prompt_ids,
        text="",
        question="",
        ground_truth=None,
        task="toy",
    )
    group = RolloutGroup(
        prompt=prompt, completions=tuple(completions), attempt=1, worker="sampler-0", started_s=0.0, finished_s=1.0
    )
    results = tuple(
        RewardResult(outcome=RewardOutcome.ERROR, reward=None)
        if reward is None
        else RewardResult(outcome=RewardOutcome.OK, reward=reward)
        for reward in rewards
    )
    return scored_of(group, results)


def scored_of(group: RolloutGroup, rewards: Sequence[RewardResult]) -> ScoredGroup:
    """As the controller would have it, with the group itself in place of a reference."""
    scores = GroupScores(rewards=tuple(rewards), worker="reward-0", started_s=1.0, finished_s=2.0)
    return ScoredGroup(group=SampledGroup(prompt=group.prompt, facts=facts_of(group), payload=group), scores=scores)


def groups_of(batch: TrainBatch) -> dict[str, RolloutGroup]:
    """Group id -> completions."""
    return {scored.group_id: scored.group.payload for scored in batch.groups}


def collated(batch: TrainBatch, sequences: Sequence[TrainSequence]) -> "MicroBatch":
    """The tensors of some sequences of a batch."""
    from learner.algorithm.batching import collate, tokens_of

    return collate(sequences, tokens_of(sequences, groups_of(batch)))


def settings_of(**objective: Any) -> PlanSettings:
    """A plan's settings with this objective: the keys of `learner.objective`."""
    learner = LearnerConfig(objective=ObjectiveConfig.model_validate(objective))
    return PlanSettings(learner=learner, max_tokens=12)


def train_step(worker: Any, batch: TrainBatch) -> tuple[StepOutput, ComputedTokens]:
    """What the controller asks of this rank: its share of the batch, with the groups that it needs."""
    groups = groups_of(batch)
    settings = PlanSettings(learner=worker._config, max_tokens=12, packed=worker.can_pack())
    dealt = shares(batch, plan_step(batch, settings), settings, num_ranks=worker._world_size)
    share = dealt[worker._rank]
    output: tuple[StepOutput, ComputedTokens] = worker.train_step(share, *(groups[i] for i in share.group_ids))
    return output


def train_batch(step: int, *, policy_version: int | None = None, seed: int = 0, num_groups: int = 3) -> TrainBatch:
    """Groups of 4, with an unscored completion and masked tokens among them; the same for the same arguments."""
    rng = random.Random(1000 * seed + step)
    patterns: list[list[float | None]] = [[1.0, 0.0, 0.0, 1.0], [0.5, None, 1.0, 0.0], [0.1, 0.7, 0.2, 0.1]]
    groups = tuple(
        scored_group(100 * step + i, patterns[i % len(patterns)], rng=rng, masked_first=i == 1)
        for i in range(num_groups)
    )
    return TrainBatch(step=step, policy_version=step if policy_version is None else policy_version, groups=groups)

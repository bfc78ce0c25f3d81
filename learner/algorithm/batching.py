"""Scored groups -> micro-batches, the same plan on every rank without a message between them.

    TrainBatch --plan_step--> StepPlan --assign--> micro-batches of each rank --collate--> MicroBatch (tensors)

Layout: padded on the right, sequences of similar length together. With a causal model no token sees what stands to its
right, so padding needs no attention mask, and what is computed at padded positions is never read.

Dimensions: B sequences of a micro-batch, T token positions (padding included), N predicted tokens (all completion
tokens of the micro-batch, laid end to end).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from learner.algorithm.advantages import group_advantages
from learner.algorithm.loss import completion_token_weight
from learner.config import GRPOConfig
from learner.types import TrainBatch
from reward.types import ScoredGroup
from rollout.types import Completion


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSequence:
    """One completion that the learner computes."""

    group_id: str
    sample_index: int
    token_ids: tuple[int, ...]
    """Prompt, then completion."""
    num_prompt_tokens: int
    """At least 1: the first completion token is predicted from the last prompt token."""
    rollout_logprobs: tuple[float, ...]
    """One for each completion token, like `loss_mask`."""
    loss_mask: tuple[bool, ...]
    advantage: float
    token_weight: float
    """Weight of each of its trained tokens in the loss of the optimizer step."""

    @property
    def num_completion_tokens(self) -> int:
        return len(self.token_ids) - self.num_prompt_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPlan:
    """What one optimizer step trains on, before it is split."""

    sequences: tuple[TrainSequence, ...]
    """Completions to compute, in the batch's order."""
    advantages: tuple[tuple[str, int, float | None], ...]
    """(group_id, sample_index, advantage) of every completion of the batch, computed or not, in the batch's order."""
    num_completions: int
    """Completions with at least one trained token: the loss is a mean over these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """One forward and backward pass."""

    sequences: tuple[TrainSequence, ...]
    """The B completions; empty for one that only keeps this rank in step with the others."""
    input_ids_BT: Tensor
    """int64. Sequences start at position 0; 0 at padded positions."""
    positions_N: Tensor
    """int64. Index into B * T of the position that predicts each completion token: the one before it."""
    targets_N: Tensor
    """int64 [N] the completion tokens."""
    rollout_logprobs_N: Tensor
    """fp32."""
    advantages_N: Tensor
    """fp32."""
    token_weights_N: Tensor
    """fp32; 0 where not trained on."""
    mask_N: Tensor
    """bool; True where trained on."""

    @property
    def num_tokens(self) -> int:
        """Tokens without padding."""
        return sum(len(sequence.token_ids) for sequence in self.sequences)

    def to(self, device: torch.device) -> "MicroBatch":
        names = ("input_ids_BT", "positions_N", "targets_N", "rollout_logprobs_N", "advantages_N", "token_weights_N")
        moved = {name: getattr(self, name).to(device) for name in (*names, "mask_N")}
        return MicroBatch(sequences=self.sequences, **moved)


def plan_step(batch: TrainBatch, grpo: GRPOConfig) -> StepPlan:
    """Advantages, weights and the sequences to compute.

    Trained on: completions that were scored, were not given up, and have a token with `loss_mask`. Of these, one whose
    advantage is exactly zero has no gradient when there is no KL term: it is counted in the denominator and not
    computed.
    """
    advantages = {group.group_id: _advantages_of(group, grpo) for group in batch.groups}
    assert len(advantages) == len(batch.groups), "a group came twice in one batch"
    trained = [
        (group, completion, advantage)
        for group in batch.groups
        for completion, advantage in zip(group.group.completions, advantages[group.group_id], strict=True)
        if advantage is not None and completion.finish_reason.is_trainable and any(completion.loss_mask)
    ]
    sequences = [
        _sequence(group, completion, advantage, num_completions=len(trained))
        for group, completion, advantage in trained
        if advantage != 0.0 or grpo.kl_coef > 0
    ]
    return StepPlan(
        sequences=tuple(sequences),
        advantages=tuple(
            (group.group_id, completion.sample_index, advantage)
            for group in batch.groups
            for completion, advantage in zip(group.group.completions, advantages[group.group_id], strict=True)
        ),
        num_completions=len(trained),
    )


def _advantages_of(group: ScoredGroup, grpo: GRPOConfig) -> tuple[float | None, ...]:
    compared = group.compared_rewards
    rewards_G = [0.0 if reward is None else reward for reward in compared]
    return group_advantages(rewards_G, [reward is not None for reward in compared], use_std=grpo.advantage_std)


def _sequence(group: ScoredGroup, completion: Completion, advantage: float, *, num_completions: int) -> TrainSequence:
    prompt_ids = group.group.prompt.token_ids
    assert prompt_ids, f"group {group.group_id} has an empty prompt"
    return TrainSequence(
        group_id=group.group_id,
        sample_index=completion.sample_index,
        token_ids=prompt_ids + completion.token_ids,
        num_prompt_tokens=len(prompt_ids),
        rollout_logprobs=completion.logprobs,
        loss_mask=completion.loss_mask,
        advantage=advantage,
        token_weight=completion_token_weight(sum(completion.loss_mask), num_completions),
    )


def assign(
    sequences: Sequence[TrainSequence], *, num_ranks: int, micro_batch_tokens: int
) -> tuple[tuple[tuple[TrainSequence, ...], ...], ...]:
    """[rank][micro-batch][sequence], the same on whichever rank it is called.

    Longest first, each to the rank with the fewest tokens so far (the lowest such rank): the loads then differ by
    at most one sequence. Every rank has the same number of micro-batches, since ZeRO communicates in each backward
    pass; the ones added for that are empty.
    """
    lengths = [len(sequence.token_ids) for sequence in sequences]
    by_length = sorted(range(len(sequences)), key=lambda i: (-lengths[i], i))
    shares: list[list[int]] = [[] for _ in range(num_ranks)]
    loads = [0] * num_ranks
    for i in by_length:
        rank = min(range(num_ranks), key=lambda r: (loads[r], r))
        shares[rank].append(i)
        loads[rank] += lengths[i]
    cuts = [_cut([lengths[i] for i in share], micro_batch_tokens) for share in shares]
    num_micro_batches = max(1, *(len(cut) for cut in cuts))
    return tuple(
        tuple(tuple(sequences[share[j]] for j in part) for part in cut) + ((),) * (num_micro_batches - len(cut))
        for share, cut in zip(shares, cuts, strict=True)
    )


def _cut(lengths: Sequence[int], micro_batch_tokens: int) -> list[range]:
    """Cuts falling lengths into runs of at most `micro_batch_tokens` with padding; a longer sequence stands alone."""
    runs: list[range] = []
    start = 0
    for end in range(1, len(lengths) + 1):
        is_full = end == len(lengths) or lengths[start] * (end + 1 - start) > micro_batch_tokens
        if is_full:
            runs.append(range(start, end))
            start = end
    return runs


def collate(sequences: Sequence[TrainSequence]) -> MicroBatch:
    """Tensors of one micro-batch. Without sequences: one padding token whose loss and gradient are exactly zero."""
    if not sequences:
        zeros_N = torch.zeros(1)
        return MicroBatch(
            sequences=(),
            input_ids_BT=torch.zeros(1, 1, dtype=torch.int64),
            positions_N=torch.zeros(1, dtype=torch.int64),
            targets_N=torch.zeros(1, dtype=torch.int64),
            rollout_logprobs_N=zeros_N,
            advantages_N=zeros_N,
            token_weights_N=zeros_N,
            mask_N=torch.zeros(1, dtype=torch.bool),
        )
    width = max(len(sequence.token_ids) for sequence in sequences)
    input_ids_BT = torch.zeros(len(sequences), width, dtype=torch.int64)
    positions: list[int] = []
    for row, sequence in enumerate(sequences):
        length = len(sequence.token_ids)
        input_ids_BT[row, :length] = torch.tensor(sequence.token_ids)
        positions.extend(range(row * width + sequence.num_prompt_tokens - 1, row * width + length - 1))
    per_token = [(sequence, i) for sequence in sequences for i in range(sequence.num_completion_tokens)]
    mask_N = torch.tensor([sequence.loss_mask[i] for sequence, i in per_token])
    weights_N = torch.tensor([sequence.token_weight for sequence, _ in per_token], dtype=torch.float32)
    return MicroBatch(
        sequences=tuple(sequences),
        input_ids_BT=input_ids_BT,
        positions_N=torch.tensor(positions),
        targets_N=torch.tensor([sequence.token_ids[sequence.num_prompt_tokens + i] for sequence, i in per_token]),
        rollout_logprobs_N=torch.tensor([sequence.rollout_logprobs[i] for sequence, i in per_token]),
        advantages_N=torch.tensor([sequence.advantage for sequence, _ in per_token], dtype=torch.float32),
        token_weights_N=weights_N * mask_N,
        mask_N=mask_N,
    )

"""What a rank says of a training step: its metrics, and what it computed of each completion."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from learner.algorithm.batching import MicroBatch
from learner.algorithm.loss import means
from learner.config import LearnerConfig
from learner.optimizer_step import Update
from learner.prepared import Prepared
from learner.types import ComputedTokens
from rollout.types import Logprobs


def update_metrics(updates: Sequence[Update], order: Sequence[int], config: LearnerConfig) -> dict[str, float]:
    """Means over the updates of a step, of the mini-batches in this order. What is not finite stays so: it is the
    reader's warning."""
    num_updates = len(updates)
    objective = config.objective
    absent = {
        *([] if objective.needs_reference else ["kl_ref"]),
        *([] if objective.corrections else ["correction_weight"]),
        *([] if objective.has_masks else ["masked_fraction"]),
        *([] if config.teacher is not None else ["teacher_kl"]),
    }
    token_means = dict(means(torch.stack([update.sums for update in updates]).sum(dim=0)))
    if num_left_out := sum(update.num_left_out for update in updates):
        # Elsewhere they are tokens with a weight of 0; here they are in no other sum.
        token_means["masked_fraction"] = num_left_out / sum(update.num_computed_tokens for update in updates)
    # Of each mini-batch once, however often the batch is gone through; a step that ended early came to fewer.
    num_computed = dict(zip(order, (update.num_computed_tokens for update in updates), strict=False))
    return {
        "train/loss": sum(update.loss for update in updates) / num_updates,
        "train/grad_norm": sum(update.grad_norm for update in updates) / num_updates,
        "train/lr": updates[-1].lr,
        **{f"train/{name}": value for name, value in token_means.items() if name not in absent},
        "train/max_abs_log_ratio": max(update.max_abs_log_ratio for update in updates),
        "train/computed_tokens": float(sum(num_computed.values())),
        **({"train/entropy_coef": updates[-1].entropy_coef} if objective.entropy.is_on else {}),
    }


def tokens_of_step(computed: Sequence[Prepared]) -> ComputedTokens:
    """What the first pass over each micro-batch gave; a step that could not be taken may not have come to all."""
    seen = [one for one in computed if one.before_N is not None and one.entropy_N is not None]
    return computed_tokens(
        [one.tokens for one in seen],
        [one.before_N for one in seen if one.before_N is not None],
        [one.ref_N for one in seen],
        [one.entropy_N for one in seen if one.entropy_N is not None],
    )


def computed_tokens(
    micro_batches: Sequence[MicroBatch],
    policy_logprobs: Sequence[Tensor],
    ref_logprobs: Sequence[Tensor | None],
    entropies: Sequence[Tensor],
) -> ComputedTokens:
    """Values of the completion tokens of all sequences, in the order of the micro-batches. What an empty micro-batch
    computed is of no sequence."""
    sequences = [sequence for micro_batch in micro_batches for sequence in micro_batch.sequences]

    def joined(values: Sequence[Tensor | None]) -> Logprobs:
        parts = [
            part.float().cpu().numpy()
            for micro_batch, part in zip(micro_batches, values, strict=True)
            if part is not None and micro_batch.sequences
        ]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    return ComputedTokens(
        keys=tuple(sequence.key for sequence in sequences),
        lengths=tuple(sequence.num_completion_tokens for sequence in sequences),
        policy_logprobs_N=joined(policy_logprobs),
        ref_logprobs_N=joined(ref_logprobs),
        entropies_N=joined(entropies),
    )

"""A model of a few layers and random sequences for it: what learner benchmarks compute.

Dimensions: p prompt tokens, c completion tokens of a sequence.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from learner.algorithm.assignment import assign
from learner.algorithm.batching import MicroBatch, SequenceTokens, collate
from learner.backend.kernels import fix_threads_and_kernels
from learner.config import LearnerConfig
from learner.model.policy import LogprobModel, build_policy
from learner.types import TrainSequence
from rollout.types import read_only

VOCABULARY = 8192
MICRO_BATCH_TOKENS = 4096


def build(folder: Path) -> LogprobModel:
    """A Llama with random weights, fp32, in a process that keeps memory as a learner's does."""
    fix_threads_and_kernels(LearnerConfig(), world_size=1, deterministic=False)
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config: Any = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return build_policy(str(folder), dtype="float32", gradient_checkpointing=False)


def save_tokenizer(folder: Path) -> None:
    """One word for each token: an engine wants to have read one."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({f"w{i}": i for i in range(VOCABULARY)}, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w1", pad_token="w0").save_pretrained(folder)


def lognormal(number: int, *, median: int, sigma: float, most: int) -> list[int]:
    """Lengths as reasoning has them: a long tail. The same at every call."""
    drawn = np.random.default_rng(0).lognormal(np.log(median), sigma, number)
    return [int(length) for length in np.clip(drawn, 1, most)]


def sequences(groups: Sequence[tuple[int, Sequence[int]]]) -> dict[TrainSequence, SequenceTokens]:
    """From (p, [c of each completion]) of each group."""
    rng = np.random.default_rng(0)
    found: dict[TrainSequence, SequenceTokens] = {}
    for number, (num_prompt_tokens, lengths) in enumerate(groups):
        prompt_ids = rng.integers(2, VOCABULARY, num_prompt_tokens).tolist()
        for i, length in enumerate(lengths):
            sequence = TrainSequence(
                group_id=str(number),
                sample_index=i,
                num_prompt_tokens=num_prompt_tokens,
                num_completion_tokens=length,
                advantage=1.0 if i % 2 else -1.0,
                token_weight=1.0 / length,
            )
            found[sequence] = SequenceTokens(
                prompt_ids=prompt_ids,
                completion_ids=read_only(rng.integers(2, VOCABULARY, length).tolist(), np.int32),
                rollout_logprobs=np.full(length, -9.0, np.float32),
                loss_mask=np.ones(length, np.bool_),
            )
    return found


def micro_batches(of: dict[TrainSequence, SequenceTokens], *, packed: bool) -> list[MicroBatch]:
    """As the learner would cut them on one rank."""
    (parts,) = assign(list(of), num_ranks=1, micro_batch_tokens=MICRO_BATCH_TOKENS, packed=packed)
    return [collate(part, [of[sequence] for sequence in part], packed=packed) for part in parts]


def learn(model: LogprobModel, batches: Sequence[MicroBatch]) -> None:
    """Forward and backward of each micro-batch: policy gradient, the gradients added up."""
    for batch in batches:
        logprobs_N, _ = model(batch.inputs, batch.targets_N, 1.0)
        (-(logprobs_N * batch.advantages_N * batch.token_weights_N).sum()).backward()


def gradients(model: LogprobModel, batches: Sequence[MicroBatch]) -> list[torch.Tensor]:
    """Of `learn`, from nothing."""
    model.zero_grad(set_to_none=True)
    learn(model, batches)
    found = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    model.zero_grad(set_to_none=True)
    return found

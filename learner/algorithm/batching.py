"""A share of a step and its groups -> tensors.

Layout: one row without padding, a prompt once for its completions (`learner.algorithm.packing`), where the model can
be told where a token may look. Else padded on the right: with a causal model no token sees what stands to its right, so
padding needs no attention mask, and what is computed at padded positions is never read.

Dimensions: B rows of a micro-batch, T token positions (padding included), N predicted tokens (all completion tokens of
the micro-batch, laid end to end).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learner.algorithm.packing import Packing, pack
from learner.types import AdvantageSpan, TrainSequence
from rollout.types import Logprobs, LossMask, RolloutGroup, TokenIds, VersionSpan


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ModelInputs:
    """What a model reads of a micro-batch."""

    input_ids_BT: Tensor
    """int64. Padded: a sequence in each row, from position 0, and 0 at padded positions."""
    positions_N: Tensor
    """int64. Index into B * T of the position that predicts each completion token: the one before it."""
    packing: Packing | None = None
    """Where sequences lie in the one row; None where each has a row of its own."""
    position_ids_BT: Tensor | None = None
    """int64, with `packing`: the place of each token in its own sequence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """One forward and backward pass."""

    sequences: tuple[TrainSequence, ...]
    """The completions; empty for one that only keeps this rank in step with the others."""
    input_ids_BT: Tensor
    """int64. Padded: a sequence in each row, from position 0, and 0 at padded positions."""
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
    index_N: Tensor
    """int64; which of the `sequences` a token is of."""
    lag_N: Tensor
    """fp32; policy versions between the sampling of a token and this step."""
    packing: Packing | None = None
    """Where sequences lie in the one row; None where each has a row of its own."""
    position_ids_BT: Tensor | None = None
    """int64, with `packing`: the place of each token in its own sequence."""
    teacher_logprobs_N: Tensor | None = None
    """fp32; None where no teacher was asked while sampling."""
    demonstrated: "MicroBatch | None" = None
    """The same completions behind the prompts that a teacher reads; None where there are no others."""

    @property
    def inputs(self) -> ModelInputs:
        """What a model reads of it."""
        return ModelInputs(
            input_ids_BT=self.input_ids_BT,
            positions_N=self.positions_N,
            packing=self.packing,
            position_ids_BT=self.position_ids_BT,
        )

    @property
    def num_tokens(self) -> int:
        """Tokens without padding."""
        return sum(sequence.num_tokens for sequence in self.sequences)

    def to(self, device: torch.device) -> "MicroBatch":
        """The same on another device."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        moved: dict[str, Any] = {
            name: value.to(device) for name, value in values.items() if isinstance(value, Tensor | MicroBatch)
        }
        return replace(self, **moved)


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceTokens:
    """The tokens of one sequence, as arrays."""

    prompt_ids: Sequence[int]
    completion_ids: TokenIds
    """[T] like the other two."""
    rollout_logprobs: Logprobs
    loss_mask: LossMask
    version_spans: tuple[VersionSpan, ...] = ()
    """Versions that sampled it; empty where nobody asks for the lag."""
    teacher_prompt_ids: Sequence[int] = ()
    """The prompt as a teacher reads it; empty where it is the same."""
    teacher_logprobs: Logprobs | None = None
    """[T]; None where no teacher was asked."""


def tokens_of(sequences: Sequence[TrainSequence], groups: Mapping[str, RolloutGroup]) -> list[SequenceTokens]:
    """Of each sequence, out of the groups (by id); checked against what the plan says of their lengths."""
    found = []
    for sequence in sequences:
        group = groups[sequence.group_id]
        completion = group.completions[sequence.sample_index]
        assert len(group.prompt.token_ids) == sequence.num_prompt_tokens, sequence
        assert len(group.prompt.teacher_token_ids) == sequence.num_teacher_prompt_tokens, sequence
        assert completion.num_tokens == sequence.num_completion_tokens, sequence
        found.append(
            SequenceTokens(
                prompt_ids=group.prompt.token_ids,
                completion_ids=completion.token_ids,
                rollout_logprobs=completion.logprobs,
                loss_mask=completion.loss_mask,
                version_spans=completion.version_spans,
                teacher_prompt_ids=group.prompt.teacher_token_ids,
                teacher_logprobs=completion.teacher_logprobs if len(completion.teacher_logprobs) else None,
            )
        )
    return found


def collate(
    sequences: Sequence[TrainSequence],
    tokens: Sequence[SequenceTokens],
    *,
    policy_version: int = 0,
    packed: bool = False,
) -> MicroBatch:
    """Tensors of one micro-batch. Without sequences: one padding token whose loss and gradient are exactly zero.
    `policy_version` is that of the step, for the lag of tokens; `packed` chooses the layout."""
    if not sequences:
        return _nothing()
    for sequence, of in zip(sequences, tokens, strict=True):
        assert (sequence.num_prompt_tokens, sequence.num_completion_tokens) == (
            len(of.prompt_ids),
            len(of.completion_ids),
        ), sequence
    input_ids_BT, positions_N, packing = (_in_one_row if packed else _in_rows)(tokens)
    mask_N = np.concatenate([of.loss_mask for of in tokens])
    return MicroBatch(
        sequences=tuple(sequences),
        input_ids_BT=torch.from_numpy(input_ids_BT),
        positions_N=torch.from_numpy(positions_N),
        targets_N=torch.from_numpy(np.concatenate([of.completion_ids for of in tokens]).astype(np.int64)),
        rollout_logprobs_N=torch.from_numpy(np.concatenate([of.rollout_logprobs for of in tokens])),
        advantages_N=torch.from_numpy(np.concatenate([_advantages(sequence) for sequence in sequences])),
        token_weights_N=torch.from_numpy(_per_token(sequences, [s.token_weight for s in sequences]) * mask_N),
        mask_N=torch.from_numpy(mask_N),
        index_N=torch.from_numpy(
            np.repeat(np.arange(len(sequences)), [sequence.num_completion_tokens for sequence in sequences])
        ),
        lag_N=torch.from_numpy(np.concatenate([_lags(of, policy_version) for of in tokens])),
        packing=packing,
        position_ids_BT=None if packing is None else torch.from_numpy(packing.position_ids_N()[None]),
        teacher_logprobs_N=_teacher_logprobs(tokens),
        demonstrated=_demonstrated(sequences, tokens, packed) if any(of.teacher_prompt_ids for of in tokens) else None,
    )


def _in_rows(tokens: Sequence[SequenceTokens]) -> tuple[NDArray[np.int64], NDArray[np.int64], None]:
    """Tokens [B, T], each sequence in a row, and where each completion token is predicted: one before it."""
    width = max(len(of.prompt_ids) + len(of.completion_ids) for of in tokens)
    input_ids_BT = np.zeros((len(tokens), width), dtype=np.int64)
    positions: list[NDArray[np.int64]] = []
    for row, of in enumerate(tokens):
        prompt_end = len(of.prompt_ids)
        end = prompt_end + len(of.completion_ids)
        input_ids_BT[row, :prompt_end] = of.prompt_ids
        input_ids_BT[row, prompt_end:end] = of.completion_ids
        positions.append(np.arange(row * width + prompt_end - 1, row * width + end - 1))
    return input_ids_BT, np.concatenate(positions), None


def _in_one_row(tokens: Sequence[SequenceTokens]) -> tuple[NDArray[np.int64], NDArray[np.int64], Packing]:
    """Tokens [1, T], a prompt once for all of its completions, and where each completion token is predicted: one before
    it, the first of each completion at the end of the prompt."""
    packing, members = pack([of.prompt_ids for of in tokens], [len(of.completion_ids) for of in tokens])
    input_ids_T = np.zeros(packing.blocks[-1].end, dtype=np.int64)
    positions: dict[int, NDArray[np.int64]] = {}
    for block, numbers in zip(packing.blocks, members, strict=True):
        input_ids_T[block.start : block.prompt_end] = tokens[numbers[0]].prompt_ids
        start = block.prompt_end
        for number in numbers:
            end = start + len(tokens[number].completion_ids)
            input_ids_T[start:end] = tokens[number].completion_ids
            positions[number] = np.concatenate([[block.prompt_end - 1], np.arange(start, end - 1)])
            start = end
    return input_ids_T[None], np.concatenate([positions[number] for number in range(len(tokens))]), packing


def _teacher_logprobs(tokens: Sequence[SequenceTokens]) -> Tensor | None:
    """[N] where a teacher was asked about every completion of the micro-batch."""
    found = [of.teacher_logprobs for of in tokens if of.teacher_logprobs is not None]
    return torch.from_numpy(np.concatenate(found)) if len(found) == len(tokens) else None


def _demonstrated(sequences: Sequence[TrainSequence], tokens: Sequence[SequenceTokens], packed: bool) -> MicroBatch:
    """The completions, in the same order, behind the teacher's prompts."""
    shown = [replace(of, prompt_ids=of.teacher_prompt_ids or of.prompt_ids, teacher_prompt_ids=()) for of in tokens]
    behind = [
        replace(one, num_prompt_tokens=len(of.prompt_ids), num_teacher_prompt_tokens=0)
        for one, of in zip(sequences, shown, strict=True)
    ]
    return collate(behind, shown, packed=packed)


def _advantages(sequence: TrainSequence) -> NDArray[np.float32]:
    """[T] of each completion token."""
    spans = sequence.advantage_spans or (
        AdvantageSpan(end=sequence.num_completion_tokens, advantage=sequence.advantage),
    )
    ends = [0, *(span.end for span in spans)]
    assert ends[-1] == sequence.num_completion_tokens, sequence
    return np.repeat(np.array([span.advantage for span in spans], np.float32), np.diff(ends))


def _lags(tokens: SequenceTokens, policy_version: int) -> NDArray[np.float32]:
    """[T] versions between the weights that sampled a token and those of the step."""
    lags = np.zeros(len(tokens.completion_ids), np.float32)
    for span in tokens.version_spans:
        lags[span.start : span.end] = policy_version - span.policy_version
    return lags


def _per_token(sequences: Sequence[TrainSequence], values: Sequence[float]) -> NDArray[np.float32]:
    """[N] float32, the value of each sequence at each of its completion tokens."""
    return np.repeat(np.array(values, np.float32), [sequence.num_completion_tokens for sequence in sequences])


def _nothing() -> MicroBatch:
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
        index_N=torch.zeros(1, dtype=torch.int64),
        lag_N=zeros_N,
    )

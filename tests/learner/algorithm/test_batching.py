import numpy as np
import torch

from learner.algorithm.batching import SequenceTokens, collate
from learner.types import TrainSequence
from rollout.types import read_only


def tokens(
    prompt_ids: tuple[int, ...], ids: tuple[int, ...], logprobs: tuple[float, ...], mask: tuple[bool, ...]
) -> SequenceTokens:
    return SequenceTokens(
        prompt_ids=prompt_ids,
        completion_ids=read_only(ids, np.int32),
        rollout_logprobs=read_only(logprobs, np.float32),
        loss_mask=read_only(mask, np.bool_),
    )


def test_collate_lays_tokens_end_to_end() -> None:
    first = TrainSequence(
        group_id="a", sample_index=0, num_prompt_tokens=2, num_completion_tokens=2, advantage=2.0, token_weight=0.5
    )
    second = TrainSequence(
        group_id="b", sample_index=1, num_prompt_tokens=1, num_completion_tokens=1, advantage=-1.0, token_weight=0.25
    )
    micro_batch = collate(
        (first, second),
        [tokens((5, 6), (7, 8), (-0.5, -0.25), (False, True)), tokens((3,), (4,), (-1.0,), (True,))],
    )
    assert micro_batch.input_ids_BT.tolist() == [[5, 6, 7, 8], [3, 4, 0, 0]]
    # 7 and 8 are predicted at positions 1 and 2 of row 0, 4 at position 0 of row 1: 1 * 4 + 0
    assert micro_batch.positions_N.tolist() == [1, 2, 4]
    assert micro_batch.targets_N.tolist() == [7, 8, 4]
    assert micro_batch.rollout_logprobs_N.tolist() == [-0.5, -0.25, -1.0]
    assert micro_batch.advantages_N.tolist() == [2.0, 2.0, -1.0]
    assert micro_batch.token_weights_N.tolist() == [0.0, 0.5, 0.25]
    assert micro_batch.mask_N.tolist() == [False, True, True]
    assert micro_batch.num_tokens == 6
    assert micro_batch.input_ids_BT.dtype is torch.int64
    assert micro_batch.targets_N.dtype is micro_batch.positions_N.dtype is torch.int64
    assert micro_batch.advantages_N.dtype is micro_batch.token_weights_N.dtype is torch.float32


def test_what_keeps_a_rank_in_step_has_no_loss() -> None:
    empty = collate((), [])
    assert empty.num_tokens == 0
    assert not empty.mask_N.any()
    assert empty.token_weights_N.sum() == 0

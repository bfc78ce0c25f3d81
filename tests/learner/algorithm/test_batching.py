from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from learner.algorithm.batching import SequenceTokens, collate, tokens_of
from learner.types import AdvantageSpan, TrainSequence
from rollout.types import VersionSpan, read_only
from tests.learner.samples import groups_of, train_batch


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
    for field in fields(empty):
        if field.name.endswith("_N") and field.name != "teacher_logprobs_N":
            assert getattr(empty, field.name).tolist() == [0], field.name


def test_every_sequence_has_its_tokens_and_no_more() -> None:
    of = tokens((5,), (6, 7, 8, 9), (-1.0,) * 4, (True,) * 4)
    for sequences, found in (((sequence(),), [of, of]), ((sequence(), sequence()), [of])):
        with pytest.raises(ValueError, match="zip"):
            collate(sequences, found)


def sequence(**fields: object) -> TrainSequence:
    defaults = {
        "group_id": "a",
        "sample_index": 0,
        "num_prompt_tokens": 1,
        "num_completion_tokens": 4,
        "advantage": 2.0,
        "token_weight": 0.5,
    }
    return TrainSequence(**{**defaults, **fields})  # type: ignore[arg-type]


def test_advantages_of_spans_stand_at_their_tokens() -> None:
    spans = tuple(AdvantageSpan(end=end, advantage=advantage) for end, advantage in ((1, 3.0), (3, -1.0), (4, 0.0)))
    of = tokens((5,), (6, 7, 8, 9), (-1.0,) * 4, (True,) * 4)
    micro_batch = collate((sequence(advantage_spans=spans), sequence()), [of, of])
    assert micro_batch.advantages_N.tolist() == [3.0, -1.0, -1.0, 0.0, 2.0, 2.0, 2.0, 2.0]
    assert micro_batch.index_N.tolist() == [0] * 4 + [1] * 4
    with pytest.raises(AssertionError):
        collate((sequence(advantage_spans=spans[:2]),), [of])


def test_the_lag_of_a_token_is_that_of_its_version() -> None:
    # sampled by versions 3 (two tokens) and 4 (one), trained at version 5; the last has no version: no lag
    spans = (VersionSpan(policy_version=3, start=0, end=2), VersionSpan(policy_version=4, start=2, end=3))
    of = replace(tokens((5,), (6, 7, 8, 9), (-1.0,) * 4, (True,) * 4), version_spans=spans)
    micro_batch = collate((sequence(),), [of], policy_version=5)
    assert micro_batch.lag_N.tolist() == [2.0, 2.0, 1.0, 0.0]
    assert micro_batch.lag_N.dtype is torch.float32
    assert collate((sequence(),), [of]).lag_N.tolist() == [-3.0, -3.0, -4.0, 0.0]


@pytest.mark.parametrize("packed", [False, True])
def test_a_micro_batch_moves_as_a_whole(packed: bool) -> None:
    said = read_only((-2.0, -3.0, -4.0, -5.0), np.float32)
    of = tokens((5,), (6, 7, 8, 9), (-1.0,) * 4, (True,) * 4)
    of = replace(of, teacher_prompt_ids=(3, 4, 5), teacher_logprobs=said)
    micro_batch = collate((sequence(),), [of], packed=packed)
    assert micro_batch.teacher_logprobs_N is not None
    assert micro_batch.teacher_logprobs_N.tolist() == said.tolist()
    assert collate((sequence(), sequence()), [of, replace(of, teacher_logprobs=None)]).teacher_logprobs_N is None
    moved = micro_batch.to(torch.device("meta"))
    assert micro_batch.demonstrated is not None
    assert moved.demonstrated is not None
    for after, whole in ((moved, micro_batch), (moved.demonstrated, micro_batch.demonstrated)):
        assert after.sequences == whole.sequences
        for field in fields(whole):
            if field.name not in ("sequences", "demonstrated"):
                found, before = getattr(after, field.name), getattr(whole, field.name)
                if before is None or field.name == "packing":
                    assert found is before
                    continue
                assert (found.device.type, found.shape, found.dtype) == ("meta", before.shape, before.dtype)


def test_a_teacher_sees_the_same_completions_behind_its_own_prompts() -> None:
    first = replace(tokens((5,), (6, 7), (-1.0,) * 2, (True, False)), teacher_prompt_ids=(3, 4, 5))
    second = tokens((5, 8), (9,), (-1.0,), (True,))
    sequences = (
        sequence(num_completion_tokens=2),
        sequence(sample_index=1, num_prompt_tokens=2, num_completion_tokens=1),
    )
    micro_batch = collate(sequences, [first, second])
    shown = micro_batch.demonstrated
    assert shown is not None
    assert shown.input_ids_BT.tolist() == [[3, 4, 5, 6, 7], [5, 8, 9, 0, 0]]
    assert shown.positions_N.tolist() == [2, 3, 6]
    for name in ("targets_N", "mask_N", "index_N", "token_weights_N", "advantages_N"):
        assert torch.equal(getattr(shown, name), getattr(micro_batch, name)), name
    assert collate(sequences[1:], [second]).demonstrated is None
    # It is laid out as what it stands beside, and no teacher's prompt is counted in it again.
    assert shown.packing is None
    assert [one.num_teacher_prompt_tokens for one in shown.sequences] == [0, 0]
    packed = collate([replace(one, num_teacher_prompt_tokens=9) for one in sequences], [first, second], packed=True)
    assert packed.packing is not None
    assert packed.inputs.packing is packed.packing
    assert packed.input_ids_BT.dtype is packed.positions_N.dtype is torch.int64
    assert packed.demonstrated is not None
    assert packed.demonstrated.packing is not None
    assert packed.demonstrated.input_ids_BT.tolist() == [[3, 4, 5, 6, 7, 5, 8, 9]]
    assert [one.num_teacher_prompt_tokens for one in packed.demonstrated.sequences] == [0, 0]


def test_what_a_teacher_reads_and_said_comes_with_the_tokens() -> None:
    batch = train_batch(0)
    group_id, group = next(iter(groups_of(batch).items()))
    said = read_only([-1.0] * group.completions[1].num_tokens, np.float32)
    completions = [group.completions[0], replace(group.completions[1], teacher_logprobs=said), *group.completions[2:]]
    shown = replace(group, prompt=replace(group.prompt, teacher_token_ids=(7, 8, 9)), completions=tuple(completions))
    wanted = [
        sequence(
            group_id=group_id,
            sample_index=i,
            num_prompt_tokens=len(group.prompt.token_ids),
            num_completion_tokens=completions[i].num_tokens,
            num_teacher_prompt_tokens=3,
        )
        for i in range(2)
    ]
    first, second = tokens_of(wanted, {group_id: shown})
    assert first.teacher_prompt_ids == second.teacher_prompt_ids == (7, 8, 9)
    assert first.teacher_logprobs is None
    assert second.teacher_logprobs is said


def test_tokens_of_a_sequence_are_those_of_its_completion() -> None:
    batch = train_batch(0)
    groups = groups_of(batch)
    group_id, group = next(iter(groups.items()))
    completion = group.completions[2]
    wanted = sequence(
        group_id=group_id,
        sample_index=2,
        num_prompt_tokens=len(group.prompt.token_ids),
        num_completion_tokens=completion.num_tokens,
    )
    (found,) = tokens_of([wanted], groups)
    assert found.prompt_ids == group.prompt.token_ids
    assert found.completion_ids is completion.token_ids
    assert found.rollout_logprobs is completion.logprobs
    assert found.loss_mask is completion.loss_mask
    assert found.version_spans == completion.version_spans
    for wrong in (replace(wanted, num_prompt_tokens=99), replace(wanted, num_completion_tokens=99)):
        with pytest.raises(AssertionError):
            tokens_of([wrong], groups)


def test_what_keeps_a_rank_in_step_is_one_token_of_everything() -> None:
    empty = collate((), [])
    assert empty.input_ids_BT.shape == (1, 1)
    assert empty.sequences == ()
    tensors = [
        getattr(empty, field.name)
        for field in fields(empty)
        if field.name not in ("sequences", "input_ids_BT") and getattr(empty, field.name) is not None
    ]
    assert [t.shape for t in tensors] == [(1,)] * len(tensors)
    assert all(t.sum() == 0 for t in (*tensors, empty.input_ids_BT))
    integers = (empty.input_ids_BT, empty.positions_N, empty.targets_N, empty.index_N)
    assert {t.dtype for t in integers} == {torch.int64}
    assert empty.mask_N.dtype is torch.bool


def test_every_sequence_has_its_tokens() -> None:
    of = tokens((5,), (6, 7, 8, 9), (-1.0,) * 4, (True,) * 4)
    for sequences, found in (((sequence(), sequence()), [of]), ((sequence(),), [of, of])):
        with pytest.raises(ValueError, match="zip"):
            collate(sequences, found)

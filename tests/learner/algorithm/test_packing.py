"""A prompt once for its completions: where everything lies, and who looks where."""

import random
from dataclasses import replace
from itertools import accumulate

import numpy as np
import pytest
import torch

from learner.algorithm.assignment import UNEVEN, assign
from learner.algorithm.batching import SequenceTokens, collate
from learner.algorithm.packing import Packing, pack
from learner.types import TrainSequence
from rollout.types import read_only


def sequence(group: str, index: int, num_prompt_tokens: int, num_completion_tokens: int) -> TrainSequence:
    return TrainSequence(
        group_id=group,
        sample_index=index,
        num_prompt_tokens=num_prompt_tokens,
        num_completion_tokens=num_completion_tokens,
        advantage=1.0,
        token_weight=1.0,
    )


def tokens(prompt: tuple[int, ...], completion: tuple[int, ...]) -> SequenceTokens:
    return SequenceTokens(
        prompt_ids=prompt,
        completion_ids=read_only(completion, np.int32),
        rollout_logprobs=read_only([-1.0] * len(completion), np.float32),
        loss_mask=read_only([True] * len(completion), np.bool_),
    )


def test_a_prompt_stands_once_before_its_completions() -> None:
    of = [tokens((5, 6), (7, 8)), tokens((3,), (4,)), tokens((5, 6), (9,))]
    sequences = [sequence("a", 0, 2, 2), sequence("b", 0, 1, 1), sequence("a", 1, 2, 1)]
    micro_batch = collate(sequences, of, packed=True)
    assert micro_batch.input_ids_BT.tolist() == [[5, 6, 7, 8, 9, 3, 4]]
    assert micro_batch.position_ids_BT is not None
    assert micro_batch.position_ids_BT.tolist() == [[0, 1, 2, 3, 2, 0, 1]]
    # In the order of the sequences: 7 and 8 are predicted at 6 and 7, 4 at 3, and 9 at 6 again.
    assert micro_batch.positions_N.tolist() == [1, 2, 5, 1]
    assert micro_batch.targets_N.tolist() == [7, 8, 4, 9]
    assert micro_batch.index_N.tolist() == [0, 0, 1, 2]
    padded = collate(sequences, of)
    for name in ("targets_N", "rollout_logprobs_N", "advantages_N", "token_weights_N", "mask_N", "index_N", "lag_N"):
        assert torch.equal(getattr(micro_batch, name), getattr(padded, name)), name


def seen(packing: Packing, window: int | None = None) -> list[list[int]]:
    """[token of the row] the places of the row that it looks at, in whichever attention call it is a query."""
    ends = list(accumulate(packing.pieces, initial=0))
    found: list[list[int]] = []
    for number, part in enumerate(packing.parts):
        assert part.queries == number == part.keys[-1]
        keys = [place for of in part.keys for place in range(ends[of], ends[of + 1])]
        mask_TS = packing.mask_TS(part, torch.device("cpu"), window)
        assert mask_TS.shape == (packing.pieces[part.queries], len(keys))
        found += [[key for key, is_seen in zip(keys, row, strict=True) if is_seen] for row in mask_TS.tolist()]
    return found


@pytest.mark.parametrize("whole_tokens", [1, 100])
def test_a_token_sees_its_own_prompt_and_its_own_completion(whole_tokens: int) -> None:
    packing, members = pack([(5, 6), (3,), (5, 6), (5, 6)], [2, 1, 1, 3], whole_tokens=whole_tokens)
    assert members == [[0, 2, 3], [1]]
    # 0 1 the prompt, 2 3 its first completion, 4 the second, 5 6 7 the third; 8 the other prompt, 9 its completion
    assert seen(packing) == [
        *([0], [0, 1]),
        *([0, 1, 2], [0, 1, 2, 3]),
        [0, 1, 4],
        *([0, 1, 5], [0, 1, 5, 6], [0, 1, 5, 6, 7]),
        *([8], [8, 9]),
    ]
    assert seen(packing, window=2) == [[0], [0, 1], [1, 2], [2, 3], [1, 4], [1, 5], [5, 6], [6, 7], [8], [8, 9]]


def groups(seed: int) -> list[TrainSequence]:
    rng = random.Random(seed)
    found = []
    for number in range(rng.randrange(1, 9)):
        prompt = rng.randrange(1, 30)
        found += [sequence(f"g{number}", i, prompt, rng.randrange(1, 30)) for i in range(rng.randrange(1, 9))]
    return found


def cost(part: tuple[TrainSequence, ...]) -> int:
    """Tokens of the row."""
    prompts = {one.group_id: one.num_prompt_tokens for one in part}
    return sum(prompts.values()) + sum(one.num_completion_tokens for one in part)


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(8))
def test_every_sequence_has_one_place_within_the_budget(num_ranks: int, seed: int) -> None:
    sequences = groups(seed)
    shares = assign(sequences, num_ranks=num_ranks, micro_batch_tokens=100, packed=True)
    assert len({len(share) for share in shares}) == 1
    placed = [one for share in shares for part in share for one in part]
    assert sorted(one.key for one in placed) == sorted(one.key for one in sequences)
    assert all(cost(part) <= 100 for share in shares for part in share)
    assert shares == assign(sequences, num_ranks=num_ranks, micro_batch_tokens=100, packed=True)


def test_a_group_stays_together_where_it_fits_and_ranks_stay_even() -> None:
    even = [sequence(f"g{i}", j, 20, 10) for i in range(4) for j in range(4)]  # 60 tokens a group, 120 of them apart
    for num_ranks, micro_batches in ((1, 2), (2, 1), (4, 1)):
        shares = assign(even, num_ranks=num_ranks, micro_batch_tokens=130, packed=True)
        assert [len(share) for share in shares] == [micro_batches] * num_ranks
        parts = [part for share in shares for part in share]
        assert sum(map(cost, parts)) == 240
    # One group for two ranks: half of it each, and the prompt twice.
    alone = [sequence("g", j, 20, 10) for j in range(8)]
    shares = assign(alone, num_ranks=2, micro_batch_tokens=1000, packed=True)
    assert [sum(map(cost, share)) for share in shares] == [60, 60]
    # Two equal ranks are relieved one after the other.
    two = [sequence(f"g{i}", j, 2, 10) for i in range(2) for j in range(8)]
    loads = [sum(map(cost, s)) for s in assign(two, num_ranks=4, micro_batch_tokens=1000, packed=True)]
    assert loads == [42] * 4
    # Three equal groups for two ranks: whole, one rank would have twice the other's.
    three = [sequence(f"g{i}", j, 2, 10) for i in range(3) for j in range(8)]
    loads = [sum(map(cost, s)) for s in assign(three, num_ranks=2, micro_batch_tokens=1000, packed=True)]
    assert max(loads) <= UNEVEN * sum(loads) / 2


def test_a_longer_prompt_of_the_teacher_counts_for_the_budget() -> None:
    shown = [replace(sequence("a", j, 2, 5), num_teacher_prompt_tokens=30) for j in range(4)]
    (share,) = assign(shown, num_ranks=1, micro_batch_tokens=40, packed=True)
    assert [len(part) for part in share] == [2, 2]


def test_a_sequence_longer_than_the_budget_stands_alone() -> None:
    (share,) = assign([sequence("a", j, 30, 90) for j in range(2)], num_ranks=1, micro_batch_tokens=100, packed=True)
    assert [len(part) for part in share] == [1, 1]


def test_a_small_block_is_one_piece_and_a_large_one_is_cut_between_its_completions() -> None:
    sequences = [(5, 6), (3,), (5, 6), (5, 6)], [2, 1, 1, 3]
    packing, _ = pack(*sequences, whole_tokens=1)
    assert packing.whole_tokens == 1
    assert packing.pieces == (2, 2, 1, 3, 2)  # one completion alone is never cut off its prompt
    assert [part.keys for part in packing.parts] == [(0,), (0, 1), (0, 2), (0, 3), (4,)]
    for whole_tokens, pieces in ((7, (2, 2, 1, 3, 2)), (8, (8, 2))):
        assert pack(*sequences, whole_tokens=whole_tokens)[0].pieces == pieces
    # A block far back in the row is as small as one at its beginning.
    later, _ = pack([(1,) * 9, (2,), (2,)], [1, 1, 1], whole_tokens=4)
    assert later.pieces == (10, 3)


def test_layers_share_a_mask_and_another_row_has_others() -> None:
    one, _ = pack([(5, 6), (5, 6)], [2, 1])
    other, _ = pack([(5, 6), (5, 6)], [2, 1])
    cpu = torch.device("cpu")
    (part,) = one.parts
    mask = one.mask_TS(part, cpu, None)
    assert one.mask_TS(part, cpu, None) is mask
    assert one.mask_TS(part, cpu, 2) is not mask
    assert one.windows == {None, 2}
    assert other.mask_TS(part, cpu, None) is not mask
    assert one.mask_TS(part, torch.device("meta"), None).device.type == "meta"


def ranks_of(sequences: list[TrainSequence], num_ranks: int = 2, micro_batch_tokens: int = 1000) -> list[list[str]]:
    """[rank] the groups of its sequences."""
    shares = assign(sequences, num_ranks=num_ranks, micro_batch_tokens=micro_batch_tokens, packed=True)
    return [sorted(one.group_id for part in share for one in part) for share in shares]


def test_a_group_of_two_is_split_where_ranks_would_be_uneven() -> None:
    assert ranks_of([sequence("a", 0, 1, 100), sequence("a", 1, 1, 100)]) == [["a"], ["a"]]


@pytest.mark.parametrize("completions", [(52, 51), (52, 52)])
def test_a_group_stays_whole_where_ranks_are_nearly_even(completions: tuple[int, int]) -> None:
    """104 over 100, and 105 over 95, which is 1.05 times the mean exactly: split, they would be more even still."""
    a = [sequence("a", i, 1, length) for i, length in enumerate(completions)]
    rest = (50, 26, 24) if sum(completions) == 103 else (46, 26, 23)
    others = [sequence(name, 0, 1, length - 1) for name, length in zip("bcd", rest, strict=True)]
    assert ranks_of([*a, *others]) == [["a", "a"], ["b", "c", "d"]]


def test_a_group_stays_whole_where_a_split_would_help_nobody() -> None:
    # 25 and 10; in halves of 15, one of them and the 10 are on one rank: 25 again
    assert ranks_of([sequence("a", 0, 5, 10), sequence("a", 1, 5, 10), sequence("b", 0, 1, 9)]) == [["a", "a"], ["b"]]


def test_the_largest_goes_first_to_the_rank_with_the_fewest_tokens() -> None:
    assert ranks_of([sequence("b", 0, 1, 2), sequence("c", 0, 1, 2), sequence("a", 0, 1, 3)]) == [["a"], ["b", "c"]]


def test_a_micro_batch_is_filled_to_its_last_token() -> None:
    (share,) = assign([sequence("a", 0, 1, 5), sequence("b", 0, 1, 3)], num_ranks=1, micro_batch_tokens=10, packed=True)
    assert [len(part) for part in share] == [2]

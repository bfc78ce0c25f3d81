"""Which rank computes which sequences, and in which micro-batch.

Padded, a micro-batch has sequences of like lengths; packed, whole groups, whose prompt is computed once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heapreplace

from learner.types import TrainSequence

Dealt = tuple[tuple[tuple[TrainSequence, ...], ...], ...]
"""[rank][micro-batch][sequence]"""
UNEVEN = 1.05
"""Load of the busiest rank over the mean from which a group is split over ranks, though its prompt is then computed
twice."""


def assign(
    sequences: Sequence[TrainSequence], *, num_ranks: int, micro_batch_tokens: int, packed: bool = False
) -> Dealt:
    """[rank][micro-batch][sequence]. Every rank has the same number of micro-batches, since ZeRO communicates in each
    backward pass; the ones added for that are empty. `packed`: the layout that they are computed in."""
    shares = (_packed if packed else _padded)(sequences, num_ranks, micro_batch_tokens)
    num_micro_batches = max(1, *(len(share) for share in shares))
    return tuple(
        tuple(tuple(sequences[i] for i in part) for part in share) + ((),) * (num_micro_batches - len(share))
        for share in shares
    )


def _padded(sequences: Sequence[TrainSequence], num_ranks: int, micro_batch_tokens: int) -> list[list[list[int]]]:
    """Longest first, each to the rank with the fewest tokens so far (the lowest such rank): the loads then differ by at
    most one sequence."""
    lengths = [sequence.num_longest_tokens for sequence in sequences]
    by_length = sorted(range(len(sequences)), key=lambda i: (-lengths[i], i))
    dealt: list[list[int]] = [[] for _ in range(num_ranks)]
    loads = [(0, rank) for rank in range(num_ranks)]
    heapify(loads)
    for i in by_length:
        load, rank = loads[0]
        dealt[rank].append(i)
        heapreplace(loads, (load + lengths[i], rank))
    return [
        [[share[j] for j in part] for part in _cut([lengths[i] for i in share], micro_batch_tokens)] for share in dealt
    ]


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


@dataclass(frozen=True, slots=True)
class _Unit:
    """Sequences with one prompt that are computed together."""

    members: tuple[int, ...]
    cost: int
    """Tokens of their block."""


def _packed(sequences: Sequence[TrainSequence], num_ranks: int, micro_batch_tokens: int) -> list[list[list[int]]]:
    """Whole groups, the largest first, each to the rank with the fewest tokens so far. A group is split where it is
    more than a micro-batch, and where ranks would be uneven without."""
    by_group: dict[str, list[int]] = {}
    for i, sequence in enumerate(sequences):
        by_group.setdefault(sequence.group_id, []).append(i)
    units = [unit for members in by_group.values() for unit in _fitting(sequences, members, micro_batch_tokens)]
    dealt = _deal(units, num_ranks)
    while True:
        loads = _loads(dealt)
        busiest = dealt[loads.index(max(loads))]
        parts = [unit for unit in busiest if len(unit.members) > 1]
        if max(loads) * num_ranks <= UNEVEN * sum(loads) or not parts:
            break
        largest = max(parts, key=lambda unit: unit.cost)
        half = len(largest.members) // 2
        others = [unit for unit in units if unit is not largest]
        halves = [_unit(sequences, part) for part in (largest.members[:half], largest.members[half:])]
        again = _deal([*others, *halves], num_ranks)
        # Of several that are equally busy one is relieved after the other.
        if (max(_loads(again)), _loads(again).count(max(_loads(again)))) >= (max(loads), loads.count(max(loads))):
            break
        units, dealt = [*others, *halves], again
    return [_filled(share, micro_batch_tokens) for share in dealt]


def _loads(dealt: Sequence[Sequence[_Unit]]) -> list[int]:
    return [sum(unit.cost for unit in share) for share in dealt]


def _unit(sequences: Sequence[TrainSequence], members: Sequence[int]) -> _Unit:
    prompt = max(sequences[i].num_longest_tokens - sequences[i].num_completion_tokens for i in members)
    return _Unit(tuple(members), prompt + sum(sequences[i].num_completion_tokens for i in members))


def _fitting(sequences: Sequence[TrainSequence], members: Sequence[int], micro_batch_tokens: int) -> list[_Unit]:
    """A group in parts of at most a micro-batch; a longer sequence stands alone."""
    units: list[_Unit] = []
    start = 0
    for end in range(1, len(members) + 1):
        if end == len(members) or _unit(sequences, members[start : end + 1]).cost > micro_batch_tokens:
            units.append(_unit(sequences, members[start:end]))
            start = end
    return units


def _deal(units: Sequence[_Unit], num_ranks: int) -> list[list[_Unit]]:
    dealt: list[list[_Unit]] = [[] for _ in range(num_ranks)]
    loads = [(0, rank) for rank in range(num_ranks)]
    for unit in sorted(units, key=lambda one: (-one.cost, one.members)):
        load, rank = loads[0]
        dealt[rank].append(unit)
        heapreplace(loads, (load + unit.cost, rank))
    return dealt


def _filled(units: Sequence[_Unit], micro_batch_tokens: int) -> list[list[int]]:
    """Each unit, the largest first, into the first micro-batch that has room."""
    parts: list[list[int]] = []
    room: list[int] = []
    for unit in units:
        place = next((i for i, left in enumerate(room) if unit.cost <= left), len(parts))
        if place == len(parts):
            parts.append([])
            room.append(micro_batch_tokens)
        parts[place].extend(unit.members)
        room[place] -= unit.cost
    return [sorted(part) for part in parts]

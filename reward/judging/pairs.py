"""Who is compared with whom, and the share of comparisons that each wins.

The score is the win rate, a draw counting half. Where all are compared with all, the order is that of the strengths of
a Bradley-Terry model, which follow from the wins alone; but it is always there and from 0 to 1, also for a completion
that wins every comparison, whose strength has no finite estimate.

Dimension: G completions of a group.
"""

import random
from collections.abc import Mapping, Sequence
from itertools import combinations

Pair = tuple[int, int]
"""Places of two completions."""


def pairs_of(num: int, opponents: int | None, chance: random.Random) -> list[Pair]:
    """All pairs, or so many that each meets `opponents` others (an even number): its neighbours in a ring, whose order
    is drawn. The lower place first, in rising order."""
    if opponents is None or opponents >= num - 1:
        return list(combinations(range(num), 2))
    ring = list(range(num))
    chance.shuffle(ring)
    found = set()
    for place, one in enumerate(ring):
        for away in range(1, opponents // 2 + 1):
            other = ring[(place + away) % num]
            found.add((min(one, other), max(one, other)))
    return sorted(found)


def outcome_of(forward: float, backward: float) -> float:
    """What the first of a pair has of it: 1 won, 0 lost, 0.5 a draw; also where the judge, who saw it once first and
    once second, did not say the same. Both arguments are of the first of the pair."""
    return forward if forward == backward else 0.5


def win_rates(num: int, outcomes: Mapping[Pair, float]) -> list[tuple[float | None, int]]:
    """[num] (share of its comparisons that each has won, their number); None where it has none."""
    won: Sequence[list[float]] = [[] for _ in range(num)]
    for (first, second), outcome in outcomes.items():
        won[first].append(outcome)
        won[second].append(1.0 - outcome)
    return [(sum(of) / len(of) if of else None, len(of)) for of in won]

"""Lists of tokens and log-probabilities of many completions -> one number for each completion.

A batch of B completions has its lists end to end: `values` [sum of lengths] and `lengths` [B]. NumPy alone, no loop
over completions.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learner.metrics import MAX_LOG_RATIO

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_GRAM = 4


@dataclass(frozen=True, slots=True)
class Lists:
    """B lists end to end."""

    values: NDArray[Any]
    lengths: Ints

    def owner(self) -> Ints:
        """[sum of lengths] index of the list that each value is in."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)


def mean_entropy(entropies: Lists, rollout_logprobs: Lists) -> Floats:
    """[B] mean of the recorded entropies, else of -log p of what was sampled; NaN where there is neither."""
    recorded = _mean(entropies.values, entropies.owner(), len(entropies.lengths))
    sampled = _mean(-rollout_logprobs.values, rollout_logprobs.owner(), len(rollout_logprobs.lengths))
    return np.where(np.isnan(recorded), sampled, recorded)


def gaps(rollout_logprobs: Lists, policy_logprobs: Lists) -> tuple[Floats, Floats]:
    """([B] largest |d|, [B] mean of r - 1 - d) with d = learner - sampler, r = exp(d); NaN where
    there is no learner's."""
    size = len(rollout_logprobs.lengths)
    same = (rollout_logprobs.lengths == policy_logprobs.lengths) & (policy_logprobs.lengths > 0)
    owner = policy_logprobs.owner()
    owner = owner[same[owner]]
    d = (
        policy_logprobs.values[np.repeat(same, policy_logprobs.lengths)].astype(np.float64)
        - rollout_logprobs.values[np.repeat(same, rollout_logprobs.lengths)]
    )
    finite = np.isfinite(d)
    d, owner = d[finite], owner[finite]
    largest = np.full(size, -1.0)
    np.maximum.at(largest, owner, np.abs(d))
    # Cut off where the loss cuts it off: one k3 of one gap, wherever it is told.
    k3 = _mean(np.expm1(np.clip(d, -MAX_LOG_RATIO, MAX_LOG_RATIO)) - d, owner, size)
    return np.where(largest < 0, np.nan, largest), k3


def repetition(token_ids: Lists, stretches: Ints | None = None) -> Floats:
    """[B] share of the 4-grams that occurred before in the same completion; 0 for fewer than two 4-grams. `stretches`
    [sum of lengths] has a number for each part that 4-grams lie within, below 0 where there are none."""
    size = len(token_ids.lengths)
    owner = token_ids.owner()
    stretches = owner if stretches is None else stretches
    if len(owner) < _GRAM:
        return np.zeros(size)
    tokens = token_ids.values.astype(np.uint64)
    mixed = np.zeros(len(tokens) - _GRAM + 1, dtype=np.uint64)
    for place in range(_GRAM):
        mixed = _mix(mixed ^ tokens[place : place + len(mixed)])
    # Not across two completions, or turns.
    whole = (stretches[: len(mixed)] == stretches[_GRAM - 1 :]) & (stretches[: len(mixed)] >= 0)
    # The completion in the upper half, so that one sort counts for all. Of the hash 36 bits are left: with 32k tokens
    # one 4-gram in two million is taken for another.
    keys = (owner[: len(mixed)][whole].astype(np.uint64) << np.uint64(36)) | (mixed[whole] >> np.uint64(28))
    keys.sort()
    first = np.ones(len(keys), dtype=bool)
    first[1:] = keys[1:] != keys[:-1]
    owners = (keys >> np.uint64(36)).astype(np.int64)
    total = np.bincount(owners, minlength=size)
    distinct = np.bincount(owners[first], minlength=size)
    shares: Floats = (total - distinct) / np.maximum(total, 1)
    return shares


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One round of a multiplicative hash, wrapping around."""
    x = (x + np.uint64(0x9E3779B97F4A7C15)) * np.uint64(0xBF58476D1CE4E5B9)
    return x ^ (x >> np.uint64(29))


def _mean(values: NDArray[Any], owner: Ints, size: int) -> Floats:
    """[size] mean of the finite values of each owner, NaN where it has none."""
    finite = np.isfinite(values)
    if not finite.all():
        values, owner = values[finite], owner[finite]
    count = np.bincount(owner, minlength=size)
    total = np.bincount(owner, weights=values, minlength=size)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)

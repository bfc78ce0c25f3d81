"""How much of a completion was said in it before."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rollout.episode_types import TurnSpan

_GRAM = 4
"""Tokens of what is looked for again in a completion: `cluster/dashboard/files/features.py` counts the same."""


def repetition(token_ids: NDArray[np.int32], turns: Sequence[TurnSpan] | None = None) -> float:
    """Share of the 4-grams that occurred before in the same completion; 0 for fewer than two 4-grams. Of an episode
    those within its turns: what the world says again and again is no repetition of the policy's."""
    starts = np.arange(max(0, len(token_ids) - _GRAM + 1))
    if turns is not None:
        starts = np.concatenate([np.arange(turn.start, turn.end - _GRAM + 1) for turn in turns] or [starts[:0]])
    num_grams = len(starts)
    if num_grams < 2:
        return 0.0
    # A 4-gram as two values of 8 bytes, sorted: an eighth of the time of sorting rows (0.3 ms for 4,096 tokens), which
    # the sampler spends on its event loop.
    wide = token_ids.astype(np.uint64)
    pairs = wide[:-1] << np.uint64(32) | wide[1:]
    first, second = pairs[starts], pairs[starts + _GRAM - 2]
    order = np.lexsort((second, first))
    first, second = first[order], second[order]
    is_new = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
    return (num_grams - 1 - int(np.count_nonzero(is_new))) / num_grams

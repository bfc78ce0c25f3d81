"""Which prompts a pass over the data asks, by the share of their completions that were right. Pure functions.

A prompt is asked with a chance that follows from its pass rate, by comparing that with a number that is as good as
random and depends on seed, pass and prompt alone. So in the long run a prompt is asked in proportion to its chance,
as by the rejection sampling of LILO (Foster et al., arXiv 2502.12272), no pass asks one twice, and what is asked
next needs no state but the pass rates.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

from rollout.config import CurriculumConfig


def chance(config: CurriculumConfig, pass_rate: float | None) -> float:
    """With what chance a pass asks a prompt: `floor` to 1; 1 for one of which nothing is known.

    floor + (1 - floor) * w with w = 4 p (1 - p) for `uncertain` and 1 - p for `hard`.
    """
    return 1.0 if pass_rate is None else float(chances(config, np.array([pass_rate]))[0])


def chances(config: CurriculumConfig, pass_rates_P: NDArray[np.float64]) -> NDArray[np.float64]:
    """[P] `chance` of each: a run may know a hundred thousand prompts."""
    worth_P = 4.0 * pass_rates_P * (1.0 - pass_rates_P) if config.prefer == "uncertain" else 1.0 - pass_rates_P
    return config.floor + (1.0 - config.floor) * worth_P


def is_asked(config: CurriculumConfig, pass_rate: float | None, *, seed: int, epoch: int, uid: str) -> bool:
    """Whether pass `epoch` (from 0) asks the prompt."""
    if epoch < config.after:
        return True
    digest = hashlib.sha256(f"{seed}/{epoch}/{uid}/asked".encode()).digest()
    return int.from_bytes(digest[:8]) < chance(config, pass_rate) * 2**64


def updated(config: CurriculumConfig, pass_rate: float | None, newest: float) -> float:
    """The pass rate of a prompt after one more group, of which the share `newest` was right."""
    return newest if pass_rate is None else pass_rate + config.newest * (newest - pass_rate)

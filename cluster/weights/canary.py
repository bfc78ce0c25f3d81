"""Whether an engine computes with the weights that it was given, judged by log-probabilities of fixed prompts.

Engine and learner compute the same tokens. In fp32 they differ by some 1e-6 nats, and a constant is the limit. In bf16
they differ by what rounding makes of the model at hand, which no constant knows: a hundredth of a nat for one, a tenth
for another. Three things are asked then.

- **Is it more than rounding?** The learner computes the prompts in fp32 and rounded as an engine rounds; the difference
  of the two is the yardstick. Engines that compute the same function differ by `ROUNDING_FACTOR` of it at most.
- **Does it hold further on?** Once, both compute a text as long as a context may be, within bounds: where a window or
  the positions differ, they differ far into a text.
- **Does it follow the change?** Rounding does not know what the weights were before. An engine that kept the old ones,
  or most of them, computes log-probabilities on the way back: the slope of its error over the change since the first
  sync says how far, and is seen long before its size stands out. Of an output layer alone it is not: the change that
  such a layer makes is not along the whole change. Whether every weight came, the engine asks itself.

Dimensions: N tokens, of all prompts end to end.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rollout.types import Logprobs

Errors = NDArray[np.float64]

FP32_MAX, FP32_MEAN = 1e-4, 1e-5
"""Nats. Measured: 9e-6 at most and 1e-6 on average."""
ROUNDING_FACTOR_MAX, ROUNDING_FACTOR_MEAN = 8.0, 2.5
"""Times what rounding alone makes of the same tokens. Measured over the families of `make test-models`: 2.0 and 1.4."""
CEILING_MAX, CEILING_MEAN = 2.0, 0.3
"""Nats, of fixed prompts in bf16: more is no rounding, whatever was measured. Measured over the same families: 0.87 at
most and 0.08 on average; of `quickstart`, whose prompts become less and less likely as it learns, 0.87 and 0.16."""
LONG_FACTOR = 10.0
"""Room in fp32 for a text as long as a context may be."""
LONGEST_TOKENS = 1024
"""An engine holds the logits of all tokens of a prompt at once: 1 GB in fp32 for these and 256,000 tokens to choose
from."""
LEAST_MAX, LEAST_MEAN = 1e-3, 1e-4
"""Nats: where rounding changes next to nothing, limits are not taken from it."""
MOVED_FACTOR = 5.0
"""The slope is asked for once the tokens have changed this many times what separates engine and learner at the first
sync: before that, the learner's own rounding is in both and looks like a slope."""
STALE_SLOPE, STALE_SIGMAS = 0.2, 6.0
"""An engine is stale where its error goes back this share of the change, and it is this many standard errors from 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What differences of one sync may be at most, in nats."""

    largest: float
    mean: float

    def allow(self, errors_N: Errors) -> bool:
        """Whether all of them do; a NaN on either side does not."""
        sizes_N = np.abs(errors_N)
        return bool(np.max(sizes_N) <= self.largest and np.mean(sizes_N) <= self.mean)


def fp32_limits(largest: float | None, mean: float | None) -> Limits:
    """Those of two that compute in fp32; numbers of the configuration take their place."""
    return Limits(largest=largest or FP32_MAX, mean=mean or FP32_MEAN)


def long_limits(limits: Limits) -> Limits:
    """Those in fp32 for one text as long as a context may be: there are more tokens, and sums over more of them."""
    return Limits(largest=LONG_FACTOR * limits.largest, mean=LONG_FACTOR * limits.mean)


def rounding_limits(
    rounding: Sequence[Logprobs], largest: float | None, mean: float | None, *, has_ceiling: bool = False
) -> Limits:
    """Those where one computes in bf16: from what rounding makes of the same tokens. Numbers of the configuration take
    their place. `has_ceiling` for the fixed prompts: a defect of the learner's own bf16 is measured as rounding too."""
    sizes_N = np.abs(np.concatenate(rounding).astype(np.float64))
    most = ROUNDING_FACTOR_MAX * float(np.max(sizes_N)) + LEAST_MAX
    on_average = ROUNDING_FACTOR_MEAN * float(np.mean(sizes_N)) + LEAST_MEAN
    if has_ceiling:  # the measured one first: NaN stays NaN, and allows nothing
        most, on_average = min(most, CEILING_MAX), min(on_average, CEILING_MEAN)
    return Limits(largest=largest or most, mean=mean or on_average)


def longest_text(prompts: Sequence[Sequence[int]], max_context_tokens: int) -> list[int]:
    """Tokens of the prompts, drawn at random: a text as long as a context may be, with a token to spare for an engine,
    up to `LONGEST_TOKENS`. Empty where the prompts have less than two different tokens to draw from."""
    tokens = sorted({token for prompt in prompts for token in prompt})
    if len(tokens) < 2:
        return []
    drawn = np.random.default_rng(0).choice(np.array(tokens), size=min(max_context_tokens - 1, LONGEST_TOKENS))
    return [int(token) for token in drawn]


def canary_errors(by_learner: Sequence[Logprobs], by_sampler: Sequence[Logprobs]) -> Errors:
    """The sampler's log-probability minus the learner's (nats) of every token of every fixed prompt, end to end."""
    lengths = [[len(logprobs_T) for logprobs_T in side] for side in (by_learner, by_sampler)]
    if lengths[0] != lengths[1]:
        raise ValueError(f"the canary's sequences have {lengths[0]} and {lengths[1]} log-probabilities")
    if not sum(lengths[0]):
        return np.zeros(0)
    ours, theirs = (np.concatenate(side).astype(np.float64) for side in (by_learner, by_sampler))
    return theirs - ours


def stale_share(errors_N: Errors, moved_N: Errors, *, noise: float) -> float:
    """Which share of the change `moved_N` of the learner's log-probabilities the engine did not take part in; 0 where
    that cannot be told from rounding. `noise` is the root mean square of the errors before the change.

    Least squares through the origin: error = -share * moved + rounding.
    """
    moved_square = float(np.sum(moved_N**2))
    if moved_square <= (MOVED_FACTOR * noise) ** 2 * len(moved_N) or moved_square == 0:
        return 0.0
    share = -float(np.sum(errors_N * moved_N)) / moved_square
    residual_N = errors_N + share * moved_N
    standard_error = float(np.sqrt(np.mean(residual_N**2) / moved_square))
    return share if share > STALE_SLOPE and share > STALE_SIGMAS * standard_error else 0.0

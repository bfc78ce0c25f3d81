"""Advantages: how much better or worse each completion is than what it is compared with. Pure, in float64.

The default is DeepSeekMath's outcome supervision (arXiv 2402.03300, section 4.1.2):

    A_i = (r_i - mean(r)) / std(r)

The paper leaves two things open. Here the standard deviation is the sample's (divisor n - 1), and nothing is added to
it: a group whose rewards are all equal has advantages of exactly zero by a rule of its own, so that no small constant
has to stand between a rounding error and a division by zero. Every estimator that compares within groups keeps that
rule; REINFORCE++ without a baseline compares with the whole batch, and keeps it for a batch of equal rewards.

Only completions that were scored are compared; the others have no advantage (None) and are not trained on. Groups may
have any number of completions, and are told apart by their id.

Dimension: G completions of a group.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from learner.algorithm.own import load_own
from learner.objective import (
    AdvantageConfig,
    GdpoAdvantage,
    GroupAdvantage,
    OwnAdvantage,
    PassAtKAdvantage,
    ReinforcePlusPlusAdvantage,
)
from learner.types import GroupAdvantages, GroupRewards
from reward.types import ROUNDING_SPREAD, all_rewards_equal
from rollout.errors import LearnerError

MAX_SQUARED_EXPONENT = 400
"""Squares of numbers below 2**-537 are zero and above 2**511 too large: such rewards are scaled by a power of two."""


class Estimator(Protocol):
    """A function of one's own: `kind: own`, `function: my_package.advantages:mine`, with `params` as keywords."""

    def __call__(self, groups: Sequence[GroupRewards]) -> Sequence[GroupAdvantages]:
        """Advantages of each group of a training step, in order: a finite number wherever there is a reward."""
        ...


def estimator_of(config: AdvantageConfig, component_weights: Mapping[str, float]) -> Estimator:
    """The estimator that a configuration describes; `component_weights` are those of the reward's components. Not for
    process supervision, whose rewards are of steps.

    Errors: `ConfigError` for a function of one's own that cannot be loaded or takes other params. What is returned
    raises `LearnerError` for rewards that it has no advantages for.
    """
    if isinstance(config, OwnAdvantage):
        return functools.partial(_checked, load_own(config), config.function)
    if isinstance(config, GdpoAdvantage):
        return functools.partial(gdpo, config=config, weights=component_weights)
    return functools.partial(_OF_KIND[type(config)], config=config)


def group_relative(groups: Sequence[GroupRewards], config: GroupAdvantage) -> list[GroupAdvantages]:
    """(r_i - baseline) / (scale + eps), baseline and scale of the group, or the scale of the batch."""
    batch = [reward for group in groups for reward in group.scored]
    batch_std = std(batch, config.std) if config.scale == "batch_std" else 1.0
    found = []
    for group in groups:
        rewards = group.scored
        if all_rewards_equal(rewards):
            found.append(group.filled([0.0] * len(rewards)))
            continue
        divisor = _scale(group, config, batch_std)
        baselines = _baselines(group, config.baseline)
        found.append(group.filled([(reward - base) / divisor for reward, base in zip(rewards, baselines, strict=True)]))
    return found


def reinforce_plus_plus(groups: Sequence[GroupRewards], config: ReinforcePlusPlusAdvantage) -> list[GroupAdvantages]:
    """Rewards, or rewards less their group's mean, normalised by mean and population deviation over all trained tokens
    of the batch, each of which has its completion's value. With the group's mean as baseline a group of equal rewards
    is in these two numbers, and its advantages are exactly zero: by the paper they would be what is left of the batch's
    mean, which says nothing about it."""
    has_baseline = config.baseline == "group_mean"
    centred, is_equal = [], []
    for group in groups:
        rewards = group.scored
        is_equal.append(has_baseline and all_rewards_equal(rewards))
        mean = math.fsum(rewards) / len(rewards) if has_baseline and rewards else 0.0
        centred.append([reward - mean for reward in rewards])
    lengths = [
        [n for reward, n in zip(group.rewards_G, group.num_tokens_G, strict=True) if reward is not None]
        for group in groups
    ]
    of_tokens = [(value, n) for value, n in zip(_flat(centred), _flat(lengths), strict=True) if n]
    if all_rewards_equal([value for value, _ in of_tokens]):
        return [group.filled([0.0] * len(of)) for group, of in zip(groups, centred, strict=True)]
    total = sum(n for _, n in of_tokens)
    mean = math.fsum(n * value for value, n in of_tokens) / total
    divisor = _root_mean_square([value - mean for value, _ in of_tokens], total, [n for _, n in of_tokens]) + config.eps
    return [
        group.filled([0.0 if equal else (value - mean) / divisor for value in of])
        for group, of, equal in zip(groups, centred, is_equal, strict=True)
    ]


def gdpo(groups: Sequence[GroupRewards], config: GdpoAdvantage, weights: Mapping[str, float]) -> list[GroupAdvantages]:
    """Each component normalised in its group, summed by weight, and the sums normalised over the batch. A component
    that does not score a group's rows has no part in it."""
    sums: list[list[float]] = []
    for group in groups:
        scored = [
            parts for reward, parts in zip(group.rewards_G, group.components_G, strict=True) if reward is not None
        ]
        names = [name for name, weight in weights.items() if weight and all(name in parts for parts in scored)]
        of_names = [
            [weights[name] * z for z in normalised([parts[name] for parts in scored], config.eps)] for name in names
        ]
        columns = zip(*of_names, strict=True) if names else [()] * len(scored)
        sums.append([_sum_or_zero(column) for column in columns])
    of_groups = split(normalised(_flat(sums), config.eps), sums)
    # Every group's sums have a mean of 0, and so has the batch, but for rounding: zeros stay zeros.
    return [
        group.filled(of if any(before) else [0.0] * len(of))
        for group, of, before in zip(groups, of_groups, sums, strict=True)
    ]


def pass_at_k(groups: Sequence[GroupRewards], config: PassAtKAdvantage) -> list[GroupAdvantages]:
    """Over all sets of k scored completions of a group, each with its best reward: (mean of the sets that hold the
    completion - mean of all sets) / their population deviation. For rewards of 0 and 1 these are equations 11 to 14 of
    the paper; they hold for any rewards. A group of fewer than k is one set: no completion stands out."""
    return [group.filled(_best_of_k(group.scored, config.k)) for group in groups]


def group_advantages(
    rewards_G: Sequence[float], scored_mask_G: Sequence[bool], *, use_std: bool = True
) -> GroupAdvantages:
    """GRPO's advantage of each completion against its own group.

    `rewards_G` is read only where `scored_mask_G` is True; elsewhere it may hold anything, NaN included.

    Errors: `ValueError` when fewer than two completions were scored (nothing to compare with) or a scored reward is
    not finite.
    """
    if len(rewards_G) != len(scored_mask_G):
        raise ValueError(f"one mask entry for each reward is needed, got {len(rewards_G)} and {len(scored_mask_G)}")
    rewards = tuple(float(r) if is_scored else None for r, is_scored in zip(rewards_G, scored_mask_G, strict=True))
    group = GroupRewards(group_id="", rewards_G=rewards, num_tokens_G=(1,) * len(rewards))
    check_comparable(group)
    return group_relative([group], GroupAdvantage(scale="group_std" if use_std else "none"))[0]


def check_comparable(group: GroupRewards) -> None:
    """Errors: `ValueError` when fewer than two completions were scored or a reward is not finite."""
    scored = group.scored
    if len(scored) < 2:
        raise ValueError(
            f"a group needs two scored completions to compare, got {len(scored)} of {len(group.rewards_G)}"
        )
    if not all(math.isfinite(reward) for reward in scored):
        raise ValueError(f"scored rewards must be finite, got {scored}")


def std(values: Sequence[float], divisor: str = "sample") -> float:
    """Standard deviation: `sample` divides by n - 1, `population` by n. 0 for fewer than two values."""
    if len(values) < 2:
        return 0.0
    mean = math.fsum(values) / len(values)
    return _root_mean_square([value - mean for value in values], len(values) - (divisor == "sample"))


def _root_mean_square(values: Sequence[float], total: float, weights: Sequence[float] | None = None) -> float:
    """sqrt(sum of weight times square / total); all weights are 1 where none are given."""
    _, exponent = math.frexp(max(abs(value) for value in values))
    if abs(exponent) < MAX_SQUARED_EXPONENT:
        exponent = 0  # as nearly always: the squares are in range as they are
    squares = [math.ldexp(value, -exponent) ** 2 for value in values]
    if weights is not None:
        squares = [weight * square for weight, square in zip(weights, squares, strict=True)]
    return math.ldexp(math.sqrt(math.fsum(squares) / total), exponent)


def _sum_or_zero(terms: Sequence[float]) -> float:
    """Their sum; exactly 0 where they cancel but for rounding."""
    total = math.fsum(terms)
    return total if abs(total) > ROUNDING_SPREAD * math.fsum(map(abs, terms)) else 0.0


def _scale(group: GroupRewards, config: GroupAdvantage, batch_std: float) -> float:
    """What the group's centred rewards are divided by."""
    if config.scale == "none":
        return 1.0
    if config.scale == "batch_std":
        return batch_std + config.eps
    scale = std(group.scored, config.std) if config.scale == "group_std" else _positive_mean(group)
    return scale + config.eps


def _baselines(group: GroupRewards, kind: str) -> list[float]:
    """Of each scored completion."""
    rewards = group.scored
    total = math.fsum(rewards)
    if kind == "leave_one_out":
        return [(total - reward) / (len(rewards) - 1) for reward in rewards]
    if kind == "length_weighted":
        # OPO (arXiv 2505.23585, eq. 8): the baseline of least variance where gradients of tokens are alike.
        lengths = [n for reward, n in zip(group.rewards_G, group.num_tokens_G, strict=True) if reward is not None]
        weighted = math.fsum(n * reward for n, reward in zip(lengths, rewards, strict=True))
        return [weighted / sum(lengths) if sum(lengths) else 0.0] * len(rewards)
    return [total / len(rewards) if kind == "mean" else 0.0] * len(rewards)


def _positive_mean(group: GroupRewards) -> float:
    """MaxRL (arXiv 2602.02710) divides by it: the share of right answers, for rewards of 0 and 1."""
    rewards = group.scored
    if min(rewards) < 0:
        raise LearnerError(
            f"group {group.group_id} has a reward of {min(rewards):g}, and advantages are divided by the group's mean "
            "(learner.objective.advantage.scale is `group_mean`), which is of use for rewards of at least 0 alone"
        )
    return math.fsum(rewards) / len(rewards)


def normalised(values: Sequence[float], eps: float, divisor: str = "sample") -> list[float]:
    """(value - mean) / (standard deviation + eps), of `std`; exactly 0 where all are equal."""
    if all_rewards_equal(values):
        return [0.0] * len(values)
    mean, scale = math.fsum(values) / len(values), std(values, divisor) + eps
    return [(value - mean) / scale for value in values]


def _best_of_k(rewards: Sequence[float], k: int) -> list[float]:
    n = len(rewards)
    if k >= n or all_rewards_equal(rewards):
        return [0.0] * n
    order = sorted(range(n), key=lambda i: (rewards[i], i))
    ordered = [rewards[i] for i in order]
    # Probability that the j-th lowest (from 0) is the best of a set: the other k - 1 are among the j below it.
    best = [math.comb(j, k - 1) / math.comb(n, k) for j in range(n)]
    found = [0.0] * n
    if all_rewards_equal(ordered[k - 1 :]):
        return found  # every set holds a best one
    mean = math.fsum(p * reward for p, reward in zip(best, ordered, strict=True))
    deviation = _root_mean_square([reward - mean for reward in ordered[k - 1 :]], 1.0, best[k - 1 :])
    sets = math.comb(n - 1, k - 1)
    for place, i in enumerate(order):
        # Of the sets that hold it: it is the best, or one above it is, with k - 2 others from below that one.
        own = math.comb(place, k - 1) / sets * ordered[place]
        above = math.fsum(math.comb(j - 1, k - 2) / sets * ordered[j] for j in range(place + 1, n)) if k > 1 else 0.0
        found[i] = (own + above - mean) / deviation
    return found


def _checked(function: Estimator, name: str, groups: Sequence[GroupRewards]) -> Sequence[GroupAdvantages]:
    """What a function of the user's gives, or a sentence on what is wrong with it."""
    found = [tuple(advantages) for advantages in function(groups)]
    if len(found) != len(groups):
        raise LearnerError(f"{name} gave advantages for {len(found)} groups of {len(groups)}")
    for group, advantages in zip(groups, found, strict=True):
        fits = len(advantages) == len(group.rewards_G) and all(
            (advantage is None) == (reward is None) and (advantage is None or math.isfinite(advantage))
            for advantage, reward in zip(advantages, group.rewards_G, strict=True)
        )
        if not fits:
            raise LearnerError(
                f"{name} gave {advantages} for the rewards {group.rewards_G} of group {group.group_id}: a finite "
                "number is needed wherever there is a reward, and None elsewhere"
            )
    return found


def _flat(rows: Sequence[Sequence[float]]) -> list[float]:
    return [value for row in rows for value in row]


def split(values: Sequence[float], like: Sequence[Sequence[object]]) -> list[list[float]]:
    """The values end to end, in rows as long as those of `like`."""
    rest = iter(values)
    return [[next(rest) for _ in row] for row in like]


_OF_KIND: dict[type, Callable[..., list[GroupAdvantages]]] = {
    GroupAdvantage: group_relative,
    ReinforcePlusPlusAdvantage: reinforce_plus_plus,
    PassAtKAdvantage: pass_at_k,
}

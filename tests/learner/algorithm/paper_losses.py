"""One fixed batch, and the loss of every shipped objective on it in NumPy: the equations of docs/algorithms/, one
completion after the other, without the learner's code.

Dimension: G completions of a group.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
LENGTHS = ((3, 5, 1, 4), (2, 6, 3, 7), (4, 4, 2, 5))
REWARDS = ((1.0, 0.0, 0.0, 1.0), (1.0, 1.0, 1.0, 1.0), (0.0, 1.0, 0.0, 0.0))
BREVITY = ((0.2, 0.9, 0.4, 0.4), (0.1, 0.3, 0.7, 0.5), (0.6, 0.6, 0.6, 0.6))
"""A second component of the reward, for GDPO."""
WEIGHTS = {"math": 1.0, "brevity": 0.5}
STEPS = (
    (((1, 1.0), (3, 0.0)), ((2, 0.0), (5, 1.0)), (), ((4, 1.0),)),
    (((2, 1.0),), ((6, 1.0),), ((3, 1.0),), ((7, 1.0),)),
    (((4, -1.0),), ((1, 1.0), (1, 1.0), (3, 0.0)), ((2, 0.5),), ((5, 0.0),)),
)
MAX_TOKENS = 12


def fraction(number: int, salt: int) -> float:
    """0 to 1, the same on every machine."""
    return ((number * 2654435761 + salt * 362437 + 12345) % 2**32 * 1103515245 % 2**32) / 2**32


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Log-probabilities of the tokens of one completion."""

    policy: Array
    sampler: Array
    before: Array
    """Of the policy before the step: this is not its first update."""
    ref: Array


def tokens_of(group: int, index: int) -> Tokens:
    places = [100 * group + 10 * index + t for t in range(LENGTHS[group][index])]

    def drawn(salt: int, low: float, high: float) -> Array:
        return np.array([low + (high - low) * fraction(place, salt) for place in places])

    policy = drawn(1, -2.0, -0.1)
    return Tokens(
        policy=policy,
        # Some tokens have moved far.
        sampler=policy + drawn(2, -0.75, 0.7) - np.array([2.2 if place % 17 == 1 else 0.0 for place in places]),
        before=policy + drawn(3, -0.3, 0.3),
        ref=policy + drawn(4, -0.5, 0.5),
    )


TOKENS = [[tokens_of(group, index) for index in range(4)] for group in range(3)]


PerToken = Callable[[Tokens, float | Array], Array]
"""(tokens of a completion, its advantage) -> objective of each token."""
EVERY = [(group, i) for group in range(3) for i in range(4)]
NUM_TOKENS = sum(map(sum, LENGTHS))


def standardised(rewards: Sequence[float], *, by: float | None = None) -> list[float]:
    """(r - mean) / deviation with n - 1, or over `by`."""
    if len(set(rewards)) == 1:
        return [0.0] * len(rewards)
    divisor = np.std(rewards, ddof=1) if by is None else by
    return [float((reward - np.mean(rewards)) / divisor) for reward in rewards]


def clip(eps: float, high: float) -> PerToken:
    def objective(of: Tokens, a: float | Array) -> Array:
        r = np.exp(of.policy - of.sampler)
        return np.minimum(r * a, np.clip(r, 1 - eps, 1 + high) * a)

    return objective


def k3(of: Tokens) -> Array:
    return np.exp(of.ref - of.policy) - (of.ref - of.policy) - 1


def no_clip(of: Tokens, a: float | Array) -> Array:
    return np.exp(of.policy - of.sampler) * a


def mean_of_means(advantages: Sequence[Sequence[float | Array]], each: PerToken, *, beta: float = 0.0) -> float:
    return -float(np.mean([np.mean(each(TOKENS[g][i], advantages[g][i]) - beta * k3(TOKENS[g][i])) for g, i in EVERY]))


def sum_over(advantages: Sequence[Sequence[float]], each: PerToken, divisor: float) -> float:
    return -float(sum(np.sum(each(TOKENS[g][i], advantages[g][i])) for g, i in EVERY) / divisor)


GRPO = [standardised(rewards) for rewards in REWARDS]
CENTRED = [standardised(rewards, by=1.0) for rewards in REWARDS]


def grpo() -> float:
    return mean_of_means(GRPO, clip(0.2, 0.2), beta=0.04)


def process() -> float:
    advantages: list[list[float | Array]] = []
    for of_group, lengths in zip(STEPS, LENGTHS, strict=True):
        rewards = [reward for steps in of_group for _, reward in steps]
        equal = len(set(rewards)) == 1
        of_completions: list[float | Array] = []
        for steps, length in zip(of_group, lengths, strict=True):
            a = np.zeros(length)
            for end, reward in steps:  # a step reaches all tokens up to its end
                a[:end] += 0.0 if equal else (reward - np.mean(rewards)) / np.std(rewards, ddof=1)
            of_completions.append(a)
        advantages.append(of_completions)
    return mean_of_means(advantages, clip(0.2, 0.2), beta=0.04)


def gspo() -> float:
    total = 0.0
    for g, i in EVERY:
        s = np.exp(np.mean(TOKENS[g][i].policy - TOKENS[g][i].sampler))
        a = GRPO[g][i]
        total += min(s * a, np.clip(s, 1 - 3e-4, 1 + 4e-4) * a)
    return -float(total / 12)


def gmpo() -> float:
    total = 0.0
    for g, i in EVERY:
        x, a = TOKENS[g][i].policy - TOKENS[g][i].sampler, GRPO[g][i]
        total += a * np.exp(np.mean(np.minimum(x, 0.4) if a > 0 else np.maximum(x, -0.4)))
    return -float(total / 12)


def capped(of: Tokens, a: float | Array) -> Array:
    weighted: Array = np.minimum(np.exp(of.policy - of.sampler), 5.0) * a * of.policy
    return weighted


def scale_rl() -> float:
    deviation = float(np.std([reward for rewards in REWARDS for reward in rewards], ddof=1))
    total = 0.0
    for g, rewards in enumerate(REWARDS):
        advantages = standardised(rewards, by=deviation)
        total += sum(np.sum(capped(TOKENS[g][i], advantages[i])) for i in range(4)) / sum(LENGTHS[g])
    return -float(total / 3)


def soft_gate(of: Tokens, a: float | Array) -> Array:
    tau = 1.0 if np.all(a > 0) else 1.05
    return 4 / tau / (1 + np.exp(-tau * (np.exp(of.policy - of.sampler) - 1))) * a


def divergence_mask(of: Tokens, a: float | Array) -> Array:
    moved = np.exp(of.policy) - np.exp(of.sampler)
    keep = ~((np.abs(moved) > 0.2) & (np.sign(moved) == np.sign(a)))
    return np.where(keep, no_clip(of, a), 0.0)


def less_kl(coef: float) -> list[list[float]]:
    return [
        [REWARDS[g][i] - coef * float(np.sum(TOKENS[g][i].before - TOKENS[g][i].ref)) for i in range(4)]
        for g in range(3)
    ]


def rloo() -> float:
    advantages = [[r - (sum(rewards) - r) / 3 for r in rewards] for rewards in less_kl(0.05)]
    return sum_over(advantages, no_clip, 12)


def reinforce_plus_plus() -> float:
    rewards = less_kl(0.01)
    of_tokens = np.concatenate([np.full(LENGTHS[g][i], rewards[g][i]) for g, i in EVERY])
    advantages = [[(r - of_tokens.mean()) / (of_tokens.std() + 1e-8) for r in of] for of in rewards]
    return sum_over(advantages, clip(0.2, 0.2), NUM_TOKENS)


def opo() -> float:
    baselines = [np.dot(lengths, rewards) / sum(lengths) for lengths, rewards in zip(LENGTHS, REWARDS, strict=True)]
    return sum_over([[r - b for r in of] for of, b in zip(REWARDS, baselines, strict=True)], no_clip, 12)


def gdpo() -> float:
    def normalised(values: Sequence[float]) -> Array:
        array = np.array(values)
        if len(set(values)) == 1:
            return np.zeros(len(values))
        scaled: Array = (array - array.mean()) / (array.std(ddof=1) + 1e-4)
        return scaled

    sums = [normalised(REWARDS[g]) + 0.5 * normalised(BREVITY[g]) for g in range(3)]
    advantages = normalised(np.concatenate(sums).tolist()).reshape(3, 4).tolist()
    return sum_over(advantages, clip(0.2, 0.2), NUM_TOKENS)


def pass_at_k() -> float:
    """By all sets of two."""
    advantages = []
    for rewards in REWARDS:
        sets = {members: max(rewards[i] for i in members) for members in itertools.combinations(range(4), 2)}
        mean, deviation = np.mean(list(sets.values())), np.std(list(sets.values()))
        of_each = [np.mean([best for members, best in sets.items() if i in members]) for i in range(4)]
        advantages.append([float((a - mean) / deviation) if deviation else 0.0 for a in of_each])
    return sum_over(advantages, clip(0.2, 0.2), NUM_TOKENS)


def maxrl() -> float:
    advantages = [standardised(rewards, by=float(np.mean(rewards))) for rewards in REWARDS]
    return sum_over(advantages, clip(0.2, 0.2), NUM_TOKENS)


def asynchronous() -> float:
    total = 0.0
    for g, i in EVERY:
        of, a = TOKENS[g][i], GRPO[g][i]
        if np.exp(np.sum(of.before - of.sampler)) > 3.0:
            continue
        r = np.exp(of.policy - of.before)
        weight = np.minimum(np.exp(of.before - of.sampler), 2.0)
        total += np.sum(weight * np.minimum(r * a, np.clip(r, 0.8, 1.2) * a))
    return -float(total / NUM_TOKENS)


EQUATIONS: dict[str, Callable[[], float]] = {
    "deepseekmath": grpo,
    "deepseekmath_iterative": grpo,
    "deepseekmath_process": process,
    "dr_grpo": lambda: sum_over(CENTRED, clip(0.2, 0.2), 12 * MAX_TOKENS),
    "dapo": lambda: sum_over(GRPO, clip(0.2, 0.28), NUM_TOKENS),
    "gspo": gspo,
    "gmpo": gmpo,
    "cispo": lambda: sum_over(GRPO, capped, NUM_TOKENS),
    "cispo_scale_rl": scale_rl,
    "sapo": lambda: mean_of_means(GRPO, soft_gate),
    "dppo": lambda: sum_over(CENTRED, divergence_mask, NUM_TOKENS),
    "rloo": rloo,
    "reinforce_plus_plus": reinforce_plus_plus,
    "opo": opo,
    "gdpo": gdpo,
    "pass_at_k": pass_at_k,
    "maxrl": maxrl,
    "async": asynchronous,
}

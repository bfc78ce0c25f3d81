"""Process supervision (DeepSeekMath, arXiv 2402.03300, section 4.1.3): rewards for steps -> advantages of tokens.

With step j of completion i ending at its token index(j) and scored r_ij, all step rewards of the group normalised
together:

    A_it = sum over the steps with index(j) >= t of (r_ij - mean(r)) / std(r)

so a token has what follows it. Tokens behind the last step have an advantage of 0.
"""

import math
from collections.abc import Sequence

from learner.algorithm.advantages import std
from learner.objective import ProcessAdvantage
from learner.types import AdvantageSpan, CompletionKey, GroupAdvantages
from reward.types import ScoredGroup, all_rewards_equal


def process_advantages(
    groups: Sequence[ScoredGroup], config: ProcessAdvantage
) -> tuple[list[GroupAdvantages], dict[CompletionKey, tuple[AdvantageSpan, ...]]]:
    """[group][G] the advantage of each completion's first token, which has all steps before it, and the spans of every
    scored completion. None for a completion that was not scored."""
    advantages: list[GroupAdvantages] = []
    spans: dict[CompletionKey, tuple[AdvantageSpan, ...]] = {}
    for group in groups:
        scored = [reward is not None for reward in group.compared_rewards]
        steps_G = [
            (result.steps or ()) if is_scored else () for result, is_scored in zip(group.rewards, scored, strict=True)
        ]
        rewards = [step.reward for steps in steps_G for step in steps]
        mean = math.fsum(rewards) / len(rewards) if rewards else 0.0
        equal = all_rewards_equal(rewards)
        divisor = 1.0 if equal else std(rewards, config.std) + config.eps
        of_group: list[float | None] = []
        for i, (steps, is_scored) in enumerate(zip(steps_G, scored, strict=True)):
            normalised = [0.0 if equal else (step.reward - mean) / divisor for step in steps]
            if is_scored:
                following = [math.fsum(normalised[j:]) for j in range(len(steps))]
                ends = [step.end for step in steps]
                num_tokens = group.group.facts.num_tokens_G[i]
                found = [AdvantageSpan(end=e, advantage=a) for e, a in zip(ends, following, strict=True)]
                if not ends or ends[-1] < num_tokens:
                    found.append(AdvantageSpan(end=num_tokens, advantage=0.0))
                spans[group.group_id, i] = tuple(found)
            of_group.append(math.fsum(normalised) if is_scored else None)
        advantages.append(tuple(of_group))
    return advantages, spans

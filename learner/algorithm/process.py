"""Process supervision (DeepSeekMath, arXiv 2402.03300, section 4.1.3): rewards for steps -> advantages of tokens.

With step j of completion i ending at its token index(j) and scored r_ij, all step rewards of the group normalised
together:

    A_it = sum over the steps with index(j) >= t of (r_ij - mean(r)) / std(r)

so a token has what follows it. Tokens behind the last step have an advantage of 0.
"""

import math
from collections.abc import Sequence

from learner.algorithm.advantages import normalised, split
from learner.objective import ProcessAdvantage
from learner.types import AdvantageSpan, CompletionKey, GroupAdvantages
from reward.types import ScoredGroup


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
        normalised_G = split(normalised(rewards, config.eps, config.std), steps_G)
        for i, steps in enumerate(steps_G):
            if scored[i]:
                num_tokens = group.group.facts.num_tokens_G[i]
                found = [
                    AdvantageSpan(end=step.end, advantage=math.fsum(normalised_G[i][j:]))
                    for j, step in enumerate(steps)
                ]
                if not steps or steps[-1].end < num_tokens:
                    found.append(AdvantageSpan(end=num_tokens, advantage=0.0))
                spans[group.group_id, i] = tuple(found)
        of_group = [math.fsum(normalised_G[i]) if is_scored else None for i, is_scored in enumerate(scored)]
        advantages.append(tuple(of_group))
    return advantages, spans

"""The KL taken off the rewards: what is left of each completion's, or of each of its tokens'.

A group is compared by what its completions have in all, r_i - beta sum_t KL_it. REINFORCE++ (arXiv 2501.03262, section
3.2) compares tokens, each by what comes from it on:

    A_t = r - beta sum over s >= t of KL_s,    then (A_t - mean) / std over all trained tokens of the batch

Dimensions: N tokens, S completions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from learner.algorithm.tokens import Completions
from learner.types import CompletionKey, GroupRewards


def rewards_less_kl(
    groups: Sequence[GroupRewards], kl: Mapping[CompletionKey, float], coef: float
) -> list[GroupRewards]:
    """Rewards less `coef` times the KL (nats) over each completion's trained tokens, which is 0 where none is given."""
    return [
        replace(
            group,
            rewards_G=tuple(
                None if reward is None else reward - coef * kl.get((group.group_id, i), 0.0)
                for i, reward in enumerate(group.rewards_G)
            ),
        )
        for group in groups
    ]


def rewards_to_go(rewards_S: Tensor, kl_N: Tensor, completions: Completions, coef: float) -> Tensor:
    """[N] the completion's reward less `coef` times the KL of this trained token and those after it; 0 where not
    trained on. The tokens of a completion stand together, in their order."""
    kl_N = kl_N.where(completions.mask_N, kl_N.new_zeros(()))
    until_N = _running_sums(kl_N)
    # Of all completions up to the end of this one, less what came until before this token.
    ends_N = completions.spread(_running_sums(completions.sums(kl_N)))
    to_go_N = completions.spread(rewards_S) - coef * (ends_N - until_N + kl_N)
    return to_go_N.where(completions.mask_N, to_go_N.new_zeros(()))


def _running_sums(values: Tensor) -> Tensor:
    """On the CPU: on a GPU their order is not fixed, which PyTorch refuses where arithmetic is deterministic."""
    return values.cpu().cumsum(0).to(values.device)

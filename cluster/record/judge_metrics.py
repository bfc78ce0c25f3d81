"""What asking servers took, whether judges agree with what is known, and whether they like length. Pure functions.

Dimension: G completions in a group.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from learner.metrics import Metric
from reward.config import RewardConfig
from reward.judging.config import JudgeConfig
from reward.types import ScoredGroup, ServerCost

COST_METRICS = (
    Metric(name="judge/calls", label="Requests to judges", unit="requests", over="step", reduce="sum",
           help="That were answered; of `judge` and `http`, as all of these. Groups that were rejected count."),
    Metric(name="judge/cached", label="Requests that were known", unit="requests", over="step", reduce="sum",
           help="Their answer was in the journal."),
    Metric(name="judge/attempts", label="Attempts", unit="requests", over="step", reduce="sum", better="down",
           help="With those that were tried again, or came to nothing."),
    Metric(name="judge/prompt_tokens", label="Tokens read by judges", unit="tokens", over="step", reduce="sum",
           help="As servers say."),
    Metric(name="judge/completion_tokens", label="Tokens of judges", unit="tokens", over="step", reduce="sum",
           help="As servers say."),
    Metric(name="judge/waited_s", label="Waits before servers", unit="s", over="requests", reduce="sum", better="down",
           help="For limits and further attempts."),
    Metric(name="judge/asked_s", label="Time of servers", unit="s", over="requests", reduce="sum", better="down"),
)  # fmt: skip
JUDGE_METRICS = (
    *COST_METRICS,
    Metric(
        name="judge/agreement_*",
        label="Agreement of the judge with its gold:",
        unit="share",
        over="pairs of completions of a group that the gold tells apart",
        reduce="mean",
        better="up",
        help="The share that the judge puts in the same order, half for a tie; 0.5 is chance.",
    ),
    Metric(
        name="judge/length_correlation_*",
        label="Correlation of the score with length:",
        over="scored completions, less the mean of their group",
        reduce="mean",
    ),
)


def cost_metrics(groups: Sequence[ScoredGroup], stage: str = "judge/") -> dict[str, float]:
    """Sums over the groups; nothing where no server is asked. `stage` begins the names."""
    costs = [scored.scores.cost for scored in groups if scored.scores.cost is not None]
    if not costs:
        return {}
    total = sum(costs, ServerCost())
    names = (metric.name.removeprefix("judge/") for metric in COST_METRICS)
    return {f"{stage}{name}": float(getattr(total, name)) for name in names}


def judge_metrics(groups: Sequence[ScoredGroup], reward: RewardConfig) -> dict[str, float]:
    """Of each judge of the configuration, where there is anything to compare."""
    metrics: dict[str, float] = {}
    for name, asked in reward.asked.items():
        if not isinstance(asked, JudgeConfig):
            continue
        found = {f"judge/length_correlation_{name}": length_correlation(groups, name)}
        if asked.gold is not None:
            found[f"judge/agreement_{name}"] = agreement(groups, name, asked.gold)
        metrics |= {key: value for key, value in found.items() if value is not None}
    return metrics


def agreement(groups: Sequence[ScoredGroup], judge: str, gold: str) -> float | None:
    """Share of the pairs of completions of a group, of which `gold` is larger for one, that `judge` orders the same
    way; a tie is half. None without such a pair."""
    found: list[float] = []
    for components in _components(groups):
        both = [(of[judge], of[gold]) for of in components if judge in of and gold in of]
        for (score, known), (other_score, other_known) in combinations(both, 2):
            if known != other_known:
                same = (score - other_score) * (known - other_known)
                found.append(1.0 if same > 0 else 0.5 if same == 0 else 0.0)
    return sum(found) / len(found) if found else None


def length_correlation(groups: Sequence[ScoredGroup], judge: str) -> float | None:
    """Pearson's correlation of the judge's score with the number of tokens, both less the means of their group: hard
    questions have longer answers and lower scores, and are no fault of the judge. None where one of them is always the
    same."""
    pairs: list[tuple[float, float]] = []
    for scored in groups:
        of_group = [
            (result.components[judge], float(length))
            for result, length in zip(scored.rewards, scored.group.facts.num_tokens_G, strict=True)
            if judge in result.components
        ]
        if of_group:
            score = math.fsum(s for s, _ in of_group) / len(of_group)
            length = math.fsum(n for _, n in of_group) / len(of_group)
            pairs += [(s - score, n - length) for s, n in of_group]
    together = math.fsum(s * n for s, n in pairs)
    spread = math.sqrt(math.fsum(s * s for s, _ in pairs)) * math.sqrt(math.fsum(n * n for _, n in pairs))
    return max(-1.0, min(1.0, together / spread)) if spread > 0 else None


def _components(groups: Sequence[ScoredGroup]) -> Iterator[list[Mapping[str, float]]]:
    for scored in groups:
        yield [result.components for result in scored.rewards]

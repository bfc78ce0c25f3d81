"""Tokens per second of each sampler: one that is slow hides in the mean of all."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from cluster.dashboard.figures.series import Thinning, Values, six_digits
from cluster.dashboard.records import ActorStats

HELP = (
    "Tokens per second of the slowest, the mean and the fastest sampler while it samples. A fleet is as fast as its "
    "slowest member where every step waits for all: a slowest line that leaves the mean is one sampler in trouble."
)


def rates(stats: Sequence[ActorStats], steps: Sequence[int]) -> dict[str, Values]:
    """Sampler -> [N] tokens per second of its time in generate spans; None where it did not sample for a step."""
    found: dict[str, Values] = {}
    for actor in stats:
        by_step = actor.generate_by_step
        if actor.role == "sampler" and by_step:
            found[actor.actor] = [_rate(*by_step.get(step, (0, 0.0))) for step in steps]
    return found


def chart(stats: Sequence[ActorStats], steps: Sequence[int], thinning: Thinning) -> dict[str, Any] | None:
    """The chart of the API; None with fewer than two samplers, where the throughput says it all."""
    by_sampler = list(rates(stats, steps).values())
    if len(by_sampler) < 2:
        return None
    found = [[value for value in row if value is not None] for row in zip(*by_sampler, strict=True)]
    columns: dict[str, Values] = {
        "mean": [sum(row) / len(row) if row else None for row in found],
        "slowest": [min(row, default=None) for row in found],
        "fastest": [max(row, default=None) for row in found],
    }
    roles = {"mean": "line", "slowest": "low", "fastest": "high"}
    return {
        "id": "samplers",
        "group": "System",
        "title": f"Throughput of {len(by_sampler)} samplers",
        "unit": "tokens/s",
        "scale": "linear",
        "help": HELP,
        "series": [
            {
                "name": f"samplers/{name}",
                "label": name,
                "role": roles[name],
                "values": six_digits(thinning.mean(values)),
            }
            for name, values in columns.items()
        ],
        "bands": [],
    }


def slowest(stats: Sequence[ActorStats], *, window: int) -> tuple[str, float] | None:
    """(sampler, its share of the median sampler's tokens per second) over the last `window` steps of each.

    None with fewer than two samplers.
    """
    found: dict[str, float] = {}
    for actor in stats:
        recent = list(actor.generate_by_step.values())[-window:]
        rate = _rate(sum(tokens for tokens, _ in recent), sum(seconds for _, seconds in recent))
        if actor.role == "sampler" and rate is not None:
            found[actor.actor] = rate
    typical = median(found.values()) if len(found) >= 2 else 0.0
    if typical <= 0:
        return None
    name = min(found, key=lambda sampler: found[sampler])
    return name, found[name] / typical


def _rate(tokens: int, seconds: float) -> float | None:
    return tokens / seconds if seconds > 0 else None

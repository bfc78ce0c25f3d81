"""Groups that are sampled together and scored as they come: who did what, and when."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from reward.types import ScoredGroup
from rollout.types import Prompt, RolloutGroup
from tests.cluster.dashboard.demo_faults import FAULTY_SAMPLER, Conditions
from tests.cluster.dashboard.demo_rollouts import sample_completions, score
from tests.cluster.dashboard.demo_text import Sum
from tests.cluster.examples import scored_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A prompt on its way to a sampler."""

    prompt: Prompt
    task: Sum
    sampler: str
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """A scored group with its times, in seconds since the run began."""

    scored: ScoredGroup
    start_s: float
    end_s: float
    score_start_s: float
    score_end_s: float


def sample_and_score(
    rng: np.random.Generator,
    leases: Sequence[Lease],
    now: Conditions,
    *,
    version: int,
    group_size: int,
    start_s: float,
    unix: Callable[[float], float],
) -> list[Timed]:
    """The groups in the order in which they were scored. `unix` turns a time of the run into Unix time."""
    sampled = []
    for lease in leases:
        is_faulty = lease.sampler == FAULTY_SAMPLER
        held = now.stale_version if is_faulty and now.stale_version is not None else version
        completions = sample_completions(rng, lease.task, now, number=group_size, version=held)
        longest = max(len(completion.token_ids) for completion in completions)
        batch = sum(other.sampler == lease.sampler for other in leases)
        # An engine needs longer for a token the more it samples at once.
        took_s = longest * (0.009 + 0.003 * batch) * float(rng.uniform(0.92, 1.08)) * (now.slow if is_faulty else 1)
        group = RolloutGroup(
            prompt=lease.prompt,
            completions=completions,
            attempt=lease.attempt,
            worker=lease.sampler,
            started_s=unix(start_s),
            finished_s=unix(start_s + took_s),
        )
        sampled.append((start_s + took_s, group, lease.task))
    free_s = 0.0
    timed = []
    for end_s, group, task in sorted(sampled, key=lambda entry: entry[0]):
        results = tuple(score(rng, task, completion, now) for completion in group.completions)
        score_start_s = max(end_s, free_s) + 0.01
        # Two child processes share the completions of a group.
        score_end_s = score_start_s + sum(result.duration_s for result in results) / 2
        free_s = score_end_s - 0.005
        scored = scored_of(group, results, started_s=unix(score_start_s), finished_s=unix(score_end_s))
        timed.append(
            Timed(
                scored=scored,
                start_s=start_s,
                end_s=end_s,
                score_start_s=score_start_s,
                score_end_s=score_end_s,
            )
        )
    return timed

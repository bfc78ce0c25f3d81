"""What sampling ahead is worth, and learning a group as soon as it is scored: the real controller on stages that only
take their time, in virtual time."""

import asyncio
import json
import random
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from cluster.config import RunConfig
from tests.benchmarks.pairs import Ratio
from tests.benchmarks.results import Bound, Result
from tests.faults.running import run_schedule
from tests.faults.schedules import Schedule
from tests.faults.virtual import in_virtual_time
from tests.faults.world import World

STEPS, WARM_UP = 60, 3
GROUPS = 16
"""Of a step."""
GROUP_S = 1.0
"""Of sampling a group; an engine samples one after the other."""
UNEVEN = 0.25
"""By which groups are shorter or longer, at most."""
SCORING_S = 0.05
"""As of answers of mathematics. With a lag of 1 it is in line with both stages where they take equally long: the last
group of a batch is scored after sampling and before learning, and nothing else may be done meanwhile."""
LEARNING = (0.5, 0.9, 1.0, 1.1, 2.0)
"""Times the sampling of a step."""
TAIL_SIGMA = 1.0
"""Of the logarithm of a group's sampling time, where all are sampled at once: the slowest of 16 takes 6 to 7 times as
long as the median."""
TAIL_LEARNING = (0.25, 0.5, 0.75)
"""Times what the slowest group of a step takes on average to sample."""


@dataclass
class Stages(World):
    """Engines that sample a group at a time, and a learner that takes its time."""

    learning_s: float = 0.0
    engines: dict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    busy_s: float = 0.0
    """Of all engines together."""

    def config(self) -> RunConfig:
        config = super().config()
        rollout = config.rollout.model_copy(update={"on_weight_sync": "keep", "group_deadline_s": 1000.0})
        return config.model_copy(update={"rollout": rollout})

    async def sampling(self, name: str) -> None:
        seconds = GROUP_S * self.rng.uniform(1 - UNEVEN, 1 + UNEVEN)
        async with self.engines[name]:
            await asyncio.sleep(seconds)
        self.busy_s += seconds

    async def scoring(self) -> None:
        await asyncio.sleep(SCORING_S)

    async def learning(self, share: float) -> None:
        await asyncio.sleep(self.learning_s * share)


def over_longest_stage(folder: Path) -> list[Result]:
    """Seconds of a step over those of the longer of its two stages, for learners of several speeds."""
    found = [
        _result(f"async.wall.{lag}", lag, tuple(_wall(folder / f"{lag}-{times}", lag, times) for times in LEARNING))
        for lag in (0, 1)
    ]
    return list(reversed(found))


def _result(name: str, lag: int, ratios: tuple[float, ...]) -> Result:
    cases = ", ".join(f"{ratio:.3f} at {times:g}" for times, ratio in zip(LEARNING, ratios, strict=True))
    how = f"max_policy_lag {lag}" if lag else "synchronous, for comparison"
    return Result.of(
        name,
        f"seconds of a step over the longer of sampling and learning, simulated stages, worst case; {how}",
        Ratio.of((max(ratios),)),
        Bound(value=1.03, is_least=False) if lag else None,
        f"by seconds of learning over those of sampling: {cases}",
    )


def _wall(folder: Path, lag: int, times: float) -> float:
    sampling_s = GROUP_S * GROUPS / 2
    world = Stages(schedule_of(lag=lag), prompts_per_step=GROUPS, learning_s=times * sampling_s)
    in_virtual_time(lambda: run_schedule(world, folder, []))
    ended_s = _metric(folder, "time/ended_s")
    step_s = (ended_s[-1] - ended_s[WARM_UP]) / (STEPS - 1 - WARM_UP)
    return step_s / max(world.busy_s / STEPS / 2, world.learning_s)


def schedule_of(*, lag: int = 0, streaming: bool = False) -> Schedule:
    """A run without faults."""
    return Schedule(
        seed=0,
        faults=(),
        steps=STEPS,
        num_samplers=2,
        num_learners=1,
        num_rewards=2,
        max_policy_lag=lag,
        deterministic=False,
        max_restarts=0,
        streaming=streaming,
    )


def _metric(folder: Path, name: str) -> list[float]:
    return [json.loads(line)[name] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@dataclass
class Tail(World):
    """Engines that sample all groups at once, of which a few take long."""

    learning_s: float = 0.0

    async def sampling(self, _name: str) -> None:
        await asyncio.sleep(GROUP_S * self.rng.lognormvariate(0.0, TAIL_SIGMA))

    async def scoring(self) -> None:
        await asyncio.sleep(SCORING_S)

    async def learning(self, share: float) -> None:
        await asyncio.sleep(self.learning_s * share)


def streaming_over_longest_stage(folder: Path) -> list[Result]:
    """Seconds of a synchronous step over those of the longer of sampling and learning, where sampling has a long
    tail: with gradients computed as groups come, and of the whole batch at its end."""
    rng = random.Random(0)
    slowest_s = (
        sum(max(rng.lognormvariate(0.0, TAIL_SIGMA) for _ in range(GROUPS)) * GROUP_S for _ in range(1000)) / 1000
    )
    found = []
    for name, streaming in (("streaming.wall", True), ("streaming.wall.whole", False)):
        ratios = []
        for times in TAIL_LEARNING:
            world = Tail(schedule_of(streaming=streaming), prompts_per_step=GROUPS, learning_s=times * slowest_s)
            of = folder / f"{name}-{times}"
            in_virtual_time(lambda world=world, of=of: run_schedule(world, of, []))  # type: ignore[misc]
            longest_s = [max(generate_s, world.learning_s) for generate_s in _metric(of, "time/generate_s")]
            ratios.append(sum(_metric(of, "time/step_s")[WARM_UP:]) / sum(longest_s[WARM_UP:]))
        cases = ", ".join(f"{ratio:.3f} at {times:g}" for times, ratio in zip(TAIL_LEARNING, ratios, strict=True))
        how = "a gradient as soon as its group is scored" if streaming else "the whole batch at its end, for comparison"
        found.append(
            Result.of(
                name,
                f"seconds of a synchronous step over the longer of sampling and learning, simulated stages with a "
                f"long tail, worst case; {how}",
                Ratio.of((max(ratios),)),
                Bound(value=1.1, is_least=False) if streaming else None,
                f"by seconds of learning over those of the slowest group: {cases}",
            )
        )
    return found

"""What sampling ahead is worth: the real controller on stages that only take their time, in virtual time."""

import asyncio
import json
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


@dataclass
class Stages(World):
    """Engines that sample a group at a time, and a learner that takes its time."""

    learning_s: float = 0.0
    engines: dict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    busy_s: float = 0.0
    """Of all engines together."""

    def config(self) -> RunConfig:
        config = super().config()
        rollout = config.rollout.model_copy(
            update={"prompts_per_step": GROUPS, "on_weight_sync": "keep", "group_deadline_s": 1000.0}
        )
        return config.model_copy(update={"rollout": rollout})

    async def sampling(self, name: str) -> None:
        seconds = GROUP_S * self.rng.uniform(1 - UNEVEN, 1 + UNEVEN)
        async with self.engines[name]:
            await asyncio.sleep(seconds)
        self.busy_s += seconds

    async def scoring(self) -> None:
        await asyncio.sleep(SCORING_S)

    async def learning(self) -> None:
        await asyncio.sleep(self.learning_s)


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
    schedule = Schedule(
        seed=0,
        faults=(),
        steps=STEPS,
        num_samplers=2,
        num_learners=1,
        num_rewards=2,
        max_policy_lag=lag,
        deterministic=False,
        max_restarts=0,
    )
    world = Stages(schedule, learning_s=times * sampling_s)
    in_virtual_time(lambda: run_schedule(world, folder, []))
    ended_s: list[float] = [
        json.loads(line)["time/ended_s"] for line in (folder / "metrics.jsonl").read_text().splitlines()
    ]
    step_s = (ended_s[-1] - ended_s[WARM_UP]) / (STEPS - 1 - WARM_UP)
    return step_s / max(world.busy_s / STEPS / 2, world.learning_s)

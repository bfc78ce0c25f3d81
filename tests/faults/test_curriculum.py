"""A run of two tasks with a curriculum, in virtual time: who is asked depends on the run and on nothing else."""

from pathlib import Path

import pytest

from cluster.config import DynamicSamplingConfig, RunConfig
from cluster.record.run_directory import RunDirectory
from cluster.weights.run_state import read_run_state
from reward.types import RewardResult
from rollout.config import CurriculumConfig
from rollout.prompts.prompt_building import joined
from rollout.prompts.prompt_set import PromptSet
from rollout.prompts.stream import PromptStream, PromptStreamState
from rollout.types import RolloutGroup
from tests.cluster.examples import ok
from tests.faults import running
from tests.faults import world as worlds
from tests.faults.running import run_schedule
from tests.faults.schedules import Schedule
from tests.faults.virtual import in_virtual_time
from tests.faults.world import PROMPTS_PER_STEP, World
from tests.rollout.prompts.test_stream import prompt_set

STEPS = 12
CURRICULUM = CurriculumConfig(enabled=True, floor=0.2)
WEIGHTS = {"sums": 2.0, "products": 1.0}
PROMPTS: PromptSet = joined([prompt_set(4), prompt_set(5, "products")])


def rewards(group: RolloutGroup) -> list[RewardResult]:
    """Of two completions none, one or both are right, by the question; each is right later on."""
    num_right = int(group.prompt.ground_truth or 0) % 3 + group.completions[0].min_policy_version // 6
    return [ok(float(place < num_right)) for place, _ in enumerate(group.completions)]


class Streams:
    """In place of the world's own stream."""

    def __call__(self) -> PromptStream:
        return PromptStream(PROMPTS, seed=0, weights=WEIGHTS, curriculum=CURRICULUM)

    def restore(self, state: PromptStreamState) -> PromptStream:
        return PromptStream.restore(PROMPTS, state, weights=WEIGHTS, curriculum=CURRICULUM)


@pytest.fixture(autouse=True)
def _two_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    config_of = worlds.config_of

    def config(schedule: Schedule, prompts_per_step: int) -> RunConfig:
        dynamic = DynamicSamplingConfig(enabled=True, max_resample_factor=2.0)
        return config_of(schedule, prompts_per_step).model_copy(update={"dynamic_sampling": dynamic})

    class Reward(worlds.VirtualReward):
        def __init__(self, name: str, world: World) -> None:
            super().__init__(name, world)
            self._results_of = rewards

    monkeypatch.setattr(worlds, "config_of", config)
    monkeypatch.setattr(running, "Stream", Streams())
    monkeypatch.setattr(worlds, "VirtualReward", Reward)


def run(folder: Path, *, times: int = 0, max_policy_lag: int = 0, stop_after_s: float | None = None) -> None:
    """`times` is the seed of how long everything takes."""
    schedule = Schedule(
        seed=times,
        faults=(),
        steps=STEPS,
        num_samplers=2,
        num_learners=1,
        num_rewards=2,
        max_policy_lag=max_policy_lag,
        deterministic=max_policy_lag == 0,
        max_restarts=0,
    )
    in_virtual_time(lambda: run_schedule(World(schedule), folder, [], stop_after_s=stop_after_s))


def asked(folder: Path) -> list[str]:
    """Group ids in the order of the stream."""
    return sorted({line["group_id"] for line in RunDirectory(folder).read_log("ledger") if "group_id" in line})


def rejected(folder: Path) -> list[str]:
    """Group ids, in the order of the stream."""
    lines = RunDirectory(folder).read_log("ledger")
    return sorted(line["group_id"] for line in lines if line.get("state") == "rejected")


def last_state(folder: Path) -> PromptStreamState:
    return read_run_state(max((folder / "checkpoints").glob("step-*"))).stream


def test_a_synchronous_run_asks_the_same_whatever_takes_how_long_and_wherever_it_is_stopped(tmp_path: Path) -> None:
    run(tmp_path / "whole")
    expected, state = asked(tmp_path / "whole"), last_state(tmp_path / "whole")
    assert state.index == len(expected) > PROMPTS_PER_STEP * STEPS, "groups of equal rewards were rejected"
    passed, given = (sum(getattr(place, name) for place in state.places.values()) for name in ("passed", "asked"))
    assert given == state.index < passed, "prompts were left out"
    assert set(state.pass_rates.values()) - {0.0, 0.5, 1.0}, "results of several groups were brought together"
    assert rejected(tmp_path / "whole")
    for times in (1, 2, 3, 5):
        run(tmp_path / f"times-{times}", times=times)
        # Not only as many, where a step samples no more: those that are trained on are the same.
        assert rejected(tmp_path / f"times-{times}") == rejected(tmp_path / "whole")
        assert asked(tmp_path / f"times-{times}") == expected
        assert last_state(tmp_path / f"times-{times}") == state
    for stop_after_s in (25, 40, 70, 95):
        folder = tmp_path / f"stop-{stop_after_s}"
        run(folder, stop_after_s=stop_after_s)
        assert last_state(folder).index < state.index, "it was stopped before its end"
        run(folder, times=9)
        assert asked(folder) == expected
        assert last_state(folder) == state


@pytest.mark.parametrize("stop_after_s", [25, 40, 55])
def test_a_run_that_samples_ahead_goes_on_with_what_it_knew(stop_after_s: float, tmp_path: Path) -> None:
    run(tmp_path, max_policy_lag=1, stop_after_s=stop_after_s)
    before = last_state(tmp_path)
    run(tmp_path, max_policy_lag=1)
    after = last_state(tmp_path)
    assert before.index < after.index == len(asked(tmp_path))
    assert before.pass_rates.keys() <= after.pass_rates.keys()
    # Two thirds of the prompts are sums, to a prompt.
    assert abs(after.places["sums"].asked - 2 / 3 * after.index) < 1

"""Random fault schedules in virtual time, on the real controller. `SHOAL_SOAK_SEED=n` runs one seed and says more."""

import dataclasses
import os
import random
import shutil
import tempfile
from functools import partial
from pathlib import Path

import pytest

from cluster.errors import ActorFailedError, RestartsExhaustedError, StageTimeoutError, UnsavedError
from cluster.record.run_directory import RunDirectory
from rollout.errors import ShoalError, WeightSyncError
from tests.faults.checker import check_run
from tests.faults.running import run_schedule
from tests.faults.schedules import Schedule, schedule_of
from tests.faults.virtual import in_virtual_time
from tests.faults.world import FIRST_WEIGHTS, World, config_of, weights_after, weights_without_faults

ONE_SEED = os.environ.get("SHOAL_SOAK_SEED")


def soak(seed: int) -> tuple[World, ShoalError | None]:
    """Runs one seed. Errors: `AssertionError` naming the seed, with everything that is wrong."""
    schedule = schedule_of(seed)
    # In memory: what is tested is not the disk.
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="shoal-soak-", dir=base))
    world, error = World(schedule), None
    warnings: list[str] = []
    try:
        try:
            in_virtual_time(lambda: run_schedule(world, folder / "run", warnings))
        except ShoalError as ended:
            error = ended
        problems = check_run(folder / "run", config=config_of(schedule), sampled=world.sampled)
        problems += _wrong_end(schedule, world, error)
        problems += _wrong_weights(folder / "run", schedule, may_end_early=error is not None)
        assert not problems, f"SHOAL_SOAK_SEED={seed}: {problems}; {schedule}; ended with {error!r}; {warnings}"
    finally:
        shutil.rmtree(folder)
    return world, error


def _wrong_end(schedule: Schedule, world: World, error: ShoalError | None) -> list[str]:
    """A run may end early only for what cannot be recovered from, and only with the error that says so."""
    if error is None or (isinstance(error, WeightSyncError) and schedule.may_corrupt):
        return []
    if isinstance(error, RestartsExhaustedError) and schedule.max_restarts < 10:
        return []
    if isinstance(error, UnsavedError):
        saves = sum(fault.method == "save" or fault.actor.startswith("learner") for fault in world.fired)
        return [] if saves else ["nothing happened to a save, and the last one failed"]
    rewards_lost = sum(fault.actor.startswith("reward") for fault in world.fired)
    if isinstance(error, ActorFailedError | StageTimeoutError) and error.stage == "score" and rewards_lost >= 3:
        return []
    return [f"the run ended with {error!r}"]


def _wrong_weights(run: Path, schedule: Schedule, *, may_end_early: bool) -> list[str]:
    """The last checkpoint's weights must be those of training every recorded step once, in order; in a deterministic
    run, those of the run without faults."""
    checkpoints = sorted((run / "checkpoints").glob("step-*"))
    if not checkpoints:
        return [] if may_end_early else ["there is no checkpoint"]
    found: set[str] = {path.read_text() for path in checkpoints[-1].glob("learner-*.txt")}
    done, weights = int(checkpoints[-1].name.split("-")[1]), FIRST_WEIGHTS
    for step in range(done):
        weights = weights_after(weights, step, [of.scored for of in RunDirectory(run).read_batch(step)])
    wrong = [] if found == {f"{done} {weights}"} else [f"the weights are not those of {done} steps: {found}"]
    if done != schedule.steps and not may_end_early:
        wrong.append(f"the last checkpoint is of step {done}")
    if schedule.deterministic and weights != weights_without_faults(done):
        wrong.append(f"the weights of step {done} are not those of a run without faults")
    return wrong


def _soak_all(seeds: range) -> None:
    fired = early = 0
    for seed in seeds:
        world, error = soak(seed)
        fired += len(world.fired)
        early += error is not None
    # The test of the test: faults do happen, and nearly every run gets through them.
    assert fired > len(seeds), fired
    assert early < 0.2 * len(seeds), early


@pytest.mark.skipif(ONE_SEED is not None, reason="SHOAL_SOAK_SEED asks for one seed")
def test_a_hundred_random_fault_schedules_lose_nothing() -> None:
    _soak_all(range(100))


@pytest.mark.faults
@pytest.mark.skipif(ONE_SEED is not None, reason="SHOAL_SOAK_SEED asks for one seed")
@pytest.mark.parametrize("first", range(0, 1000, 250))
def test_a_thousand_random_fault_schedules_lose_nothing(first: int) -> None:
    _soak_all(range(first, first + 250))


@pytest.mark.skipif(ONE_SEED is not None, reason="SHOAL_SOAK_SEED asks for one seed")
def test_runs_that_are_stopped_and_resumed_lose_nothing(tmp_path: Path) -> None:
    """At any moment, several times, while actors fail as well."""
    interrupted = given_up = deltas = accumulated = 0
    for seed in range(60):
        schedule = dataclasses.replace(schedule_of(seed), max_restarts=1000)
        rng, folder, status = random.Random(f"stops {seed}"), tmp_path / str(seed), ""
        sampled: dict[tuple[str, int], list[tuple[int, ...]]] = {}
        for stop_after_s in (*(rng.uniform(0, 40) for _ in range(3)), None):
            world = World(schedule)
            try:
                work = partial(run_schedule, world, folder, [], stop_after_s=stop_after_s)
                status = in_virtual_time(work).status
            except (UnsavedError, WeightSyncError):
                status = "failed"  # of a fault; what is resumed is the checkpoint before
            sampled |= world.sampled
            given_up += world.num_given_up
            deltas += world.num_deltas
            accumulated += world.num_accumulated
            interrupted += status == "interrupted"
        (folder / "superseded").mkdir(exist_ok=True)  # what a resumed run leases anew has no line of its own
        problems = check_run(folder, config=config_of(schedule), sampled=sampled)
        problems += _wrong_weights(folder, schedule, may_end_early=status != "finished")
        assert not problems, f"seed {seed}: {problems}; {schedule}"
        shutil.rmtree(folder)
    assert interrupted > 60
    assert given_up > 10  # within a training step
    assert deltas > 100
    assert accumulated > 30


@pytest.mark.skipif(ONE_SEED is None, reason="for one seed: SHOAL_SOAK_SEED=n")
def test_one_seed() -> None:
    world, error = soak(int(ONE_SEED or 0))
    print(world.schedule, world.fired, error)

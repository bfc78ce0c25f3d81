"""SIGKILL of a world in a call, of a sampler in the second turn, and of the whole job: a deterministic run of episodes
ends as if nothing had been."""

import signal
from pathlib import Path
from typing import Any

import pytest

from cluster.record.episode_text import episode_of
from tests.faults import faults
from tests.faults.faults import Faults

pytestmark = pytest.mark.faults

WORDS = (
    *("guess", "deterministic=true", "steps=3", "rollout.prompts_per_step=4", "rollout.group_size=4"),
    *("eval.at_start=false", "eval.at_end=false", "checkpoint.every=1"),
    *("task.environment=tests.faults.striking:StrikingGuess", "recovery.probe_every_s=0.5"),
)
NUM_GROUPS = 12


def words(folder: Path) -> tuple[str, ...]:
    folder.mkdir(parents=True)
    return (*WORDS, f"task.params={{folder: {folder}}}")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """To which nothing happened."""
    path = tmp_path_factory.mktemp("whole") / "run"
    run = faults.start(path, (), *words(path.parent / "strikes"))
    assert run.wait() == 0, run.output()
    faults.assert_exactly_once(path, num_groups=NUM_GROUPS)
    return path


def replayed(path: Path) -> list[tuple[int, int]]:
    """(worlds begun, replies told again) of each episode that needed more than one."""
    texts = [text for file in sorted((path / "rollouts").glob("step-*.parquet")) for text in episodes_in(file)]
    facts = [episode for text in texts if (episode := episode_of(text)) is not None]
    assert facts
    return [(of.num_attempts, of.num_replayed) for of in facts if of.num_attempts > 1]


def episodes_in(file: Path) -> list[str | None]:
    import pyarrow.parquet

    found: list[str | None] = pyarrow.parquet.read_table(file, columns=["episode"]).column("episode").to_pylist()
    return found


def test_a_world_that_is_killed_in_a_call(whole: Path, tmp_path: Path) -> None:
    path, strikes = tmp_path / "run", tmp_path / "strikes"
    told = words(strikes)
    (strikes / "world").touch()
    run = faults.start(path, (), *told)
    assert run.wait() == 0, run.output()
    assert list(strikes.iterdir()) == [], "it has struck"
    faults.assert_same_end(path, whole)
    faults.assert_exactly_once(path, num_groups=NUM_GROUPS)
    assert replayed(whole) == []
    assert replayed(path) == [(2, 2)], "what was replayed is on record"
    assert run.left_behind() == []


def test_a_sampler_that_is_killed_in_the_second_turn(whole: Path, tmp_path: Path) -> None:
    path, strikes = tmp_path / "run", tmp_path / "strikes"
    told = words(strikes)
    (strikes / "sampler").touch()
    run = faults.start(path, (), *told)
    assert run.wait() == 0, run.output()
    assert list(strikes.iterdir()) == [], "it has struck"
    assert faults.states(path, "sampler-0") == ["DEAD", "RESTARTING", "STALE", "HEALTHY"]
    faults.assert_same_end(path, whole)
    faults.assert_exactly_once(path, num_groups=NUM_GROUPS)
    assert run.left_behind() == []


def test_a_job_that_is_killed_at_four_points(whole: Path, tmp_path: Path) -> None:
    path, told = tmp_path / "run", words(tmp_path / "strikes")
    points: tuple[tuple[Any, int], ...] = (("generated", 1), ("scored", 1), ("trained", 1), ("saving", 2))
    for event, step in points:
        run = faults.start(path, Faults.at("job", step=step, event=event).do("kill"), *told)
        assert run.wait() == -signal.SIGKILL, run.output()
        assert faults.all_struck(path)[-1]["event"] == event
        assert run.left_behind() == [], "worlds end with their job"
        told = ("--resume", str(path))
    faults.resume(path)
    faults.assert_same_end(path, whole)
    faults.assert_exactly_once(path, num_groups=NUM_GROUPS)

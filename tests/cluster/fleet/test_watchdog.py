import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from cluster.config import RecoveryConfig, RunConfig
from cluster.errors import StallError
from cluster.fleet.actors import Actor, Fleet
from cluster.fleet.progress import Progress
from cluster.fleet.recovery import Recovery
from cluster.fleet.stack_files import StackFiles
from cluster.fleet.watchdog import Watchdog
from cluster.record.append_log import RunWriteError
from cluster.record.run_directory import RunDirectory
from cluster.types import ActorState
from rollout.config import ReasoningGymTask
from tests.cluster.fakes import Clock, FakeHandle, FakeLearner, NoLauncher, fleet_of, recovery_of


@dataclasses.dataclass
class Status:
    num_running_groups: int


class Sampler:
    """Answers with its number of groups; None hangs."""

    def __init__(self, num_groups: int | None) -> None:
        self._num_groups = num_groups

    async def status(self) -> Status:
        if self._num_groups is None:
            await asyncio.Event().wait()
        return Status(num_running_groups=self._num_groups or 0)


class Launcher(NoLauncher):
    async def stacks(self, name: str) -> str:
        return f"{name} is in never_ends\n"


class Watched:
    """A run whose samplers have `groups` under way, on a clock that the test moves."""

    def __init__(self, folder: Path, groups: list[int | None], **recovery: Any) -> None:
        samplers = tuple(Actor(name=f"sampler-{i}", handle=FakeHandle(Sampler(n))) for i, n in enumerate(groups))
        fleet = fleet_of(learners=[FakeLearner([])])
        self.fleet: Fleet = dataclasses.replace(fleet, samplers=samplers, launcher=Launcher())  # type: ignore[arg-type]
        self.recovery: Recovery = recovery_of(self.fleet)
        self.run = RunDirectory.create(folder / "run", RunConfig(task=ReasoningGymTask(generator="chain_sum")))
        self.clock = Clock()
        self.warnings: list[str] = []
        config = RecoveryConfig(stall_s=4.0, **recovery)
        self.stacks = StackFiles(self.fleet, self.run, self.warnings.append)
        self.watchdog = Watchdog(config, self.recovery, Progress(config.stall_s, self.clock), self.stacks)

    async def watch(self, seconds: float) -> None:
        task = asyncio.ensure_future(self.watchdog.watch())
        await asyncio.sleep(0.01)
        self.clock.now_s += 4.5
        await asyncio.wait((task,), timeout=seconds)
        task.cancel()
        (result,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(result, Exception):
            raise result

    def states(self) -> list[ActorState]:
        return [self.recovery.supervisor.state(sampler.name) for sampler in self.fleet.samplers]


def test_a_stall_leaves_the_stacks_of_everyone_an_event_and_a_warning(tmp_path: Path) -> None:
    watched = Watched(tmp_path, [1, 1])
    asyncio.run(watched.watch(0.6))
    stacks = {path.name: path.read_text() for path in (watched.run.path / "stacks").iterdir()}
    assert set(stacks) == {f"000-{name}.txt" for name in ("controller", "learner-0", "sampler-0", "sampler-1")}
    assert stacks["000-sampler-1.txt"] == "sampler-1 is in never_ends\n"
    assert "in watch" in stacks["000-controller.txt"]
    (event,) = watched.run.read_log("events")
    assert event["extra"]["name"] == "stall"
    assert (event["extra"]["action"], event["extra"]["idle_s"]) == ("warn", 4.5)
    assert event["extra"]["stacks"] == "stacks/000-*.txt"
    (warning,) = watched.warnings
    assert warning.startswith("no group was scored and no step trained for 4 s")
    assert watched.states() == [ActorState.HEALTHY] * 2
    asyncio.run(watched.stacks.on_hung(watched.fleet.learners))
    assert (watched.run.path / "stacks" / "001-learner-0.txt").exists()
    assert not (watched.run.path / "stacks" / "001-sampler-0.txt").exists()
    assert watched.warnings[-1] == (
        "learner-0 did not answer in time and is started again; its stacks are in stacks/001-*.txt"
    )


def test_restart_gives_up_those_that_have_work_or_do_not_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.fleet.watchdog.STATUS_DEADLINE_S", 0.1)
    watched = Watched(tmp_path, [0, 2, None, 2], on_stall="restart")
    watched.recovery.supervisor.update_began("sampler-3")
    asyncio.run(watched.watch(2.0))
    assert watched.states() == [ActorState.HEALTHY, ActorState.DEAD, ActorState.DEAD, ActorState.STALE]


def test_abort_ends_the_run_with_a_sentence(tmp_path: Path) -> None:
    watched = Watched(tmp_path, [1], on_stall="abort")
    with pytest.raises(StallError, match=r"after 0 groups and 0 steps; the stacks of all actors are in stacks/000-"):
        asyncio.run(watched.watch(5.0))
    assert watched.states() == [ActorState.HEALTHY]


def test_a_disk_that_refuses_stacks_and_event_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(tmp_path, [1])

    def full(*_: object) -> None:
        raise RunWriteError("no space left")

    monkeypatch.setattr(watched.run, "write_stacks", full)
    monkeypatch.setattr(watched.run, "append_event", full)
    asyncio.run(watched.watch(0.6))
    assert [warning.split(":")[0] for warning in watched.warnings] == [
        "the stacks were not written",
        watched.warnings[1].split(":")[0],
    ]
    assert len(watched.warnings) == 2

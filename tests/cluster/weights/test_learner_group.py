import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.config import CheckpointConfig, RecoveryConfig, RunConfig
from cluster.errors import ActorFailedError, LedgerError, RestartsExhaustedError, StageTimeoutError
from cluster.fleet.actors import Fleet
from cluster.fleet.recovery import Recovery
from cluster.fleet.roles import LEARNER, Role
from cluster.groups.ledger import LedgerState
from cluster.record.run_directory import RunDirectory
from cluster.weights.checkpointing import Checkpoints
from cluster.weights.learner_group import LearnerGroup, LearnerParts
from cluster.weights.run_state import Fingerprints, RunState
from learner.config import LearnerConfig
from learner.types import ComputedTokens, RankShare, StepOutput, TrainBatch
from rollout.config import ReasoningGymTask
from rollout.errors import CheckpointError, StepGivenUpError
from rollout.prompts.stream import PromptStreamState
from rollout.types import RolloutGroup
from tests.cluster.examples import ok, opened, scored
from tests.cluster.fakes import FakeHandle, Journal, fleet_of, recovery_of

DIED = ActorFailedError("train", "learner-1", "step 0", "ActorDiedError: killed", died=True)
CONFIG = RunConfig(
    task=ReasoningGymTask(generator="chain_sum"),
    learner=LearnerConfig(step_deadline_s=0.2),
    recovery=RecoveryConfig(max_restarts=3),
)


class Rank:
    """Trains one version a step; `trouble` of a step may raise or wait."""

    next_pass: int | None = 5
    """Of rank 1, which is ahead of rank 0."""

    def __init__(self, journal: Journal, name: str, trouble: dict[int, Callable[[], Any]]) -> None:
        self.version = 0
        self._journal = journal
        self._name = name
        self._trouble = trouble

    async def train_step(self, share: RankShare, *groups: RolloutGroup) -> tuple[StepOutput, ComputedTokens]:
        # A rank is sent what it needs, and has all that its share names.
        assert [group.group_id for group in groups] == list(share.group_ids)
        self._journal.append(("train", self._name, str(share.step), *share.group_ids))
        if share.step in self._trouble and self._name == "learner-1":
            await self._trouble.pop(share.step)()
        self.version += 1
        output = StepOutput(step=share.step, policy_version=self.version, skipped=False, bad_steps_in_a_row=0)
        keys = tuple(sequence.key for sequence in share.sequences)
        zeros_N = np.zeros(2 * len(keys), np.float32)
        tokens = ComputedTokens(
            keys=keys, lengths=(2,) * len(keys), policy_logprobs_N=zeros_N, ref_logprobs_N=zeros_N, entropies_N=zeros_N
        )
        return output, tokens

    def can_pack(self) -> bool:
        return False

    def hold_step(self, step: int) -> int | None:
        self._journal.append(("hold", self._name, str(step)))
        return {"learner-0": 2, "learner-1": self.next_pass}[self._name]

    def decide_step(self, step: int, at: int | None) -> None:
        self._journal.append(("decide", self._name, str(step), str(at)))

    def save(self, directory: str) -> None:
        (Path(directory) / self._name).write_text(str(self.version))

    def load(self, directory: str, *, is_hashed: bool = False) -> None:
        self._journal.append(("load", self._name, Path(directory).name))
        self.version = int((Path(directory) / self._name).read_text())


class Scene:
    """Two ranks. `trouble` is shared by all processes, so that each comes once."""

    def __init__(self, folder: Path, config: RunConfig = CONFIG) -> None:
        self.journal: Journal = []
        self.trouble: dict[int, Callable[[], Any]] = {}
        self.told: list[str] = []
        self.start_errors: list[Exception] = []
        ranks: Any = [Rank(self.journal, f"learner-{i}", self.trouble) for i in range(2)]
        self.fleet = fleet_of(learners=ranks)
        object.__setattr__(self.fleet, "launcher", self)
        self.recovery: Recovery = recovery_of(self.fleet, max_restarts=config.recovery.max_restarts)
        self.run = RunDirectory.create(folder / "run", config)
        self.checkpoints = Checkpoints(self.run.checkpoints_path, CheckpointConfig(), warn=self.told.append)
        self.group = LearnerGroup(
            config,
            self.fleet,
            LearnerParts(recovery=self.recovery, checkpoints=self.checkpoints, run=self.run),
            start_step=0,
            on_restart=self.told.append,
        )

    def start_together(self, role: Role[Any, Any]) -> list[FakeHandle]:
        assert role is LEARNER
        self.journal.append(("start",))
        ranks: Any = [Rank(self.journal, f"learner-{i}", self.trouble) for i in range(2)]
        for rank in ranks:
            rank.__ray_ready__ = self._ready
        return [FakeHandle(rank) for rank in ranks]

    def _ready(self) -> None:
        if self.start_errors:
            raise self.start_errors.pop(0)

    def start_deadline_s(self, _name: str) -> float:
        return 1.0

    async def train(self, step: int, *, on_record: bool = True) -> int:
        """Trains and records a step; returns the version after it."""
        groups = (scored(step, [ok(1), ok(0)]),)
        batch = TrainBatch(step=step, policy_version=step, groups=groups)
        trained = await self.group.train(batch, [scored.group.payload for scored in groups])
        if on_record:
            self.run.write_rollouts(step, [opened(scored) for scored in groups])
        return trained.outputs[0].policy_version

    async def save(self, step: int, version: int | None = None) -> None:
        state = RunState(
            step=step,
            policy_version=step if version is None else version,
            stream=PromptStreamState(index=0, seed=0, fingerprint="d"),
            ledger=LedgerState(),
            fingerprints=Fingerprints(model="m", tokenizer="t", data="d", group_size=2, config="c"),
        )
        assert await self.checkpoints.save(self.fleet, state) is not None

    def trained(self, name: str = "learner-0") -> list[int]:
        return [int(entry[2]) for entry in self.journal if entry[:2] == ("train", name)]


async def die() -> None:
    raise DIED


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.kill", lambda handle, **_: None)


def test_a_lost_rank_means_that_all_are_restarted_and_trained_from_the_checkpoint(tmp_path: Path) -> None:
    scene = Scene(tmp_path)

    async def main() -> None:
        for step in range(4):
            assert await scene.train(step) == step + 1
            if step == 1:
                await scene.save(2)
        scene.journal.clear()
        scene.trouble[4] = die
        assert await scene.train(4) == 5

    asyncio.run(main())
    assert scene.trained() == [4, 2, 3, 4]
    assert [entry for entry in scene.journal if entry[0] in ("start", "load")] == [
        ("start",),
        ("load", "learner-0", "step-00000002"),
        ("load", "learner-1", "step-00000002"),
    ]
    # The groups of the replay are those of the steps, each its own.
    assert [entry[3][:6] for entry in scene.journal if entry[:2] == ("train", "learner-0")] == [
        "000004",
        "000002",
        "000003",
        "000004",
    ]
    # A13: without determinism the same version may be other weights now, and the person is told.
    (told,) = scene.told
    assert told.startswith(f"{DIED}; all ranks were restarted and 2 steps trained again; without `deterministic` ")
    assert "the weights of version 4 that come of it may differ in their last digits" in told
    assert [learner.incarnation for learner in scene.fleet.learners] == [2, 2]
    assert scene.recovery.supervisor.num_restarts == 1
    assert scene.group.is_whole


def test_without_a_checkpoint_the_steps_are_trained_again_from_the_model(tmp_path: Path) -> None:
    scene = Scene(tmp_path)

    async def main() -> None:
        for step in range(2):
            await scene.train(step)
        scene.trouble[2] = die
        assert await scene.train(2) == 3

    asyncio.run(main())
    assert scene.trained() == [0, 1, 2, 0, 1, 2]


def test_the_last_batch_is_trained_again_from_memory_while_it_is_not_on_record(tmp_path: Path) -> None:
    scene = Scene(tmp_path)

    async def main() -> None:
        await scene.train(0)
        await scene.train(1, on_record=False)
        tries = []

        async def sync() -> str:
            tries.append(scene.trained())
            if len(tries) == 1:
                raise DIED
            return "synced"

        assert await scene.group.use(sync) == "synced"
        assert tries == [[0, 1], [0, 1, 0, 1]]

    asyncio.run(main())


def test_a_replay_that_comes_to_another_version_is_an_error(tmp_path: Path) -> None:
    scene = Scene(tmp_path)

    async def main() -> None:
        await scene.train(0)
        await scene.save(1, version=0)  # as if its step had been skipped
        await scene.train(1)
        scene.trouble[2] = die
        await scene.train(2)

    with pytest.raises(LedgerError, match="step 1 was trained from version 1, but its replay came to version 0"):
        asyncio.run(main())
    assert not scene.group.is_whole


def test_other_errors_pass_through_and_restart_nobody(tmp_path: Path) -> None:
    scene = Scene(tmp_path)

    async def of_a_sampler() -> None:
        raise ActorFailedError("sync", "sampler-0", "chunk 1", "killed", died=True)

    async def broken() -> None:
        raise CheckpointError("no such file")

    async def main() -> None:
        for work, error in ((of_a_sampler, ActorFailedError), (broken, CheckpointError)):
            with pytest.raises(error):
                await scene.group.use(work)
            assert scene.group.is_whole

    asyncio.run(main())
    assert (scene.journal, scene.recovery.supervisor.num_restarts) == ([], 0)


def test_ranks_that_cannot_start_use_the_budget_up(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.start_errors += [ActorFailedError("start", "learner-0", "start-up", "no memory", died=True)] * 9

    async def main() -> None:
        scene.trouble[0] = die
        await scene.train(0)

    with pytest.raises(RestartsExhaustedError, match="no memory"):
        asyncio.run(main())
    assert scene.recovery.supervisor.num_restarts == 3
    assert not scene.group.is_whole


def test_a_rank_that_does_not_answer_in_time_is_lost(tmp_path: Path) -> None:
    scene = Scene(tmp_path)

    async def main() -> None:
        scene.trouble[0] = lambda: asyncio.sleep(30)
        assert await scene.train(0) == 1

    asyncio.run(main())
    assert scene.trained() == [0, 0]
    timeout = StageTimeoutError("train", "learner-1", "step 0", 0.2)
    assert scene.told == [f"{timeout}; all ranks were restarted and 0 steps trained again"]


@pytest.mark.parametrize(("in_a_step", "is_whole"), [(True, False), (False, True)])
def test_what_is_cancelled_leaves_the_ranks_whole_unless_it_was_a_step(
    tmp_path: Path, in_a_step: bool, is_whole: bool
) -> None:
    scene = Scene(tmp_path)

    async def main() -> None:
        scene.trouble[0] = lambda: asyncio.sleep(0.15)
        work = scene.train(0) if in_a_step else scene.group.use(lambda: asyncio.sleep(30))
        task = asyncio.ensure_future(work)
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert scene.group.is_whole is is_whole

    asyncio.run(main())


def test_two_never_use_the_ranks_at_once(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    inside = []

    async def work() -> None:
        inside.append(1)
        assert len(inside) == 1
        await asyncio.sleep(0.01)
        inside.pop()

    async def main() -> None:
        await asyncio.gather(*(scene.group.use(work) for _ in range(5)))

    asyncio.run(main())


@pytest.mark.parametrize(("next_pass", "at"), [(5, "5"), (None, "None")])
def test_a_step_is_given_up_where_the_rank_ahead_begins_its_next_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, next_pass: int | None, at: str
) -> None:
    scene = Scene(tmp_path)
    monkeypatch.setattr(Rank, "next_pass", next_pass)
    asyncio.run(scene.group.give_up(7))
    assert scene.journal == [
        *(("hold", f"learner-{i}", "7") for i in range(2)),
        *(("decide", f"learner-{i}", "7", at) for i in range(2)),
    ]


async def given_up(*_: object) -> tuple[StepOutput, ComputedTokens]:
    raise StepGivenUpError("step 0 was given up")


def test_the_ranks_of_a_step_that_was_given_up_can_be_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(tmp_path)
    monkeypatch.setattr(Rank, "train_step", given_up)
    with pytest.raises(StepGivenUpError):
        asyncio.run(scene.train(0))
    assert scene.group.is_whole
    assert scene.told == []


def test_ranks_of_which_one_alone_gave_a_step_up_are_started_again(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.trouble[0] = given_up
    assert asyncio.run(scene.train(0)) == 1
    (told,) = scene.told
    assert told.startswith("train: learner-0 failed on the end of step 0: it took the step, which others gave up; all ")


def test_a_step_is_not_begun_again_that_was_given_up_while_ranks_were_started(tmp_path: Path) -> None:
    scene = Scene(tmp_path)

    async def main() -> None:
        await scene.train(0)

        async def asked_and_died() -> None:
            await scene.group.give_up(1)
            raise DIED

        scene.trouble[1] = asked_and_died
        with pytest.raises(StepGivenUpError):
            await scene.train(1)

    asyncio.run(main())
    assert scene.trained() == [0, 1, 0]
    assert scene.group.is_whole


def test_a_restart_that_was_cut_short_is_made_up_for_and_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(tmp_path)

    async def main() -> None:
        await scene.train(0)
        is_reached = asyncio.Event()

        async def endless(_: object) -> None:
            is_reached.set()
            await asyncio.Event().wait()

        async def sync() -> None:
            raise DIED

        with monkeypatch.context() as patched:
            patched.setattr(Fleet, "restart_learners", endless)
            work = asyncio.ensure_future(scene.group.use(sync))
            await is_reached.wait()
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
        assert scene.group.is_whole, "what uses the ranks next starts them again first"

        async def save() -> list[int]:
            return scene.trained()

        assert await scene.group.use(save) == [0, 0]

    asyncio.run(main())
    assert scene.recovery.supervisor.num_restarts == 1

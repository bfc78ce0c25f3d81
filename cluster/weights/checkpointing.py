"""A run's checkpoints: all learner ranks and the run's own state, written aside, checked, then published whole."""

import asyncio
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from cluster.config import CheckpointConfig
from cluster.errors import ActorFailedError, GroupsLostError, ResumeError
from cluster.fleet.actors import Fleet
from cluster.fleet.deadlines import finish_all
from cluster.fleet.objects import Objects, open_groups
from cluster.weights.run_state import Fingerprints, RunState, read_run_state, without_groups, write_run_state
from learner.saving.files import (
    UNFINISHED_PREFIX,
    checkpoint_name,
    newest_valid,
    publish,
    published,
    rotate,
    unfinished_path,
    verify_manifest,
    write_manifest,
)
from rollout.errors import CheckpointError, ShoalError
from rollout.types import RolloutGroup

SET_ASIDE_PREFIX = "set-aside-"
REASON = "reason.txt"


class Checkpoints:
    """The checkpoints of one run directory."""

    def __init__(
        self,
        folder: Path,
        config: CheckpointConfig,
        *,
        warn: Callable[[str], None],
        on_set_aside: Callable[[str, str], None] | None = None,
        on_not_written: Callable[[str, str], None] | None = None,
    ) -> None:
        """`on_set_aside` is told the name of each damaged checkpoint, and what is wrong with it; `on_not_written` the
        name of each that could not be written, and why."""
        # The ranks read it from working directories of their own.
        self._folder = folder.absolute()
        self._config = config
        self._warn = warn
        self._on_set_aside = on_set_aside
        self._written: Path | None = None
        """The newest that this process wrote: it was hashed then, and need not be to be known."""
        self._on_not_written = on_not_written

    async def save(self, fleet: Fleet, state: RunState) -> Path | None:
        """Writes a checkpoint; returns where it lies.

        A disk that is full, or any other refusal to write, is a warning and None: the run goes on, the checkpoint
        before stays, nothing half-written is left behind, and the next save tries again.

        Errors: `ActorFailedError` of a rank whose process is gone: it has to be restarted before anything is saved.
        """
        final = self._folder / checkpoint_name(state.step)
        unfinished = unfinished_path(final)
        try:
            is_hashed = final == self._written
            if final.exists() and not await asyncio.to_thread(_why_not_whole, final, is_hashed=is_hashed):
                return final  # Stopped right after a periodic save: the same state is there already.
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True, exist_ok=True)
            await self._save_learners(fleet, unfinished)
            state, waiting = await _open_waiting(fleet.objects, state)
            await asyncio.to_thread(_complete, unfinished, state, waiting)
            for path in published(self._folder):
                # The run went on from an older one, so these were damaged. They would be in the way of this one, or be
                # taken for the newest and this one removed in their place.
                if path.name >= final.name:
                    why = await asyncio.to_thread(_why_not_whole, path)
                    self._set_aside(path, why or "it is newer than the one that the run went on from")
            await asyncio.to_thread(publish, unfinished, final)
            self._written = final
        except (OSError, ShoalError) as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            if isinstance(error, ActorFailedError) and error.died:
                raise
            self._warn(f"checkpoint of step {state.step} was not written, the one before stays: {error}")
            if self._on_not_written is not None:
                self._on_not_written(final.name, str(error))
            return None
        try:
            await asyncio.to_thread(rotate, self._folder, self._config.keep)
        except OSError as error:
            self._warn(f"checkpoints older than the newest {self._config.keep} could not be removed: {error}")
        return final

    def remove_unfinished(self) -> None:
        """What a save that failed has left, or a rank that was late wrote after it; nobody may be writing any more."""
        for path in self._folder.glob(UNFINISHED_PREFIX + "*"):
            shutil.rmtree(path, ignore_errors=True)

    def exists(self) -> bool:
        """Whether there is any, valid or not."""
        return bool(published(self._folder))

    def were_written(self) -> bool:
        """Whether there is any, or was before it was set aside."""
        return self.exists() or bool(list(self._folder.glob(SET_ASIDE_PREFIX + "*")))

    def newest(self) -> tuple[Path, RunState]:
        """The newest checkpoint that is as it was written. Damaged ones that are newer are set aside.

        Errors: `ResumeError` when there is none.
        """
        return self._to_resume(*_newest_and_damaged(self._folder))

    async def newest_beside(self) -> tuple[Path, RunState]:
        """As `newest`, from a run that goes on: every byte is read, which takes minutes where there are many."""
        return self._to_resume(*await asyncio.to_thread(_newest_and_damaged, self._folder))

    def _to_resume(self, path: Path | None, damaged: list[tuple[Path, str]]) -> tuple[Path, RunState]:
        for bad, reason in damaged:
            self._set_aside(bad, reason)
        if path is None:
            raise ResumeError(f"{self._folder} has no complete checkpoint: nothing can be resumed; start the run anew")
        return path, read_run_state(path)

    async def load_learners(self, fleet: Fleet, checkpoint: Path) -> None:
        """Brings the ranks to a checkpoint that `newest` or `newest_beside` gave: every byte of it was compared."""
        await finish_all(
            [learner.handle.load.remote(str(checkpoint), is_hashed=True) for learner in fleet.learners],
            deadline_s=self._config.deadline_s,
            stage="resume",
            actors=[learner.name for learner in fleet.learners],
            item=str(checkpoint),
        )

    async def _save_learners(self, fleet: Fleet, unfinished: Path) -> None:
        await finish_all(
            [learner.handle.save.remote(str(unfinished)) for learner in fleet.learners],
            deadline_s=self._config.deadline_s,
            stage="save",
            actors=[learner.name for learner in fleet.learners],
            item=str(unfinished),
        )

    def _set_aside(self, path: Path, reason: str) -> None:
        """Out of the way of everything that looks for checkpoints, and kept for who wants to know what happened."""
        place = path.with_name(SET_ASIDE_PREFIX + path.name)
        number = 1
        while place.exists():
            number += 1
            place = path.with_name(f"{SET_ASIDE_PREFIX}{path.name}-{number}")
        try:
            path.rename(place)
            (place / REASON).write_text(reason + "\n")
        except OSError as error:  # it is never loaded, wherever it lies
            self._warn(f"{path.name} is passed over, and could not be set aside ({error.strerror}): {reason}")
            return
        self._warn(f"{path.name} is passed over and set aside as {place.name}: {reason}")
        if self._on_set_aside is not None:
            self._on_set_aside(path.name, reason)


def _newest_and_damaged(folder: Path) -> tuple[Path | None, list[tuple[Path, str]]]:
    damaged: list[tuple[Path, str]] = []
    path = newest_valid(folder, on_invalid=lambda bad, error: damaged.append((bad, str(error))))
    return path, damaged


async def _open_waiting(objects: Objects, state: RunState) -> tuple[RunState, list[RolloutGroup]]:
    """The completions of the waiting groups; those that are gone are given back in the state."""
    try:
        return state, await open_groups(objects, [scored.group for scored in state.scored])
    except GroupsLostError as error:
        state = without_groups(state, error.group_ids)
        return state, await open_groups(objects, [scored.group for scored in state.scored])


def _complete(unfinished: Path, state: RunState, waiting: Sequence[RolloutGroup]) -> None:
    write_run_state(unfinished, state, waiting)
    write_manifest(unfinished)


def _why_not_whole(checkpoint: Path, *, is_hashed: bool = False) -> str:
    """ "" when it is as it was written."""
    try:
        verify_manifest(checkpoint, is_hashed=is_hashed)
    except CheckpointError as error:
        return str(error)
    return ""


def check_fingerprints(now: Fingerprints, then: Fingerprints, run: Path) -> None:
    """Errors: `ResumeError` naming what changed since the run was started."""
    changed = [
        (what, old, new)
        for what, old, new in (
            ("model", then.model, now.model),
            ("tokenizer", then.tokenizer, now.tokenizer),
            ("learner.teacher", now.teacher if then.teacher is None else then.teacher, now.teacher),
            ("data", then.data, now.data),
            ("rollout.group_size", then.group_size, now.group_size),
        )
        if old != new
    ]
    if changed:
        what, old, new = changed[0]
        raise ResumeError(
            f"{run} cannot be resumed: its {what} changed (was {_short(old)}, is {_short(new)}); restore it, or "
            "start a new run"
        )


def _short(value: object) -> str:
    return str(value)[:12] or "none"

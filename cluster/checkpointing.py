"""A run's checkpoints: all learner ranks and the run's own state, written aside, checked, then published whole."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

from cluster.actors import Fleet
from cluster.config import CheckpointConfig
from cluster.deadlines import finish_all
from cluster.errors import ResumeError
from cluster.run_state import Fingerprints, RunState, read_run_state, write_run_state
from learner.checkpoint_files import (
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


class Checkpoints:
    """The checkpoints of one run directory."""

    def __init__(self, folder: Path, config: CheckpointConfig, *, warn: Callable[[str], None]) -> None:
        self._folder = folder
        self._config = config
        self._warn = warn

    async def save(self, fleet: Fleet, state: RunState) -> Path | None:
        """Writes a checkpoint; returns where it lies.

        A disk that is full, or any other refusal to write, is a warning and None: the run goes on, the checkpoint
        before stays, nothing half-written is left behind, and the next save tries again.
        """
        final = self._folder / checkpoint_name(state.step)
        unfinished = unfinished_path(final)
        try:
            if final.exists() and await asyncio.to_thread(_is_whole, final):
                return final  # Stopped right after a periodic save: the same state is there already.
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
            await self._save_learners(fleet, unfinished)
            await asyncio.to_thread(self._complete, unfinished, final, state)
        except (OSError, ShoalError) as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            self._warn(f"checkpoint of step {state.step} was not written, the one before stays: {error}")
            return None
        return final

    def newest(self) -> tuple[Path, RunState]:
        """The newest checkpoint that is as it was written.

        Errors: `ResumeError` when there is none.
        """

        def passed_over(path: Path, error: CheckpointError) -> None:
            self._warn(f"{path.name} is passed over: {error}")

        path = newest_valid(self._folder, on_invalid=passed_over)
        if path is None:
            raise ResumeError(f"{self._folder} has no complete checkpoint: nothing can be resumed; start the run anew")
        return path, read_run_state(path)

    async def load_learners(self, fleet: Fleet, checkpoint: Path) -> None:
        await finish_all(
            [learner.handle.load.remote(str(checkpoint.resolve())) for learner in fleet.learners],
            deadline_s=self._config.deadline_s,
            stage="resume",
            actors=[learner.name for learner in fleet.learners],
            item=str(checkpoint),
        )

    async def _save_learners(self, fleet: Fleet, unfinished: Path) -> None:
        await finish_all(
            [learner.handle.save.remote(str(unfinished.resolve())) for learner in fleet.learners],
            deadline_s=self._config.deadline_s,
            stage="save",
            actors=[learner.name for learner in fleet.learners],
            item=str(unfinished),
        )

    def _complete(self, unfinished: Path, final: Path, state: RunState) -> None:
        write_run_state(unfinished, state)
        write_manifest(unfinished)
        verify_manifest(unfinished)
        for path in published(self._folder):
            # The run resumed from an older one, so these were damaged. They would be in the way of this one, or be
            # taken for the newest and this one removed in their place.
            if path.name >= final.name:
                shutil.rmtree(path)
        publish(unfinished, final)
        rotate(self._folder, self._config.keep)


def _is_whole(checkpoint: Path) -> bool:
    try:
        verify_manifest(checkpoint)
    except CheckpointError:
        return False
    return True


def check_fingerprints(now: Fingerprints, then: Fingerprints, run: Path) -> None:
    """Errors: `ResumeError` naming what changed since the run was started."""
    changed = [
        (what, old, new)
        for what, old, new in (
            ("model", then.model, now.model),
            ("tokenizer", then.tokenizer, now.tokenizer),
            ("data", then.data, now.data),
            ("rollout.group_size", then.group_size, now.group_size),
        )
        if old != new
    ]
    if changed:
        what, old, new = changed[0]
        raise ResumeError(
            f"{run} cannot be resumed: its {what} changed (was {str(old)[:12]}, is {str(new)[:12]}); restore it, or "
            "start a new run"
        )

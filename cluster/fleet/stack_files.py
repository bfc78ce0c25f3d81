"""What the processes of a run were doing, as files in its directory: when it stalls, when an actor does not answer."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from cluster.fleet.actors import Actor, Fleet
from cluster.fleet.stacks import own_stacks
from cluster.record.append_log import RunWriteError
from cluster.record.run_directory import RunDirectory
from cluster.types import Event, EventKind, Instant


class StackFiles:
    """Writes what processes are doing into the run directory. `warn` tells the person and the record."""

    def __init__(self, fleet: Fleet, run: RunDirectory, warn: Callable[[str], None]) -> None:
        self._fleet = fleet
        self._run = run
        self._warn = warn

    async def write(self, actors: Sequence[Actor[Any]]) -> str:
        """Writes the stacks of these actors and of the controller; returns where. A disk that refuses is a warning,
        since this is done when something else is wrong already."""
        texts = {"controller": own_stacks()}
        # One after the other: the task that reads them then finds the process of the one before it.
        for actor in actors:
            texts[actor.name] = await self._fleet.launcher.stacks(actor.name)
        try:
            return self._run.write_stacks(texts)
        except RunWriteError as error:
            self._warn(f"the stacks were not written: {error}")
            return "nowhere"

    async def on_hung(self, actors: Sequence[Actor[Any]]) -> None:
        """Before their processes are replaced: where they were."""
        place = await self.write(actors)
        names, are = ", ".join(actor.name for actor in actors), "are" if len(actors) > 1 else "is"
        whose = "their" if len(actors) > 1 else "its"
        self._warn(f"{names} did not answer in time and {are} started again; {whose} stacks are in {place}")

    def record_stall(self, text: str, **facts: Any) -> None:
        """The event of a stall, and a warning."""
        at_s = time.time()
        extra = {"name": Instant.STALL, "text": text, **facts}
        with suppress(RunWriteError):  # what tells of a fault does not end the run
            self._run.append_event(
                Event(kind=EventKind.INSTANT, actor="controller", start_s=at_s, end_s=at_s, extra=extra)
            )
        self._warn(text)

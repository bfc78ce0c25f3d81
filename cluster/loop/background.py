"""Tasks beside the loop of a run: the first of them to fail ends it."""

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from cluster.record.group_table import load_libraries

SWITCH_S = 0.001
"""How long a thread that plans or writes keeps the interpreter's lock when the loop asks for it. With Python's 5 ms,
two such threads passed it to each other for up to 60 ms."""


def settle() -> None:
    """Once, before a loop begins: what was made until now, the modules of large libraries above all, lives as long as
    the process, and the garbage collector need not walk it again and again. One such walk took 80 ms of the loop, in
    whichever thread it fell. So what is imported later is imported here."""
    load_libraries()  # or 350 modules come after, half of what there is to walk at 8,192 completions
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(SWITCH_S)


class BackgroundTasks:
    """Tasks that run while the loop does. Made inside the event loop."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._interruptible = asyncio.Event()
        self._interruptible.set()

    @property
    def has_failed(self) -> bool:
        """Whether a task has failed: what runs beside the tasks is about to be cancelled."""
        return self._failed.done()

    @asynccontextmanager
    async def uninterrupted(self) -> AsyncIterator[None]:
        """What runs in here, within `run_beside`, is not cancelled for the error of a task before it leaves. After such
        an error nothing enters any more."""
        await self._wait_if_failed()
        self._interruptible.clear()
        try:
            yield
        finally:
            self._interruptible.set()
        await self._wait_if_failed()

    async def _wait_if_failed(self) -> None:
        if self._failed.done():
            await asyncio.Event().wait()  # until the cancellation that was held back arrives

    async def unless_failed(self, work: Coroutine[Any, Any, None]) -> bool:
        """Runs `work`; False, and `work` is cancelled, when a task has failed before it ended. For what waits within
        `uninterrupted` for something that the task which failed may have had to do."""
        main = asyncio.ensure_future(work)
        try:
            await asyncio.wait((main, self._failed), return_when=asyncio.FIRST_COMPLETED)
            if not main.done():
                return False
            main.result()
            return True
        finally:
            main.cancel()
            await asyncio.gather(main, return_exceptions=True)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Starts `work`; what it raises ends what `run_beside` runs."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def run_beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs `work`; the first error of a task cancels it and is raised in its place."""
        main = asyncio.ensure_future(work)
        try:
            await asyncio.wait((main, self._failed), return_when=asyncio.FIRST_COMPLETED)
            if self._failed.done():
                # Looked at anew after each wait: what waits there in turn may have been quicker, and begun again.
                while not (main.done() or self._interruptible.is_set()):
                    left = asyncio.ensure_future(self._interruptible.wait())
                    await asyncio.wait((main, left), return_when=asyncio.FIRST_COMPLETED)
                    left.cancel()
                self._failed.result()
            main.result()
        finally:
            main.cancel()
            await asyncio.gather(main, return_exceptions=True)
            if not self._failed.done():
                self._failed.cancel()

    async def cancel(self) -> None:
        """Ends all tasks, those that they start while they end too, and returns when none is left."""
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        # Asked for in every case: asyncio prints the trace of an error that nobody has read, long after the run's own.
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._failed.done():
            self._failed.set_exception(error)
            self._failed.exception()  # read too: what runs beside may have ended by now

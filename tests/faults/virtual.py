"""An event loop whose time is a number, and processes that live in it: hours of a run pass in milliseconds.

Nothing is waited for in earnest: when every task sleeps, time jumps to the first that wakes. A `Process` stands for a
Ray actor, with the ends that one can come to: killed, hung, slow, raising. `in_virtual_time` also replaces what the
real code asks the clock, Ray and the disk for.
"""

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, TypeVar
from unittest.mock import patch

import ray.exceptions

from cluster.fleet.recovery import Recovery
from rollout.errors import EngineError
from rollout.transfer.manifest import WeightChunk
from tests.cluster.fakes import Stored, Vanishing, first_result

T = TypeVar("T")
START_S = 1_700_000_000.0
LIMIT_S = 15_000.0
"""Virtual seconds after which a run is taken to hang: far above all its deadlines together."""


class StuckError(AssertionError):
    """Everyone waits and nobody has a deadline."""


class _JumpingSelector(selectors.DefaultSelector):
    """Does not sleep: tells the loop how long it would have."""

    passed_s = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise StuckError("every task waits for another, and none has a deadline")
        self.passed_s += max(timeout, 0.0)
        if self.passed_s > LIMIT_S:
            raise StuckError(f"the run has not ended after {LIMIT_S:g} virtual seconds")
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time; `time()` counts from 0."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)
        # Ray tells nobody of answers that were not asked for; neither do we.
        self.set_exception_handler(lambda _loop, _context: None)

    def time(self) -> float:
        return self._jumping.passed_s

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> "asyncio.Future[T]":  # type: ignore[override]
        """At once: a thread would take real time."""

        async def call() -> T:
            return func(*args)

        return self.create_task(call())


def in_virtual_time(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Runs `main` to its end. Errors: those of `main`; `StuckError`."""
    loop = VirtualLoop()
    with ExitStack() as stack:
        for target, value in (
            ("time.monotonic", loop.time),
            ("time.time", lambda: START_S + loop.time()),
            ("cluster.fleet.recovery.TICK_S", 1.0),  # looking so often is most of what a quiet minute costs
            ("os.fsync", lambda _: None),
            ("ray.kill", lambda process, **_: process.kill()),
        ):
            stack.enter_context(patch(target, value))
        stack.enter_context(patch.dict(Recovery.__init__.__kwdefaults__, clock=loop.time))
        try:
            return loop.run_until_complete(main())
        finally:
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()


class Ref:
    """What a remote call returns: giving up the wait for it does not touch the call."""

    def __init__(self, task: "asyncio.Future[Any]") -> None:
        self.task = task

    def __await__(self) -> Generator[Any, None, Any]:
        return asyncio.shield(self.task).__await__()


Interfere = Callable[[str, str], "tuple[str, float] | None"]
"""(actor, method) of a call that begins -> the fault that meets it, as (kind, virtual seconds)."""


class Process:
    """The process of an actor, with `worker` in it. It stands for the actor's Ray handle."""

    def __init__(self, name: str, worker: object, *, start_s: float, interfere: Interfere) -> None:
        self.name = name
        self.worker = worker
        self._interfere = interfere
        self._died: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._resumed = asyncio.Event()
        self._resumed.set()
        self._ready_at = asyncio.get_running_loop().time() + start_s

    @property
    def is_alive(self) -> bool:
        return not self._died.done()

    def kill(self) -> None:
        """SIGKILL: whoever waits for an answer learns of it."""
        if self.is_alive:
            self._died.set_result(None)

    def hang(self, duration_s: float) -> None:
        """SIGSTOP, and SIGCONT after `duration_s`."""
        self._resumed.clear()
        asyncio.get_running_loop().call_later(duration_s, self._resumed.set)

    def __getattr__(self, method: str) -> Any:
        return _Method(self, method)

    def call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Ref:
        return Ref(asyncio.ensure_future(self._call(method, args, kwargs)))

    async def _call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        work = asyncio.ensure_future(self._work(method, args, kwargs))
        await asyncio.wait((work, self._died), return_when=asyncio.FIRST_COMPLETED)
        if not self.is_alive:
            work.cancel()
            raise ray.exceptions.ActorDiedError
        return work.result()

    async def _work(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.001, self._ready_at - loop.time()))
        fault, duration_s = self._interfere(self.name, method) or ("", 0.0)
        if fault == "kill":
            self.kill()
        elif fault == "hang":
            self.hang(duration_s)
        elif fault == "slow":
            await asyncio.sleep(duration_s)
        elif fault == "raise":
            task_error: Any = ray.exceptions.RayTaskError  # its constructor has no types
            raise task_error(method, "Traceback", RuntimeError("injected"))
        elif fault == "engine":
            raise EngineError(f"{self.name}: the engine failed (injected)")
        await self._resumed.wait()
        values = [await arg if isinstance(arg, Ref | Stored) else arg for arg in args]
        if fault == "corrupt":
            values[0] = _damaged(values[0])
        if method in ("ready", "start", "__ray_ready__"):
            return None
        result = getattr(self.worker, method)(*values, **kwargs)
        result = await result if isinstance(result, Awaitable) else result
        await self._resumed.wait()  # stopped meanwhile
        if fault == "lose":
            gone_at = loop.time() + duration_s
            result = (result[0], Vanishing(result[1], lambda: loop.time() >= gone_at))
        return result


def _damaged(chunk: WeightChunk) -> WeightChunk:
    """With a bit that is another one."""
    told = chunk.data if chunk.delta is None else chunk.delta.data
    data = told.copy()
    data[len(data) // 2] ^= 1
    return replace(chunk, data=data) if chunk.delta is None else replace(chunk, delta=replace(chunk.delta, data=data))


class _Method:
    def __init__(self, process: Process, name: str) -> None:
        self._process = process
        self._name = name

    def options(self, *, num_returns: int = 1, concurrency_group: str = "") -> Any:
        if concurrency_group:
            assert concurrency_group == "beside"
            return self
        assert num_returns == 2
        return _TwoResults(self)

    def remote(self, *args: Any, **kwargs: Any) -> Ref:
        return self._process.call(self._name, args, kwargs)


class _TwoResults:
    def __init__(self, method: _Method) -> None:
        self._method = method

    def remote(self, *args: Any, **kwargs: Any) -> tuple[Ref, Stored]:
        call = self._method.remote(*args, **kwargs).task
        return Ref(asyncio.ensure_future(first_result(call))), Stored(call)

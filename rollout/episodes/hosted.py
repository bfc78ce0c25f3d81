"""Worlds in processes of their own: one for each episode, forked from a template that has imported the environment.

A process that hangs is killed at the deadline of its call, with all that it started; one that dies, or answers with
something that is no answer, has failed. All of it is a `WorldError`, and the episode is played again.
"""

import asyncio
import itertools
import json
import pickle
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from rollout.children.messages import LENGTH, PeerClosedError
from rollout.children.owned_template import Child, Kind, Template
from rollout.episodes.environment import Done, Limits, Message, Messages, Reply, Task, ToolCall
from rollout.errors import WorldError

MAX_RESULT_CHARS = 20_000
"""Of a tool's result: what is longer is cut, and says so."""
MAX_ANSWER_BYTES = 16 * 2**20
"""Of an answer of a world: more than any model reads."""
STOP_S = 2.0
"""What a world may take to give back what it holds."""
ENDING: set["asyncio.Task[None]"] = set()
"""Ends of processes that go on although who asked for them was cancelled; a loop keeps no task by itself."""


class WorldTemplate:
    """Forks worlds of one environment.

    Errors: `ConfigError` for an environment that cannot be loaded; `WorldError` where its module was not imported in
    time, or ended the process.
    """

    def __init__(self, path: str, params: Mapping[str, Any], *, start_deadline_s: float = 120.0) -> None:
        """Blocks until the environment is imported."""
        self._kind = Kind(
            body="rollout.episodes.host:WorldBody",
            error=WorldError,
            what=f"the modules of environment {path}",
            setting="task.start_deadline_s",
        )
        self._payload = (path, dict(params), MAX_RESULT_CHARS)
        self._start_deadline_s = start_deadline_s
        self._replacing = asyncio.Lock()
        self._template = Template(self._kind, self._payload, start_deadline_s)
        told = self._template.greeting
        self.limits = Limits(**told["limits"])
        self.schemas: list[dict[str, Any]] = told["schemas"]
        """JSON schemas of the tools."""
        self.replayable: bool = told["replayable"]

    async def world(self, *, call_s: float) -> "HostedWorld":
        """A fresh process. Errors: `WorldError`."""
        template = self._template
        try:
            child = await _forked(template)
        except (PeerClosedError, TimeoutError):
            # The template died, for example taken by the kernel when memory ran out; nothing was asked yet.
            await asyncio.shield(asyncio.ensure_future(self._replace(template)))
            template = self._template
            try:
                child = await _forked(template)
            except (PeerClosedError, TimeoutError) as error:
                raise WorldError(
                    f"no process for {self._kind.what} could be forked, twice in a row: {error}"
                ) from error
        return await HostedWorld.of(template, child, call_s=call_s)

    async def openings(self, tasks: Sequence[Task], *, deadline_s: float) -> list[tuple[Message, ...]]:
        """What a world begins with, for each task: all in one process. Errors: `WorldError`."""
        world = await self.world(call_s=deadline_s)
        try:
            return await world.openings(tasks)
        finally:
            await world.stop()

    async def _replace(self, dead: Template) -> None:
        """Of many that find it dead, the first starts another."""
        async with self._replacing:
            if self._template is dead:
                await asyncio.to_thread(dead.close)
                self._template = await asyncio.to_thread(Template, self._kind, self._payload, self._start_deadline_s)

    def close(self) -> None:
        """Ends the template and all worlds; idempotent."""
        self._template.close()


async def _forked(template: Template) -> Child:
    """A fresh child. One that came when nobody waited for it any more is ended."""
    fork = asyncio.ensure_future(asyncio.to_thread(template.fork))
    try:
        return await asyncio.shield(fork)
    except asyncio.CancelledError:
        fork.add_done_callback(lambda done: _end_unwanted(template, done))
        raise


def _end_unwanted(template: Template, fork: "asyncio.Future[Child]") -> None:
    if fork.cancelled() or fork.exception() is not None:
        return
    reaped = asyncio.get_running_loop().run_in_executor(None, template.reap, fork.result())
    reaped.add_done_callback(lambda done: done.exception())  # a template that is gone has taken it along


class HostedWorld:
    """A world in a process of its own: a `rollout.episodes.runner.World`."""

    def __init__(
        self,
        template: Template,
        child: Child,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        call_s: float,
    ) -> None:
        self._template = template
        self._child: Child | None = child
        self._reader = reader
        self._writer = writer
        self._call_s = call_s
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._failure: WorldError | None = None
        self._listening = asyncio.create_task(self._listen())
        self._ending: asyncio.Task[None] | None = None

    @classmethod
    async def of(cls, template: Template, child: Child, *, call_s: float) -> "HostedWorld":
        """Of a child that was just forked."""
        reader, writer = await asyncio.open_connection(sock=child.requests, limit=MAX_ANSWER_BYTES)
        return cls(template, child, reader, writer, call_s=call_s)

    @property
    def pid(self) -> int | None:
        """Of the process; None when it was ended."""
        return self._child.pid if self._child is not None else None

    async def start(self, task: Task) -> Messages:
        """As in `World`."""
        return _messages(await self._ask("start", task))

    async def openings(self, tasks: Sequence[Task]) -> list[tuple[Message, ...]]:
        """What it would begin with, for each task."""
        answer = await self._ask("openings", list(tasks))
        if not isinstance(answer, list) or len(answer) != len(tasks):
            raise await self._failed("its openings are no list with one for each task")
        return [tuple(_messages(one)) for one in answer]

    async def respond(self, reply: Reply) -> Messages | Done:
        """As in `World`."""
        answer = await self._ask("respond", reply)
        if isinstance(answer, dict) and "scores" in answer:
            return Done(scores={str(name): float(value) for name, value in answer["scores"].items()})
        return _messages(answer)

    async def call(self, call: ToolCall) -> str:
        """As in `World`."""
        answer = await self._ask("call", call)
        if not isinstance(answer, dict) or not isinstance(answer.get("text"), str):
            raise await self._failed(f"its answer to {call.name} is no text")
        return str(answer["text"])

    async def stop(self) -> None:
        """Lets the world give back what it holds, and ends the process with all that it started. Idempotent."""
        await self._end(has_say=self._failure is None)

    async def _end(self, *, has_say: bool) -> None:
        """Ends the process, once, whoever is cancelled meanwhile. One that still answers gives back what it holds."""
        if self._ending is None:
            self._ending = asyncio.create_task(self._ended(has_say))
            ENDING.add(self._ending)
            self._ending.add_done_callback(ENDING.discard)
        await asyncio.shield(self._ending)

    async def _ended(self, has_say: bool) -> None:
        if has_say:
            with suppress(TimeoutError, WorldError):  # it is killed in any case, and the episode is over
                async with asyncio.timeout(STOP_S):
                    await self._send("stop", None)
        self._fail(WorldError("the environment failed: its episode was given up"))
        self._listening.cancel()
        self._writer.close()
        assert self._child is not None
        with suppress(PeerClosedError, TimeoutError):  # the template is gone, and the process with it
            await asyncio.to_thread(self._template.reap, self._child)
        self._child = None

    async def _ask(self, method: str, argument: Any) -> Any:
        try:
            async with asyncio.timeout(self._call_s):
                answer = await self._send(method, argument)
        except TimeoutError:
            raise await self._failed(f"{method} did not answer within {self._call_s:g} s") from None
        if "raised" in answer:
            raise await self._failed(str(answer["raised"]), has_say=True)
        return answer.get("ok")

    async def _send(self, method: str, argument: Any) -> dict[str, Any]:
        if self._failure is not None:
            raise self._failure
        number = next(self._numbers)
        done: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = done
        payload = pickle.dumps((number, method, argument), protocol=pickle.HIGHEST_PROTOCOL)
        with suppress(ConnectionError):  # it has died: whoever listens says so
            self._writer.write(LENGTH.pack(len(payload)) + payload)
            await self._writer.drain()
        try:
            return await done
        finally:
            self._waiting.pop(number, None)

    async def _listen(self) -> None:
        """Hands answers to who waits for them, until the process says something that is none, or nothing any more."""
        why = "its process died"
        try:
            while True:
                (length,) = LENGTH.unpack(await self._reader.readexactly(LENGTH.size))
                if length > MAX_ANSWER_BYTES:
                    why = f"its answer has {length:,} bytes, more than {MAX_ANSWER_BYTES:,}"
                    break
                message = json.loads(await self._reader.readexactly(length))
                if not isinstance(message, dict):
                    why = "its process answered with something that is no answer"
                    break
                waiting = self._waiting.get(message.get("number", -1))
                if waiting is not None and not waiting.done():
                    waiting.set_result(message)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except ValueError:
            why = "its process answered with something that is no answer"
        self._fail(WorldError(f"the environment failed: {why}"))

    def _fail(self, failure: WorldError) -> WorldError:
        self._failure = self._failure or failure
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(self._failure)
        return self._failure

    async def _failed(self, why: str, *, has_say: bool = False) -> WorldError:
        failure = WorldError(f"the environment failed: {why}")
        if not has_say:
            failure = self._fail(failure)
        await self._end(has_say=has_say)
        return failure


def _messages(answer: Any) -> Messages:
    """Of a process that has run the user's code, and is not believed blindly. Raises WorldError."""
    try:
        return [
            Message(
                role=str(one["role"]),
                content=str(one["content"]),
                tool_calls=tuple(ToolCall(**call) for call in one["tool_calls"]),
                name=str(one["name"]),
                call_id=str(one["call_id"]),
            )
            for one in answer
        ]
    except (TypeError, KeyError) as error:
        raise WorldError(f"the environment failed: its answer is no list of messages ({error})") from error

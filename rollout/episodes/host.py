"""What runs in the process of an episode: one environment, asked over a socket.

    owner (`rollout.episodes.hosted`) --request (pickle)--> this process --answer (JSON)--> owner

The process is expendable: its owner kills it at a deadline, so nothing here watches the clock. Requests carry a number,
since tools that are called in one reply run side by side.
"""

import asyncio
import concurrent.futures.thread  # noqa: F401  # what is imported late is imported here, or each child would do it
import inspect
import json
import math
import pickle
import random
import socket
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy.random

from rollout.call_params import checked_params
from rollout.children.messages import LENGTH
from rollout.children.template import import_what_it_imports
from rollout.episodes.environment import Done, Environment, Message, Reply, Task, ToolCall, tools_of
from rollout.episodes.tools import ToolError, as_text, checked_call, in_words, schemas_of
from rollout.errors import ConfigError
from rollout.module_loading import load_object

MAX_ERROR_CHARS = 300


class WorldBody:
    """`rollout.children.template.Body`, made in the template. Errors: `ConfigError` for a class that is none."""

    def __init__(self, payload: tuple[str, Mapping[str, Any], int]) -> None:
        path, params, self._max_result_chars = payload
        self._kind = environment_class(path)
        self._params = checked_params(self._kind.__init__, params, what=f"environment {path!r}", given="itself")
        for _, method in inspect.getmembers(self._kind, inspect.isfunction):
            import_what_it_imports(method)
        self.greeting = {
            "limits": asdict(self._kind.limits),
            "schemas": schemas_of(self._kind),
            "replayable": bool(self._kind.replayable),
        }

    def serve(self, requests: socket.socket) -> None:
        """Answers until the owner closes its end."""
        asyncio.run(_serve(requests, lambda: self._kind(**self._params), self._max_result_chars))


def environment_class(path: str) -> type[Environment]:
    """What `module:Class` names. Errors: `ConfigError`."""
    found = load_object(path, what=f"environment {path!r}")
    if not isinstance(found, type) or not issubclass(found, Environment):
        raise ConfigError(f"environment {path!r} is no class that is derived from Environment")
    if found.start is Environment.start:
        raise ConfigError(f"environment {path!r} has no method `start`, which says what an episode begins with")
    if found.respond is Environment.respond and not tools_of(found):
        raise ConfigError(f"environment {path!r} has neither a method `respond` nor a tool, so that nothing happens")
    return found


async def _serve(requests: socket.socket, make: Callable[[], Environment], max_result_chars: int) -> None:
    reader, writer = await asyncio.open_connection(sock=requests)
    world = _World(make, max_result_chars)
    running: set[asyncio.Task[None]] = set()
    while True:
        try:
            (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
            number, method, argument = pickle.loads(await reader.readexactly(length))
        except asyncio.IncompleteReadError:
            return

        async def answer(number: int = number, method: str = method, argument: Any = argument) -> None:
            payload = await world.answer(number, method, argument)
            writer.write(LENGTH.pack(len(payload)) + payload)
            await writer.drain()

        task = asyncio.create_task(answer())
        running.add(task)
        task.add_done_callback(running.discard)


class _World:
    def __init__(self, make: Callable[[], Environment], max_result_chars: int) -> None:
        self._make = make
        self._max_result_chars = max_result_chars
        self._environment: Environment | None = None

    async def answer(self, number: int, method: str, argument: Any) -> bytes:
        """JSON, with `ok` or `raised`."""
        try:
            return json.dumps({"number": number, "ok": await getattr(self, f"_{method}")(argument)}).encode("ascii")
        except BaseException as error:  # noqa: BLE001 - boundary: user code, which may raise anything, SystemExit included
            raised = one_line(f"{method} raised {in_words(error)}")
            return json.dumps({"number": number, "raised": raised}).encode("ascii")

    async def _start(self, task: Task) -> list[dict[str, Any]]:
        # A process of its own: what a world draws from the global generators is of this episode alone.
        random.seed(task.sample_seed)
        numpy.random.seed(task.sample_seed % 2**32)
        self._environment = self._make()
        return _messages(await _called(self._environment.start, task))

    async def _openings(self, tasks: list[Task]) -> list[list[dict[str, Any]]]:
        """Of a world for each, one after the other."""
        found = []
        for task in tasks:
            try:
                found.append(await self._start(task))
            except Exception as error:
                raise RuntimeError(f"start with the seed {task.seed}: {in_words(error)}") from error
            await self._stop(None)
        return found

    async def _respond(self, reply: Reply) -> Any:
        assert self._environment is not None
        answer = await _called(self._environment.respond, reply)
        return {"scores": _scores(answer)} if isinstance(answer, Done) else _messages(answer)

    async def _call(self, call: ToolCall) -> dict[str, Any]:
        """A tool that raises is something that the model reads."""
        assert self._environment is not None
        try:
            result = await _called(checked_call(self._environment, call))
        except ToolError as error:
            return {"text": f"Error: {error}", "failed": True}
        except Exception as error:  # noqa: BLE001 - boundary: the user's tool
            return {"text": one_line(f"Error: {in_words(error)}"), "failed": True}
        return {"text": as_text(result, max_chars=self._max_result_chars), "failed": False}

    async def _stop(self, _: None) -> None:
        if self._environment is not None:
            await _called(self._environment.stop)


async def _called(method: Callable[..., Any], *arguments: Any) -> Any:
    """A plain function runs in a thread, so that others of the same episode go on."""
    if inspect.iscoroutinefunction(inspect.unwrap(method)):
        return await method(*arguments)
    result = await asyncio.to_thread(method, *arguments)
    return await result if inspect.isawaitable(result) else result


def _messages(answer: Any) -> list[dict[str, Any]]:
    """Raises TypeError for anything else than messages."""
    if isinstance(answer, (str, Message)) or not hasattr(answer, "__iter__"):
        raise TypeError(f"it returned a {type(answer).__name__} instead of a list of messages or Done")
    messages = list(answer)
    for message in messages:
        if not isinstance(message, Message):
            raise TypeError(f"it returned a list with a {type(message).__name__} instead of messages")
        if not isinstance(message.role, str) or not isinstance(message.content, str):
            kind = type(message.content if isinstance(message.role, str) else message.role).__name__
            raise TypeError(f"it returned a message with a {kind} instead of text")
    if not messages:
        raise TypeError("it returned no message, and the model has nothing to answer")
    return [asdict(message) for message in messages]


def _scores(done: Done) -> dict[str, float]:
    """Raises TypeError or ValueError for what are no finite numbers."""
    scores = {str(name): float(value) for name, value in done.scores.items()}
    for name, value in scores.items():
        if not math.isfinite(value):
            raise ValueError(f"its score {name!r} is {value}")
    return scores


def one_line(text: str) -> str:
    """Without line breaks, cut to the length of an error."""
    line = " ".join(text.split())
    return line if len(line) <= MAX_ERROR_CHARS else line[: MAX_ERROR_CHARS - 1] + "…"

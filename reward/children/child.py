"""What runs in a child process: call the reward functions that a request names, answer one message for each.

A child is expendable. Its owner kills it at the deadline, so nothing here watches the clock, but for coroutines that
run side by side: each of them has its own end, which costs the others nothing.
"""

import asyncio
import inspect
import math
import socket
from collections.abc import Sequence
from typing import Any

from reward.function_loading import CalledFunction, LoadedFunction, load_functions
from reward.functions import CallForm
from reward.types import ExplainedScore, RewardInput, RewardOutcome, one_line
from rollout.children.messages import PeerClosedError, receive_pickle, send_json
from rollout.children.template import import_what_it_imports

Answer = tuple[str, float | list[float] | None, str]
"""(outcome, value, detail) of one function on one completion, as it travels; the value of one that scores steps is a
list."""


class ScoringBody:
    """`rollout.children.template.Body`, made in the template. Errors: `ConfigError` for one that cannot be loaded."""

    def __init__(self, functions: Sequence[CalledFunction]) -> None:
        self._functions = load_functions(functions)
        for loaded in self._functions:
            import_what_it_imports(loaded.function)
            if loaded.warm_up is not None:
                loaded.warm_up()
        self.greeting = [loaded.form for loaded in self._functions]

    def serve(self, requests: socket.socket) -> None:
        """Answers until the owner closes its end."""
        serve(requests, self._functions)


def serve(requests: socket.socket, functions: Sequence[LoadedFunction]) -> None:
    """Answer requests (function numbers, completions) until the owner closes its end."""
    loop = asyncio.new_event_loop()
    while True:
        try:
            numbers, items, timeout_s = receive_pickle(requests)
        except PeerClosedError:
            return
        for number in numbers:
            # One message for each function: what answered before a later one hangs or dies is kept.
            loaded = functions[number]
            if loaded.form is CallForm.CONCURRENT:
                loop.run_until_complete(_evaluate_together(loaded, items, timeout_s, requests))
            else:
                send_json(requests, evaluate(loaded, items, loop))


def evaluate(loaded: LoadedFunction, items: Sequence[RewardInput], loop: asyncio.AbstractEventLoop) -> list[Answer]:
    """One function on `items`: one answer for each. A function that is not batched gets exactly one item."""
    is_batched = loaded.form is CallForm.BATCHED
    assert is_batched or len(items) == 1, (loaded.component, len(items))
    try:
        value = loaded.function(list(items) if is_batched else items[0], **loaded.params)
        if inspect.isawaitable(value):
            value = loop.run_until_complete(_awaited(value))
        values = _as_list(value) if is_batched else [value]
        if values is None:
            return [_invalid(loaded, f"returned {_describe(value)} instead of a list of numbers")] * len(items)
        if len(values) != len(items):
            return [_invalid(loaded, f"returned {len(values)} values for {len(items)} completions")] * len(items)
        return [_answer(loaded, value, item) for value, item in zip(values, items, strict=True)]
    except BaseException as error:  # noqa: BLE001 - boundary: user code, which may raise anything, SystemExit included
        return [_raised(loaded, error)] * len(items)


async def _evaluate_together(
    loaded: LoadedFunction, items: Sequence[RewardInput], timeout_s: float, requests: socket.socket
) -> None:
    """A coroutine function on each of `items`, side by side: a message [index, answer] for each, as it ends."""

    async def answer(index: int, item: RewardInput) -> None:
        limit = asyncio.timeout(timeout_s)
        try:
            async with limit:
                found = _answer(loaded, await loaded.function(item, **loaded.params), item)
        except BaseException as error:  # noqa: BLE001 - boundary: user code, which may raise anything
            if isinstance(error, TimeoutError) and limit.expired():
                detail = one_line(f"{loaded.component} did not answer within {timeout_s:g} s")
                found = (RewardOutcome.TIMEOUT.value, None, detail)
            else:
                found = _raised(loaded, error)
        send_json(requests, [index, found])

    await asyncio.gather(*(answer(index, item) for index, item in enumerate(items)))


async def _awaited(value: Any) -> Any:
    return await value


def _as_list(value: Any) -> list[Any] | None:
    """A batched function's values; None when it returned something without a length (a tensor or array has one)."""
    if isinstance(value, (str, bytes, dict)) or not hasattr(value, "__len__") or not hasattr(value, "__iter__"):
        return None
    return list(value)


def _answer(loaded: LoadedFunction, value: Any, item: RewardInput) -> Answer:
    if loaded.scores_steps:
        return _answer_of_steps(loaded, value, item)
    if not _is_number(value):
        return _invalid(loaded, f"returned {_describe(value)} instead of a number")
    number = float(value)
    if not math.isfinite(number):
        return _invalid(loaded, f"returned {number}")
    detail = (
        one_line(f"{loaded.component}: {value.detail}") if isinstance(value, ExplainedScore) and value.detail else ""
    )
    return (RewardOutcome.OK.value, number, detail)


def _answer_of_steps(loaded: LoadedFunction, value: Any, item: RewardInput) -> Answer:
    values = _as_list(value)
    if values is None:
        return _invalid(loaded, f"returned {_describe(value)} instead of a list with a number for each step")
    if len(values) != len(item.steps):
        return _invalid(loaded, f"returned {len(values)} numbers for {len(item.steps)} steps")
    numbers: list[float] = []
    for step, one in enumerate(values):
        if not _is_number(one):
            return _invalid(loaded, f"returned {_describe(one)} instead of a number for step {step}")
        numbers.append(float(one))
        if not math.isfinite(numbers[-1]):
            return _invalid(loaded, f"returned {numbers[-1]} for step {step}")
    return (RewardOutcome.OK.value, numbers, "")


def _is_number(value: Any) -> bool:
    """Whatever converts itself to a float counts: bool, int, numpy's scalars, a tensor with one element."""
    return value is not None and not isinstance(value, (str, bytes)) and hasattr(value, "__float__")


def _raised(loaded: LoadedFunction, error: BaseException) -> Answer:
    detail = one_line(f"{loaded.component} raised {type(error).__name__}: {_message(error)}")
    return (RewardOutcome.ERROR.value, None, detail)


def _invalid(loaded: LoadedFunction, what: str) -> Answer:
    return (RewardOutcome.INVALID.value, None, one_line(f"{loaded.component} {what}"))


def _describe(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - boundary: an exception class of the user whose own __str__ fails
        return "(its message cannot be shown)"

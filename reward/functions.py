"""What a reward function is, and how it gets a name.

A function has one of three forms; `params` of the configuration arrive as keyword arguments:

    def f(item: RewardInput, **params) -> float                 one completion
    async def f(item: RewardInput, **params) -> float           the same; all of a group at once, in one event loop
    @batched
    def f(items: list[RewardInput], **params) -> list[float]    all completions of a group at once (or async)

None, NaN, an infinity, a string or a list of the wrong length means "not scored" (`invalid`), never a reward of 0.

A function that scores steps (`reward.steps`) has the same forms. In place of each number it gives a list, with a number
for each of `item.steps`.
"""

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, TypeVar

from reward.types import RewardInput
from rollout.config import Config
from rollout.types import Completion, Prompt


def reward_input(prompt: Prompt, completion: Completion, max_tokens: int | None = None) -> RewardInput:
    """What reward functions see of `completion`."""
    return RewardInput(
        question=prompt.question,
        prompt=prompt.text,
        completion=completion.text,
        token_ids=completion.token_ids,
        finish_reason=completion.finish_reason,
        ground_truth=prompt.ground_truth,
        row=prompt.row,
        max_tokens=max_tokens,
        task=prompt.task,
        sample_index=completion.sample_index,
        scores=completion.episode.scores if completion.episode is not None else {},
        episode_outcome=completion.episode.outcome if completion.episode is not None else "",
    )


def row_input(prompt: Prompt) -> RewardInput:
    """What a function's `check_row` sees: the row, and an empty completion."""
    return RewardInput(
        question=prompt.question,
        prompt=prompt.text,
        completion="",
        ground_truth=prompt.ground_truth,
        row=prompt.row,
        task=prompt.task,
    )


class CallForm(StrEnum):
    """How a function wants to be called."""

    SINGLE = "single"
    """One completion; others wait for a child of their own."""
    CONCURRENT = "concurrent"
    """One completion, by a coroutine: those of a group run in one child together."""
    BATCHED = "batched"
    """All completions of a group in one call."""
    ASKED = "asked"
    """All completions of a group, by a server, which the reward worker asks itself: no child is waited in."""


def form_of(function: Callable[..., Any]) -> CallForm:
    """The form of a function. One that returns an awaitable, and is no coroutine function, is called by itself."""
    if getattr(function, "__reward_batched__", False):
        return CallForm.BATCHED
    is_coroutine = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004  # an object whose own call is a coroutine function
    )
    return CallForm.CONCURRENT if is_coroutine else CallForm.SINGLE


class RewardFunction(Protocol):
    """The shape of a function for one completion; see the top of the file for the batched one."""

    def __call__(self, item: RewardInput, /, **params: Any) -> float | Awaitable[float | None] | None:
        """The score; None, or what is no finite number, is `invalid`."""


ScoreWithModel = Callable[[Sequence[RewardInput]], Sequence[float]]
"""Scores all completions of a group with a reward model; may raise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredFunction:
    """A function with what it wants to happen before the first completion."""

    function: Callable[..., Any]
    check: Callable[..., None] | None = None
    """Called with the configuration's params; raises ValueError for values that its signature cannot refuse."""
    check_row: Callable[..., None] | None = None
    """Called before a run with an item whose completion is empty, and the params, for each row that the function will
    score; raises ValueError for a row that it cannot score, whatever the completion."""
    warm_up: Callable[[], None] | None = None
    """Called once before the child processes are forked, to fill caches that they then share."""
    settings: type[Config] | None = None
    """Of one that asks a server: the class of its params. `check` and `check_row` take one in place of them."""


REGISTRY: dict[str, RegisteredFunction] = {}
"""Short name -> the function; filled by `register` as modules are imported."""
STEP_REGISTRY: dict[str, RegisteredFunction] = {}
"""The same for functions that score steps; filled by `register_steps`."""
_Function = TypeVar("_Function", bound=Callable[..., Any])


def register(
    name: str,
    *,
    check: Callable[..., None] | None = None,
    check_row: Callable[..., None] | None = None,
    warm_up: Callable[[], None] | None = None,
) -> Callable[[_Function], _Function]:
    """Give a reward function a short name for configurations.

    Raises:
        ValueError: the name is taken by another function.
    """

    def add(function: _Function) -> _Function:
        taken = REGISTRY.get(name)
        # The same module may be executed twice (importlib.reload): only another function is a clash.
        if taken is not None and taken.function.__qualname__ != function.__qualname__:
            raise ValueError(f"reward function name {name!r} is taken by {taken.function.__qualname__}; choose another")
        REGISTRY[name] = RegisteredFunction(function=function, check=check, check_row=check_row, warm_up=warm_up)
        return function

    return add


def register_asked(
    name: str,
    *,
    settings: type[Config],
    check: Callable[[Any], None] | None = None,
    check_row: Callable[[RewardInput, Any], None] | None = None,
) -> Callable[[_Function], _Function]:
    """Give what asks a server a short name for configurations (`reward.judging.asked`)."""

    def add(function: _Function) -> _Function:
        REGISTRY[name] = RegisteredFunction(function=function, check=check, check_row=check_row, settings=settings)
        return function

    return add


def register_steps(name: str) -> Callable[[_Function], _Function]:
    """Give a function that scores steps a short name for configurations."""

    def add(function: _Function) -> _Function:
        STEP_REGISTRY[name] = RegisteredFunction(function=function)
        return function

    return add


def batched(function: _Function) -> _Function:
    """Mark a function that takes all completions of a group and returns one value for each."""
    function.__reward_batched__ = True  # type: ignore[attr-defined]
    return function


def weighted_sum(components: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """sum over components of weight * value, in the order of `weights` (floating-point sums depend on order)."""
    return sum(weight * components[name] for name, weight in weights.items())

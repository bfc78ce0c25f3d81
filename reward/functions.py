"""What a reward function is, and how a configuration finds it.

A function has one of three shapes; `params` of the configuration arrive as keyword arguments:

    def f(item: RewardInput, **params) -> float                 one completion
    async def f(item: RewardInput, **params) -> float           the same, in the child process's event loop
    @batched
    def f(items: list[RewardInput], **params) -> list[float]    all completions of a group at once (or async)

None, NaN, an infinity, a string or a list of the wrong length means "not scored" (`invalid`), never a reward of 0.
This module imports nothing heavy: the built-in functions are imported when a configuration names them.
"""

import importlib
import inspect
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from reward.config import RewardFunctionConfig
from reward.types import RewardInput
from rollout.errors import ConfigError
from rollout.types import Completion, Prompt

# Where the built-in names live. A name is imported when it is asked for, because math-verify alone takes a second.
_BUILTIN_MODULES = {
    "math": "reward.math.answer",
    "code": "reward.code.execution",
    "exact_match": "reward.rules.text_match",
    "regex": "reward.rules.text_match",
    "length": "reward.rules.length",
    "length_penalty": "reward.rules.length",
    "overlong": "reward.rules.length",
    "format": "reward.rules.response_format",
    "reasoning_gym": "reward.rules.reasoning_gym",
}


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
    )


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
    warm_up: Callable[[], None] | None = None
    """Called once before the child processes are forked, to fill caches that they then share."""


_REGISTRY: dict[str, RegisteredFunction] = {}
_Function = TypeVar("_Function", bound=Callable[..., Any])


def register(
    name: str, *, check: Callable[..., None] | None = None, warm_up: Callable[[], None] | None = None
) -> Callable[[_Function], _Function]:
    """Give a reward function a short name for configurations.

    Raises:
        ValueError: the name is taken by another function.
    """

    def add(function: _Function) -> _Function:
        taken = _REGISTRY.get(name)
        # The same module may be executed twice (importlib.reload): only another function is a clash.
        if taken is not None and taken.function.__qualname__ != function.__qualname__:
            raise ValueError(f"reward function name {name!r} is taken by {taken.function.__qualname__}; choose another")
        _REGISTRY[name] = RegisteredFunction(function=function, check=check, warm_up=warm_up)
        return function

    return add


def batched(function: _Function) -> _Function:
    """Mark a function that takes all completions of a group and returns one value for each."""
    function.__reward_batched__ = True  # type: ignore[attr-defined]
    return function


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedFunction:
    """A component of the reward, ready to be called."""

    component: str
    """Name of the component in records."""
    function: Callable[..., Any]
    params: Mapping[str, Any]
    is_batched: bool
    warm_up: Callable[[], None] | None = None


def load_function(config: RewardFunctionConfig) -> LoadedFunction:
    """Find the function that `config` names and check that it takes the params.

    Raises:
        ConfigError: module or attribute not found, not callable, or params that do not fit its signature.
    """
    found = _resolve(config.function)
    _check_params(config, found)
    return LoadedFunction(
        component=config.component,
        function=found.function,
        params=config.params,
        is_batched=bool(getattr(found.function, "__reward_batched__", False)),
        warm_up=found.warm_up,
    )


def weighted_sum(components: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """sum over components of weight * value, in the order of `weights` (floating-point sums depend on order)."""
    return sum(weight * components[name] for name, weight in weights.items())


def _resolve(path: str) -> RegisteredFunction:
    if ":" in path:
        return _import_path(path)
    if path not in _REGISTRY and path in _BUILTIN_MODULES:
        importlib.import_module(_BUILTIN_MODULES[path])
    if path not in _REGISTRY:
        known = ", ".join(sorted({*_REGISTRY, *_BUILTIN_MODULES}))
        raise ConfigError(
            f"reward function {path!r} is not known: use one of {known}, or an import path `module:function`"
        )
    return _REGISTRY[path]


def _import_path(path: str) -> RegisteredFunction:
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise ConfigError(f"reward function {path!r} is no import path: write it as `module:function`")
    # A console script does not have the working directory on its path, and people keep their reward beside their run.
    # Last, so that a file there cannot replace an installed package.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise ConfigError(
                f"reward function {path!r}: module {module_name!r} was not found in {os.getcwd()} or among the "
                "installed packages; correct the path or start from the folder that holds it"
            ) from error
        raise ConfigError(
            f"reward function {path!r}: importing {module_name!r} needs the module {error.name!r}, which is not "
            "installed"
        ) from error
    except Exception as error:  # boundary: the user's module may raise anything while it is imported
        raise ConfigError(
            f"reward function {path!r}: importing {module_name!r} raised {type(error).__name__}: {error}"
        ) from error
    function: Any = module
    for part in attribute.split("."):
        if not hasattr(function, part):
            raise ConfigError(f"reward function {path!r}: module {module_name!r} has no attribute {attribute!r}")
        function = getattr(function, part)
    if not callable(function):
        raise ConfigError(f"reward function {path!r} is a {type(function).__name__}, which cannot be called")
    return RegisteredFunction(function=function)


def _check_params(config: RewardFunctionConfig, found: RegisteredFunction) -> None:
    try:
        signature = inspect.signature(found.function)
    except ValueError:
        return  # some functions written in C do not tell their signature
    try:
        signature.bind(object(), **config.params)
    except TypeError as error:
        raise ConfigError(
            f"reward function {config.function!r} cannot be called with params {sorted(config.params)}: {error}; its "
            f"signature is {signature}"
        ) from error
    if found.check is not None:
        try:
            found.check(**config.params)
        except ValueError as error:
            raise ConfigError(f"reward function {config.function!r}: {error}") from error


def load_functions(configs: Sequence[RewardFunctionConfig]) -> tuple[LoadedFunction, ...]:
    """`load_function` for each, in order."""
    return tuple(load_function(config) for config in configs)

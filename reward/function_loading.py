"""How a configuration finds its reward functions: by a registered name or an import path, params checked.

This module imports nothing heavy: the built-in functions are imported when a configuration names them.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from reward.config import RewardFunctionConfig, StepsConfig
from reward.functions import REGISTRY, STEP_REGISTRY, CallForm, RegisteredFunction, form_of
from rollout.call_params import checked_params, checked_settings
from rollout.config import Config
from rollout.errors import ConfigError
from rollout.module_loading import load_object

# Where the built-in names live. A name is imported when it is asked for, because math-verify alone takes a second.
BUILTIN_MODULES = {
    "math": "reward.math.answer",
    "code": "reward.code.execution",
    "exact_match": "reward.rules.text_match",
    "regex": "reward.rules.text_match",
    "length": "reward.rules.length",
    "length_penalty": "reward.rules.length",
    "overlong": "reward.rules.length",
    "environment": "reward.rules.environment",
    "format": "reward.rules.response_format",
    "reasoning_gym": "reward.rules.reasoning_gym",
    "multiple_choice": "reward.rules.multiple_choice",
    "text_match": "reward.rules.several_truths",
    "token_f1": "reward.rules.several_truths",
    "quantity": "reward.rules.quantity",
    "json_schema": "reward.rules.json_schema",
    "instructions": "reward.rules.instructions",
    "sql": "reward.rules.sql",
}

ASKED_MODULES = {"judge": "reward.judging.judge", "http": "reward.judging.http_scores"}
"""The same for functions that ask a server."""
STEP_MODULES = {"arithmetic_steps": "reward.rules.arithmetic_steps"}
"""The same for functions that score steps."""

CalledFunction: TypeAlias = RewardFunctionConfig | StepsConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedFunction:
    """A component of the reward, ready to be called."""

    component: str
    """Name of the component in records."""
    function: Callable[..., Any]
    params: Mapping[str, Any]
    form: CallForm
    warm_up: Callable[[], None] | None = None
    check_row: Callable[..., None] | None = None
    scores_steps: bool = False
    """Whether it gives a number for each step, and no number for the completion."""
    settings: Config | None = None
    """Of one that asks a server: its params."""


def load_function(config: CalledFunction) -> LoadedFunction:
    """Find the function that `config` names and check that it takes the params.

    Raises:
        ConfigError: module or attribute not found, not callable, or params that do not fit its signature.
    """
    scores_steps = isinstance(config, StepsConfig)
    found = _resolve_steps(config.function) if scores_steps else _resolve(config.function)
    if found.settings is not None:
        return _asked(config, found)
    params = _checked(config, found)
    return LoadedFunction(
        component=config.component,
        function=found.function,
        params=params,
        form=form_of(found.function),
        warm_up=found.warm_up,
        check_row=found.check_row,
        scores_steps=scores_steps,
    )


def is_shipped(path: str) -> bool:
    """Whether `path` is a name of ours, and no import path: importing it runs no code of the user."""
    return ":" not in path


def _resolve(path: str) -> RegisteredFunction:
    if ":" in path:
        return RegisteredFunction(function=load_object(path, what=f"reward function {path!r}"))
    shipped = {**BUILTIN_MODULES, **ASKED_MODULES}
    if path not in REGISTRY and path in shipped:
        importlib.import_module(shipped[path])
    if path in STEP_MODULES:
        raise ConfigError(f"reward function {path!r} scores steps, and no completion: name it in reward.steps.function")
    if path not in REGISTRY:
        known = ", ".join(sorted({*REGISTRY, *shipped}))
        raise ConfigError(
            f"reward function {path!r} is not known: use one of {known}, or an import path `module:function`"
        )
    return REGISTRY[path]


def _resolve_steps(path: str) -> RegisteredFunction:
    if ":" in path:
        return RegisteredFunction(function=load_object(path, what=f"reward.steps.function {path!r}"))
    if path not in STEP_MODULES:
        raise ConfigError(
            f"reward.steps.function {path!r} is not known: use {', '.join(STEP_MODULES)}, or an import path "
            "`module:function`"
        )
    importlib.import_module(STEP_MODULES[path])
    return STEP_REGISTRY[path]


def _checked(config: CalledFunction, found: RegisteredFunction) -> dict[str, Any]:
    where = "reward.steps.function" if isinstance(config, StepsConfig) else "reward function"
    what = f"{where} {config.function!r}"
    params = checked_params(found.function, config.params, what=what, given="a completion")
    if found.check is not None:
        try:
            found.check(**params)
        except ValueError as error:
            raise ConfigError(f"{what}: {error}") from error
    return params


def _asked(config: CalledFunction, found: RegisteredFunction) -> LoadedFunction:
    """One that asks a server: its params are a configuration of their own, and it is called for groups."""
    assert found.settings is not None
    what = f"reward function {config.function!r}"
    settings = checked_settings(found.settings, config.params, what=what)
    if found.check is not None:
        try:
            found.check(settings)
        except ValueError as error:
            raise ConfigError(f"{what}: {error}") from error
    return LoadedFunction(
        component=config.component,
        function=found.function,
        params={} if found.check_row is None else {"config": settings},
        form=CallForm.ASKED,
        check_row=found.check_row,
        settings=settings,
    )


def load_functions(configs: Sequence[CalledFunction]) -> tuple[LoadedFunction, ...]:
    """`load_function` for each, in order."""
    return tuple(load_function(config) for config in configs)

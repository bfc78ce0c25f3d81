"""How a configuration finds its reward functions: by a registered name or an import path, params checked.

This module imports nothing heavy: the built-in functions are imported when a configuration names them.
"""

import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reward.config import RewardFunctionConfig
from reward.functions import REGISTRY, CallForm, RegisteredFunction, form_of
from reward.params import checked_params
from rollout.errors import ConfigError
from rollout.module_loading import user_folders

# Where the built-in names live. A name is imported when it is asked for, because math-verify alone takes a second.
BUILTIN_MODULES = {
    "math": "reward.math.answer",
    "code": "reward.code.execution",
    "exact_match": "reward.rules.text_match",
    "regex": "reward.rules.text_match",
    "length": "reward.rules.length",
    "length_penalty": "reward.rules.length",
    "overlong": "reward.rules.length",
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


def load_function(config: RewardFunctionConfig) -> LoadedFunction:
    """Find the function that `config` names and check that it takes the params.

    Raises:
        ConfigError: module or attribute not found, not callable, or params that do not fit its signature.
    """
    found = _resolve(config.function)
    params = _checked(config, found)
    return LoadedFunction(
        component=config.component,
        function=found.function,
        params=params,
        form=form_of(found.function),
        warm_up=found.warm_up,
        check_row=found.check_row,
    )


def is_shipped(path: str) -> bool:
    """Whether `path` is a name of ours, and no import path: importing it runs no code of the user."""
    return ":" not in path


def _resolve(path: str) -> RegisteredFunction:
    if ":" in path:
        return _import_path(path)
    if path not in REGISTRY and path in BUILTIN_MODULES:
        importlib.import_module(BUILTIN_MODULES[path])
    if path not in REGISTRY:
        known = ", ".join(sorted({*REGISTRY, *BUILTIN_MODULES}))
        raise ConfigError(
            f"reward function {path!r} is not known: use one of {known}, or an import path `module:function`"
        )
    return REGISTRY[path]


def _import_path(path: str) -> RegisteredFunction:
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise ConfigError(f"reward function {path!r} is no import path: write it as `module:function`")
    # A console script does not have the working directory on its path, and people keep their reward beside their run.
    # Last, so that a file there cannot replace an installed package.
    folders = user_folders()
    sys.path.extend(folder for folder in folders if folder not in sys.path)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise ConfigError(
                f"reward function {path!r}: module {module_name!r} was not found in {os.getcwd()} or among the "
                "installed packages; correct the path or start from the folder that holds it"
                + _taken(module_name, folders)
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
            raise ConfigError(
                f"reward function {path!r}: module {module_name!r} has no attribute {attribute!r}"
                + _taken(module_name, folders)
            )
        function = getattr(function, part)
    if not callable(function):
        raise ConfigError(f"reward function {path!r} is a {type(function).__name__}, which cannot be called")
    return RegisteredFunction(function=function)


def _taken(module_name: str, folders: Sequence[str]) -> str:
    """What to do where the user's file has the name of a module that stands before it."""
    first = module_name.partition(".")[0]
    files = [os.path.join(folder, f"{first}.py") for folder in folders]
    found = sys.modules.get(first)
    where = getattr(found, "__file__", None) or "Python itself"
    own = [file for file in files if os.path.isfile(file) and os.path.realpath(file) != os.path.realpath(where)]
    return f"; the name {first!r} is that of {where}, so rename {own[0]}" if found is not None and own else ""


def _checked(config: RewardFunctionConfig, found: RegisteredFunction) -> dict[str, Any]:
    params = checked_params(config.function, found.function, config.params)
    if found.check is not None:
        try:
            found.check(**params)
        except ValueError as error:
            raise ConfigError(f"reward function {config.function!r}: {error}") from error
    return params


def load_functions(configs: Sequence[RewardFunctionConfig]) -> tuple[LoadedFunction, ...]:
    """`load_function` for each, in order."""
    return tuple(load_function(config) for config in configs)

"""The params of a function that a configuration names, checked like every key of it: against the annotations of its
signature.

What is annotated with a plain type has to be of it ("4" is no number and "no" is no truth value); a parameter without
annotation, or with one that plain data cannot be, takes anything.
"""

import inspect
import json
from collections.abc import Callable, Mapping
from types import UnionType
from typing import Any, TypeVar, Union, get_origin, get_type_hints

from pydantic import BaseModel, PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError

from rollout.errors import ConfigError
from rollout.value_problems import unknown_key, wrong_value

_Settings = TypeVar("_Settings", bound=BaseModel)


def checked_params(function: Callable[..., Any], params: Mapping[str, Any], *, what: str, given: str) -> dict[str, Any]:
    """`params` as `function` takes them beside its one argument without a name: a list where a tuple is annotated
    becomes one. `what` begins every error's sentence, and `given` says what that argument is: "a completion".

    Raises:
        ConfigError: an unknown or missing parameter, or a value of another type.
    """
    try:
        signature = inspect.signature(function)
    except ValueError:
        return dict(params)  # some functions written in C do not tell their signature
    parameters = list(signature.parameters.values())[1:]
    named = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for key in params:
        if key not in named and not takes_any:
            raise ConfigError(f"{what}: {unknown_key(f'params.{key}', sorted(named))}")
    for key, parameter in named.items():
        if key not in params and parameter.default is parameter.empty:
            raise ConfigError(f"{what}: params.{key}: missing; this parameter has no default")
    try:
        signature.bind(object(), **params)
    except TypeError as error:  # it takes no argument, or more than one argument that has no name
        raise ConfigError(
            f"{what} cannot be called with {given} and its params: {error}; its signature is {signature}"
        ) from error
    annotations = _annotations(function)
    return {key: _checked(what, key, value, annotations.get(key, Any)) for key, value in params.items()}


def checked_settings(kind: type[_Settings], params: Mapping[str, Any], *, what: str) -> _Settings:
    """`params` as a `kind`. `what` begins every error's sentence.

    Raises:
        ConfigError: an unknown or missing key, a value of another type or out of range.
    """
    try:
        # From JSON and strict, as all of the configuration.
        return kind.model_validate_json(json.dumps(params), strict=True)
    except TypeError as error:
        raise ConfigError(f"{what}: params: allowed is plain data ({error})") from error
    except ValidationError as error:
        raise ConfigError(f"{what}: {problem_of(kind, error, 'params')}") from error


def problem_of(kind: type[BaseModel], error: ValidationError, path: str) -> str:
    """The sentence for one of pydantic's findings about values that should have become a `kind`, at `path`: an unknown
    key before all others, since a key that is missing may be the one that is misspelt."""
    problems = error.errors()
    return _sentence(kind, next((one for one in problems if one["type"] == "extra_forbidden"), problems[0]), path)


def _sentence(kind: type[BaseModel], problem: Mapping[str, Any], path: str) -> str:
    key = ".".join([path, *(str(part) for part in problem["loc"])])
    if problem["type"] == "extra_forbidden":
        for part in problem["loc"][:-1]:
            field = kind.model_fields.get(str(part))
            inner = field.annotation if field is not None else None
            kind = inner if isinstance(inner, type) and issubclass(inner, BaseModel) else kind
        return unknown_key(key, list(kind.model_fields))
    if problem["type"] == "missing":
        return f"{key}: missing; this parameter has no default"
    if problem["type"] == "value_error":
        return f"{key}: {problem['ctx']['error']}"
    return wrong_value(key, problem)


def _annotations(function: Callable[..., Any]) -> dict[str, Any]:
    told = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004
    try:
        return get_type_hints(told, include_extras=True)
    except (NameError, TypeError, AttributeError):
        return {}  # names that are known to type checkers alone


def _checked(what: str, key: str, value: Any, annotation: Any) -> Any:
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    except (PydanticSchemaGenerationError, PydanticUserError):
        return value  # a class of the user's: whatever it takes to be one, plain data is none
    try:
        # From JSON and strict, as all of the configuration: a list may become a tuple, and nothing else changes.
        return adapter.validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        raise ConfigError(f"{what}: {_problem(key, annotation, error)}") from error
    except TypeError as error:
        raise ConfigError(
            f"{what}: params.{key}: got a {type(value).__name__}, allowed: plain data ({error})"
        ) from error


def _problem(key: str, annotation: Any, error: ValidationError) -> str:
    problems = error.errors()
    if get_origin(annotation) in (Union, UnionType):
        # One finding for each alternative, whose place is its name: one sentence that has them all.
        whole = [problem for problem in problems if len(problem["loc"]) == 1]
        sentences = [wrong_value(f"params.{key}", problem) for problem in whole or problems[:1]]
        return " or ".join([sentences[0], *(sentence.partition("allowed: ")[2] for sentence in sentences[1:])])
    path = ".".join(["params", key, *(str(part) for part in problems[0]["loc"])])
    return wrong_value(path, problems[0])

"""Which components of the reward score a row: one run may have mathematics, programs and more, each with its own."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reward.config import RewardConfig, ScoredRows
from rollout.errors import ConfigError
from rollout.types import Prompt

MAX_SHOWN = 5
"""Values of a column that are named where none of them is meant."""
MAX_VALUE_CHARACTERS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class RowComponents:
    """The components that score one row."""

    numbers: tuple[int, ...]
    """Places in `RewardConfig.components`, rising."""
    accuracy: str | None
    """Component that decides whether a completion is right; None when the row has none that could."""


def components_of(config: RewardConfig, task: str, row: Mapping[str, Any]) -> RowComponents:
    """Who scores a row of `task`."""
    components = config.components
    numbers = tuple(number for number, component in enumerate(components) if scores(component, task, row))
    names = [components[number].component for number in numbers]
    accuracy = config.accuracy if config.accuracy is not None else next(iter(names), None)
    return RowComponents(numbers=numbers, accuracy=accuracy if accuracy in names else None)


def scores(component: ScoredRows, task: str, row: Mapping[str, Any]) -> bool:
    """Whether a component scores a row of `task`."""
    if component.tasks and task not in component.tasks:
        return False
    return all(
        any(_is_same(column_value(row, column), value) for value in values) for column, values in component.rows.items()
    )


def column_value(row: Mapping[str, Any], column: str) -> Any:
    """The value of a column; `a.b` is key `b` in column `a`, unless a column has that very name. None without one."""
    if column in row:
        return row[column]
    value: Any = row
    for key in column.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return None
        value = value[key]
    return value


def why_unscored(config: RewardConfig, prompt: Prompt) -> str | None:
    """Why the components cannot score the row of a prompt; None where they can."""
    of_row = components_of(config, prompt.task, prompt.row)
    if not of_row.numbers:
        columns = dict.fromkeys(column for component in config.components for column in component.rows)
        found = "".join(f", {column} is {_short(column_value(prompt.row, column))}" for column in columns)
        return (
            f"no component of the reward is for it (its task is {prompt.task!r}{found}); give it one in "
            "reward.functions, by `tasks` or `rows`"
        )
    if of_row.accuracy is None:
        return (
            f"reward.accuracy is {config.accuracy!r}, which does not score it; leave that null, and the first "
            "component that scores a row decides"
        )
    return None


def check_components_are_used(config: RewardConfig, prompts: Sequence[Prompt]) -> None:
    """Errors: `ConfigError` for a component that would score none of these rows, as for a value that is misspelt."""
    left = list(config.components)
    for prompt in prompts:
        if not left:
            return
        left = [component for component in left if not scores(component, prompt.task, prompt.row)]
    if left and prompts:
        raise ConfigError(
            f"reward component {left[0].component!r} scores none of the {len(prompts)} rows: it is for "
            f"{_condition(left[0])}, and they have {_found(left[0], prompts)}; correct that, or leave the component out"
        )


def _is_same(found: Any, wanted: Any) -> bool:
    # True is no 1, although Python compares them equal.
    return isinstance(found, bool) == isinstance(wanted, bool) and bool(found == wanted)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MAX_VALUE_CHARACTERS else f"{text[:MAX_VALUE_CHARACTERS]}..."


def _condition(component: ScoredRows) -> str:
    parts = [f"task {' or '.join(map(repr, component.tasks))}"] if component.tasks else []
    parts += [f"{column} {' or '.join(map(_short, values))}" for column, values in component.rows.items()]
    return ", ".join(parts)


def _found(component: ScoredRows, prompts: Sequence[Prompt]) -> str:
    parts = [f"task {_several(prompt.task for prompt in prompts)}"] if component.tasks else []
    parts += [
        f"{column} {_several([column_value(prompt.row, column) for prompt in prompts])}" for column in component.rows
    ]
    return ", ".join(parts)


def _several(values: Iterable[Any]) -> str:
    different = list(dict.fromkeys(_short(value) for value in values))
    more = f" and {len(different) - MAX_SHOWN} more" if len(different) > MAX_SHOWN else ""
    return ", ".join(different[:MAX_SHOWN]) + more

"""Reward for following instructions that can be checked: IFEval's, as its rows have them."""

from collections.abc import Mapping
from typing import Any, Literal

from reward.components import column_value
from reward.functions import register
from reward.rules.instruction_kinds import KINDS, NOT_CHECKED
from reward.thought import without_thought
from reward.types import ExplainedScore, RewardInput
from rollout.call_params import checked_params
from rollout.errors import ConfigError


def _check_row(
    item: RewardInput,
    ids_column: str = "instruction_id_list",
    arguments_column: str = "kwargs",
    **_others: object,
) -> None:
    instructions_of(item.row, ids_column, arguments_column)


@register("instructions", check_row=_check_row)
def instructions(
    item: RewardInput,
    score: Literal["all", "share"] = "all",
    ids_column: str = "instruction_id_list",
    arguments_column: str = "kwargs",
) -> ExplainedScore:
    """1 when the completion follows every instruction of its row, else 0; with `score: share` the share of them.

    Rows are IFEval's: a list of names in `ids_column`, such as `length_constraints:number_words`, and a list of as many
    mappings with their arguments in `arguments_column`, in which null is no argument. A thought is no part of what is
    checked. An empty completion follows nothing.

    Raises:
        ValueError: an instruction that is not known or cannot be checked, or arguments that do not fit it.
    """
    asked = instructions_of(item.row, ids_column, arguments_column)
    text = without_thought(item.completion).strip()
    missed = [name for name, arguments in asked if not text or not KINDS[name](text, **arguments)]
    share = 1.0 - len(missed) / len(asked)
    detail = f"does not follow {', '.join(missed)}" if missed else "follows all"
    return ExplainedScore(share if score == "share" else float(not missed), detail)


def instructions_of(row: Mapping[str, Any], ids_column: str, arguments_column: str) -> list[tuple[str, dict[str, Any]]]:
    """(name, arguments) of each instruction of a row. Raises ValueError."""
    names, given = column_value(row, ids_column), column_value(row, arguments_column)
    if not isinstance(names, (list, tuple)) or not names:
        raise ValueError(f"column {ids_column!r} has no list of instructions, but {type(names).__name__}")
    arguments = [{}] * len(names) if given is None else given
    if not isinstance(arguments, (list, tuple)) or len(arguments) != len(names):
        raise ValueError(f"column {arguments_column!r} has no list of as many arguments as there are instructions")
    return [(str(name), _arguments(str(name), one)) for name, one in zip(names, arguments, strict=True)]


def _arguments(name: str, given: Any) -> dict[str, Any]:
    if name not in KINDS:
        why = NOT_CHECKED.get(name, f"known are {', '.join(KINDS)}")
        raise ValueError(f"the instruction {name!r} cannot be checked: {why}")
    if given is not None and not isinstance(given, Mapping):
        raise ValueError(f"the arguments of {name} are {type(given).__name__}, expected a mapping")
    named = {key: _whole(value) for key, value in (given or {}).items() if value is not None}
    try:
        return checked_params(KINDS[name], named, what=f"instruction {name!r}", given="a completion")
    except ConfigError as error:
        raise ValueError(str(error).replace("params.", "")) from error


def _whole(value: Any) -> Any:
    """Tables with nulls have their whole numbers as 300.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value

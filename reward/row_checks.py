"""Rows that the reward cannot score, found before anything is started.

A row without a truth, with tests that cannot be run, or for which there is no component would otherwise be an `error`
each time that it is sampled.
"""

from collections.abc import Sequence

from reward.components import components_of, why_unscored
from reward.config import RewardConfig, RewardFunctionConfig
from reward.function_loading import LoadedFunction, is_shipped, load_function
from reward.functions import row_input
from rollout.types import Prompt


def bad_rows(config: RewardConfig, prompts: Sequence[Prompt]) -> dict[int, str]:
    """Place of each prompt whose row cannot be scored -> why."""
    checks: dict[int, LoadedFunction] = {}
    for number, component in enumerate(config.components):
        if isinstance(component, RewardFunctionConfig) and is_shipped(component.function):
            loaded = load_function(component)
            if loaded.check_row is not None:
                checks[number] = loaded
    found: dict[int, str] = {}
    for index, prompt in enumerate(prompts):
        why = why_unscored(config, prompt) or _refused(config, checks, prompt)
        if why is not None:
            found[index] = why
    return found


def _refused(config: RewardConfig, checks: dict[int, LoadedFunction], prompt: Prompt) -> str | None:
    if not checks:
        return None
    for number in components_of(config, prompt.task, prompt.row).numbers:
        loaded = checks.get(number)
        if loaded is None or loaded.check_row is None:
            continue
        try:
            loaded.check_row(row_input(prompt), **loaded.params)
        except ValueError as error:
            return f"{loaded.component}: {error}"
    return None

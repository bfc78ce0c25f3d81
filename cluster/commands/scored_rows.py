"""The prompts of a task that the run's reward can score; what becomes of the others is the task's `on_bad_row`."""

from reward.config import RewardConfig
from reward.row_checks import bad_rows
from rollout.config import TaskConfig
from rollout.errors import DataError
from rollout.prompts.prompt_building import without
from rollout.prompts.prompt_set import PromptSet

MAX_QUESTION_CHARACTERS = 60
"""Of a question that names a row."""


def scored_prompts(config: RewardConfig, task: TaskConfig, prompts: PromptSet) -> PromptSet:
    """The prompts whose rows the reward can score: all, or those that `on_bad_row: skip` leaves.

    Errors: `DataError`, naming the first row that cannot be scored, or when none is left.
    """
    bad = bad_rows(config, prompts.prompts)
    if not bad:
        return prompts
    place, why = next(iter(bad.items()))
    if task.on_bad_row == "skip" and len(bad) < len(prompts):
        return without(prompts, bad, "cannot be scored")
    question = " ".join(prompts.prompts[place].question.split())
    row = f"{prompts.sources[place]}: " if prompts.sources else ""
    shown = question if len(question) <= MAX_QUESTION_CHARACTERS else f"{question[:MAX_QUESTION_CHARACTERS]}..."
    others = f" (and {len(bad) - 1} more rows of {len(prompts)} cannot be scored)" if len(bad) > 1 else ""
    raise DataError(
        f"{row}task {prompts.report.task!r}: the row of the question {shown!r} cannot be scored: {why}{others}; mend "
        "the rows, or the reward" + ("" if task.on_bad_row == "skip" else "; task.on_bad_row=skip leaves them out")
    )

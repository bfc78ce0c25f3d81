"""What a policy reads that is its own teacher: its prompt with a demonstration or feedback, out of a column."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rollout.episodes.environment import Message
from rollout.errors import DataError
from rollout.prompts.raw_rows import BadRow, kind_of
from rollout.prompts.rows import TaskRow, column_value

GROUND_TRUTH = "ground_truth"
"""Names the expected answer, whichever column of the source that was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstrations:
    """Where demonstrations stand and how they are shown."""

    column: str
    """Of the row; a dot leads into a column of objects. `ground_truth` is the expected answer."""
    template: str
    """Last user turn: `{question}` is that turn as the policy reads it, `{demonstration}` the column's text."""
    few_shot: tuple[tuple[str, str], ...] = ()
    """What stands for the task's own examples; empty: they stay."""

    def shown_in(self, messages: Sequence[Message], row: TaskRow) -> tuple[Message, ...]:
        """The turns with the demonstration in the last one of the user. Errors: `DataError` without either."""
        texts = {"question": "", "demonstration": self._text(row)}
        for place in range(len(messages) - 1, -1, -1):
            if messages[place].role == "user":
                texts["question"] = messages[place].content
                # In one pass: a question may hold the braces of the other.
                shown = re.sub(r"\{(question|demonstration)\}", lambda name: texts[name[1]], self.template)
                return (*messages[:place], replace(messages[place], content=shown), *messages[place + 1 :])
        raise DataError(f"{row.source}: the conversation has no turn of the user that a demonstration could stand in")

    def _text(self, row: TaskRow) -> str:
        try:
            value = column_value(row.columns, self.column)
        except BadRow as error:
            if self.column != GROUND_TRUTH or row.ground_truth is None:
                raise DataError(
                    f"{row.source}: no demonstration for the teacher: {error.detail}; set learner.teacher.policy_with "
                    "to a column that every row has, or to `ground_truth`"
                ) from error
            value = row.ground_truth
        if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
            raise DataError(
                f"{row.source}: no demonstration for the teacher: column {self.column!r} holds {kind_of(value)}, "
                "expected text; set learner.teacher.policy_with to another column, or leave the row out"
            )
        return str(value)

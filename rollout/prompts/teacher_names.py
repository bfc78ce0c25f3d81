"""Which of several teachers a row is for, out of a column."""

from collections.abc import Collection
from dataclasses import dataclass

from rollout.errors import DataError
from rollout.prompts.raw_rows import BadRow
from rollout.prompts.rows import TaskRow, column_value


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherNames:
    """Where the name of a row's teacher stands, and which there are."""

    column: str
    """Of the row; a dot leads into a column of objects."""
    names: Collection[str]

    def of(self, row: TaskRow) -> str:
        """Errors: `DataError` for a row that names no teacher, or one that there is not."""
        try:
            value = column_value(row.columns, self.column)
        except BadRow as error:
            raise self._refused(row, error.detail) from error
        # A number is a name as it is written in a recipe.
        name = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else None
        if name not in self.names:
            raise self._refused(row, f"column {self.column!r} is {value!r:.60}")
        assert name is not None
        return name

    def _refused(self, row: TaskRow, why: str) -> DataError:
        return DataError(
            f"{row.source}: no teacher for the row: {why}, and learner.teacher.paths has {', '.join(self.names)}; name "
            "one of these in every row, or set learner.teacher.column to another column"
        )

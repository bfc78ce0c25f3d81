"""The completions of a selection, read from the run's tables a part at a time."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from cluster.columns import ROLLOUT_COLUMNS
from cluster.dashboard.index.rollout_queries import PlacedRow
from cluster.dashboard.index.schema import FILE_SHIFT
from cluster.dashboard.selection.columns import COMPUTED
from cluster.run_files import ROLLOUTS
from rollout.errors import ShoalError

if TYPE_CHECKING:
    from cluster.dashboard.index.store import RunStore

Choose = Callable[[list[PlacedRow]], list[PlacedRow]]
"""Of the rows of one file that pass the filter: those that are read."""


class SelectionError(ShoalError):
    """A selection that cannot be exported as asked, or not at all."""

    exit_code = 2


class SelectionChangedError(ShoalError):
    """The run's files changed while they were read."""


def read_completions(
    store: "RunStore", ids: Sequence[int], columns: Sequence[str], choose: Choose = list
) -> Iterator[list[tuple[PlacedRow, dict[str, Any]]]]:
    """Each selected row with the values of its columns, some at a time, in order of the files and as they stand there.

    A file is read in parts of some MiB, so that memory does not grow with the selection. Raises SelectionChangedError
    rather than leave out what went away meanwhile.
    """
    from cluster.dashboard.files.arrow_arrays import arrow_types
    from cluster.dashboard.files.rollout_file import UnreadableRolloutsError
    from cluster.dashboard.files.rollout_reader import read_parts

    stored = dict.fromkeys((*(name for name in columns if name in ROLLOUT_COLUMNS), "group_id", "sample_index"))
    types = arrow_types(*stored)
    for _, group in itertools.groupby(ids, key=lambda id_: id_ >> FILE_SHIFT):
        wanted = list(group)
        found = store.selected(wanted)
        if len(found) != len(wanted):
            raise _changed("rollouts")
        chosen = {row.place: row for row in choose(found)}
        if not chosen:
            continue
        name = found[0].file
        num_read = 0
        try:
            for part in read_parts(store.path / ROLLOUTS / name, list(chosen), types):
                num_read += len(part)
                yield [(chosen[place], _record(name, chosen[place], values, columns)) for place, values in part]
        except UnreadableRolloutsError as error:
            raise SelectionChangedError(f"{ROLLOUTS}/{name} {error}; ask again when the run is whole") from error
        if num_read != len(chosen):
            raise _changed(name)


def _record(file: str, placed: PlacedRow, values: dict[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    row = placed.row
    if (values["group_id"] or "", values["sample_index"] or 0) != (row.group_id, row.sample_index):
        raise _changed(file)
    if values.get("answer", row.answer) is None:
        values["answer"] = row.answer  # a table without this column: the index has read it out of the completion
    own = {"phase": row.phase, "step": row.step, **{name: getattr(row, name) for name in COMPUTED}}
    return {name: own[name] if name in own else values[name] for name in columns}


def _changed(file: str) -> SelectionChangedError:
    return SelectionChangedError(
        f"{file} changed while it was read, as a resumed run takes steps back; ask again for a whole export"
    )

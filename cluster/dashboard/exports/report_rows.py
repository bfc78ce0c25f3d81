"""The rollouts of an exported report as one table, with all that a filter may ask of them: its page filters, searches
and sorts them itself, as there is no server to do it."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cluster.dashboard.files.encoding import encode
from cluster.dashboard.records import RolloutRow
from cluster.dashboard.selection.completions import read_completions
from cluster.dashboard.views.rollouts import annotation_of, field_list, row_of
from cluster.run_files import Phase

if TYPE_CHECKING:
    from cluster.dashboard.index.store import RunStore

READ = ("completion_text", "question")
"""Columns of the table itself: the index has the first characters of each."""


def selected_ids(store: "RunStore", phase: Phase, step: int, filter_text: str, flag: str = "") -> list[int]:
    """Ids of the rows of a step that pass the filter and have the flag, in order of dispatch. Raises FilterError."""
    parts = [f"phase={phase}", f"step:{step}-{step}", *([flag] if flag else [])]
    return store.select(" & ".join([*parts, f"({filter_text})"] if filter_text.strip() else parts))


def report_rows(
    store: "RunStore", steps: Iterable[tuple[Phase, int]], filter_text: str, max_bytes: int
) -> dict[str, Any]:
    """`columns` and `rows`, each row a list in the order of the columns; rows in order of dispatch.

    Steps come in the order of `steps` while there is room; of the one that does not fit, the first rows do.
    """
    found: list[tuple[tuple[int, bool], list[Any]]] = []
    columns: Sequence[str] = ()
    left = max_bytes
    for phase, step in steps:
        for values in _rows_of_step(store, phase, step, filter_text):
            left -= len(encode(list(values.values()))) + 1
            if left < 0:
                break
            columns = list(values)
            found.append(((step, phase == "train"), list(values.values())))
        if left < 0:
            break
    found.sort(key=lambda pair: pair[0])  # stable: within a step they are in order already
    return {
        "columns": columns,
        "rows": [values for _, values in found],
        "num_rollouts": store.num_rollouts(),
        "filter": filter_text,
        "fields": field_list(),
    }


def _rows_of_step(store: "RunStore", phase: Phase, step: int, filter_text: str) -> Iterator[dict[str, Any]]:
    ids = selected_ids(store, phase, step, filter_text)
    facts = group_facts(store.step_rows(phase, step))
    disagreed = {row.place for row in store.selected(selected_ids(store, phase, step, filter_text, "disagreed"))}
    stored = {placed.place: values for part in read_completions(store, ids, READ) for placed, values in part}
    for placed in store.selected(ids):  # as a file stands is not the order of dispatch
        values = stored[placed.place]
        row = row_of(placed.row) | {"question": values["question"] or ""}
        del row["preview"]  # the beginning of the text
        own: dict[str, Any] = {"disagreed": placed.place in disagreed, "text": values["completion_text"] or ""}
        own["annotation"] = annotation_of(store, placed.row)
        yield row | facts[placed.row.group_id] | own


def group_facts(rows: Sequence[RolloutRow]) -> Mapping[str, dict[str, float | None]]:
    """Group -> the share of it that is right, and the standard deviation of its rewards; of all of its completions,
    whatever the filter."""
    groups: dict[str, list[RolloutRow]] = defaultdict(list)
    for row in rows:
        groups[row.group_id].append(row)
    return {group_id: {"pass_rate": _pass_rate(of), "reward_std": _reward_std(of)} for group_id, of in groups.items()}


def _pass_rate(rows: Sequence[RolloutRow]) -> float | None:
    judged = [row.correct for row in rows if row.correct is not None]
    return sum(judged) / len(judged) if judged else None


def _reward_std(rows: Sequence[RolloutRow]) -> float | None:
    rewards = [row.reward for row in rows if row.reward is not None and math.isfinite(row.reward)]
    if not rewards:
        return None
    mean = sum(rewards) / len(rewards)
    return math.sqrt(sum((reward - mean) ** 2 for reward in rewards) / len(rewards))
